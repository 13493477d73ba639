"""Class activation sequences to scored segments, and NMS (NumPy only).

A proposal is a run of positions at or above a threshold.  Its confidence is the
outer-inner contrast of the sequence (Sec. III-D) plus a share of the video's
class score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONTRASTS = ("cas", "thresholded")
GRIDS = ("centres", "left")
RINGS = ("up", "towards_start")


class Proposals(NamedTuple):
  """Scored segments of one video: i64[P], f64[P] and f64[P] seconds, f64[P]."""

  label: np.ndarray
  start: np.ndarray
  end: np.ndarray
  score: np.ndarray


def _finite(name: str, values: np.ndarray, ndim: int) -> np.ndarray:
  """The values as an array, refused unless finite and of that many axes."""
  values = np.asarray(values)
  if values.ndim != ndim:
    raise ValueError(
      f"expected {name} with {ndim} axes, got shape {values.shape}"
    )
  bad = np.argwhere(~np.isfinite(values))
  if len(bad):
    raise ValueError(
      f"expected {name} with finite values, got {len(bad)} that are not, the "
      f"first at {tuple(bad[0].tolist())}"
    )
  return values


def upsample(
  cas: np.ndarray, factor: int = 24, grid: str = "centres"
) -> np.ndarray:
  """Linear interpolation over time.

  f[T,C] -> f[T*factor,C], float32 staying float32. Output i lies, on the grid
  `centres`, at (i + 0.5) / factor - 0.5, clipped to [0, T - 1], as PyTorch's
  interpolate does it with align_corners=False; on the grid `left`, at
  i / factor, extrapolated past T - 1, as BaSNet-pytorch does it.
  """
  if grid not in GRIDS:
    raise ValueError(f"expected a grid among {GRIDS}, got {grid!r}")
  cas = _finite("cas f[T,C]", cas, 2)
  if factor < 1:
    raise ValueError(
      f"expected an upsampling factor of 1 or more, got {factor}"
    )
  if not np.issubdtype(cas.dtype, np.floating):
    cas = cas.astype(np.float64)
  if not len(cas):
    return cas
  position = np.arange(len(cas) * factor) / factor
  if grid == "centres":
    position = (np.arange(len(cas) * factor) + 0.5) / factor - 0.5
    position = position.clip(0, len(cas) - 1)
  # On the grid `left` the last two segments say how it goes on past the end.
  last = len(cas) - (1 if grid == "centres" else 2)
  left = np.minimum(position.astype(np.int64), max(last, 0))
  right = np.minimum(left + 1, len(cas) - 1)
  weight = (position - left).astype(cas.dtype)[:, None]
  # This form keeps a constant sequence constant to the last bit.
  return cas[left] + weight * (cas[right] - cas[left])


def class_proposals(
  sequence: np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """All runs of consecutive positions at or above each threshold.

  f[N], f[K] -> i64[P] starts, i64[P] ends (half-open), i64[P] index of the
  threshold; by threshold, then by start.
  """
  sequence = _finite("sequence f[N]", sequence, 1)
  levels = _finite("thresholds f[K]", np.asarray(thresholds, np.float64), 1)
  # One position below every threshold on either side closes all runs.
  above = np.zeros((len(levels), len(sequence) + 2), bool)
  above[:, 1:-1] = sequence >= levels[:, None]
  row, edge = np.nonzero(above[:, 1:] != above[:, :-1])
  return edge[0::2], edge[1::2], row[0::2]


def _positive_runs(
  sequence: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """As `class_proposals`, with BaSNet-pytorch's quirks; see `propose`."""
  # The smallest value above 0 in place of thresholds that 0 would pass.
  starts, ends, rows = class_proposals(
    sequence, np.where(levels > 0, levels, np.nextafter(0, 1))
  )
  covered = np.bincount(rows, weights=ends - starts, minlength=len(levels))
  lost = (covered[rows] == 1) & (starts == 0)
  return starts[~lost], ends[~lost], rows[~lost]


