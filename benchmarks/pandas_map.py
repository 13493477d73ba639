"""The official ActivityNet evaluation written plainly with pandas.

What everybody's evaluator does, step by step: a row at a time, the video's
instances looked up in a group, every threshold in a loop.  It is the yardstick
of `benchmarks/evaluator.py`; pandas is needed by nothing else here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

try:
  import pandas as pd  # pyright: ignore[reportMissingImports]
except ImportError as error:
  raise SystemExit(
    "benchmarks: expected pandas, it is not installed; "
    "pip install -e '.[benchmarks]'"
  ) from error


def _frames(
  ground_truth: Mapping[str, Any], detections: Mapping[str, Any]
) -> tuple[list[str], Any, Any]:
  """Classes, and one row an instance and a detection."""
  index: dict[str, int] = {}
  truth: dict[str, list[Any]] = {
    "video-id": [], "t-start": [], "t-end": [], "label": []
  }  # fmt: skip
  for video, entry in ground_truth.items():
    for item in entry["annotations"]:
      if item["label"] not in index:
        index[item["label"]] = len(index)
      truth["video-id"].append(video)
      truth["t-start"].append(float(item["segment"][0]))
      truth["t-end"].append(float(item["segment"][1]))
      truth["label"].append(index[item["label"]])
  found: dict[str, list[Any]] = {
    "video-id": [], "t-start": [], "t-end": [], "label": [], "score": []
  }  # fmt: skip
  for video, items in detections.items():
    for item in items:
      if item["label"] not in index:
        continue
      found["video-id"].append(video)
      found["t-start"].append(float(item["segment"][0]))
      found["t-end"].append(float(item["segment"][1]))
      found["label"].append(index[item["label"]])
      found["score"].append(item["score"])
  return list(index), pd.DataFrame(truth), pd.DataFrame(found)


def _overlaps(segment: Any, segments: Any) -> np.ndarray:
  """tIoU of one segment with several, f64[G]."""
  low = np.maximum(segment[0], segments[:, 0])
  high = np.minimum(segment[1], segments[:, 1])
  shared = (high - low).clip(0)
  union = (segments[:, 1] - segments[:, 0]) + (segment[1] - segment[0]) - shared
  with np.errstate(invalid="ignore"):
    return shared.astype(float) / union


def _interpolated(precision: np.ndarray, recall: np.ndarray) -> float:
  precision = np.hstack([[0], precision, [0]])
  recall = np.hstack([[0], recall, [1]])
  for n in range(len(precision) - 1)[::-1]:
    precision[n] = max(precision[n], precision[n + 1])
  moves = np.where(recall[1:] != recall[:-1])[0] + 1
  return float(np.sum((recall[moves] - recall[moves - 1]) * precision[moves]))


def _average_precision(
  truth: Any, found: Any, tious: Sequence[float]
) -> np.ndarray:
  """AP of one class at every threshold, f64[K]."""
  ap = np.zeros(len(tious))
  if found.empty:
    return ap
  locked = np.full((len(tious), len(truth)), -1)
  order = found["score"].values.argsort()[::-1]
  found = found.loc[order].reset_index(drop=True)
  hit = np.zeros((len(tious), len(found)))
  miss = np.zeros((len(tious), len(found)))
  by_video = truth.groupby("video-id")
  for n, row in found.iterrows():
    try:
      group = by_video.get_group(row["video-id"])
    except KeyError:
      miss[:, n] = 1
      continue
    here = group.reset_index()
    overlaps = _overlaps(
      row[["t-start", "t-end"]].values, here[["t-start", "t-end"]].values
    )
    best = overlaps.argsort()[::-1]
    for k, tiou in enumerate(tious):
      for g in best:
        if overlaps[g] < tiou:
          miss[k, n] = 1
          break
        if locked[k, here.loc[g]["index"]] >= 0:
          continue
        hit[k, n] = 1
        locked[k, here.loc[g]["index"]] = n
        break
      if hit[k, n] == 0 and miss[k, n] == 0:
        miss[k, n] = 1
  hits = np.cumsum(hit, axis=1).astype(float)
  misses = np.cumsum(miss, axis=1).astype(float)
  for k in range(len(tious)):
    ap[k] = _interpolated(hits[k] / (hits[k] + misses[k]), hits[k] / len(truth))
  return ap


def detection_map(
  ground_truth: Mapping[str, Any],
  detections: Mapping[str, Any],
  tious: Sequence[float],
) -> tuple[list[str], np.ndarray]:
  """Classes and their AP at every threshold, f64[K,C]."""
  classes, truth, found = _frames(ground_truth, detections)
  by_label = truth.groupby("label")
  found_by_label = found.groupby("label")
  ap = np.zeros((len(tious), len(classes)))
  for c in range(len(classes)):
    try:
      of_class = found_by_label.get_group(c).reset_index(drop=True)
    except KeyError:
      of_class = pd.DataFrame()
    instances = by_label.get_group(c).reset_index(drop=True)
    ap[:, c] = _average_precision(instances, of_class, tious)
  return classes, ap
