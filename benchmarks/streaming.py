"""Memory and speed of streaming features that do not fit into memory.

python benchmarks/streaming.py --folder=/tmp/streaming [--videos=10000] \\
  [--segments=100] [--width=1024] [--updates=400]

Writes the videos, random numbers, as ArrayRecord shards with `prepare`'s
builder (about 8 GB at the defaults), then in a process of its own each: draws
the ILG's batches of configs/activitynet.py (a) one at a time as training asks
for them, (b) read ahead by grain. Each prints the highest resident memory of
its process, less what it was after the imports, and the batches a second; one
update takes `--busy` seconds of computing on one core, as training would.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.data.layouts.source import read_options
from ptlr_jax.data.tfds import builders, prepared


class Random(Mapping[str, np.ndarray]):
  """Features of a video, drawn when they are asked for."""

  def __init__(self, seed: int, segments: int, width: int):
    self._seed, self._shape = seed, (segments, width)
    self.num_segments = segments

  def __getitem__(self, stream: str) -> np.ndarray:
    rng = np.random.default_rng([self._seed, len(stream)])
    return rng.random(self._shape, np.float32)

  def __iter__(self) -> Iterator[str]:
    return iter(("rgb", "flow"))

  def __len__(self) -> int:
    return 2


def _dataset(options) -> Dataset:
  videos = tuple(
    Video(
      f"video_{n:06d}",
      Random(n, options.segments, options.width),
      (n % 200,),
      (Instance(1.0, 2.0, n % 200),),
    )
    for n in range(options.videos)
  )
  classes = tuple(f"class_{c:03d}" for c in range(200))
  return Dataset(classes, videos, videos[:1], simulated=True)


def _resident() -> float:
  """The highest so far, MB. getrusage's outlives an exec; this does not."""
  status = Path("/proc/self/status").read_text()
  return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def _stream(options) -> None:
  """One way of drawing batches; prints its figures as JSON."""
  from ptlr_jax.data import batches, streaming

  sys.path.insert(0, str(Path(__file__).parents[1]))
  from configs import activitynet

  how = read_options(root=options.folder, layout="prepared", memory_gb=0.0)
  data = prepared.load_prepared(how)
  ilg = activitynet.get_config().ilg
  batch_at = batches.ilg_batches(data.train, 200, ilg, seed=0, name="ilg")
  before = _resident()
  if options.way == "grain":
    batch_at = streaming.read_ahead(batch_at, 0, options.updates, 2)
  weight = np.random.default_rng(0).random((256, 256), np.float32)
  started, total = time.perf_counter(), 0.0
  for i in range(options.updates):
    batch = batch_at(i)
    total += float(batch["features"]["rgb"][0, 0, 0])
    end = time.perf_counter() + options.busy
    while time.perf_counter() < end:
      total += 0 * float((weight @ weight)[0, 0])
  seconds = time.perf_counter() - started
  said = {
    "way": options.way,
    "peak_mb": round(_resident()),
    "imports_mb": round(before),
    "updates_a_second": round(options.updates / seconds, 2),
    "check": total,
  }
  print(json.dumps(said))


def main() -> None:
  """Command line entry."""
  parser = argparse.ArgumentParser(description="Streaming, measured")
  parser.add_argument("--folder", required=True)
  parser.add_argument("--videos", type=int, default=10_000)
  parser.add_argument("--segments", type=int, default=100)
  parser.add_argument("--width", type=int, default=1024)
  parser.add_argument("--updates", type=int, default=400)
  parser.add_argument("--busy", type=float, default=0.2)
  parser.add_argument("--way", choices=("grain", "plain"), default="")
  options = parser.parse_args()
  if options.way:
    _stream(options)
    return
  started = time.perf_counter()
  folder = Path(options.folder)
  builders.build(_dataset(options), folder, "simulated", "streaming", jobs=2)
  size = sum(p.stat().st_size for p in folder.rglob("*.array_record-*"))
  print(
    f"{options.videos} videos, {size / 1e9:.2f} GB, written in "
    f"{time.perf_counter() - started:.0f} s; peak {_resident():.0f} MB"
  )
  for way in ("plain", "grain", "plain", "grain"):
    flags = [f"--{k}={v}" for k, v in vars(options).items() if k != "way"]
    command = [sys.executable, __file__, *flags, f"--way={way}"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
  main()
