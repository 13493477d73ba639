"""Ground truth and detections from files, with a line for all that is wrong."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptlr_jax.data import ambiguous
from ptlr_jax.data.annotation_files import (
  by_id,
  canonical_id,
  read_database,
  read_json,
)
from ptlr_jax.data.layouts import wtalc
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
  stretches: ambiguous.Stretches


def read_ground_truth(
  path: Path,
  protocol: Protocol,
  subset: str,
  notes: list[str],
  problems: list[str],
) -> GroundTruth:
  """A JSON file of the ActivityNet form, or W-TALC's folder of annotations.

  `subset` is its name in the file, in any case; "" takes the only one or else
  the first of the protocol's.
  """
  if path.is_dir():
    database, stretches = _wtalc(path, notes, problems)
  else:
    database = read_database(path, problems, canonical_id, notes)
    stretches = _pop_ambiguous(database)
    if stretches:
      notes.append(
        f"{path}: {sum(map(len, stretches.values()))} annotations are called "
        f"{AMBIGUOUS}: they are stretches, not instances"
      )
  subsets: dict[str, list[str]] = {}
  for video, entry in database.items():
    said = entry.get("subset", "") if isinstance(entry, dict) else ""
    name = said.lower() if isinstance(said, str) else ""
    subsets.setdefault(name, []).append(video)
  chosen = _subset(path, list(subsets), protocol, subset, problems)
  kept = {video: database[video] for video in subsets.get(chosen, ())}
  labels = {
    item["label"]
    for entry in database.values()
    for item in _items(entry)
    if isinstance(item, dict) and isinstance(item.get("label"), str)
  }
  return GroundTruth(path, chosen, kept, frozenset(labels), stretches)


def _items(entry: Any) -> list[Any]:
  items = entry.get("annotations") if isinstance(entry, dict) else None
  return items if isinstance(items, list) else []


def _pop_ambiguous(database: dict[str, Any]) -> ambiguous.Stretches:
  """Takes the annotations called Ambiguous out of the entries."""
  found: ambiguous.Stretches = {}
  for video, entry in database.items():
    items = _items(entry)
    kept = [
      item
      for item in items
      if not (isinstance(item, dict) and item.get("label") == AMBIGUOUS)
    ]
    if len(kept) < len(items):
      database[video] = {**entry, "annotations": kept}
      for item in items:
        if item not in kept:
          found.setdefault(video, []).append(_span(item))
  return {video: spans for video, spans in found.items() if spans}


def _span(item: Mapping[str, Any]) -> tuple[float, float]:
  try:
    start, end = map(float, item["segment"])
  except (KeyError, TypeError, ValueError):
    return 0.0, 0.0  # over nothing
  return start, end


def _wtalc(
  folder: Path, notes: list[str], problems: list[str]
) -> tuple[dict[str, Any], ambiguous.Stretches]:
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
        f"{path}: expected a subset among {', '.join(map(repr, there))}, came "
        f"--subset={wanted}"
      )
    return wanted.lower()
  if len(there) == 1:
    return there[0]
  usual = [name for name in protocol.subsets if name in there]
  if there and not usual:
    problems.append(
      f"{path}: expected a subset among {', '.join(protocol.subsets)}, came "
      f"{', '.join(map(repr, there))}; pass --subset="
    )
  return usual[0] if usual else ""


def read_results(
  path: Path, notes: list[str], problems: list[str]
) -> dict[str, Any]:
  """{VIDEO: [detection]} of a results file of the ActivityNet form."""
  expected = '{"results": {VIDEO: [{"label", "score", "segment"}]}}'
  before = len(problems)
  parsed = read_json(path, expected, problems)
  if len(problems) > before:
    return {}
  results = parsed.get("results") if isinstance(parsed, dict) else None
  if not isinstance(results, dict):
    came = f"{list(parsed)[:5]}" if isinstance(parsed, dict) else repr(parsed)
    problems.append(
      f"{path}: expected {expected}, came {came:.60}; write it in this form"
    )
    return {}
  return by_id(path, results, problems, canonical_id, notes)


def unknown_labels(
  path: Path, results: Mapping[str, Any], truth: GroundTruth
) -> list[str]:
  """A line for each detection of a class that the ground truth lacks."""
  lines = []
  for video, items in results.items():
    for n, item in enumerate(items if isinstance(items, list) else ()):
      label = item.get("label") if isinstance(item, dict) else None
      if isinstance(label, str) and label not in truth.labels:
        lines.append(
          f"{path}: {video}: detection {n}: expected a class of {truth.path}, "
          f"came {label!r:.60}; rename it, or pass another --ground_truth="
        )
  return lines
