"""Ground truth and detections from files, with a line for all that is wrong."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.data.files import sealing
from ptlr_jax.data.files.annotations import Stretches
from ptlr_jax.data.files.text import canonical_id, read_database, read_videos
from ptlr_jax.data.layouts import wtalc
from ptlr_jax.evaluation import columns
from ptlr_jax.evaluation.protocols import Protocol

AMBIGUOUS = "Ambiguous"  # the THUMOS kit's class of such stretches


@dataclasses.dataclass(frozen=True)
class GroundTruth:
  """The subset that is scored, {VIDEO: {"annotations", "duration"}}.

  `labels` are all of the file, of other subsets too; `stretches` are the
  ambiguous ones that came with it.
  """

  path: Path
  subset: str
  database: Mapping[str, Any]
  labels: frozenset[str]
  stretches: Stretches


def read_ground_truth(
  path: Path,
  protocol: Protocol,
  subset: str,
  notes: list[str],
  problems: list[str],
  faults: list[str],
) -> GroundTruth:
  """A JSON file of the ActivityNet form, or W-TALC's folder of annotations.

  `problems` are of the file, `faults` of single entries, which are left out.

  `subset` is its name in the file, in any case; "" takes the only one or else
  the first of the protocol's.
  """
  if _is_folder(path):
    database, stretches = _wtalc(path, notes, problems)
  else:
    database = read_database(path, problems, canonical_id, notes)
    stretches = _pop_ambiguous(path, database, faults)
    if stretches:
      notes.append(
        f"{path}: {sum(map(len, stretches.values()))} annotations are called "
        f"{AMBIGUOUS}: they are stretches, not instances"
      )
  subsets = _subsets(path, database, faults)
  chosen = _subset(path, list(subsets), protocol, subset, problems)
  if chosen and "" in subsets:
    notes.append(
      f"{path}: {len(subsets[''])} videos have no subset and are not scored"
    )
  kept = {video: database[video] for video in subsets.get(chosen, ())}
  labels = {
    item["label"]
    for entry in database.values()
    for item in _items(entry)
    if isinstance(item, dict) and isinstance(item.get("label"), str)
  }
  return GroundTruth(path, chosen, kept, frozenset(labels), stretches)


def _is_folder(path: Path) -> bool:
  try:
    return path.is_dir()
  except OSError:  # a name too long; reading it says so
    return False


def _subsets(
  path: Path, database: Mapping[str, Any], problems: list[str]
) -> dict[str, list[str]]:
  """The videos of each subset, "" for those without."""
  found: dict[str, list[str]] = {}
  for video, entry in database.items():
    if not isinstance(entry, dict):
      problems.append(
        f"{path}: {video}: expected an object with subset and annotations, "
        f"came {entry!r:.60}; correct it"
      )
      continue
    name = entry.get("subset", "")
    if isinstance(name, str):
      found.setdefault(name.lower(), []).append(video)
    else:
      problems.append(
        f"{path}: {video}: expected a subset's name, came {name!r:.60}; "
        "correct it"
      )
  return found


def _items(entry: Any) -> list[Any]:
  items = entry.get("annotations") if isinstance(entry, dict) else None
  return items if isinstance(items, list) else []


def _is_ambiguous(item: Any) -> bool:
  return isinstance(item, dict) and item.get("label") == AMBIGUOUS


def _pop_ambiguous(
  path: Path, database: dict[str, Any], problems: list[str]
) -> Stretches:
  """Takes the annotations called Ambiguous out of the entries."""
  taken = {}
  for video, entry in database.items():
    items = _items(entry)
    if any(map(_is_ambiguous, items)):
      taken[video] = [item for item in items if _is_ambiguous(item)]
      kept = [item for item in items if not _is_ambiguous(item)]
      database[video] = {**entry, "annotations": kept}
  where = f"{path}: among those called {AMBIGUOUS}"
  rows = columns.read_columns(taken, False, where, problems)
  found: Stretches = {}
  videos = list(taken)
  for n, start, end in zip(rows.video, rows.start, rows.end, strict=True):
    found.setdefault(videos[n], []).append((float(start), float(end)))
  return found


def _wtalc(
  folder: Path, notes: list[str], problems: list[str]
) -> tuple[dict[str, Any], Stretches]:
  """The same of NAME-Annotations, with its list of ambiguous stretches."""
  if not (folder / "videoname.npy").exists():
    problems.append(
      f"{folder}: expected a JSON file of the ActivityNet form or a folder "
      "NAME-Annotations of W-TALC (with videoname.npy), came another folder; "
      "pass the file inside it as --ground_truth="
    )
    return {}, {}
  entries = wtalc.read_annotations(folder, notes, problems)
  database = {
    entry.id: {
      "subset": entry.subset,
      "duration": entry.duration,
      "annotations": [
        {"segment": [start, end], "label": label}
        for start, end, label in entry.events
      ],
    }
    for entry in entries
  }
  stretches = {e.id: list(e.ambiguous) for e in entries if e.ambiguous}
  return database, stretches


def _subset(
  path: Path,
  there: list[str],
  protocol: Protocol,
  wanted: str,
  problems: list[str],
) -> str:
  """The subset to score."""
  if wanted:
    if there and wanted.lower() not in there:
      problems.append(
        f"{path}: expected a subset among {_names(there)}, came "
        f"--subset={wanted}"
      )
    return wanted.lower()
  if len(there) == 1:
    return there[0]
  usual = [name for name in protocol.subsets if name in there]
  if there and not usual:
    problems.append(
      f"{path}: expected a subset among {', '.join(protocol.subsets)}, came "
      f"{_names(there)}; pass --subset="
    )
  return usual[0] if usual else ""


def _names(subsets: Sequence[str]) -> str:
  return ", ".join(repr(name) if name else "none" for name in subsets)


def read_results(
  path: Path, notes: list[str], problems: list[str]
) -> dict[str, Any]:
  """{VIDEO: [detection]} of a results file of the ActivityNet form.

  One that ptlr_jax wrote has to be as it was written.
  """
  if _is_damaged(path):
    problems.append(
      f"{path}: expected the content that its {sealing.DIGEST_KEY} is of, came "
      "another; copy it again, or where it was changed on purpose take "
      f'"{sealing.DIGEST_KEY}" and "{sealing.VERSION_KEY}" out of it'
    )
    return {}
  entry = '{VIDEO: [{"label", "score", "segment"}]}'
  return read_videos(path, "results", entry, problems, canonical_id, notes)


def _is_damaged(path: Path) -> bool:
  """Whether a file that ptlr_jax sealed is not as it was."""
  try:
    data = path.read_bytes()
  except OSError:  # told by who reads it
    return False
  sealed = all(
    f'"{key}":'.encode() in data
    for key in (sealing.VERSION_KEY, sealing.DIGEST_KEY)
  )
  return sealed and not sealing.is_sealed_json(data)


def unknown_labels(
  path: Path, results: Mapping[str, Any], truth: GroundTruth
) -> list[str]:
  """A line for each sound detection of a class that the ground truth lacks."""
  lines = []
  for video, items in results.items():
    for n, item in enumerate(items if isinstance(items, list) else ()):
      fault, (label, *_) = columns.checked(item, True)
      if not fault and label not in truth.labels:
        lines.append(
          f"{path}: {video}: detection {n}: expected a class of {truth.path}, "
          f"came {label!r:.60}; rename it, or pass another --ground_truth="
        )
  return lines
