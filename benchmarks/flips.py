"""Turns bits of every artefact of a finished run; counts what is noticed.

python benchmarks/flips.py --config=configs/simulated.py --workdir=RUN \
  [--times=200] [--seed=0] [--config.SECTION.KEY=VALUE ...]

RUN is the workdir of a finished run of that configuration; it is not changed.
For every artefact, `--times` times: a copy of it with one bit turned at a
random place; one that is cut off at a random length; and one with a byte more.
Each has to be refused where the run reads it (lines of the log: left out). Of
checkpoints a random file is taken, of metrics.jsonl a random line.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ml_collections import FrozenConfigDict

from ptlr_jax.cli import command_line
from ptlr_jax.io import metrics_log
from ptlr_jax.runtime.errors import Damaged
from ptlr_jax.workdir.artefacts import Artefacts, verify
from ptlr_jax.workdir.phases import phases


def turned(data: bytes, rng: random.Random) -> bytes:
  """One bit of it is another."""
  at = rng.randrange(8 * len(data))
  found = bytearray(data)
  found[at // 8] ^= 1 << at % 8
  return bytes(found)


FAULTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
  "bit": turned,
  "cut": lambda data, rng: data[: rng.randrange(len(data))],
  "byte more": lambda data, rng: data + rng.randbytes(1),
}


def is_refused(path: Path) -> bool:
  """Whether a run would say that it is damaged."""
  try:
    verify(path)
  except Damaged:
    return True
  return False


def spoilt(path: Path, name: str, rng: random.Random, folder: Path) -> Path:
  """A copy of an artefact below `folder` with a fault."""
  copy = folder / path.name
  if path.is_dir():
    shutil.copytree(path, copy)
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    file = rng.choice([p for p in files if p.stat().st_size])
  else:
    shutil.copy(path, copy)
    file = copy
  file.write_bytes(FAULTS[name](file.read_bytes(), rng))
  return copy


def of_log(path: Path, times: int, rng: random.Random) -> dict[str, int]:
  """How many spoilt lines of a log were left out."""
  lines = path.read_bytes().splitlines()
  noticed = dict.fromkeys(FAULTS, 0)
  with tempfile.TemporaryDirectory() as name:
    log = metrics_log.MetricsLog(Path(name) / path.name)
    for fault, change in FAULTS.items():
      for _ in range(times):
        log.path.write_bytes(change(rng.choice(lines), rng) + b"\n")
        noticed[fault] += bool(log.mend()) or not log.read()
  return noticed


def of_artefact(path: Path, times: int, rng: random.Random) -> dict[str, int]:
  """How many spoilt copies were refused."""
  noticed = dict.fromkeys(FAULTS, 0)
  for fault in FAULTS:
    for _ in range(times):
      with tempfile.TemporaryDirectory() as name:
        noticed[fault] += is_refused(spoilt(path, fault, rng, Path(name)))
  return noticed


def main() -> None:
  """Prints a line an artefact; exits with 1 if anything was not noticed."""
  parser = argparse.ArgumentParser(
    description=str(__doc__).split("\n")[0], allow_abbrev=False
  )
  parser.add_argument("--times", type=int, default=200)
  parser.add_argument("--seed", type=int, default=0)
  args, rest = parser.parse_known_args()
  config, workdir, _ = command_line.parse([sys.argv[0], *rest])
  rng, files = random.Random(args.seed), Artefacts(config, workdir)
  assert isinstance(config, FrozenConfigDict)
  paths = [workdir / name for name in ("config.json", "provenance.json")]
  paths += [path for phase in phases(config) for path in files.paths(phase)]
  print(f"| artefact | {' | '.join(FAULTS)} |\n|---|{'---|' * len(FAULTS)}")
  missed = 0
  found = {
    str(path.relative_to(workdir)): of_artefact(path, args.times, rng)
    for path in paths
  }
  found["metrics.jsonl"] = of_log(workdir / "metrics.jsonl", args.times, rng)
  for name, noticed in found.items():
    row = " | ".join(f"{n} of {args.times}" for n in noticed.values())
    print(f"| {name} | {row} |")
    missed += sum(args.times - n for n in noticed.values())
  print(f"{3 * args.times * len(found)} faults, {missed} not noticed")
  sys.exit(missed > 0)


if __name__ == "__main__":
  main()
