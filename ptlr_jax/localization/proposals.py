"""Class activation sequences to scored segments (NumPy only).

A proposal is a run of positions at or above a threshold.  Its confidence is the
outer-inner contrast of the sequence (Sec. III-D) plus a share of the video's
class score.  All classes and thresholds of a video are taken at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptlr_jax.localization.interpolation import (
  Sums,
  Upsampled,
  finite,
  runs,
  upsampled,
)
from ptlr_jax.localization.nms import nms


class Proposals(NamedTuple):
  """Scored segments of one video: i64[P], f64[P] and f64[P] seconds, f64[P]."""

  label: np.ndarray
  start: np.ndarray
  end: np.ndarray
  score: np.ndarray


class Runs(NamedTuple):
  """Runs of positions: i64[R] sequence, i64[R] start, i64[R] end (half-open).

  `row` i64[R] is the pair of sequence and threshold.
  """

  sequence: np.ndarray
  row: np.ndarray
  start: np.ndarray
  end: np.ndarray


def find_runs(
  sequences: Upsampled, thresholds: np.ndarray, positive: bool = False
) -> Runs:
  """Runs at or above each threshold f[K] of each sequence.

  By sequence, threshold, start. With `positive` a run also needs values above
  0, and a threshold whose only position is the very first has none: quirks of
  BaSNet-pytorch.
  """
  levels = finite("thresholds f[K]", np.asarray(thresholds, np.float64), 1)
  if positive:
    # The smallest value above 0 in place of thresholds that 0 would pass.
    levels = np.where(levels > 0, levels, np.nextafter(0, 1))
  row, start, end = runs(sequences, levels)
  if positive:
    covered = np.bincount(row, weights=end - start)
    kept = (covered[row] != 1) | (start != 0)
    row, start, end = row[kept], start[kept], end[kept]
  return Runs(row // max(len(levels), 1), row, start, end)


def rings(
  start: np.ndarray,
  end: np.ndarray,
  size: int,
  ring: float = 0.25,
  rounding: str = "up",
) -> tuple[np.ndarray, np.ndarray]:
  """Outer ends of the rings around runs, i64[R] and i64[R].

  The ring is ceil(ring * length) positions a side, so that a short run has one
  too, cut at both ends of the video.  `rounding="towards_start"`: up to the
  left and down to the right, as in BaSNet-pytorch.
  """
  if not ring >= 0:
    raise ValueError(f"expected a ring of 0 or more lengths, got {ring}")
  length = end - start
  # Less a hair, so that 0.55 of 100 (55.00000000000001) is 55 and not 56.
  width = np.ceil(ring * length - 1e-9).astype(np.int64)
  narrow = np.floor(ring * length + 1e-9).astype(np.int64)
  after = {"up": width, "towards_start": narrow}[rounding]
  return np.maximum(start - width, 0), np.minimum(end + after, size)


def outer_inner_contrast(
  sums: Sums,
  found: Runs,
  ring: float = 0.25,
  rounding: str = "up",
  kept: Runs | None = None,
) -> np.ndarray:
  """Mean inside each run minus mean of its ring (see `rings`), f64[R].

  Without any position outside, the mean outside is 0.  With `kept`, of rows as
  those of `found` and in their order, values outside those runs count as 0.
  """
  sequence, row, start, end = found
  size = sums.of.size
  if not ((start >= 0) & (start < end) & (end <= size)).all():
    raise ValueError(
      f"expected runs with 0 <= start < end <= {size}, got starts {start} "
      f"and ends {end}"
    )
  left, right = rings(start, end, size, ring, rounding)
  to_start, to_end = sums.until(sequence, start), sums.until(sequence, end)
  inside = to_end - to_start
  if kept is None:
    outside = to_start - sums.until(sequence, left)
    outside += sums.until(sequence, right) - to_end
  else:
    before = _before(sums, kept)
    to_left, to_start, to_end, to_right = (
      _until(sums, kept, before, row, position)
      for position in (left, start, end, right)
    )
    outside = (to_start - to_left) + (to_right - to_end)
  around = (right - left) - (end - start)
  return inside / (end - start) - np.where(
    around > 0, outside / np.maximum(around, 1), 0.0
  )


def _before(sums: Sums, kept: Runs) -> np.ndarray:
  """Sum over the runs of the same row that come before, f64[R].

  A cumulative sum over all rows would lose digits to those that came before.
  """
  sequence, row, start, end = kept
  inside = sums.until(sequence, end) - sums.until(sequence, start)
  number = np.arange(len(row)) - np.searchsorted(row, row)
  table = np.zeros((row.max(initial=-1) + 1, number.max(initial=-1) + 1))
  table[row, number] = inside
  return np.cumsum(table, axis=1)[row, number] - inside


def _until(
  sums: Sums,
  kept: Runs,
  before: np.ndarray,
  row: np.ndarray,
  position: np.ndarray,
) -> np.ndarray:
  """Sum over the runs of a row up to a position, f64[Q].

  i64[Q] row, one that has runs, i64[Q] position; `before` of `_before`.
  """
  width = sums.of.size + 1
  keys = kept.row * width + kept.start
  at = np.searchsorted(keys, row * width + position, side="right") - 1
  # Left of the first run of its row nothing comes before.
  at = np.maximum(at, np.searchsorted(kept.row, row))
  sequence, start = kept.sequence[at], kept.start[at]
  until = np.clip(position, start, kept.end[at])
  part = sums.until(sequence, until) - sums.until(sequence, start)
  return before[at] + part


def propose(
  cas: np.ndarray,
  class_scores: np.ndarray,
  classes: Sequence[int] | np.ndarray,
  *,
  thresholds: Sequence[float] | np.ndarray,
  upsample_factor: int,
  seconds_per_segment: float,
  offset: float = 0.0,
  ring: float = 0.25,
  class_weight: float = 0.2,
  contrast: str = "cas",
  grid: str = "centres",
  ring_rounding: str = "up",
  positive_runs: bool = False,
) -> Proposals:
  """Proposals of the given classes of one video, before NMS.

  f[T,C], f[C], class indexes i[n] -> Proposals; offset and seconds_per_segment
  in seconds.  Score = contrast + class_weight * class score.

  contrast="cas" takes the contrast on the sequence itself, and a run that
  several thresholds share is one proposal.  contrast="thresholded" takes it on
  the sequence with the values below the run's threshold set to 0, as
  BaSNet-pytorch does: the same run may then score higher under a higher
  threshold, so each is kept.  `grid` is that of `upsampled`, `ring_rounding`
  that of `rings`, `positive_runs` that of `find_runs`.
  """
  cas = finite("cas f[T,C]", cas, 2)
  class_scores = finite("class_scores f[C]", class_scores, 1)
  count = cas.shape[1]
  if len(class_scores) != count:
    raise ValueError(
      f"expected a class score for each of the {count} classes of cas, got "
      f"{len(class_scores)}"
    )
  on_cas = {"cas": True, "thresholded": False}[contrast]
  labels = np.asarray(classes) if len(classes) else np.zeros(0, np.int64)
  if (
    labels.ndim != 1
    or labels.dtype.kind not in "iu"
    or not ((labels >= 0) & (labels < count)).all()
  ):
    raise ValueError(
      f"expected classes as indexes in 0..{count - 1}, got {classes}"
    )
  count = len(labels)
  if not count or not len(cas):
    return _union([])
  sequences = upsampled(cas[:, labels], upsample_factor, grid)
  levels = np.asarray(thresholds)
  found = find_runs(sequences, levels, positive_runs)
  kept = None
  if on_cas:
    found = _distinct(found, sequences.size)
  else:
    # Under a threshold below 0 more is kept than runs with `positive_runs`.
    kept = find_runs(sequences, levels) if positive_runs else found
  value = outer_inner_contrast(
    sequences.sums(), found, ring, ring_rounding, kept
  )
  seconds = seconds_per_segment / upsample_factor
  label = labels[found.sequence].astype(np.int64)
  return Proposals(
    label,
    found.start * seconds + offset,
    found.end * seconds + offset,
    value + class_weight * np.asarray(class_scores, np.float64)[label],
  )


def _distinct(found: Runs, size: int) -> Runs:
  """Each run of a sequence once, by start, then by end."""
  keys = (found.sequence * (size + 1) + found.start) * (size + 1) + found.end
  _, index = np.unique(keys, return_index=True)
  return Runs(*(column[index] for column in found))


def _union(found: Sequence[Proposals]) -> Proposals:
  """All proposals in the order given."""
  empty = Proposals(np.zeros(0, np.int64), *np.zeros((3, 0)))
  return Proposals(
    *(np.concatenate(part) for part in zip(empty, *found, strict=True))
  )


def merge(
  found: Sequence[Proposals],
  nms_threshold: float,
  plus_one: bool = False,
  drop_equal: bool = False,
) -> Proposals:
  """Union of several sources' proposals, NMS per class, by decreasing score.

  The options are those of `nms`. Equal scores stay in the order of the sources.
  """
  every = _union(found)
  chosen = nms(
    *every[1:], nms_threshold, plus_one, drop_equal, group=every.label
  )
  return Proposals(*(part[chosen] for part in every))


def to_results(
  proposals: Proposals, classes: Sequence[str]
) -> list[dict[str, object]]:
  """One video's entry of an ActivityNet `results` dict, in plain Python.

  Proposals, class names by index -> [{"label", "score", "segment": [s, e]}],
  seconds, not rounded.
  """
  return [
    {"label": classes[label], "score": score, "segment": [start, end]}
    for label, start, end, score in zip(
      *(part.tolist() for part in proposals), strict=True
    )
  ]
