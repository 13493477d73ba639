"""Non-maximum suppression of segments, many groups at once (NumPy only)."""

from collections.abc import Iterator

import numpy as np

from ptlr_jax.data.ragged import expanded
from ptlr_jax.localization.interpolation import finite

_CHUNK = 16_000  # pairs at once; more leave the cache and are slower
_CROWDED = 100  # possible rivals of a segment, on average


def nms(
  start: np.ndarray,
  end: np.ndarray,
  score: np.ndarray,
  iou_threshold: float,
  plus_one: bool = False,
  drop_equal: bool = False,
  group: np.ndarray | None = None,
) -> np.ndarray:
  """Greedy non-maximum suppression: drops what overlaps a better one too much.

  f[P], f[P], f[P] -> i64[<=P], the kept indexes by decreasing score, equal
  scores in input order.  Dropped is IoU > iou_threshold.  With `group` i64[P]
  only segments of one group drop each other.  Quirks of BaSNet-pytorch:
  `plus_one` adds 1 second to every length and intersection, `drop_equal` drops
  an IoU equal to the threshold as well.
  """
  start = finite("start f[P]", np.asarray(start, np.float64), 1)
  end = finite("end f[P]", np.asarray(end, np.float64), 1)
  score = finite("score f[P]", np.asarray(score, np.float64), 1)
  if not len(start) == len(end) == len(score):
    raise ValueError(
      "expected as many starts as ends and scores, got "
      f"{len(start)}, {len(end)} and {len(score)}"
    )
  order = np.argsort(-score, kind="stable")
  if not len(order):
    return order
  group = np.zeros(len(order), np.int64) if group is None else group
  rule = _Rule(iou_threshold, float(plus_one), drop_equal)
  rank = np.empty_like(order)
  rank[order] = np.arange(len(order))
  rivals = _Rivals(start, end, group, rank, rule)
  if rivals.total > _CROWDED * len(order):
    kept = _in_turn(start[order], end[order], group[order], rule)
  else:
    kept = _in_rounds(rivals)
  return order[kept]


class _Rule:
  """When one segment drops another."""

  def __init__(self, threshold: float, extra: float, drop_equal: bool):
    self.threshold, self.extra = threshold, extra
    self.drop_equal = drop_equal
    # Then even segments far apart drop each other.
    self.enough_is_none = threshold < 0 or (threshold == 0 and drop_equal)

  def drops(
    self,
    start: np.ndarray,
    end: np.ndarray,
    others_start: np.ndarray,
    others_end: np.ndarray,
  ) -> np.ndarray:
    """bool of every pair, by broadcasting."""
    length = end - start + self.extra
    others = others_end - others_start + self.extra
    overlap = np.minimum(end, others_end)
    overlap = overlap - np.maximum(start, others_start) + self.extra
    overlap = np.maximum(overlap, 0.0)
    # Without a division: two segments of no length do not overlap.
    union = length + others - overlap
    if self.drop_equal:
      return overlap >= self.threshold * union
    return overlap > self.threshold * union


class _Rivals:
  """Pairs that may drop each other.

  Of two with an IoU above t the later one starts within (1 - t) of the length
  of the earlier one, so that by start each has its possible rivals next to it.
  """

  def __init__(
    self,
    start: np.ndarray,
    end: np.ndarray,
    group: np.ndarray,
    rank: np.ndarray,
    rule: _Rule,
  ):
    order = np.lexsort((start, group))
    self.start, self.end, self.rank = start[order], end[order], rank[order]
    self.rule = rule
    length = self.end - self.start + rule.extra
    reach = np.clip(1 - rule.threshold, 0, 1) * length
    # With room for rounding; what is no rival is found out pair by pair.
    reach = reach * (1 + 1e-9) + 1e-9 * (1 + np.abs(self.start))
    if rule.enough_is_none or not (length > 0).all():
      reach[:] = np.inf
    limit, groups = self.start + reach, group[order]
    last = np.zeros(len(order), np.int64)
    first = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])).tolist()
    for a, b in zip(first, [*first[1:], len(groups)], strict=True):
      last[a:b] = a + self.start[a:b].searchsorted(limit[a:b], side="right")
    self.count = last - np.arange(len(order)) - 1
    self.total = int(self.count.sum())

  def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(better, worse) ranks of those that do, part by part."""
    for one, nth in expanded(self.count, _CHUNK):
      other = one + 1 + nth  # the first rival of each is the next one
      dropped = np.flatnonzero(
        self.rule.drops(
          self.start[one], self.end[one], self.start[other], self.end[other]
        )
      )
      one, other = self.rank[one[dropped]], self.rank[other[dropped]]
      yield np.minimum(one, other), np.maximum(one, other)


def _in_rounds(rivals: _Rivals) -> np.ndarray:
  """Ranks that are kept: in each round those that nothing better threatens.

  They drop their rivals, which then threaten nobody. The outcome is that of
  going down the ranks one by one.
  """
  parts = list(rivals.pairs())
  better, worse = (np.concatenate(part) for part in zip(*parts, strict=True))
  undecided = np.ones(len(rivals.rank), bool)
  kept = np.zeros(len(rivals.rank), bool)
  while len(better):
    safe = undecided.copy()
    safe[worse] = False
    kept |= safe
    undecided &= ~safe
    undecided[worse[safe[better]]] = False
    left = undecided[better] & undecided[worse]
    better, worse = better[left], worse[left]
  return np.flatnonzero(kept | undecided)


def _in_turn(
  start: np.ndarray, end: np.ndarray, group: np.ndarray, rule: _Rule
) -> np.ndarray:
  """The same down the ranks: better where few are kept, and many overlap."""
  kept = []
  for name in np.unique(group):
    left = np.flatnonzero(group == name)
    while len(left):
      best, left = left[0], left[1:]
      kept.append(best)
      dropped = rule.drops(start[best], end[best], start[left], end[left])
      left = left[~dropped]
  return np.sort(np.array(kept, np.int64))