def outer_inner_contrast(
  sequence: np.ndarray,
  starts: np.ndarray,
  ends: np.ndarray,
  ring: float = 0.25,
  rows: np.ndarray | None = None,
  rounding: str = "up",
) -> np.ndarray:
  """Mean inside a run minus mean of a ring on both its sides.

  f[N], i[P], i[P] (half-open, not empty) -> f64[P]; or f[K,N] with rows i[P],
  the sequence that each run is taken on.

  The ring is ceil(ring * length) positions a side, so that a short run has one
  too, cut at both ends of the video; without any position outside the mean
  outside is 0.  `rounding="towards_start"`: up to the left and down to the
  right, as in BaSNet-pytorch.
  """
  if rounding not in RINGS:
    raise ValueError(f"expected a rounding among {RINGS}, got {rounding!r}")
  sequence = np.asarray(sequence, np.float64)
  if rows is None:
    sequence = _finite("sequence f[N]", sequence, 1)[None]
    rows = np.zeros(len(starts), np.int64)
  else:
    sequence = _finite("sequence f[K,N] with rows", sequence, 2)
  if not ring >= 0:
    raise ValueError(f"expected a ring of 0 or more lengths, got {ring}")
  size = sequence.shape[1]
  starts, ends = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
  if not ((starts >= 0) & (starts < ends) & (ends <= size)).all():
    raise ValueError(
      f"expected runs with 0 <= start < end <= {size}, got starts {starts} "
      f"and ends {ends}"
    )
  total = np.zeros((len(sequence), size + 1))
  np.cumsum(sequence, axis=1, out=total[:, 1:])
  length = ends - starts
  # Less a hair, so that 0.1 of 30 (3.0000000000000004) is 3 and not 4.
  width = np.ceil(ring * length - 1e-9).astype(np.int64)
  after = width
  if rounding == "towards_start":
    after = np.floor(ring * length + 1e-9).astype(np.int64)
  left, right = np.maximum(starts - width, 0), np.minimum(ends + after, size)
  inside = total[rows, ends] - total[rows, starts]
  outside = (total[rows, starts] - total[rows, left]) + (
    total[rows, right] - total[rows, ends]
  )
  around = right - left - length
  return inside / length - np.where(
    around > 0, outside / np.maximum(around, 1), 0.0
  )


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
  threshold, so each is kept.  `grid` is that of `upsample`, `ring_rounding`
  that of `outer_inner_contrast`. With `positive_runs` a run also needs values
  above 0, and a threshold whose only position is the very first has none:
  quirks of BaSNet-pytorch.
  """
  cas = _finite("cas f[T,C]", cas, 2)
  class_scores = _finite("class_scores f[C]", class_scores, 1)
  count = cas.shape[1]
  if len(class_scores) != count:
    raise ValueError(
      f"expected a class score for each of the {count} classes of cas, got "
      f"{len(class_scores)}"
    )
  if contrast not in CONTRASTS:
    raise ValueError(f"expected contrast among {CONTRASTS}, got {contrast!r}")
  labels = np.asarray(classes) if len(classes) else np.zeros(0, np.int64)
  if (
    labels.ndim != 1
    or labels.dtype.kind not in "iu"
    or not ((labels >= 0) & (labels < count)).all()
  ):
    raise ValueError(
      f"expected classes as indexes in 0..{count - 1}, got {classes}"
    )
  levels = np.asarray(thresholds, np.float64)
  sequences = upsample(cas[:, labels], upsample_factor, grid)
  seconds = seconds_per_segment / upsample_factor
  found = []
  for label, sequence in zip(labels, sequences.T, strict=True):
    if positive_runs:
      starts, ends, rows = _positive_runs(sequence, levels)
    else:
      starts, ends, rows = class_proposals(sequence, levels)
    if contrast == "cas":
      size = len(sequence) + 1
      starts, ends = np.divmod(np.unique(starts * size + ends), size)
      value = outer_inner_contrast(
        sequence, starts, ends, ring, rounding=ring_rounding
      )
    else:
      kept = np.where(sequence >= levels[:, None], sequence, 0.0)
      value = outer_inner_contrast(
        kept, starts, ends, ring, rows, ring_rounding
      )
    found.append(
      Proposals(
        np.full(len(starts), label, np.int64),
        starts * seconds + offset,
        ends * seconds + offset,
        value + class_weight * float(class_scores[label]),
      )
    )
  return _union(found)


def _union(found: Sequence[Proposals]) -> Proposals:
  """All proposals in the order given."""
  empty = Proposals(np.zeros(0, np.int64), *np.zeros((3, 0)))
  return Proposals(
    *(np.concatenate(part) for part in zip(empty, *found, strict=True))
  )


def nms(
  start: np.ndarray,
  end: np.ndarray,
  score: np.ndarray,
  iou_threshold: float,
  plus_one: bool = False,
  drop_equal: bool = False,
) -> np.ndarray:
  """Greedy non-maximum suppression: drops what overlaps a better one too much.

  f[P], f[P], f[P] -> i64[<=P], the kept indexes by decreasing score, equal
  scores in input order.  Dropped is IoU > iou_threshold.  Quirks of
  BaSNet-pytorch: `plus_one` adds 1 second to every length and intersection,
  `drop_equal` drops an IoU equal to the threshold as well.
  """
  start = _finite("start f[P]", np.asarray(start, np.float64), 1)
  end = _finite("end f[P]", np.asarray(end, np.float64), 1)
  score = _finite("score f[P]", np.asarray(score, np.float64), 1)
  if not len(start) == len(end) == len(score):
    raise ValueError(
      "expected as many starts as ends and scores, got "
      f"{len(start)}, {len(end)} and {len(score)}"
    )
  extra = float(plus_one)
  length = end - start + extra
  left = np.argsort(-score, kind="stable")
  kept = []
  while len(left):
    best, left = left[0], left[1:]
    kept.append(best)
    overlap = np.minimum(end[best], end[left])
    overlap = overlap - np.maximum(start[best], start[left]) + extra
    overlap = np.maximum(overlap, 0.0)
    # Without a division: two segments of no length do not overlap.
    union = length[best] + length[left] - overlap
    if drop_equal:
      left = left[overlap < iou_threshold * union]
    else:
      left = left[overlap <= iou_threshold * union]
  return np.array(kept, np.int64)


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
  kept = [np.zeros(0, np.int64)]
  for label in np.unique(every.label):
    members = np.flatnonzero(every.label == label)
    start, end, score = (part[members] for part in every[1:])
    chosen = nms(start, end, score, nms_threshold, plus_one, drop_equal)
    kept.append(members[chosen])
  index = np.sort(np.concatenate(kept))
  index = index[np.argsort(-every.score[index], kind="stable")]
  return Proposals(*(part[index] for part in every))


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
