"""How far a figure hangs on the videos at hand: bootstrap over test videos.

A resample draws as many videos as there are, with replacement, and counts each
as often as it was drawn, with its instances and all its detections. What a
detection finds within its video stays the same, so that only weights change.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ptlr_jax.evaluation.average_precision import Scored
from ptlr_jax.evaluation.protocols import figures

_CHUNK = 8_000_000  # weights at once


def draws(videos: int, samples: int, seed: int) -> np.ndarray:
  """How often each video is drawn in each resample, u16[B,V]."""
  rng = np.random.default_rng(seed)
  found = np.zeros((samples, videos), np.uint16)
  for row in found:  # one at a time: a multinomial of many is no faster
    row[:] = np.bincount(rng.integers(videos, size=videos), minlength=videos)
  return found


def resampled_map(scored: Scored, weights: np.ndarray) -> np.ndarray:
  """mAP of every resample at every threshold, f64[B,K].

  `weights` u16[B,V], of all videos of `scored.found`. A class without an
  instance in a resample is not in its mean, as the official code has it; NaN
  where none has any.
  """
  total = np.zeros((len(weights), len(scored.matched)))
  classes = np.zeros((len(weights), 1))
  for label in range(len(scored.truth.labels)):
    rows = np.flatnonzero(scored.truth.label == label)
    videos = scored.truth.video[rows]
    instances = np.concatenate(
      [w[:, videos].sum(1, dtype=np.int64) for w in _parts(weights, videos)]
    )[:, None]
    ap = _class_ap(scored, label, weights, np.maximum(instances, 1))
    total += np.where(instances > 0, ap, 0.0)
    classes += instances > 0
  with np.errstate(invalid="ignore"):
    return total / classes


def _parts(weights: np.ndarray, columns: np.ndarray) -> Iterator[np.ndarray]:
  """Resamples by parts, so that as many columns fit."""
  size = max(1, _CHUNK // max(len(columns), 1))
  for a in range(0, len(weights), size):
    yield weights[a : a + size]


def _class_ap(
  scored: Scored, label: int, weights: np.ndarray, instances: np.ndarray
) -> np.ndarray:
  """AP of one class in every resample, f64[B,K]; instances i64[B,1]."""
  found = scored.found
  a, b = np.searchsorted(found.label, [label, label + 1])
  hit = scored.matched[:, a:b] >= 0
  ap = np.zeros((len(weights), len(hit)))
  if not hit.any():
    return ap
  # What comes after the last hit changes nothing.
  b = a + int(np.flatnonzero(hit.any(0))[-1]) + 1
  hit, video = hit[:, : b - a], found.video[a:b]
  done = 0
  for part in _parts(weights, video):
    drawn = part[:, video].astype(np.float64)
    before = np.cumsum(drawn, axis=1)
    rows = slice(done, done + len(part))
    for k in range(len(hit)):
      counted = scored.counted(k)
      if counted is not None:
        before = np.cumsum(drawn * counted[a:b], axis=1)
      at = np.flatnonzero(hit[k])
      ap[rows, k] = _weighted_ap(drawn[:, at], before[:, at], instances[rows])
    done += len(part)
  return ap


def _weighted_ap(
  drawn: np.ndarray, before: np.ndarray, instances: np.ndarray
) -> np.ndarray:
  """Interpolated AP of hits drawn f64[B,H] times, f64[B].

  `before` f64[B,H] counts the detections up to and with each hit. The copies of
  a hit stand together, and the precision is best at the last of them.
  """
  if not drawn.shape[1]:
    return np.zeros(len(drawn))
  precision = np.cumsum(drawn, axis=1) / np.maximum(before, 1)
  envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
  return (drawn * envelope).sum(1) / instances[:, 0]


def interval(
  values: np.ndarray, point: float, level: float = 0.95
) -> list[float]:
  """Percentile interval of resamples f64[B], moved onto the figure itself.

  Copies of a video help each other, so that the mAP of a resample is higher
  than that of the videos; on ActivityNet, with few videos a class, by more than
  it varies.  Resamples say how far a figure spreads, not where it lies: their
  mean is put where the figure is (`benchmarks/coverage.py`).  NaN is left out.
  """
  values = values[~np.isnan(values)]
  tail = (1 - level) / 2
  moved = values + (point - values.mean())
  return np.quantile(moved, [tail, 1 - tail]).tolist()


def intervals(scored: Scored, resampled: np.ndarray) -> dict[str, list[float]]:
  """95 % interval of the mAP at every threshold and of every average.

  `resampled` f64[B,K] of `resampled_map`.
  """
  point = figures(scored.protocol, scored.mean)
  return {
    key: np.clip(interval(x, float(point[key])), 0, 1).tolist()
    for key, x in figures(scored.protocol, resampled).items()
  }


def differences(scored: Scored, other: Scored) -> dict[str, dict[str, Any]]:
  """The first's mAP minus the other's, {key: {"difference"}}."""
  point = figures(scored.protocol, scored.mean - other.mean)
  return {key: {"difference": float(point[key])} for key in point}


def compare(
  scored: Scored, other: Scored, here: np.ndarray, there: np.ndarray
) -> dict[str, dict[str, Any]]:
  """The same with how far it hangs on the videos, from the same resamples.

  f64[B,K] of both over one list of videos, see `together`. {key: {"difference",
  "interval", "first_better": share of the resamples}}.
  """
  ours, theirs = (figures(scored.protocol, each) for each in (here, there))
  return {
    key: {
      **said,
      "interval": interval(ours[key] - theirs[key], said["difference"]),
      "first_better": float(np.mean(ours[key] > theirs[key])),
    }
    for key, said in differences(scored, other).items()
  }


def together(one: Scored, other: Scored) -> tuple[Scored, Scored]:
  """The same two over one list of videos, of all that either names."""
  videos = tuple(dict.fromkeys((*one.found.videos, *other.found.videos)))
  index = {video: n for n, video in enumerate(videos)}
  moved = []
  for scored in (one, other):
    at = np.array([index[video] for video in scored.found.videos], np.int64)
    found = dataclasses.replace(
      scored.found, videos=videos, video=at[scored.found.video]
    )
    moved.append(dataclasses.replace(scored, found=found))
  return moved[0], moved[1]
