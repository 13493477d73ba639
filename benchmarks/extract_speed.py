"""Frames a second of decoding, flow and I3D; memory on long videos.

python benchmarks/extract_speed.py --video=FILE [--frames=200] \\
  [--flow_frames=12]
python benchmarks/extract_speed.py --memory=/tmp/long [--minutes=2,20,120]

The first takes the parts of `ptlr_jax.extract` one after the other, in one
process: decoding and resizing of the first frames; TV-L1 flow of some of them,
with one thread; both towers, with random weights, on batches of 1 and 4
segments of 16 frames (compilation apart). Each is the best of three, of flow
one trial.
The second writes videos of so many minutes (64 x 48 pixels, 25 frames a
second), extracts their segments in a process each, RGB and flow, and says the
highest resident memory after the first ten segments and at the end.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.features import optical_flow
from ptlr_jax.features.segments import Segments, Settings
from ptlr_jax.features.video import Video

ROOT = Path(__file__).resolve().parents[1]
CHANNELS = {"rgb": 3, "flow": 2}


def best(of: Callable[[], Any], count: int = 3) -> tuple[float, float]:
  """Seconds and CPU seconds, the least of some trials."""
  found = []
  for _ in range(count):
    begun, used = time.perf_counter(), time.process_time()
    of()
    seconds = time.perf_counter() - begun
    found.append((seconds, time.process_time() - used))
  return min(s for s, _ in found), min(c for _, c in found)


def rate(part: str, frames: int, seconds: tuple[float, float]) -> None:
  """A row of frames a second, and a CPU second."""
  show(part, *(f"{frames / s:.3g}" for s in seconds))


def show(*cells: object) -> None:
  """A row of the table."""
  print("|", " | ".join(map(str, cells)), "|", flush=True)


def decoding(path: str, count: int) -> list[np.ndarray]:
  """A row for decoding; returns the frames."""

  def some() -> list[np.ndarray]:
    return list(itertools.islice(Video(path), count))

  frames = some()
  high, wide = frames[0].shape[:2]
  rate(f"decode, resize to {wide} x {high}", len(frames), best(some))
  return frames


def flow(frames: list[np.ndarray], count: int) -> None:
  """A row for each kind of flow."""
  optical_flow.use_threads(1)
  middle = len(frames) // 2
  pairs = list(itertools.pairwise(frames[middle : middle + count + 1]))
  high, wide = frames[0].shape[:2]
  for kind in optical_flow.KINDS:
    solver = optical_flow.TvL1(kind)

    def all_pairs(solver=solver) -> None:
      for one, other in pairs:
        solver.between(one, other)

    seconds = best(all_pairs, 1)
    rate(f"flow {kind}, {wide} x {high}", len(pairs), seconds)


def towers() -> None:
  """A row for each tower and batch."""
  from flax.traverse_util import unflatten_dict

  from ptlr_jax.features import i3d

  rng = np.random.default_rng(0)
  for stream, channels in CHANNELS.items():
    variables = unflatten_dict(
      {
        name: np.abs(rng.normal(size=shape, scale=0.05)).astype(np.float32)
        for name, shape in i3d.shapes(stream).items()
      },
      sep="/",
    )
    for batch in (1, 4):
      clips = rng.uniform(-1, 1, (batch, 16, 224, 224, channels))
      clips = clips.astype(np.float32)

      def once(variables=variables, clips=clips) -> None:
        np.asarray(i3d.features(variables, clips))

      once()
      rate(f"I3D {stream}, batch {batch}", 16 * batch, best(once))


def write_long(path: Path, minutes: float) -> None:
  """A video of so many minutes of a moving square."""
  import av

  if path.exists():
    return
  container: Any
  unfinished = path.with_name(f"unfinished-{path.name}")
  with av.open(str(unfinished), "w") as container:
    stream: Any = container.add_stream("mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    picture = np.full((48, 64, 3), 100, np.uint8)
    for n in range(round(minutes * 60 * 25)):
      x = picture.copy()
      x[16:28, n % 48 : n % 48 + 12] = 220
      frame = av.VideoFrame.from_ndarray(x, "rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  unfinished.rename(path)


def resident() -> float:
  """The highest resident memory of this process in MB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def extract_long(path: Path, stream: str) -> None:
  """A row for a video, in a process of its own."""
  # Small pictures, so that hours take minutes; memory is what is asked.
  settings = Settings(side=24, size=16, flow="tvl1_fast")
  begun, early, count = time.perf_counter(), 0.0, 0
  for count, _ in enumerate(Segments(path, (stream,), settings), 1):
    if count == 10:
      early = resident()
  seconds = time.perf_counter() - begun
  show(
    *(path.stem, stream, 16 * count, f"{early:.1f}", f"{resident():.1f}"),
    f"{seconds:.0f}",
  )


def memory(folder: Path, minutes: list[float]) -> None:
  """The table of memory."""
  folder.mkdir(parents=True, exist_ok=True)
  show("video", "stream", "frames", "MB early", "MB at the end", "s")
  show(*["---"] * 6)
  for length in minutes:
    path = folder / f"{length:g}min.mp4"
    write_long(path, length)
    for stream in CHANNELS:
      again = (sys.executable, __file__, f"--one={path}", f"--stream={stream}")
      subprocess.run(again, check=True, cwd=ROOT)


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--video")
  parser.add_argument("--frames", type=int, default=200)
  parser.add_argument("--flow_frames", type=int, default=12)
  parser.add_argument("--memory", type=Path)
  parser.add_argument("--minutes", default="2,20,120")
  parser.add_argument("--one", type=Path)
  parser.add_argument("--stream", default="rgb")
  args = parser.parse_args()
  if args.one:
    extract_long(args.one, args.stream)
    return
  if args.memory:
    memory(args.memory, [float(x) for x in args.minutes.split(",")])
  if args.video:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    show("part", "frames a second", "a CPU second")
    show(*["---"] * 3)
    frames = decoding(args.video, args.frames)
    flow(frames, args.flow_frames)
    towers()


if __name__ == "__main__":
  main()
