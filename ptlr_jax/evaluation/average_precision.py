"""Interpolated average precision from matches, mAP, and what ties change.

The official code sorts with an unstable sort, so that its own figures depend on
the processor where scores or overlaps are equal: `find_ties` says by how much.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ptlr_jax.evaluation import matching
from ptlr_jax.evaluation.instances import Detections, Truth
from ptlr_jax.evaluation.matching import equal_to_next, in_runs
from ptlr_jax.evaluation.protocols import Protocol


@dataclasses.dataclass(frozen=True)
class Scored:
  """Scored detections, in the order of `matching.rank`.

  `pairs` overlap by the lowest threshold at least.
  `matched` i32[K,P] is the instance that a detection finds at a threshold, or
  -1; `ap` f64[C,K]. `ambiguous` bool[P] or None: what counts only where it
  finds an instance.
  """

  truth: Truth
  found: Detections
  protocol: Protocol
  pairs: matching.Pairs
  matched: np.ndarray
  ambiguous: np.ndarray | None
  ap: np.ndarray

  def counted(self, k: int) -> np.ndarray | None:
    """Which detections count at the k-th threshold, bool[P]; None for all."""
    return counted(self.ambiguous, self.matched[k])

  def false(self, k: int) -> np.ndarray:
    """The false positives at the k-th threshold, bool[P]."""
    missed = self.matched[k] < 0
    return missed if self.ambiguous is None else missed & ~self.ambiguous

  @property
  def mean(self) -> np.ndarray:
    """mAP at every threshold, f64[K]."""
    return self.ap.mean(0)


def interpolated(
  position: np.ndarray, label: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
  """Average precision of every class, f64[C].

  i64[H] positions of the hits in their class's list (1, 2, ...), by class and
  upwards, their classes i64[H], instances i64[C].  As in the official code: the
  precision at a recall is the best one at this recall or a higher one, and
  recall moves at hits alone.
  """
  ap = np.zeros(len(sizes))
  if not len(position):
    return ap
  first = np.flatnonzero(np.append(True, label[1:] != label[:-1]))
  last = np.append(first[1:], len(label))
  hits = np.arange(1, len(label) + 1) - np.repeat(first, last - first)
  envelope = hits / position
  for a, b in zip(first.tolist(), last.tolist(), strict=True):
    downwards = envelope[a:b][::-1]
    np.maximum.accumulate(downwards, out=downwards)
  size = sizes[label]
  step = hits / size - (hits - 1) / size
  ap[label[first]] = np.add.reduceat(step * envelope, first)
  return ap


def counted(
  ambiguous: np.ndarray | None, matched: np.ndarray
) -> np.ndarray | None:
  """All but what is ambiguous and finds nothing, bool[P]; None for all."""
  return None if ambiguous is None else ~ambiguous | (matched >= 0)


def hits(
  found: Detections, matched: np.ndarray, ambiguous: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Of one threshold: positions of the hits in their class's list, classes.

  Ranked detections, i32[P], bool[P] or None -> i64[H] from 1, i64[H].
  """
  at = np.flatnonzero(matched >= 0)
  label = found.label[at]
  first = np.searchsorted(found.label, label)
  kept = counted(ambiguous, matched)
  if kept is None:
    return at + 1 - first, label
  total = np.concatenate([[0], np.cumsum(kept)])
  return total[at + 1] - total[first], label


def average_precisions(
  truth: Truth,
  found: Detections,
  matched: np.ndarray,
  ambiguous: np.ndarray | None = None,
) -> np.ndarray:
  """AP of every class at every threshold, f64[C,K], of ranked detections."""
  sizes = truth.sizes()
  ap = np.zeros((len(sizes), len(matched)))
  for k, row in enumerate(matched):
    position, label = hits(found, row, ambiguous)
    ap[:, k] = interpolated(position, label, sizes)
  return ap


def score(
  truth: Truth,
  found: Detections,
  protocol: Protocol,
  ambiguous: np.ndarray | None = None,
) -> Scored:
  """Matches and average precisions under a protocol.

  `ambiguous` bool[P]: detections that count only where they find an instance,
  the rule of the THUMOS kit for what lies over an ambiguous stretch.
  """
  order = matching.rank(found)
  found = found.take(order)
  pairs = matching.overlapping(found, truth, min(protocol.tious))
  matched = matching.matches(
    pairs, protocol.tious, len(found.video), len(truth.video)
  )
  if ambiguous is not None:
    ambiguous = ambiguous[order]
  ap = average_precisions(truth, found, matched, ambiguous)
  return Scored(truth, found, protocol, pairs, matched, ambiguous, ap)


TOLERANCE = 1e-9


