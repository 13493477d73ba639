"""How fast proposals and NMS are, against a plain reading in NumPy.

python benchmarks/proposals.py [--videos=212] [--plain=20]

CASs of THUMOS14's size: 212 videos x 750 segments x 20 classes, every class
kept, 21 thresholds from 0 to 0.5, upsampled 24 times.  A CAS is a walk of
normal steps smoothed over 5 segments plus noise of a tenth of its deviation,
min-max normalised over time and clipped as detection has it.  Both ways run in
turn on each of the first --plain videos (all of them: --plain=212, some
minutes), ours then on all.  The ratio is that of the videos both have run.
"""

import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ptlr_jax import proposals  # noqa: E402
from tests import plain_proposals  # noqa: E402

_VIDEOS = flags.DEFINE_integer("videos", 212, "videos", 1)
_PLAIN = flags.DEFINE_integer("plain", 20, "of them read plainly", 1)

SEGMENTS, CLASSES, NMS = 750, 20, 0.7
OPTIONS = {
  "thresholds": np.arange(21) * 0.025,
  "upsample_factor": 24,
  "seconds_per_segment": 0.64,
}


def video(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """A CAS f64[T,C] in [0, 1] and class scores f64[C]."""
  rng = np.random.default_rng(seed)
  walk = rng.normal(size=(SEGMENTS, CLASSES)).cumsum(0)
  padded = np.pad(walk, ((2, 2), (0, 0)), "edge")
  smooth = np.mean([padded[n : n + SEGMENTS] for n in range(5)], axis=0)
  cas = smooth + 0.1 * smooth.std(0) * rng.normal(size=smooth.shape)
  low, high = cas.min(0), cas.max(0)
  return (cas - low) / (high - low), rng.random(CLASSES)


def _ours(cas: np.ndarray, scores: np.ndarray) -> tuple[float, float, list]:
  """Seconds of proposals and of NMS, and the rows."""
  begin = time.perf_counter()
  found = proposals.propose(cas, scores, np.arange(CLASSES), **OPTIONS)
  middle = time.perf_counter()
  merged = proposals.merge([found], NMS)
  end = time.perf_counter()
  rows = list(zip(*(x.tolist() for x in merged), strict=True))
  return middle - begin, end - middle, rows


def _plain(cas: np.ndarray, scores: np.ndarray) -> tuple[float, float, list]:
  begin = time.perf_counter()
  found = plain_proposals.propose(cas, scores, range(CLASSES), **OPTIONS)
  middle = time.perf_counter()
  rows = plain_proposals.merge(found, NMS)
  return middle - begin, time.perf_counter() - middle, rows


def main(argv: list[str]) -> None:
  """Command line entry."""
  del argv
  _ours(*video(0))
  seconds = np.zeros((2, 2))
  count, worst = 0, 0.0
  for seed in range(min(_PLAIN.value, _VIDEOS.value)):
    case = video(seed)
    for n, run in enumerate((_plain, _ours)):
      *spent, rows = run(*case)
      seconds[n] += spent
      if n == 0:
        expected = sorted(rows)
    if len(rows) != len(expected):
      sys.exit(f"video {seed}: {len(expected)} detections, ours {len(rows)}")
    count += len(rows)
    worst = max(worst, np.abs(np.array(sorted(rows)) - expected).max())
  videos = min(_PLAIN.value, _VIDEOS.value)
  print(f"{videos} videos, {count} detections, largest difference {worst:.1e}")
  print(f"{'seconds':12}{'proposals':>10}{'NMS':>8}{'both':>8}")
  for name, (a, b) in zip(("plain", "ours"), seconds, strict=True):
    print(f"{name:12}{a:10.2f}{b:8.2f}{a + b:8.2f}")
  ratio = seconds[0] / seconds[1]
  total = seconds.sum(1)
  print(
    f"{'ratio':12}{ratio[0]:10.1f}{ratio[1]:8.1f}{total[0] / total[1]:8.1f}"
  )
  spent = sum(sum(_ours(*video(n))[:2]) for n in range(_VIDEOS.value))
  print(f"ours on all {_VIDEOS.value} videos: {spent:.2f} s")


if __name__ == "__main__":
  app.run(main)
