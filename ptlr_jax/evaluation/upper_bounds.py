"""What could be reached: recall with more proposals, and oracles."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptlr_jax.evaluation import average_precision, matching, protocols
from ptlr_jax.evaluation.average_precision import Scored
from ptlr_jax.evaluation.instances import Detections, Truth

NUMBERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def recall_curve(scored: Scored) -> dict[str, list[dict[str, Any]]]:
  """Recall of the N best proposals of each video, by score over all classes.

  Two curves: `any_label` asks for a segment that overlaps the instance,
  `own_label` for one of its class. An instance is found if any of the N
  overlaps it by the threshold. Rows {"proposals", "mean_proposals": what the
  videos have of N on average, "average": over the thresholds, tIoU: recall}.
  """
  truth, found = scored.truth, scored.found
  tious = scored.protocol.tious
  order = np.lexsort((-found.score, found.video))
  place = np.empty(len(order), np.int64)
  first = np.searchsorted(found.video[order], found.video[order])
  place[order] = np.arange(len(order)) - first
  have = np.bincount(found.video, minlength=len(found.videos))
  have = have[: len(truth.videos)]
  numbers = [n for n in NUMBERS if n < have.max(initial=0)]
  numbers.append(int(have.max(initial=1)))
  curves = {}
  for name, same_label in (("any_label", False), ("own_label", True)):
    pairs = matching.overlapping(found, truth, min(tious), same_label)
    best = np.full((len(tious), len(truth.label)), np.iinfo(np.int64).max)
    for k, tiou in enumerate(tious):
      kept = pairs.overlap >= tiou
      np.minimum.at(best[k], pairs.instance[kept], place[pairs.detection[kept]])
    curves[name] = [
      _recall_row(number, best, have, tious) for number in numbers
    ]
  return curves


def _recall_row(
  number: int, best: np.ndarray, have: np.ndarray, tious: Sequence[float]
) -> dict[str, Any]:
  recall = (best < number).mean(1)
  keys = map(protocols.tiou_key, tious)
  return {
    "proposals": number,
    "mean_proposals": float(np.minimum(have, number).mean()),
    "average": float(recall.mean()),
    **dict(zip(keys, recall.tolist(), strict=True)),
  }


def on_grid(truth: Truth, step: float) -> Detections:
  """For every instance the segment of a grid that overlaps it most.

  A grid of `step`, in the unit of the ground truth, from 0; a segment has one
  cell at least. The score is the overlap.
  """
  low, high = np.floor(truth.start / step), np.ceil(truth.end / step)
  best = np.full(len(truth.start), -1.0)
  starts, ends = low * step, np.maximum(high, low + 1) * step
  for start in (low, low + 1):
    for end in (high, high - 1):
      a, b = start * step, np.maximum(end, start + 1) * step
      overlap = matching.temporal_iou(a, b, truth.start, truth.end)
      better = overlap > best
      best = np.where(better, overlap, best)
      starts, ends = np.where(better, a, starts), np.where(better, b, ends)
  return Detections(
    videos=truth.videos,
    video=truth.video,
    label=truth.label,
    start=starts,
    end=ends,
    score=best,
    ignored={},
    unknown={},
  )


def caps(scored: Scored, step: float) -> dict[str, dict[str, float]]:
  """mAP that oracles reach, {oracle: {tIoU or average: mAP}}.

  - grid: every instance, as the segment of a grid of `step` seconds that
    overlaps it most;
  - scores: these detections, hits before misses;
  - labels: these detections, each with the class of the instance that it
    overlaps most, of its own class where that is one of several;
  - segments: these detections, each that overlaps an instance of its class by
    0.1 moved onto the one that it overlaps most.
  """
  protocol = scored.protocol
  if protocol.snapped:
    step = step * protocols.SEGMENTS_PER_SECOND
  truth, found = scored.truth, scored.found
  given = {
    "grid": (on_grid(truth, step), None),
    "labels": (_relabelled(found, truth), scored.ambiguous),
    "segments": (_moved(found, truth), scored.ambiguous),
  }
  mean = {
    name: average_precision.score(truth, detections, protocol, ambiguous).mean
    for name, (detections, ambiguous) in given.items()
  }
  mean["scores"] = _recall_of_matches(scored)
  return {
    name: {
      key: float(value)
      for key, value in protocols.figures(protocol, mean[name]).items()
    }
    for name in ("grid", "scores", "labels", "segments")
  }


def _recall_of_matches(scored: Scored) -> np.ndarray:
  """AP with hits before misses is the recall; its mean over classes, f64[K]."""
  sizes = scored.truth.sizes()
  recall = [
    np.bincount(scored.found.label[row >= 0], minlength=len(sizes)) / sizes
    for row in scored.matched
  ]
  return np.array(recall).mean(1)


def _best(pairs: matching.Pairs) -> tuple[np.ndarray, np.ndarray]:
  """Detections that overlap something, and what they overlap most."""
  first = np.append(True, pairs.detection[1:] != pairs.detection[:-1])
  first = first[: len(pairs.detection)]
  return pairs.detection[first], pairs.instance[first]


def _relabelled(found: Detections, truth: Truth) -> Detections:
  pairs = matching.overlapping(found, truth, np.finfo(float).tiny, False)
  own = truth.label[pairs.instance] == found.label[pairs.detection]
  order = np.lexsort((~own, -pairs.overlap, pairs.detection))
  rows, instances = _best(matching.Pairs(*(x[order] for x in pairs)))
  label = found.label.copy()
  label[rows] = truth.label[instances]
  return dataclasses.replace(found, label=label)


def _moved(found: Detections, truth: Truth) -> Detections:
  rows, instances = _best(matching.overlapping(found, truth, 0.1))
  start, end = found.start.copy(), found.end.copy()
  start[rows], end[rows] = truth.start[instances], truth.end[instances]
  return dataclasses.replace(found, start=start, end=end)
