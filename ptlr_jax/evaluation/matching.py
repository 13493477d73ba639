"""Which detection finds which instance: the official greedy rule, all at once.

By decreasing score a detection takes, of the instances of its class in its
video that are still free and that it overlaps by the threshold, the one it
overlaps most. Ties are where the official code is arbitrary, as it sorts with
an unstable sort. Here what is equal is ordered by what it is, never by where it
stands in a file:

- detections of equal score: by video id (as text), then start, then end;
- instances of equal overlap: the one that starts later first, then the one that
  ends later.

As there, a detection without length overlaps an instance without length most of
all, wherever they are: 0 / 0 passes every threshold.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptlr_jax.data.ragged import expanded
from ptlr_jax.evaluation.instances import Detections, Truth

RULE, REVERSED = 0, -1  # orders of ties
_CHUNK = 2_000_000  # pairs at once


class Pairs(NamedTuple):
  """Detections and instances that overlap: i64[N], i64[N], f64[N].

  By detection, then by decreasing overlap.
  """

  detection: np.ndarray
  instance: np.ndarray
  overlap: np.ndarray


def temporal_iou(
  start: np.ndarray, end: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> np.ndarray:
  """Intersection over union, f64 by broadcasting; inf for 0 / 0.

  In the official order of operations, so that an overlap equal to a threshold
  up to rounding falls on the same side of it.
  """
  intersection = np.minimum(end, ends) - np.maximum(start, starts)
  intersection = np.maximum(intersection, 0.0)
  union = (ends - starts) + (end - start) - intersection
  found = np.full(union.shape, np.inf)
  return np.divide(intersection, union, out=found, where=union != 0)


def equal_to_next(*columns: np.ndarray) -> np.ndarray:
  """Whether a row is as the one after it in every column, bool[N-1]."""
  same = np.ones(max(len(columns[0]) - 1, 0), bool)
  for column in columns:
    same &= column[1:] == column[:-1]
  return same


def in_runs(same: np.ndarray) -> np.ndarray:
  """Rows that are as the one before or after, i64; `same` bool[N-1]."""
  return np.flatnonzero(np.append(same, False) | np.append(False, same))


def rank(found: Detections, ties: int = RULE) -> np.ndarray:
  """The order of detections: by class, decreasing score and the rule of ties.

  i64[P]; `ties` is RULE, REVERSED or the seed of a random order of what is
  equal, 1 or more.
  """
  order = np.lexsort((-found.score, found.label))
  label, score = found.label[order], found.score[order]
  same = equal_to_next(label, score)
  if not same.any():
    return order
  block = np.concatenate([[0], np.cumsum(~same)])
  tied = in_runs(same)
  rows = order[tied]
  names = np.empty(len(found.videos), np.int64)
  names[np.array(sorted(range(len(names)), key=found.videos.__getitem__))] = (
    np.arange(len(names))
  )
  keys = found.end[rows], found.start[rows], names[found.video[rows]]
  if ties == REVERSED:
    keys = tuple(-key for key in keys)
  elif ties != RULE:
    keys = (np.random.default_rng(ties).random(len(rows)),)
  order[tied] = rows[np.lexsort((*keys, block[tied]))]
  return order


def overlapping(
  found: Detections,
  truth: Truth,
  least: float,
  same_label: bool = True,
) -> Pairs:
  """All pairs of one video, and of one class, that overlap by `least`."""
  width = max(len(truth.labels), 1)
  key = found.video * width + found.label if same_label else found.video
  of_truth = truth.video * width + truth.label if same_label else truth.video
  order = np.argsort(of_truth, kind="stable")
  groups, first, size = np.unique(
    of_truth[order], return_index=True, return_counts=True
  )
  none = np.zeros(0, np.int64)
  parts = [(none, none, np.zeros(0))]
  if not len(groups):
    return Pairs(*parts[0])
  group = np.minimum(np.searchsorted(groups, key), len(groups) - 1)
  rows = np.flatnonzero(groups[group] == key)
  group = group[rows]
  for row, nth in expanded(size[group], _CHUNK):
    detection = rows[row]
    instance = order[first[group[row]] + nth]
    overlap = temporal_iou(
      found.start[detection],
      found.end[detection],
      truth.start[instance],
      truth.end[instance],
    )
    kept = overlap >= least
    parts.append((detection[kept], instance[kept], overlap[kept]))
  columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
  return by_overlap(Pairs(*columns), truth)


def by_overlap(pairs: Pairs, truth: Truth, ties: int = RULE) -> Pairs:
  """Pairs by detection, then by decreasing overlap and the rule of ties.

  Given by detection; `ties` as in `rank`.
  """
  several = in_runs(equal_to_next(pairs.detection))
  instance = pairs.instance[several]
  if ties in (RULE, REVERSED):
    sign = 1 if ties == REVERSED else -1  # the later first
    keys = sign * truth.end[instance], sign * truth.start[instance]
  else:
    keys = (np.random.default_rng(ties).random(len(several)),)
  keys = *keys, -pairs.overlap[several], pairs.detection[several]
  order = np.arange(len(pairs.detection))
  order[several] = several[np.lexsort(keys)]
  return Pairs(*(column[order] for column in pairs))


def matches(
  pairs: Pairs, tious: Sequence[float], detections: int, instances: int
) -> np.ndarray:
  """What each detection finds at each threshold: i32[K,P], -1 for nothing.

  `pairs` of detections in the order of `rank`, which is that of precedence.

  All detections ask for their best instance at once; an instance keeps the one
  that comes first, the others ask for their next. It ends where the greedy
  rule does: the outcome is the stable one, and where all instances prefer in
  the same order there is only one.
  """
  found = np.full((len(tious), detections), -1, np.int32)
  for k, tiou in enumerate(tious):
    kept = pairs.overlap >= tiou
    detection, instance = pairs.detection[kept], pairs.instance[kept]
    if not len(detection):
      continue
    last = np.append(detection[1:] != detection[:-1], True)
    first = np.append(True, last[:-1])
    asking = np.flatnonzero(first)
    none = len(detection)
    holder = np.full(instances, none)  # the pair that holds the instance
    while len(asking):
      wanted = instance[asking]
      before = holder[wanted]
      # Written in turn, last the one that comes first.
      holder[wanted[::-1]] = asking[::-1]
      holder[wanted] = np.minimum(holder[wanted], before)
      won = holder[wanted] == asking
      sent_away = np.concatenate([asking[~won], before[won]])
      sent_away = np.sort(sent_away[sent_away < none])
      asking = sent_away[~last[sent_away]] + 1
    held = holder[holder < none]
    found[k, detection[held]] = instance[held]
  return found
