"""How often the bootstrap's 95 % interval holds what it is about.

python benchmarks/coverage.py [--videos=200] [--classes=6] [--repeats=200] \
  [--samples=500]

Simulates 20,000 videos with detections whose quality differs from video to
video, and draws --videos of them --repeats times. The truth is the mean mAP of
all draws, since the mAP itself hangs on how many videos there are. Counted is
how often the interval of a draw holds it; beside it the plain percentile
interval, which is not used. The same for the difference between these
detections and better ones of the same videos.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ptlr_jax.evaluation import average_precision, bootstrap  # noqa: E402
from ptlr_jax.evaluation.average_precision import Scored  # noqa: E402
from ptlr_jax.evaluation.instances import detections_of, truth_of  # noqa: E402
from ptlr_jax.evaluation.protocols import PROTOCOLS  # noqa: E402

_VIDEOS = flags.DEFINE_integer("videos", 200, "videos of a draw", 2)
_CLASSES = flags.DEFINE_integer("classes", 6, "classes", 1)
_REPEATS = flags.DEFINE_integer("repeats", 200, "draws", 1)
_SAMPLES = flags.DEFINE_integer("samples", 500, "resamples of a draw", 100)

ALL = 20_000
PROTOCOL = PROTOCOLS["thumos14"]


def population(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """A database, and two sets of results."""
  rng = np.random.default_rng(seed)
  database: dict[str, Any] = {}
  results: list[dict[str, Any]] = [{}, {}]
  for v in range(ALL):
    label, quality = int(rng.integers(_CLASSES.value)), rng.beta(2, 2)
    number = 1 + rng.poisson(6)
    start = rng.uniform(0, 200, number)
    spans = np.stack([start, start + rng.uniform(1, 8, number)], 1)
    database[f"video{v}"] = {
      "annotations": [
        {"label": f"class{label}", "segment": span} for span in spans.tolist()
      ]
    }
    for found, better in zip(results, (0.0, 0.1), strict=True):
      found[f"video{v}"] = _detections(rng, label, quality + better, spans)
  return database, results


def _detections(
  rng: np.random.Generator, label: int, quality: float, spans: np.ndarray
) -> list[dict[str, Any]]:
  rows = []
  for low, high in spans:
    if rng.random() < 0.3 + 0.6 * quality:
      off = 0.35 * (high - low) * (1.2 - quality)
      ends = np.sort(np.array([low, high]) + rng.normal(0, max(off, 0), 2))
      rows.append((label, *ends, rng.normal(1 + quality)))
  for _ in range(rng.poisson(12 * max(1.2 - quality, 0))):
    start = rng.uniform(0, 200)
    other = label if rng.random() < 0.6 else int(rng.integers(_CLASSES.value))
    rows.append((other, start, start + rng.uniform(1, 8), rng.normal(0.6)))
  return [
    {"label": f"class{c}", "segment": [float(a), float(b)], "score": float(s)}
    for c, a, b, s in rows
  ]


def _scored(database: Any, results: Any, videos: list[str]) -> Scored:
  truth = truth_of({v: database[v] for v in videos}, PROTOCOL, "", [])
  found = {v: results[v] for v in videos}
  return average_precision.score(
    truth, detections_of(found, truth, PROTOCOL, "", []), PROTOCOL
  )


def _with_average(mean: np.ndarray) -> np.ndarray:
  """f64[...,9] and the average 0.1:0.7."""
  return np.concatenate([mean, mean[..., :7].mean(-1, keepdims=True)], -1)


def _draw(
  database: Any, results: list[Any], videos: list[str], seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Figures f64[2,10] of a draw, of its resamples f64[2,B,10].

  The mAP of the first, and by how much the second is better.
  """
  both = [_scored(database, found, videos) for found in results]
  weights = bootstrap.draws(len(videos), _SAMPLES.value, seed)
  point = [_with_average(each.mean) for each in both]
  maps = [_with_average(bootstrap.resampled_map(x, weights)) for x in both]
  return (
    np.array([point[0], point[1] - point[0]]),
    np.array([maps[0], maps[1] - maps[0]]),
  )


def main(argv: list[str]) -> None:
  """Command line entry."""
  del argv
  database, results = population(0)
  rng = np.random.default_rng(1)
  points, ours, plain = [], [], []
  for repeat in range(_REPEATS.value):
    videos = rng.choice(list(database), _VIDEOS.value, replace=False).tolist()
    point, maps = _draw(database, results, videos, repeat)
    points.append(point)
    ours.append(
      [
        [bootstrap.interval(maps[n, :, k], point[n, k]) for k in range(10)]
        for n in (0, 1)
      ]
    )
    plain.append(
      np.nanquantile(maps, [0.025, 0.975], axis=1).transpose(1, 2, 0)
    )
  truth = np.mean(points, axis=0)
  keys = [*(f"@{tiou:g}" for tiou in PROTOCOL.tious), "0.1:0.7"]
  print(f"{'':36}" + "".join(f"{key:>8}" for key in keys))
  for n, name in enumerate(("mAP", "difference")):
    rows = {f"{name} of a draw, mean (%)": 100 * truth[n]}
    for what, ends in (("the interval", ours), ("plain percentiles", plain)):
      low, high = np.moveaxis(np.array(ends)[:, n], -1, 0)
      held = (low <= truth[n]) & (truth[n] <= high)
      rows[f"  held by {what} (%)"] = 100 * held.mean(0)
    for row, values in rows.items():
      print(f"{row:36}" + "".join(f"{value:8.1f}" for value in values))


if __name__ == "__main__":
  app.run(main)
