"""Annotation files: JSON databases and split files; `label_tables` has CSV.

Every function appends to `problems` what a user has to put right, one line
each, and goes on without it.
"""

import dataclasses
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

# What "subset" may call the videos of a split, in lower case.
SUBSETS = {
  "train": ("train", "training", "validation"),
  "test": ("test", "testing", "val", "validation"),
}

MAX_SECONDS = 1e7  # of a video, some months

Event = tuple[float, float, str]  # start, end (seconds), class name


@dataclasses.dataclass(frozen=True)
class Entry:
  """What annotations say of a video; `where` begins every line about it.

  `events` come sorted; `labels` are video-level labels that are listed apart
  from them, sorted. `fps` is the video's own. A `faulty` one has problems that
  were told already.
  """

  id: str
  where: str
  subset: str = ""
  events: tuple[Event, ...] = ()
  labels: tuple[str, ...] = ()
  duration: float | None = None
  fps: float | None = None
  ambiguous: tuple[tuple[float, float], ...] = ()
  faulty: bool = False


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


def _positive(
  where: str, entry: Mapping[str, Any], keys: Sequence[str], problems: list[str]
) -> float | None:
  """The first of `keys` that the entry has: a number above 0, or None."""
  value = next((entry[k] for k in keys if entry.get(k) is not None), None)
  if value is None:
    return None
  try:
    number = float(value) if not isinstance(value, bool) else math.nan
  except (TypeError, ValueError, OverflowError):
    number = math.nan
  if 0 < number < MAX_SECONDS:
    return number
  problems.append(
    f"{where}: expected a {keys[0]} above 0, came {value!r:.60}; correct it or "
    "leave it out"
  )


def parse_entry(
  video_id: str, where: str, raw: Any, problems: list[str]
) -> Entry:
  """One entry of a database: events, duration, fps, subset.

  {"subset", "annotations": [{"segment": [start, end], "label"}], "duration",
  "fps", "labels"}, seconds, numbers or strings.
  """
  before = len(problems)
  raw = raw if isinstance(raw, dict) else {"annotations": raw}
  subset = raw.get("subset", "")
  if not isinstance(subset, str):
    problems.append(
      f"{where}: expected a subset's name, came {subset!r:.60}; correct it"
    )
    subset = ""
  listed = _label_list(where, raw.get("labels", []), problems)
  annotations = raw.get("annotations", [] if "labels" in raw else None)
  if not isinstance(annotations, list):
    problems.append(
      f'{where}: expected a list "annotations", came {annotations!r:.60}; '
      'write "annotations": [{"segment": [start, end], "label": CLASS}]'
    )
    annotations = []
  events = []
  for n, annotation in enumerate(annotations):
    annotation = annotation if isinstance(annotation, dict) else {}
    event = parse_event(
      f"{where}: annotation {n}",
      annotation.get("segment"),
      annotation.get("label"),
      problems,
    )
    if event:
      events.append(event)
  duration = _positive(where, raw, ("duration", "duration_second"), problems)
  fps = _positive(where, raw, ("fps",), problems)
  return Entry(
    video_id,
    where,
    subset.lower(),
    tuple(sorted(events)),
    listed,
    duration,
    fps,
    faulty=len(problems) > before,
  )


def _label_list(where: str, said: Any, problems: list[str]) -> tuple[str, ...]:
  if isinstance(said, str):
    said = [said]
  if isinstance(said, list) and all(map(is_name, said)):
    return tuple(sorted(set(said)))
  problems.append(
    f'{where}: expected "labels" to be a list of class names, came '
    f"{said!r:.60}; correct it"
  )
  return ()


def parse_event(
  where: str, segment: Any, label: Any, problems: list[str]
) -> Event | None:
  """(start, end, class name) of one annotation, or None and a problem."""
  start, end = _two_numbers(segment)
  if not is_name(label):
    fault = f"a class name as label, came {label!r:.60}"
  elif not (math.isfinite(start) and math.isfinite(end)):
    fault = f"a segment of two finite numbers, came {segment!r:.60}"
  elif start < 0:
    fault = f"a segment that starts at 0 s or later, came {segment!r:.60}"
  elif end < start:  # ActivityNet's official files hold zero-length ones
    fault = f"a segment that ends at its start or later, came {segment!r:.60}"
  else:
    return start, end, label
  problems.append(f"{where}: expected {fault}; correct it")


def _two_numbers(segment: Any) -> tuple[float, float]:
  """[start, end] of numbers or strings, in seconds; NaN when it is not that."""
  if not isinstance(segment, list) or bool in map(type, segment):
    return math.nan, math.nan
  try:
    start, end = map(float, segment)
  except (TypeError, ValueError, OverflowError):
    return math.nan, math.nan
  return start, end


def splits_by_subset(
  subsets: Collection[str], train: str = "", test: str = ""
) -> dict[str, str]:
  """Which subset trains and which is tested, {"train": .., "test": ..}.

  Named by the user, or by custom: where there is a training subset, validation
  is tested (ActivityNet, whose test set has no public annotation); else
  validation trains and test is tested (THUMOS14). Names in lower case; "" for
  a split without videos.
  """
  there = {name.lower() for name in subsets}
  own = next((s for s in ("training", "train") if s in there), "")
  held = next((s for s in ("validation", "val") if s in there), "")
  last = next((s for s in ("testing", "test") if s in there), "")
  usual = (own, held or last) if own else (held if last else "", last or held)
  return {
    "train": train.lower() or usual[0],
    "test": test.lower() or usual[1],
  }
