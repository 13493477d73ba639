"""How fast proposals and NMS are, against a plain reading in NumPy.

python benchmarks/proposals.py [--videos=212]

CASs of THUMOS14's size: 212 videos x 750 segments x 20 classes, every class
kept, 21 thresholds from 0 to 0.5, upsampled 24 times, NMS at 0.7.  A CAS is a
walk of normal steps smoothed over 5 segments plus noise of a tenth of its
deviation, min-max normalised over time; the seed is the video's number.

Both ways run in turn on each video, in one process and on one thread, and the
ratios are those of the videos both have run (all of them plainly: a minute on
an idle core).  CPU seconds count this process alone; wall seconds count what
else the core does too, and suffer from it.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ptlr_jax.localization import proposals  # noqa: E402
from tests import plain_proposals  # noqa: E402

_VIDEOS = flags.DEFINE_integer("videos", 212, "videos", 1)

SEGMENTS, CLASSES, NMS = 750, 20, 0.7
OPTIONS = {
  "thresholds": np.arange(21) * 0.025,
  "upsample_factor": 24,
  "seconds_per_segment": 0.64,
}
STEPS = ("proposals", "NMS", "both")


def video(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """A CAS f64[T,C] in [0, 1] and class scores f64[C]."""
  rng = np.random.default_rng(seed)
  walk = rng.normal(size=(SEGMENTS, CLASSES)).cumsum(0)
  padded = np.pad(walk, ((2, 2), (0, 0)), "edge")
  smooth = np.mean([padded[n : n + SEGMENTS] for n in range(5)], axis=0)
  cas = smooth + 0.1 * smooth.std(0) * rng.normal(size=smooth.shape)
  low, high = cas.min(0), cas.max(0)
  return (cas - low) / (high - low), rng.random(CLASSES)


def timed(call: Callable[..., Any], *args: Any, **options: Any):
  """What it gives, and its seconds f64[2]: CPU, wall."""
  cpu, wall = time.process_time(), time.perf_counter()
  given = call(*args, **options)
  spent = time.process_time() - cpu, time.perf_counter() - wall
  return given, np.array(spent)


def plain(case: tuple[np.ndarray, np.ndarray]):
  """Rows before NMS, rows after, seconds f64[2,2]: by step, by clock."""
  found, first = timed(
    plain_proposals.propose, *case, range(CLASSES), **OPTIONS
  )
  merged, second = timed(plain_proposals.merge, found, NMS)
  return np.array(found), np.array(merged), np.array([first, second])


def ours(case: tuple[np.ndarray, np.ndarray]):
  """As `plain`."""
  found, first = timed(proposals.propose, *case, np.arange(CLASSES), **OPTIONS)
  merged, second = timed(proposals.merge, [found], NMS)
  rows = np.stack(found, 1), np.stack(merged, 1)
  return *rows, np.array([first, second])


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """The largest in start, end and score, f64[3], of rows in any order."""
  if a.shape != b.shape:
    sys.exit(f"{len(a)} rows plainly, ours {len(b)}")
  a, b = (rows[np.lexsort(rows.T[2::-1])] for rows in (a, b))
  if (a[:, 0] != b[:, 0]).any():
    sys.exit("classes differ")
  return np.abs(a - b)[:, 1:].max(0)


def report(videos: int, seconds: np.ndarray) -> str:
  """Seconds f64[2,2,2] by way, step and clock, as a table."""
  lines = [f"{videos} videos" + "".join(f"{step:>12}" for step in STEPS)]
  total = np.concatenate([seconds, seconds.sum(1, keepdims=True)], axis=1)
  for n, clock in enumerate(("CPU", "wall")):
    for name, row in zip(("plain", "ours"), total[:, :, n], strict=True):
      cells = "".join(f"{x:12.3f}" for x in row)
      lines.append(f"{clock + ' ' + name + ', s':<12}{cells}")
    ratio = "".join(f"{x:12.1f}" for x in total[0, :, n] / total[1, :, n])
    lines.append(f"{clock + ' ratio':<12}{ratio}")
  return "\n".join(lines)


def main(argv: list[str]) -> None:
  """Command line entry."""
  del argv
  ours(video(0))  # what a first call costs is not its speed
  seconds, worst = np.zeros((2, 2, 2)), np.zeros(3)
  found = kept = 0
  for seed in range(_VIDEOS.value):
    case = video(seed)
    *expected, spent = plain(case)
    seconds[0] += spent
    *got, spent = ours(case)
    seconds[1] += spent
    for a, b in zip(expected, got, strict=True):
      worst = np.maximum(worst, differences(a, b))
    found, kept = found + len(got[0]), kept + len(got[1])
  print(report(_VIDEOS.value, seconds))
  print(f"{found} proposals, {kept} after NMS")
  print(
    "largest difference in start {:.1e}, end {:.1e}, score {:.1e}".format(
      *worst
    )
  )


if __name__ == "__main__":
  app.run(main)
