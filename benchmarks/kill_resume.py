"""Kills the main command again and again and compares what it ends with.

python benchmarks/kill_resume.py --config=configs/simulated.py --kills=50 \
  --chain=10 --workdir=runs/kills [--seed=0] [--config.SECTION.KEY=VALUE ...]

Runs the command once undisturbed. Then, in a fresh folder, starts it and kills
it with SIGKILL, `--chain` times in a row; lets it end; and compares every
artefact with the undisturbed one: parameters, pseudo labels, detections and
metrics, all to the byte. Further chains follow until `--kills` are done.

The moments are drawn from `--seed`: a third anywhere in time, a third inside
the writing of a checkpoint, a third inside the writing of another file (labels,
detections, metrics, provenance), of which a random share is then on the disk.
Where the drawn write does not come, since all that is left is shorter, the run
ends undisturbed and the chain with it.

With --signal=TERM or INT the moments are times, the run has to end with status
143 or 130 by itself, and how long that took is printed.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("time", "checkpoint", "file")
FILES = (".npz", ".json")


def die() -> None:
  """As `kill -9`."""
  os.kill(os.getpid(), signal.SIGKILL)


def killed_in_checkpoint(count: int, delay: float) -> None:
  """Kills this process so many seconds into its `count`-th checkpoint."""
  from ptlr_jax.io import checkpoints

  write, seen = checkpoints._write, 0

  def writing(*args):
    nonlocal seen
    seen += 1
    if seen == count:
      threading.Timer(delay, die).start()
    write(*args)

  checkpoints._write = writing


def killed_in_file(count: int, share: float) -> None:
  """Kills this process in its `count`-th write of a file, of whose content a
  share is on the disk then."""
  from ptlr_jax.io import storage

  write, seen = storage.write_bytes, 0

  def writing(path: Path, data: bytes) -> None:
    nonlocal seen
    seen += path.suffix in FILES and path.name != storage.MANIFEST
    if seen == count:
      temporary = storage.temporary_of(path)
      temporary.parent.mkdir(parents=True, exist_ok=True)
      temporary.write_bytes(data[: int(share * len(data))])
      die()
    write(path, data)

  storage.write_bytes = writing


def child() -> None:
  """The main command, armed as KILL in the environment says."""
  how = json.loads(os.environ["KILL"])
  if how["kind"] == "checkpoint":
    killed_in_checkpoint(how["count"], how["where"])
  elif how["kind"] == "file":
    killed_in_file(how["count"], how["where"])
  from ptlr_jax import main as command

  command.main()


def start(workdir: Path, flags: list[str], how: dict | None = None):
  """The main command, or one that is armed to die; its output is kept."""
  what = [__file__] if how else ["-m", "ptlr_jax.main"]
  # What starts this in the background has it ignored, and so would the command.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  log = (workdir.parent / f"{workdir.name}.log").open("a")
  return subprocess.Popen(
    [sys.executable, *what, f"--workdir={workdir}", *flags],
    cwd=ROOT,
    env={
      **os.environ,
      "KILL": json.dumps(how or {}),
      "PYTHONPATH": str(ROOT),
    },
    stdout=log,
    stderr=log,
  )


def parameters(path: Path) -> str:
  """A digest of the arrays of a checkpoint."""
  import hashlib

  import jax
  import numpy as np
  import orbax.checkpoint as ocp

  with ocp.StandardCheckpointer() as checkpointer:
    tree = checkpointer.restore(path.absolute())
  found = hashlib.sha256()
  for name, leaf in jax.tree_util.tree_leaves_with_path(tree):
    x = np.asarray(leaf)
    found.update(f"{name} {x.dtype} {x.shape}".encode() + x.tobytes())
  return found.hexdigest()


def contents(workdir: Path) -> dict[str, str | bytes]:
  """{artefact: what is in it} of a finished run."""
  found: dict[str, str | bytes] = {}
  for path in sorted(workdir.rglob("*")):
    name = str(path.relative_to(workdir))
    if path.name == "final":
      found[name] = parameters(path)
    elif (
      path.suffix in (".npz", ".json", ".jsonl")
      and "checkpoints" not in path.parts
      # Its starts are in there, with their times.
      and path.name != "provenance.json"
    ):
      found[name] = path.read_bytes()
  return found


def draw(rng: random.Random, kind: str, whole: float, writes: int) -> dict:
  """A moment to die at: seconds, or the count of a write and where in it."""
  if kind == "time":
    return {"kind": kind, "where": rng.uniform(0.0, whole)}
  count = rng.randint(1, max(1, writes))
  most = 0.1 if kind == "checkpoint" else 1.0
  return {"kind": kind, "count": count, "where": rng.uniform(0, most)}


def kill(
  workdir: Path, flags: list[str], how: dict, number: signal.Signals
) -> float | None:
  """Starts the command and has it killed; seconds to its end, None where it
  ended before."""
  process, asked = start(workdir, flags, how), time.monotonic()
  try:
    process.wait(how["where"] if how["kind"] == "time" else None)
  except subprocess.TimeoutExpired:
    process.send_signal(number)
    asked = time.monotonic()
  ended = process.wait()
  if ended == 0:
    return None
  # What came before the handler was there ends as any process does.
  killed = number == signal.SIGKILL
  if ended not in ((-number,) if killed else (128 + number, -number)):
    raise SystemExit(f"{workdir}.log: the command failed with {ended}")
  return time.monotonic() - asked


def newest(workdir: Path) -> str:
  """What the workdir got last."""
  found = [p for p in workdir.rglob("*") if p.name != ".lock"]
  found = [p for p in found if "final" not in p.parts[:-1]]
  last = max(found, key=lambda path: path.lstat().st_mtime, default=None)
  return str(last.relative_to(workdir)) if last else "nothing yet"


def parser_of(doc: str | None, **counts: int) -> argparse.ArgumentParser:
  """Of --config, --workdir, and counts with their defaults."""
  parser = argparse.ArgumentParser(
    description=str(doc).split("\n")[0], allow_abbrev=False
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--workdir", type=Path, required=True)
  for name, default in counts.items():
    parser.add_argument(f"--{name}", type=int, default=default)
  return parser


def parsed(
  parser: argparse.ArgumentParser,
) -> tuple[argparse.Namespace, Path, list[str]]:
  """The arguments, the new folder, and the flags of the main command."""
  args, flags = parser.parse_known_args()
  root = args.workdir.absolute()
  if root.exists() and any(root.iterdir()):
    parser.error(f"--workdir={root}: expected a new or empty folder")
  root.mkdir(parents=True, exist_ok=True)
  return args, root, [f"--config={args.config}", *flags]


def main() -> None:
  """Command line entry; exits with 1 if any chain ended differently."""
  parser = parser_of(__doc__, kills=50, chain=10, seed=0)
  parser.add_argument(
    "--signal", choices=("KILL", "TERM", "INT"), default="KILL"
  )
  args, root, flags = parsed(parser)
  rng = random.Random(args.seed)
  begun = time.monotonic()
  if start(root / "undisturbed", flags).wait():
    raise SystemExit(f"{root}/undisturbed.log: the command failed")
  whole = time.monotonic() - begun
  expected = contents(root / "undisturbed")
  print(f"undisturbed: {whole:.0f} s, {len(expected)} artefacts", flush=True)
  number = signal.Signals[f"SIG{args.signal}"]
  kinds = KINDS if number == signal.SIGKILL else KINDS[:1]
  done, equal, chains = collections.Counter(), 0, 0
  spent: list[float] = []
  while done.total() < args.kills:
    workdir, killed = root / f"chain-{chains}", 0
    while killed < args.chain and done.total() < args.kills:
      kind = kinds[done.total() % len(kinds)]
      # A start and what it has to do again are paid for every kill.
      how = draw(rng, kind, whole / 2, 4 if kind == "checkpoint" else 3)
      seconds = kill(workdir, flags, how, number)
      if seconds is None:
        break
      spent.append(seconds)
      done[kind] += 1
      killed += 1
      where = ", ".join(f"{k} {v:.3g}" for k, v in how.items() if k != "kind")
      print(
        f"chain {chains}, kill {killed}: {kind} ({where}); newest: "
        f"{newest(workdir)}",
        flush=True,
      )
    if start(workdir, flags).wait():
      raise SystemExit(f"{workdir}.log: the command failed")
    came = contents(workdir)
    wrong = [n for n in expected | came if expected.get(n) != came.get(n)]
    equal, chains = equal + (not wrong), chains + 1
    word = f"DIFFERENT: {', '.join(wrong)}" if wrong else "equal"
    print(f"chain {chains - 1}: {killed} kills survived, {word}", flush=True)
  said = ", ".join(f"{done[kind]} in {kind}" for kind in kinds)
  print(
    f"{done.total()} SIG{args.signal} ({said}) in {chains} chains; {equal} of "
    f"{chains} end with the same bytes"
  )
  if number != signal.SIGKILL:
    print(f"from the signal to the end: at most {max(spent):.1f} s")
  sys.exit(equal != chains)


if __name__ == "__main__":
  child() if "KILL" in os.environ else main()
