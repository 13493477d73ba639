"""How often the bootstrap's 95 % interval holds the mAP of all videos.

python benchmarks/coverage.py [--videos=200] [--repeats=200] [--samples=500]

Simulates 20,000 videos of 6 classes with detections whose quality differs from
video to video, takes the mAP on all of them as the truth, then draws --videos
of them --repeats times and counts how often the interval of a draw holds it;
beside it the plain percentile interval, which is not used.  The same for the
difference between these detections and others of the same videos.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ptlr_jax.evaluation import bootstrap, precision  # noqa: E402
from ptlr_jax.evaluation.instances import detections_of, truth_of  # noqa: E402
from ptlr_jax.evaluation.precision import Scored  # noqa: E402
from ptlr_jax.evaluation.protocols import PROTOCOLS  # noqa: E402

_VIDEOS = flags.DEFINE_integer("videos", 200, "videos of a draw", 2)
_REPEATS = flags.DEFINE_integer("repeats", 200, "draws", 1)
_SAMPLES = flags.DEFINE_integer("samples", 500, "resamples of a draw", 100)

CLASSES, ALL = 6, 20_000
PROTOCOL = PROTOCOLS["thumos14"]


def population(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """A database, and two sets of results."""
  rng = np.random.default_rng(seed)
  database: dict[str, Any] = {}
  results: list[dict[str, Any]] = [{}, {}]
  for v in range(ALL):
    label, quality = int(rng.integers(CLASSES)), rng.beta(2, 2)
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
    other = label if rng.random() < 0.6 else int(rng.integers(CLASSES))
    rows.append((other, start, start + rng.uniform(1, 8), rng.normal(0.6)))
  return [
    {"label": f"class{c}", "segment": [float(a), float(b)], "score": float(s)}
    for c, a, b, s in rows
  ]


def _scored(database: Any, results: Any, videos: list[str]) -> Scored:
  truth = truth_of({v: database[v] for v in videos}, PROTOCOL, "", [])
  found = {v: results[v] for v in videos}
  return precision.score(
    truth, detections_of(found, truth, PROTOCOL, "", []), PROTOCOL
  )


def _with_average(mean: np.ndarray) -> np.ndarray:
  """f64[...,9] and the average 0.1:0.7."""
  return np.concatenate([mean, mean[..., :7].mean(-1, keepdims=True)], -1)


def main(argv: list[str]) -> None:
  """Command line entry."""
  del argv
  database, results = population(0)
  whole = [_scored(database, found, list(database)).mean for found in results]
  truth = _with_average(np.array([whole[0], whole[1] - whole[0]]))
  rng = np.random.default_rng(1)
  held = np.zeros((2, *truth.shape))
  for repeat in range(_REPEATS.value):
    videos = rng.choice(list(database), _VIDEOS.value, replace=False).tolist()
    both = [_scored(database, found, videos) for found in results]
    weights = bootstrap.draws(_VIDEOS.value, _SAMPLES.value, repeat)
    maps = [
      _with_average(bootstrap.resampled_map(each, weights)) for each in both
    ]
    point = [_with_average(each.mean) for each in both]
    for n, (values, figure) in enumerate(
      ((maps[0], point[0]), (maps[1] - maps[0], point[1] - point[0]))
    ):
      for k, true in enumerate(truth[n]):
        low, high = bootstrap.interval(values[:, k], float(figure[k]))
        held[0, n, k] += low <= true <= high
        low, high = np.quantile(values[:, k], [0.025, 0.975])
        held[1, n, k] += low <= true <= high
  keys = [*(f"@{tiou:g}" for tiou in PROTOCOL.tious), "0.1:0.7"]
  print(f"{'':34}" + "".join(f"{key:>8}" for key in keys))
  for n, name in enumerate(("mAP", "difference")):
    rows = {
      f"{name} of all videos (%)": 100 * truth[n],
      f"{name}, held by the interval (%)": 100 * held[0, n] / _REPEATS.value,
      "  by plain percentiles (%)": 100 * held[1, n] / _REPEATS.value,
    }
    for row, values in rows.items():
      print(f"{row:34}" + "".join(f"{value:8.1f}" for value in values))


if __name__ == "__main__":
  app.run(main)