class Ties(NamedTuple):
  """What other orders of ties give: f64[C,K] lowest and highest AP.

  `scores` and `overlaps` count the detections of a score that others of the
  class have too, and of an overlap that they have with two instances.  What is
  the same in every respect is no tie.
  """

  low: np.ndarray
  high: np.ndarray
  scores: int
  overlaps: int

  @property
  def hanging(self) -> np.ndarray:
    """Pairs of class and threshold that hang on ties, bool[C,K]."""
    return self.high - self.low > TOLERANCE


def find_ties(scored: Scored) -> Ties:
  """Bounds of every AP over the orders of ties.

  Tried are the rule of `matching` and its reverse, for equal overlaps and for
  equal scores, and random orders; for each, of the videos that have detections
  of one score, those with the most hits first and last.  All orders there are
  would be too many: each bound is reached, and one not tried may be beyond it.
  """
  found, truth = scored.found, scored.truth
  # Each of these is about a row and the next one.
  same_score = equal_to_next(found.label, found.score)
  same_score &= ~equal_to_next(found.video, found.start, found.end)
  in_video = same_score & equal_to_next(found.video)
  pairs = scored.pairs
  spans = truth.start[pairs.instance], truth.end[pairs.instance]
  same_overlap = equal_to_next(pairs.detection, pairs.overlap)
  same_overlap &= ~equal_to_next(*spans)
  asked = pairs.detection[:-1][same_overlap]

  group = found.video * len(truth.labels) + found.label
  unsettled = np.concatenate([group[:-1][in_video], group[asked]])
  labels = np.unique(
    np.concatenate([found.label[:-1][same_score], found.label[asked]])
  )
  low, high = scored.ap.copy(), scored.ap.copy()
  rows = np.flatnonzero(np.isin(found.label, labels))
  again = np.flatnonzero(np.isin(group[rows], unsettled))
  seen = set()
  for order, matched in _rematched(scored, rows, again):
    for k, row in enumerate(matched):
      hits = (row >= 0).tobytes()
      if (k, hits) in seen:
        continue
      seen.add((k, hits))
      for sign in (1, -1):
        ap = _extreme(scored, rows[order], row, sign)[labels]
        low[labels, k] = np.minimum(low[labels, k], ap)
        high[labels, k] = np.maximum(high[labels, k], ap)
  return Ties(low, high, len(in_runs(same_score)), len(np.unique(asked)))


def _rematched(
  scored: Scored, rows: np.ndarray, again: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Orders of the detections `rows`, i64[N], and their matches, i32[K,N].

  Matches change in the groups of video and class of rows[again] alone.
  """
  if not len(rows):
    return
  matched = scored.matched[:, rows]
  yield np.arange(len(rows)), matched
  part, truth = scored.found.take(rows), scored.truth
  kept = np.flatnonzero(np.isin(scored.pairs.detection, rows[again]))
  pairs = matching.Pairs(*(column[kept] for column in scored.pairs))
  detection = np.searchsorted(rows, pairs.detection)
  both = (matching.RULE, matching.REVERSED)
  number = min(12, 1 + 1_000_000 // len(rows)) if len(again) else 0
  orders = [(a, b) for a in both for b in both][1:]
  for by_score, by_overlap in orders + [(n, n) for n in range(1, number + 1)]:
    order = matching.rank(part, by_score)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    moved = np.argsort(place[detection], kind="stable")
    ranked = matching.Pairs(
      place[detection][moved], pairs.instance[moved], pairs.overlap[moved]
    )
    changed = matching.matches(
      matching.by_overlap(ranked, truth, by_overlap),
      scored.protocol.tious,
      len(rows),
      len(truth.video),
    )
    settled = np.ones(len(rows), bool)
    settled[place[again]] = False
    changed[:, settled] = matched[:, order][:, settled]
    yield order, changed


def _extreme(
  scored: Scored, rows: np.ndarray, matched: np.ndarray, sign: int
) -> np.ndarray:
  """AP with the best videos of every block of equal scores first, f64[C].

  Of detections `rows`, whole classes by decreasing score, with matches i32[N];
  last with sign -1. What a video has of a block stays in its order, on which
  its matches hang.
  """
  found = scored.found
  label, score, video = found.label[rows], found.score[rows], found.video[rows]
  same = equal_to_next(label, score)
  block = np.concatenate([[0], np.cumsum(~same)])
  tied = in_runs(same)
  _, unit = np.unique(
    block[tied] * len(found.videos) + video[tied], return_inverse=True
  )
  hit = matched >= 0
  share = np.bincount(unit, weights=hit[tied]) / np.bincount(unit)
  order = np.arange(len(rows))
  order[tied] = tied[np.lexsort((unit, -sign * share[unit], block[tied]))]
  ambiguous = scored.ambiguous
  if ambiguous is not None:
    ambiguous = ambiguous[rows[order]]
  position, classes = hits(found.take(rows), matched[order], ambiguous)
  return interpolated(position, classes, scored.truth.sizes())
