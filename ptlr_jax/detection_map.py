"""mAP of temporal action detections under named protocols (NumPy only).

The average precision is that of the official ActivityNet evaluator.  What it
does, and what is kept here on purpose:

- Detections of a class are taken by decreasing score over all videos.
- A video without ground truth of that class makes every detection of it in
  that video a false positive, whether or not the ground truth knows the video.
- Ground truths written twice are two instances: both count, both can be found.
- The mAP is over the classes of the ground truth; one never detected has AP 0.

Ties are where the official code is arbitrary: it sorts with an unstable sort.
Here equal scores keep the order of the input, and of equal overlaps the ground
truth that comes last is taken: a stable upward sort, reversed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a table is scored: tIoU thresholds, and averages as (low, high)."""

  name: str
  tious: tuple[float, ...]
  averages: tuple[tuple[float, float], ...]
  description: str


PROTOCOLS = {
  "thumos14": Protocol(
    name="thumos14",
    tious=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    averages=((0.1, 0.5), (0.3, 0.7), (0.1, 0.7), (0.1, 0.9)),
    description="THUMOS14 in seconds, every instance of the ground truth given",
  ),
  "activitynet": Protocol(
    name="activitynet",
    tious=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    averages=((0.5, 0.95),),
    description="ActivityNet in seconds, the challenge's thresholds",
  ),
}


def _protocol(name: str) -> Protocol:
  """The protocol of that name."""
  if name not in PROTOCOLS:
    raise ValueError(
      f"expected a protocol among {sorted(PROTOCOLS)}, got {name!r}"
    )
  return PROTOCOLS[name]


def _tiou_key(tiou: float) -> str:
  return f"{tiou:.2f}"


def _average_key(average: tuple[float, float]) -> str:
  return f"{average[0]:g}:{average[1]:g}"


