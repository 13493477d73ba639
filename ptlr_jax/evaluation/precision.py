"""Interpolated average precision from matches, and the mAP of a table."""

import dataclasses

import numpy as np

from ptlr_jax.evaluation import matching
from ptlr_jax.evaluation.instances import Detections, Truth
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
