"""The layout `wtalc`: W-TALC, CO2-Net, DELU, DDG-Net, P-MIL, RSKP, HAM-Net.

ROOT/NAME-I3D-JOINTFeatures.npy    object array of N arrays (T, 2 D), rgb first
ROOT/NAME-Annotations/             videoname.npy, subset.npy, segments.npy, ...

with NAME as Thumos14reduced, ActivityNet1.2 or ActivityNet1.3. The object
arrays are pickles, which `data.files.pickled` reads without running them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.data.files.annotations import (
  MAX_SECONDS,
  Entry,
  parse_event,
  read_stretches,
)
from ptlr_jax.data.files.arrays import StoredArray
from ptlr_jax.data.files.features import Part, halves, is_sound
from ptlr_jax.data.files.pickled import read_npy
from ptlr_jax.data.files.text import (
  canonical_id,
  is_file_name,
  is_name,
  note_prefix,
)
from ptlr_jax.data.layouts.source import (
  ReadOptions,
  Source,
  leave_out,
  sort_into,
  streams_of,
)

FEATURES, ANNOTATIONS = "-I3D-JOINTFeatures.npy", "-Annotations"


def claims_wtalc(root: Path) -> str:
  """What speaks for the layout: the files that are there."""
  found = [*root.glob(f"*{FEATURES}"), *root.glob(f"*{ANNOTATIONS}")]
  return ", ".join(sorted(path.name for path in found))


def read_wtalc(root: Path, options: ReadOptions, problems: list[str]) -> Source:
  """The data set under `root` in the layout of W-TALC."""
  folder, features = _paths(root, options, problems)
  source = Source("wtalc", root, {"train": [], "test": []}, {})
  if folder is None or features is None:
    return source
  rows = read_annotations(folder, source.notes, problems)
  if not rows:
    return source
  classes = _texts(folder / "classlist.npy", problems)
  sort_into(source, rows, options, problems)
  source.files = tuple(sorted(folder.iterdir()))
  source.classes = tuple(sorted(set(classes or ())))
  if classes and len(source.classes) < len(classes):
    problems.append(
      f"{folder / 'classlist.npy'}: expected every class once, came "
      f"{', '.join(sorted(classes))[:80]}; copy it again"
    )
  arrays = _features(features, len(rows), problems)
  used = {e.id for videos in source.entries.values() for e in videos}
  for n, entry in enumerate(rows):
    if arrays is not None and entry.id in used:
      where = f"{features}: row {n} ({entry.id})"
      source.parts[entry.id] = _parts(where, arrays[n], options, problems)
  if options.skip_missing and arrays is not None:
    lost = {i for i, parts in source.parts.items() if not parts}
    leave_out(source.entries, lost, source.notes)
  return source


def _paths(
  root: Path, options: ReadOptions, problems: list[str]
) -> tuple[Path | None, Path | None]:
  """The folder of annotations and the file of features, of the same NAME."""
  if options.annotations:
    folders = [root / options.annotations]
  else:
    folders = sorted(p for p in root.glob(f"*{ANNOTATIONS}") if p.is_dir())
  files = {
    p.name.removesuffix(FEATURES): p for p in sorted(root.glob(f"*{FEATURES}"))
  }
  if len(folders) != 1:
    problems.append(
      f"{root}: expected one folder NAME{ANNOTATIONS}, came "
      f"{', '.join(p.name for p in folders) or 'none'}; pass "
      "--config.data.annotations= with one of them, or put it there"
    )
    return None, None
  name = folders[0].name.removesuffix(ANNOTATIONS)
  if name in files:
    return folders[0], files[name]
  if len(files) == 1:
    return folders[0], next(iter(files.values()))
  came = ", ".join(path.name for path in files.values()) or "no such file"
  problems.append(
    f"{root / (name + FEATURES)}: expected the features of "
    f"{folders[0].name}, came {came}; put them there or pass another "
    "--config.data.root="
  )
  return folders[0], None


def _array(path: Path, problems: list[str]) -> Any:
  """What a .npy file holds, or None and a problem."""
  try:
    found = read_npy(path)
    if isinstance(found, np.ndarray) and not found.ndim:
      raise ValueError("a single value, not a row for each video")
    return found
  except FileNotFoundError:
    fault = "no such file; copy it again"
  except (ValueError, OSError) as error:
    fault = f"{error}; copy it again, or save it anew as plain arrays"
  problems.append(
    f"{path}: expected an array of the wtalc layout, came {fault}"
  )


def _texts(path: Path, problems: list[str]) -> list[str] | None:
  """Texts of a plain array S[N] or U[N], or of objects."""
  found = _array(path, problems)
  if found is None:
    return None
  values = found.ravel().tolist() if isinstance(found, np.ndarray) else found
  texts = []
  for value in values:
    if isinstance(value, bytes):
      try:
        value = value.decode()
      except UnicodeDecodeError:
        value = None
    texts.append(value)
  if all(isinstance(text, str) and text for text in texts):
    return texts
  problems.append(
    f"{path}: expected an array of texts, came {str(values[:2])[:60]}; copy it "
    "again"
  )


def _numbers(path: Path, problems: list[str]) -> list[float] | None:
  """A plain array of N numbers, of any shape."""
  found = _array(path, problems)
  if found is None:
    return None
  values = found.ravel().tolist() if isinstance(found, np.ndarray) else found
  if all(type(value) in (int, float) for value in values):
    return [float(value) for value in values]
  problems.append(
    f"{path}: expected an array of numbers, came {str(values[:2])[:60]}; copy "
    "it again"
  )


def _lists(path: Path, problems: list[str]) -> list[list[Any]] | None:
  """An object array of lists, or a plain array of rows."""
  found = _array(path, problems)
  if found is None:
    return None
  rows = []
  for row in found:
    row = row.map() if isinstance(row, StoredArray) else row
    row = row.tolist() if isinstance(row, np.ndarray) else row
    row = list(row) if isinstance(row, tuple) else row
    rows.append([row] if isinstance(row, str) else row)
  if all(isinstance(row, list) for row in rows):
    return rows
  problems.append(
    f"{path}: expected an array of lists, came {str(rows[:1])[:60]}; copy it "
    "again"
  )


def read_annotations(
  folder: Path, notes: list[str], problems: list[str]
) -> list[Entry]:
  """The entries of all videos of a folder NAME-Annotations, in its order."""
  before = len(problems)
  names = _texts(folder / "videoname.npy", problems)
  columns: dict[str, Sequence[Any] | None] = {
    "subset": _texts(folder / "subset.npy", problems),
    "segments": _lists(folder / "segments.npy", problems),
    "labels": _lists(folder / "labels.npy", problems),
    "labels_all": _lists(folder / "labels_all.npy", problems),
  }
  if (folder / "duration.npy").exists():
    columns["duration"] = _numbers(folder / "duration.npy", problems)
  if len(problems) > before or names is None:
    return []
  for name, column in columns.items():
    if column is not None and len(column) != len(names):
      problems.append(
        f"{folder / name}.npy: expected {len(names)} rows as videoname.npy "
        f"has, came {len(column)}; copy it again"
      )
  if len(problems) > before:
    return []
  listed = folder / "Ambiguous_test.txt"
  ambiguous = read_stretches(listed, problems) if listed.exists() else {}
  rows, seen = [], set()
  for n, name in enumerate(names):
    video_id = canonical_id(name)
    where = f"{folder}: {video_id}"
    if not is_file_name(name) or video_id in seen:
      problems.append(
        f"{folder / 'videoname.npy'}: expected ids that can be a file's name, "
        f"each once, came {name!r:.60} in row {n}; correct it"
      )
      continue
    seen.add(video_id)
    cell = {key: column[n] for key, column in columns.items() if column}
    rows.append(_entry(video_id, where, cell, ambiguous, problems))
  changed = sum(canonical_id(name) != name for name in names)
  note_prefix(folder / "videoname.npy", changed, notes)
  unknown = ambiguous.keys() - seen
  if unknown:
    notes.append(
      f"{folder / 'Ambiguous_test.txt'}: {len(unknown)} videos are not in "
      "videoname.npy"
    )
  return rows


def _entry(
  video_id: str,
  where: str,
  cell: dict[str, Any],
  ambiguous: dict[str, list[tuple[float, float]]],
  problems: list[str],
) -> Entry:
  before = len(problems)
  segments, labels = cell["segments"], cell["labels"]
  if len(segments) != len(labels):
    problems.append(
      f"{where}: expected a label for each of {len(segments)} segments, came "
      f"{len(labels)} labels; copy segments.npy and labels.npy again"
    )
  events = [
    parse_event(f"{where}: annotation {n}", _plain(segment), label, problems)
    for n, (segment, label) in enumerate(zip(segments, labels, strict=False))
  ]
  listed = [x for x in cell["labels_all"] if is_name(x)]
  if len(listed) < len(cell["labels_all"]):
    problems.append(
      f"{where}: expected class names in labels_all.npy, came "
      f"{str(cell['labels_all'])[:60]}; copy it again"
    )
  duration = cell.get("duration")
  if duration is not None and not 0 < duration < MAX_SECONDS:
    problems.append(
      f"{where}: expected a duration above 0 s, came {duration}; correct "
      "duration.npy"
    )
    duration = None
  return Entry(
    video_id,
    where,
    cell["subset"].lower(),
    tuple(sorted(event for event in events if event)),
    tuple(sorted(set(listed))),
    duration,
    ambiguous=tuple(sorted(ambiguous.get(video_id, ()))),
    faulty=len(problems) > before,
  )


def _plain(segment: Any) -> Any:
  segment = segment.map() if isinstance(segment, StoredArray) else segment
  if isinstance(segment, np.ndarray):
    return segment.tolist()
  return list(segment) if isinstance(segment, tuple) else segment


def _features(
  path: Path, count: int, problems: list[str]
) -> Sequence[Any] | None:
  """The array of every row, on disk where they are large."""
  arrays = _array(path, problems)
  if arrays is None:
    return None
  if len(arrays) == count:
    return arrays
  problems.append(
    f"{path}: expected {count} arrays, as many as videoname.npy has names, "
    f"came {len(arrays)}; they are of different versions, copy both again"
  )


def _parts(
  where: str, array: Any, options: ReadOptions, problems: list[str]
) -> dict[str, Part]:
  """The streams of one row; none, without a word, where the row is empty."""
  empty = isinstance(array, StoredArray | np.ndarray) and 0 in array.shape
  if empty and options.skip_missing:
    return {}
  if not isinstance(array, StoredArray | np.ndarray):
    problems.append(
      f"{where}: expected an array (T, 2 D), came {type(array).__name__}; "
      "extract this video again"
    )
    return {}
  if not is_sound(where, array, problems):
    return {}
  return halves(where, array, streams_of(options), problems)
