"""What a reader of a layout finds: annotations, and where the features lie."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.data.files.annotations import Entry, splits_by_subset
from ptlr_jax.data.files.features import STREAMS, Part, halves, measure
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.runtime import schema
from ptlr_jax.runtime.errors import InputError

Located = Sequence[tuple[Path, tuple[str, ...]]]  # files, and the streams in it


@dataclasses.dataclass(frozen=True)
class ReadOptions:
  """How to read: the keys of `config.data`, and flags of `prepare`.

  configs/base.py explains each. 0 and () leave a thing to the layout.
  """

  root: str
  layout: str
  annotations: str
  classes: tuple[str, ...]
  streams: tuple[str, ...]
  train_subset: str
  test_subset: str
  video_labels: str
  width: int
  fps: float
  stride: float
  window: float
  offset: float
  trim: bool
  min_segments: int
  end_tolerance: float
  length_tolerance: float
  overrun_ids: tuple[str, ...]
  skip_missing: bool
  check_finite: bool
  memory_gb: float


def read_options(**given: Any) -> ReadOptions:
  """`ReadOptions` with the defaults of configs/base.py where none is given."""
  names = [field.name for field in dataclasses.fields(ReadOptions)]
  usual = {name: schema.keys()[f"data.{name}"].default for name in names}
  return ReadOptions(**{**usual, **given})


@dataclasses.dataclass
class Source:
  """A data set on disk, read as far as its annotations and file headers.

  `entries` by split; `parts` {id: {stream: Part}}; `geometries` are what the
  layout's features may have, each with whether a video's own fps counts;
  `files` are the annotation files, `classes` the class list where there is one.
  """

  layout: str
  root: Path
  entries: dict[str, list[Entry]]
  parts: dict[str, dict[str, Part]]
  geometries: Sequence[tuple[Geometry, bool]] = ((Geometry(), False),)
  files: tuple[Path, ...] = ()
  classes: tuple[str, ...] = ()
  notes: list[str] = dataclasses.field(default_factory=list)


def check_read_options(options: ReadOptions) -> None:
  """Refuses settings that could only fail later. Raises InputError."""
  problems = []
  for name, value in vars(options).items():
    key = schema.keys()[f"data.{name}"]
    if not key.accepts(value, plugins=True):
      problems.append(
        f"--config.data.{name}: expected {key.expected}, got {value!r}"
      )
  problems += stream_problems(options.streams)
  twice = {n for n in options.classes if options.classes.count(n) > 1}
  if twice:
    problems.append(
      f"expected every class once, came {', '.join(sorted(twice))} more than "
      "once; correct --config.data.classes"
    )
  if problems:
    raise InputError(*problems)


def are_stream_names(streams: Any) -> bool:
  """Whether it is a tuple of names, each once; `fused` names none."""
  return (
    isinstance(streams, tuple)
    and len(set(streams)) == len(streams)
    and "fused" not in streams
  )


def stream_problems(streams: Any) -> list[str]:
  """What is wrong with `ReadOptions.streams`, at most a line."""
  if are_stream_names(streams):
    return []
  expected = "expected names of streams, each once"
  return [f"--config.data.streams: {expected}, got {streams!r}"]


def only_file(
  found: Sequence[Path],
  where: Path,
  expected: str,
  way_out: str,
  problems: list[str],
) -> Path | None:
  """The file, where just one was found in a folder; or None and a problem."""
  if len(found) == 1:
    return found[0]
  problems.append(
    f"{where}: expected {expected}, came "
    f"{', '.join(p.name for p in found) or 'none'}; {way_out}"
  )


def sort_into(
  source: "Source",
  entries: Sequence[Entry],
  options: ReadOptions,
  problems: list[str],
) -> None:
  """Puts entries into splits by their subsets, and says what that leaves."""
  there = sorted({entry.subset for entry in entries if entry.subset})
  chosen = splits_by_subset(there, options.train_subset, options.test_subset)
  problems += [
    f"{source.root}: expected --config.data.{split}_subset to be one of "
    f"{', '.join(there) or '(there is none)'}, came {name!r}; name another"
    for split, name in chosen.items()
    if getattr(options, f"{split}_subset") and name not in there
  ]
  if chosen["train"] and chosen["train"] == chosen["test"]:
    problems.append(
      f"{source.root}: expected other videos to test on than to train on, came "
      f"the subset {chosen['train']} for both; pass --config.data.train_subset "
      "and --config.data.test_subset"
    )
    return
  unused: dict[str, int] = {}
  for entry in entries:
    split = next((s for s, name in chosen.items() if name == entry.subset), "")
    if split and entry.subset:
      source.entries[split].append(entry)
    else:
      unused[entry.subset] = unused.get(entry.subset, 0) + 1
  for name, count in sorted(unused.items()):
    source.notes.append(
      f"{count} videos of the subset {name!r} are not used: "
      f"{chosen['train']!r} trains and {chosen['test']!r} is tested, see "
      "--config.data.train_subset and --config.data.test_subset"
    )


def streams_of(options: ReadOptions) -> tuple[str, ...]:
  """The streams that are asked for, or both."""
  return options.streams or STREAMS


def locate(
  entries: dict[str, list[Entry]],
  located: Mapping[str, Located],
  options: ReadOptions,
  problems: list[str],
  notes: list[str],
) -> dict[str, dict[str, Part]]:
  """Measures the files of every video.

  {id: [(path, streams)]} -> {id: {stream: Part}}. A file of two streams holds
  both joined. With `skip_missing`, videos without a file leave `entries`.
  """
  if options.skip_missing:
    lost = {
      i for i, files in located.items() if not all(p.exists() for p, _ in files)
    }
    leave_out(entries, lost, notes)
    located = {i: files for i, files in located.items() if i not in lost}
  parts: dict[str, dict[str, Part]] = {}
  for video_id, files in located.items():
    found: dict[str, Part] = {}
    for path, streams in files:
      array = measure(path, problems)
      if array is None:
        continue
      if len(streams) == 1:
        found[streams[0]] = Part(str(path), array)
      else:
        asked = [s for s in streams if s in streams_of(options)]
        found |= halves(str(path), array, asked, problems)
    parts[video_id] = found
  return parts


def leave_out(
  entries: dict[str, list[Entry]], lost: set[str], notes: list[str]
) -> None:
  """The rule `lost`: videos without features, told and left out."""
  for split, videos in entries.items():
    gone = [e for e in videos if e.id in lost]
    videos[:] = [e for e in videos if e.id not in lost]
    if gone:
      notes.append(
        f"rule lost: {len(gone)} {split} videos with "
        f"{sum(len(e.events) for e in gone)} instances have no features and "
        f"are left out, of the ground truth too: {_some(e.id for e in gone)}"
      )


def _some(ids) -> str:
  ids = sorted(ids)
  return ", ".join(ids[:3]) + (" and others" if len(ids) > 3 else "")


def note_unused(folder: Path, unused: Sequence[str], notes: list[str]) -> None:
  """Says that files of a folder belong to no video."""
  if unused:
    notes.append(
      f"{folder}: {len(unused)} feature files are of no video that is "
      f"annotated, and are not read: {_some(unused)}"
    )
