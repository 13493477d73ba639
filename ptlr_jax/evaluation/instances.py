"""Ground truth and detections as arrays over the same videos and classes."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax.evaluation import columns
from ptlr_jax.evaluation.protocols import (
  SEGMENTS_PER_SECOND,
  Protocol,
  whole_segments,
)


@dataclasses.dataclass(frozen=True)
class Truth:
  """Instances: i64[G] video and label, f64[G] start and end.

  Of `videos` and `labels`, which are in the order of their first appearance;
  f64[V] `duration` in seconds, NaN where it is not known. Start and end are in
  seconds, or in segments where the protocol snaps to them.
  """

  videos: tuple[str, ...]
  labels: tuple[str, ...]
  video: np.ndarray
  label: np.ndarray
  start: np.ndarray
  end: np.ndarray
  duration: np.ndarray

  def sizes(self) -> np.ndarray:
    """Instances of each class, i64[C]."""
    return np.bincount(self.label, minlength=len(self.labels))


@dataclasses.dataclass(frozen=True)
class Detections:
  """Detections: i64[P] video and label, f64[P] start, end and score.

  `videos` begins with the ground truth's, those it does not know follow; labels
  are the ground truth's. `ignored` counts detections of other classes by name,
  `unknown` those of known classes in unknown videos by id.
  """

  videos: tuple[str, ...]
  video: np.ndarray
  label: np.ndarray
  start: np.ndarray
  end: np.ndarray
  score: np.ndarray
  ignored: Mapping[str, int]
  unknown: Mapping[str, int]

  def take(self, rows: np.ndarray) -> "Detections":
    """The same of some rows, in that order."""
    return dataclasses.replace(
      self,
      **{
        name: getattr(self, name)[rows]
        for name in ("video", "label", "start", "end", "score")
      },
    )


def truth_of(
  database: Mapping[str, Any],
  protocol: Protocol,
  where: str,
  problems: list[str],
) -> Truth:
  """The ground truth of {VIDEO: {"annotations": [...], "duration"}}."""
  kept = {
    video: entry
    for video, entry in database.items()
    if video not in protocol.left_out
  }
  lists = {
    video: entry.get("annotations") if isinstance(entry, dict) else None
    for video, entry in kept.items()
  }
  found = columns.read_columns(lists, False, where, problems)
  index = columns.positions(found.labels)
  start, end = found.start, found.end
  if protocol.snapped:
    start, end = whole_segments(start), whole_segments(end)
  return Truth(
    videos=tuple(lists),
    labels=tuple(index),
    video=found.video,
    label=_indexes(found.labels, index),
    start=start,
    end=end,
    duration=np.array(
      [
        _duration(f"{where}: {video}", entry, problems)
        for video, entry in kept.items()
      ],
      float,
    ),
  )


def detections_of(
  results: Mapping[str, Any],
  truth: Truth,
  protocol: Protocol,
  where: str,
  problems: list[str],
) -> Detections:
  """The detections of {VIDEO: [{"label", "segment", "score"}]}."""
  found = columns.read_columns(results, True, where, problems)
  label = _indexes(found.labels, columns.positions(truth.labels))
  known = label >= 0
  ignored = Counter(found.labels[n] for n in np.flatnonzero(~known))
  counts = np.bincount(found.video[known], minlength=len(results))
  scored = set(truth.videos)
  unknown = {
    video: int(count)
    for video, count in zip(results, counts, strict=True)
    if count and video not in scored
  }
  videos = (*truth.videos, *unknown)
  index = columns.positions(videos)
  at = np.array([index.get(video, -1) for video in results], np.int64)
  start, end = found.start[known], found.end[known]
  if protocol.snapped:
    start, end = _segments(start), _segments(end)
  return Detections(
    videos=videos,
    video=at[found.video[known]],
    label=label[known],
    start=start,
    end=end,
    score=found.score[known],
    ignored=ignored,
    unknown=unknown,
  )


def _indexes(names: Sequence[str], index: Mapping[str, int]) -> np.ndarray:
  """i64[N], -1 for a name that is not in the index."""
  found = map(index.get, names, itertools.repeat(-1))
  return np.fromiter(found, np.int64, len(names))


def _duration(where: str, entry: Any, problems: list[str]) -> float:
  """A video's duration in seconds; NaN where the entry has none."""
  value = entry.get("duration") if isinstance(entry, dict) else None
  if value is None:
    return np.nan
  number = columns.number(value, True)
  if 0.01 <= number < columns.MAX_SECONDS:
    return number
  problems.append(
    f"{where}: expected a duration of 0.01 s or more, came {value!r:.60}; "
    "correct it, or remove it"
  )
  return np.nan


def _segments(seconds: np.ndarray) -> np.ndarray:
  """Seconds in segments; what lies on their grid lies on it exactly."""
  found = seconds * SEGMENTS_PER_SECOND
  whole = np.rint(found)
  return np.where(np.abs(found - whole) < 1e-6, whole, found)
