"""Text files of data sets: lists of ids, JSON by video, and what ids may be.

Every function appends to `problems` what a user has to put right, one line
each, and goes on without it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def canonical_id(video_id: str) -> str:
  """The rule `v_prefix`: ActivityNet's ids are the 11 characters of YouTube's.

  Files and some annotations write `v_` before them; results and the official
  file do not, and neither do we. Other ids stay as they are.
  """
  return re.sub(r"\Av_(?=[\w-]{11}\Z)", "", video_id, flags=re.ASCII)


def is_file_name(video_id: str) -> bool:
  """Whether an id can be a file's name and nothing more."""
  return (
    0 < len(video_id.encode("utf-8", "replace")) <= 200
    and video_id == video_id.strip()
    and video_id not in (".", "..")
    and not set(video_id) & set('/\\\0\n\r\t"')
    and video_id.isprintable()
  )


def is_name(label: Any) -> bool:
  """Whether a class may be called so: text in one line."""
  return isinstance(label, str) and label != "" and label.isprintable()


def read_text(path: Path, problems: list[str]) -> str | None:
  """A text file, or None and a problem."""
  try:
    return path.read_text("utf-8-sig")
  except FileNotFoundError:
    came = "no such file"
  except (OSError, UnicodeDecodeError) as error:
    came = str(error)
  problems.append(
    f"{path}: expected a text file, came: {came}; put it there or pass "
    "another --config.data.root="
  )


def read_ids(
  path: Path, split: str, problems: list[str], canonical=canonical_id
) -> list[str]:
  """The ids of a split file, one a line, each once."""
  text = read_text(path, problems)
  ids = [line.strip() for line in (text or "").splitlines() if line.strip()]
  if text is not None and not ids:
    problems.append(
      f"{path}: expected one video id a line, came an empty file; write the "
      f"{split} ids into it"
    )
  problems += [
    f"{path}: expected an id that can be a file's name, came {i!r:.60}; "
    "correct it"
    for i in ids
    if not is_file_name(i)
  ]
  ids = [canonical(i) for i in ids if is_file_name(i)]
  counts: dict[str, int] = {}
  for i in ids:
    counts[i] = counts.get(i, 0) + 1
  problems += [
    f"{path}: expected every id once, came {i} {n} times; leave one of them"
    for i, n in counts.items()
    if n > 1
  ]
  return list(counts)


class _Twice(ValueError):
  """A key that an object has twice: JSON's readers keep the last one."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    seen: set[str] = set()
    # `add` gives None: the first key that was there before.
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))
    raise _Twice(f"the key {twice!r:.60} twice")
  return found


def read_json(path: Path, expected: str, problems: list[str]) -> Any:
  """A JSON file, or None and a problem."""
  text = read_text(path, problems)
  if text is None:
    return None
  try:
    return json.loads(text, object_pairs_hook=_object)
  except _Twice as error:
    problems.append(
      f"{path}: expected {expected}, came {error}; leave one of them"
    )
  except (ValueError, RecursionError) as error:
    problems.append(
      f"{path}: expected {expected}, came no JSON ({error}); repair it or copy "
      "it again"
    )


def note_prefix(path: Path, count: int, notes: list[str] | None) -> None:
  """Says where the rule `v_prefix` was at work."""
  if count and notes is not None:
    notes.append(
      f"rule v_prefix: {path}: {count} videos are called v_ID; ids here and in "
      "results are without v_"
    )


def read_database(
  path: Path,
  problems: list[str],
  canonical=canonical_id,
  notes: list[str] | None = None,
) -> dict[str, Any]:
  """{id: raw entry} of {"database": {VIDEO: {"subset", "annotations"}}}."""
  entry = '{VIDEO: {"subset", "annotations"}}'
  return read_videos(path, "database", entry, problems, canonical, notes)


def read_videos(
  path: Path,
  key: str,
  entry: str,
  problems: list[str],
  canonical=canonical_id,
  notes: list[str] | None = None,
) -> dict[str, Any]:
  """{id: raw entry} of a JSON object that has them under `key`.

  `entry` says in problems what they look like.
  """
  expected = f'{{"{key}": {entry}}}'
  before = len(problems)
  parsed = read_json(path, expected, problems)
  if len(problems) > before:
    return {}
  videos = parsed.get(key) if isinstance(parsed, dict) else None
  if not isinstance(videos, dict):
    came = type(parsed).__name__
    if isinstance(parsed, dict):
      came = f"{list(parsed)[:5]}"
    problems.append(
      f"{path}: expected {expected}, came {came:.60}; write it in this form"
    )
    return {}
  return by_id(path, videos, problems, canonical, notes)


def by_id(
  path: Path,
  entries: Mapping[str, Any],
  problems: list[str],
  canonical,
  notes: list[str] | None = None,
) -> dict[str, Any]:
  """Entries under canonical ids."""
  found: dict[str, Any] = {}
  for raw, entry in entries.items():
    if not is_file_name(raw):
      problems.append(
        f"{path}: expected an id that can be a file's name, came {raw!r:.60}; "
        "correct it"
      )
    elif canonical(raw) in found:
      problems.append(
        f"{path}: expected every video once, came {canonical(raw)} with and "
        "without v_; leave one of them"
      )
    else:
      found[canonical(raw)] = entry
  note_prefix(path, sum(i not in entries for i in found), notes)
  return found
