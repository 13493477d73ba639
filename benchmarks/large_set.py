"""A large set on several processes: what each reads, and how much it holds.

python benchmarks/large_set.py --folder=/tmp/large [--videos=250,500,1000] \\
  [--processes=2] [--parts=8]

Prepares so many simulated videos of [100, 2 x 1024] (and a tenth as many to
test) as ArrayRecord shards of 16 MB that end where the parts do, and runs a
whole run of one stage on them, narrow networks, in so many processes of this
host that stream what they need. For each process: the highest resident memory,
the files of training and test shards that it opened of all, and the seconds.
Memory is flat where it does not grow with the number of videos.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from ptlr_jax.data import simulated
from ptlr_jax.data.tfds import builders, prepared

ROOT = Path(__file__).resolve().parents[1]
PORT = 29400  # of this host, where process 0 is reached
SEGMENTS, WIDTH, CLASSES = 100, 1024, 20
FLAGS = (
  *("--config=configs/simulated.py", "--config.data.layout=prepared"),
  *(f"--config.data.width={WIDTH}", "--config.data.memory_gb=0.0"),
  *("--config.ilg.batch_size=64", f"--config.ilg.segments={SEGMENTS}"),
  *("--config.ilg.model.cas_width=32", "--config.ilg.model.filter_width=32"),
  *("--config.ots.model.width=32", "--config.rts.model.width=32"),
  *("--config.ots.batch_size=64", "--config.rts.batch_size=64"),
  *("--config.ilg.steps=60", "--config.ots.steps=60", "--config.rts.steps=60"),
  *("--config.ptlr.stages=1", "--config.ilg.scale.lengths=1"),
)


def prepare(folder: Path, videos: int, parts: int) -> Path:
  """The prepared set of so many training videos; made unless it is there."""
  config = f"large-{videos}-parts{parts}"
  target = builders.directory(folder, "simulated", config)
  if not (target / prepared.INFO).exists():
    data = simulated.simulate(
      width=WIDTH,
      seed=0,
      num_classes=CLASSES,
      train_videos=videos,
      test_videos=videos // 10,
      min_segments=SEGMENTS,
      max_segments=SEGMENTS,
    )
    builders.build(data, folder, "simulated", config, megabytes=16, parts=parts)
  return target


def look(pid: int, opened: set[str]) -> float:
  """Notes the shards that a process has open; its highest memory in MB."""
  folder = Path(f"/proc/{pid}")
  try:
    for link in (folder / "fd").iterdir():
      name = os.path.basename(os.readlink(link))
      if ".array_record-" in name:
        opened.add(name)
    lines = (folder / "status").read_text().splitlines()
  except OSError:  # it has just ended, or has closed one
    return 0.0
  high = [line.split()[1] for line in lines if line.startswith("VmHWM")]
  return int(high[0]) / 1024 if high else 0.0


def run(data: Path, workdir: Path, args: argparse.Namespace) -> None:
  """A run, watched; prints a line for each process."""
  begun, address = time.monotonic(), f"127.0.0.1:{PORT}"
  started = []
  for i in range(args.processes):
    where = (
      *(f"--coordinator={address}", f"--process_id={i}"),
      f"--num_processes={args.processes}",
    )
    flags = [*FLAGS, f"--config.data.root={data}", f"--workdir={workdir}"]
    flags += [f"--config.data.parts={args.parts}"]
    with Path(f"{workdir}.{i}.log").open("w") as log:
      started.append(
        subprocess.Popen(
          [
            *(sys.executable, "-m", "ptlr_jax.main", *flags),
            *(where if args.processes > 1 else ()),
          ],
          cwd=ROOT,
          stdout=log,
          stderr=log,
        )
      )
  peaks, opened = [0.0] * len(started), [set() for _ in started]
  while any(process.poll() is None for process in started):
    for i, process in enumerate(started):
      peaks[i] = max(peaks[i], look(process.pid, opened[i]))
    time.sleep(0.05)
  if any(process.returncode for process in started):
    raise SystemExit(f"{workdir}.*.log: a process failed")
  total = {
    split: len(list(data.glob(f"*-{split}.array_record-*")))
    for split in ("train", "test")
  }
  for i, (peak, names) in enumerate(zip(peaks, opened, strict=True)):
    files = (
      f"{sum(f'-{split}.' in name for name in names)}/{count}"
      for split, count in total.items()
    )
    seconds = time.monotonic() - begun
    cells = (data.parent.name, i, f"{peak:.0f}", *files, f"{seconds:.0f}")
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--folder", type=Path, required=True)
  parser.add_argument("--videos", default="250,500,1000")
  parser.add_argument("--processes", type=int, default=2)
  parser.add_argument("--parts", type=int, default=8)
  args = parser.parse_args()
  print("| set | process | peak MB | train files | test files | s |")
  print("|---|---|---|---|---|---|")
  for videos in map(int, args.videos.split(",")):
    data = prepare(args.folder, videos, args.parts)
    name = f"run-{videos}-{args.processes}-{time.time():.0f}"
    run(data, args.folder / name, args)


if __name__ == "__main__":
  main()
