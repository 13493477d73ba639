"""From what a reader found to a data set: checked, labelled, placed in time."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ptlr_jax.data import digest, geometry, known_facts
from ptlr_jax.data.class_labels import classes_of, index_labels, video_labels
from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.data.files.annotations import Entry
from ptlr_jax.data.files.features import (
  DiskFeatures,
  Part,
  check_finite,
  common_length,
  common_widths,
  is_constant,
)
from ptlr_jax.data.files.text import note_prefix
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.data.layouts.source import ReadOptions, Source
from ptlr_jax.runtime.errors import InputError


@dataclasses.dataclass
class Report:
  """A source after all checks: what was found, and all that is wrong.

  `lengths` {id: T} of the videos whose features are sound; `dataset` is None
  where there are problems.
  """

  source: Source
  problems: list[str]
  notes: list[str]
  lengths: dict[str, int]
  geometries: dict[str, Geometry]
  classes: tuple[str, ...] = ()
  looked_at: bool = True  # whether NaN and infinity were looked for
  dataset: Dataset | None = None


def read_dataset(
  source: Source, options: ReadOptions, problems: list[str]
) -> Dataset:
  """The data set of a source. Raises InputError with a line a problem."""
  dataset = examine_source(source, options, problems).dataset
  if dataset is None:
    raise InputError(*problems)
  return dataset


def examine_source(
  source: Source, options: ReadOptions, problems: list[str]
) -> Report:
  """Checks everything there is to check, in one pass.

  `problems` holds those of the reader, and gets those of the data.
  """
  notes = source.notes
  entries = {e.id: e for videos in source.entries.values() for e in videos}
  classes = classes_of(source, options, problems)
  instances: dict[str, tuple[Instance, ...]] = {}
  labels: dict[str, tuple[int, ...]] = {}
  if classes:
    for i, entry in entries.items():
      instances[i] = index_labels(entry.where, entry.events, classes, problems)
      labels[i] = video_labels(entry, classes, options, instances[i], problems)
  _check_labelled(source, problems)

  lengths = _lengths(source, options, problems)
  before = len(problems)
  geometries = _geometries(source, entries, lengths, options, problems, notes)
  overruns = known_facts.OVERRUNS | set(options.overrun_ids)
  # With a wrong geometry every instance would lie in a wrong place.
  placed = lengths if len(problems) == before else {}
  for i, length in placed.items():
    _check_overrun(
      entries[i], geometries[i], length, options, overruns, problems, notes
    )
  notes += known_facts.fact_notes(entries.values())
  prefixed = sum(
    any(Path(p.where).name.startswith(f"v_{i}") for p in parts.values())
    for i, parts in source.parts.items()
  )
  note_prefix(source.root, prefixed, notes)
  report = Report(
    source,
    problems,
    notes,
    lengths,
    geometries,
    classes,
    options.check_finite,
  )
  features, on_disk, known_as = _features(source, lengths, options, problems)
  if problems:
    return report

  def videos(split: str) -> tuple[Video, ...]:
    ids = sorted(e.id for e in source.entries[split])
    return tuple(
      Video(
        i,
        features[i],
        labels[i],
        instances[i],
        geometries[i],
        entries[i].duration,
        entries[i].ambiguous,
      )
      for i in ids
    )

  report.dataset = Dataset(
    classes,
    videos("train"),
    videos("test"),
    tuple(notes),
    on_disk,
    known_facts.is_simulated(source.root),
    known_as,
  )
  return report


def _check_labelled(source: Source, problems: list[str]) -> None:
  where = source.files[0] if source.files else source.root
  if not source.entries["train"] and not problems:
    problems.append(
      f"{where}: expected training videos, came none; give some the subset "
      "train, or pass --config.data.train_subset= with what they have"
    )
  problems += [
    f"{entry.where}: expected a training video with a label, came no "
    "annotation; add one or take the video out of the training split"
    for entry in source.entries["train"]
    if not entry.events and not entry.labels and not entry.faulty
  ]


def _lengths(
  source: Source, options: ReadOptions, problems: list[str]
) -> dict[str, int]:
  """T of the videos whose streams are all there and agree."""
  common_widths(source.parts, options.width, problems)
  streams = {s for parts in source.parts.values() for s in parts}
  lengths: dict[str, int] = {}
  for i, parts in source.parts.items():
    if not parts or parts.keys() != streams:
      continue
    length = common_length(parts, options.trim, problems)
    if length:
      lengths[i] = length
    if 0 < length < options.min_segments:
      problems.append(
        f"{next(iter(parts.values())).where}: expected at least "
        f"{options.min_segments} segments, came {length}; take {i} out of its "
        f"split or pass --config.data.min_segments={length}"
      )
  return lengths


def _geometries(
  source: Source,
  entries: Mapping[str, Entry],
  lengths: Mapping[str, int],
  options: ReadOptions,
  problems: list[str],
  notes: list[str],
) -> dict[str, Geometry]:
  """The geometry of every video, held against its duration."""
  given = {
    name: getattr(options, name)
    for name in ("fps", "stride", "window", "offset")
  }
  timed = [i for i in lengths if entries[i].duration]
  found: list[dict[str, Geometry]] = []
  said: set[str] = set()
  for usual, own_fps in source.geometries:
    # Faults of geometry.json are told once, not for every candidate.
    told = problems if not found else []
    settled, said = geometry.settle(usual, given, source.root, told)
    found.append(
      {
        i: dataclasses.replace(settled, fps=e.fps)
        if own_fps and e.fps and "fps" not in said
        else settled
        for i, e in entries.items()
      }
    )
  best = 0
  if len(found) > 1 and lengths and not timed and not said:
    problems.append(
      f"{source.root}: expected durations in the annotations, which tell how "
      f"features of the layout {source.layout} lie in time, came none; pass "
      "--config.data.fps, --config.data.stride and --config.data.window, or "
      f"write {geometry.FILE} into the folder"
    )
  if len(found) > 1 and timed:
    candidates = [[each[i] for i in timed] for each in found]
    durations = [entries[i].duration or 0.0 for i in timed]
    best = geometry.choose(candidates, [lengths[i] for i in timed], durations)
  chosen = found[best]
  wrong, off = geometry.check_lengths(
    timed,
    [chosen[i] for i in timed],
    [lengths[i] for i in timed],
    [entries[i].duration or 0.0 for i in timed],
    options.length_tolerance,
    str(source.root),
  )
  problems += wrong
  notes += off
  if chosen:
    whence = "as given" if said else "the layout's own"
    if len(found) > 1 and timed and not said:
      whence = f"of {len(found)} that the layout may have, the one that fits T"
    notes.append(_geometry_note(list(chosen.values()), whence, len(timed)))
  return chosen


def _geometry_note(chosen: Sequence[Geometry], whence: str, timed: int) -> str:
  fps = sorted({g.fps for g in chosen})
  rates = f"{fps[0]:g}" + (f" to {fps[-1]:g}" if len(fps) > 1 else "")
  some = chosen[0]
  held = f"held against {timed} durations" if timed else "no durations to check"
  return (
    f"geometry: fps {rates}, stride {some.stride:g}, window {some.window:g}, "
    f"offset {some.offset:g} ({whence}; {held})"
  )


def _check_overrun(
  entry: Entry,
  where_in_time: Geometry,
  length: int,
  options: ReadOptions,
  known: set[str],
  problems: list[str],
  notes: list[str],
) -> None:
  """Instances that end after the features do: the rule `overrun`."""
  features_end = where_in_time.end(length)
  end = max((end for _, end, _ in entry.events), default=0.0)
  over = end - features_end
  if over <= options.end_tolerance:
    return
  if entry.id in known:
    past = sum(start > features_end for start, *_ in entry.events)
    notes.append(
      f"rule overrun: {entry.id} has annotations up to {end:g} s, its features "
      f"end at {features_end:g} s; all are kept, {past} of "
      f"{len(entry.events)} instances lie outside the features"
    )
    return
  seconds = where_in_time.seconds_per_segment
  problems.append(
    f"{entry.where}: expected segments that end at most "
    f"{options.end_tolerance:g} s after the features ({length} x {seconds:g} s "
    f"= {features_end:g} s), came one that ends at {end:g} s; re-extract the "
    f"video or pass --config.data.end_tolerance={math.ceil(over)} or "
    "--config.data.overrun_ids with its id"
  )


def _features(
  source: Source,
  lengths: Mapping[str, int],
  options: ReadOptions,
  problems: list[str],
) -> tuple[dict[str, Mapping[str, np.ndarray]], bool, str]:
  """The features of every video, whether they stay on disk, and their digest,
  "" where not all were read."""
  size = sum(
    p.nbytes for parts in source.parts.values() for p in parts.values()
  )
  on_disk = size > options.memory_gb * 1e9
  found: dict[str, Mapping[str, np.ndarray]] = {}
  digests: dict[str, bytes] = {}
  same: list[str] = []  # files of which all segments are alike
  for i, parts in source.parts.items():
    length = lengths.get(i)
    found[i] = DiskFeatures(parts, length or 0)
    if on_disk and not options.check_finite:
      continue
    loaded = {s: _loaded(part, length) for s, part in parts.items()}
    if options.check_finite:
      for stream, x in loaded.items():
        check_finite(parts[stream].where, x, problems)
        if is_constant(x):
          same.append(parts[stream].where)
    if not problems:
      digests[i] = digest.features_digest(loaded)
      found[i] = found[i] if on_disk else loaded
  if same:
    source.notes.append(
      f"{same[0]}: all segments have the same features, in which nothing can "
      f"be localised ({len(same)} such files)"
    )
  known = len(digests) == len(source.parts)
  return found, on_disk, digest.combined(digests) if known else ""


def _loaded(part: Part, length: int | None) -> np.ndarray:
  """The first `length` rows in memory, C-contiguous."""
  return np.array(part.map()[:length], order="C")