def temporal_iou(segments: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Intersection over union of every pair; 0 where the union has no length.

  f[P,2], f[G,2] -> f64[P,G]; segments are (start, end).
  """
  segments = np.asarray(segments, np.float64).reshape(-1, 2)
  others = np.asarray(others, np.float64).reshape(-1, 2)
  start, end = segments[:, 0, None], segments[:, 1, None]
  intersection = np.minimum(end, others[:, 1]) - np.maximum(start, others[:, 0])
  intersection = np.maximum(intersection, 0.0)
  # In the official order of operations: an overlap equal to a threshold up to
  # rounding falls on the same side of it.
  union = (others[:, 1] - others[:, 0]) + (end - start) - intersection
  iou = np.zeros_like(intersection)
  return np.divide(intersection, union, out=iou, where=union > 0)


def _match(iou: np.ndarray, tious: np.ndarray) -> np.ndarray:
  """Which detections of one video find a ground truth that is still free.

  f64[P,G] (rows by decreasing score), f64[K] -> bool[P,K].  Of ground truths
  with equal overlap the first is taken.
  """
  hits = np.zeros((len(iou), len(tious)), bool)
  free = np.ones((len(tious), iou.shape[1]), bool)
  rows = np.arange(len(tious))
  for p in np.flatnonzero(iou.max(axis=1) >= tious.min()):
    # Going down the overlaps to the first free one, as long as they reach the
    # threshold, is the best among the free ones that reach it.
    open_ = free & (iou[p] >= tious[:, None])
    best = np.where(open_, iou[p], -1.0).argmax(axis=1)
    hits[p] = open_[rows, best]
    free[rows[hits[p]], best[hits[p]]] = False
  return hits


def average_precision(
  scores: np.ndarray,
  video_index: np.ndarray,
  segments: np.ndarray,
  gt_video_index: np.ndarray,
  gt_segments: np.ndarray,
  tious: Sequence[float],
) -> np.ndarray:
  """Interpolated average precision of one class at every tIoU.

  f[P], i[P], f[P,2], i[G], f[G,2], f[K] -> f64[K]; NaN without ground truth.
  """
  scores = np.asarray(scores, np.float64)
  video_index = np.asarray(video_index, np.int64)
  segments = np.asarray(segments, np.float64).reshape(-1, 2)
  gt_video_index = np.asarray(gt_video_index, np.int64)
  gt_segments = np.asarray(gt_segments, np.float64).reshape(-1, 2)
  thresholds = np.asarray(tious, np.float64)
  lengths = tuple(map(len, (scores, video_index, segments)))
  gt_lengths = len(gt_video_index), len(gt_segments)
  if len(set(lengths)) != 1 or len(set(gt_lengths)) != 1:
    raise ValueError(
      "expected scores, videos and segments of one length, and videos and "
      f"segments of the ground truth of one, got {lengths} and {gt_lengths}"
    )
  if np.isnan(scores).any():
    raise ValueError("expected scores that can be ordered, got NaN")
  if not len(gt_segments):
    return np.full(len(thresholds), np.nan)
  if not len(scores):
    return np.zeros(len(thresholds))

  rank = np.argsort(-scores, kind="stable")
  video_index, segments = video_index[rank], segments[rank]
  # Stable again: within a video detections stay by score and ground truths as
  # they came; these are then turned round, as `_match` takes the first.
  by_video = np.argsort(video_index, kind="stable")
  gt_by_video = np.argsort(gt_video_index, kind="stable")
  videos, gt_first = np.unique(gt_video_index[gt_by_video], return_index=True)
  first = np.searchsorted(video_index[by_video], videos, side="left")
  last = np.searchsorted(video_index[by_video], videos, side="right")
  hits = np.zeros((len(scores), len(thresholds)), bool)
  for a, b, truths in zip(
    first, last, np.split(gt_by_video, gt_first[1:]), strict=True
  ):
    if a < b:
      of_video = by_video[a:b]
      iou = temporal_iou(segments[of_video], gt_segments[truths[::-1]])
      hits[of_video] = _match(iou, thresholds)

  found = np.cumsum(hits, axis=0)
  precision = found / np.arange(1, len(scores) + 1)[:, None]
  # The best precision at this recall or any higher one.
  envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
  # Recall moves by 1 / G at each hit and nowhere else; past the last hit the
  # precision is 0.
  return np.where(hits, envelope, 0.0).sum(axis=0) / len(gt_segments)


def _instances(
  video: str, items: Any, scored: bool
) -> list[tuple[str, float, list[float]]]:
  """(label, score, [start, end]) of one video; score 0 unless scored."""
  found = []
  try:
    for item in items:
      start, end = map(float, item["segment"])
      score = float(item["score"]) if scored else 0.0
      if not all(map(math.isfinite, (start, end, score))):
        raise ValueError(f"not finite: {item}")
      found.append((item["label"], score, [start, end]))
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{video}: expected a list of dicts with label, segment"
      f"{' and score' if scored else ''}, got {error!r}; pass the inner dict "
      f"of the file, its {'results' if scored else 'database'!r}"
    ) from error
  return found


def detection_map(
  ground_truth: Mapping[str, Any], detections: Mapping[str, Any], protocol: str
) -> dict[str, Any]:
  """mAP at every tIoU, its averages and the AP of every class, in 0..1.

  {VIDEO: {"annotations": [{"segment", "label"}]}} (a `database` of the test
  videos alone), {VIDEO: [{"label", "score", "segment"}]} (`results`), seconds
  -> {"protocol", "mAP", "averages", "per_class", "ignored", "unknown_videos"}.

  `ignored` counts the detections by class that the ground truth does not have;
  they are in no figure.  `unknown_videos` counts, by video, the detections of
  known classes in videos that the ground truth does not have; these are false
  positives, as in the official evaluator.
  """
  chosen = _protocol(protocol)
  index = {video: i for i, video in enumerate(ground_truth)}
  truths: dict[str, list[tuple[int, list[float]]]] = {}
  for video, entry in ground_truth.items():
    items = entry.get("annotations") if isinstance(entry, Mapping) else None
    for label, _, segment in _instances(video, items, scored=False):
      truths.setdefault(label, []).append((index[video], segment))
  if not truths:
    raise ValueError(
      "expected a ground truth with at least one annotation, got "
      f"{len(ground_truth)} videos with none"
    )

  found = {label: [] for label in truths}
  ignored: dict[str, int] = {}
  unknown_videos: dict[str, int] = {}
  for video, items in detections.items():
    for label, score, segment in _instances(video, items, scored=True):
      if label not in truths:
        ignored[label] = ignored.get(label, 0) + 1
        continue
      if video not in index:
        unknown_videos[video] = unknown_videos.get(video, 0) + 1
      found[label].append((index.get(video, -1), score, segment))

  per_class = {
    label: average_precision(
      np.array([score for _, score, _ in found[label]]),
      np.array([video for video, _, _ in found[label]]),
      np.array([segment for _, _, segment in found[label]]),
      np.array([video for video, _ in instances]),
      np.array([segment for _, segment in instances]),
      chosen.tious,
    )
    for label, instances in truths.items()
  }
  mean = np.mean(list(per_class.values()), axis=0)
  tious = np.array(chosen.tious)
  averages = {}
  for low, high in chosen.averages:
    inside = (tious > low - 1e-9) & (tious < high + 1e-9)
    averages[_average_key((low, high))] = float(mean[inside].mean())
  keys = [_tiou_key(tiou) for tiou in chosen.tious]
  return {
    "protocol": chosen.name,
    "mAP": dict(zip(keys, mean.tolist(), strict=True)),
    "averages": averages,
    "per_class": {
      label: dict(zip(keys, ap.tolist(), strict=True))
      for label, ap in per_class.items()
    },
    "ignored": ignored,
    "unknown_videos": unknown_videos,
  }


def format_table(
  rows: Sequence[tuple[str, Mapping[str, Any]]], protocol: str
) -> str:
  """A plain table in percent: a row a result, mAP at each tIoU, the averages.

  [(name, what `detection_map` returned)] -> text without a final newline.
  """
  chosen = _protocol(protocol)
  averages = [_average_key(average) for average in chosen.averages]
  lines = [["tIoU", *(f"{tiou:g}" for tiou in chosen.tious), *averages]]
  for name, result in rows:
    if result["protocol"] != chosen.name:
      raise ValueError(
        f"{name}: expected a result under {chosen.name!r}, got one under "
        f"{result['protocol']!r}"
      )
    values = [result["mAP"][_tiou_key(tiou)] for tiou in chosen.tious]
    values += [result["averages"][average] for average in averages]
    lines.append([name, *(f"{100 * value:.1f}" for value in values)])
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    line[0].ljust(widths[0])
    + "".join(
      f"  {cell:>{width}}"
      for cell, width in zip(line[1:], widths[1:], strict=True)
    )
    for line in lines
  )
