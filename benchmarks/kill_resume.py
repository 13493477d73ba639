"""Kills the main command at random moments and compares what it ends with.

python benchmarks/kill_resume.py --config=configs/simulated.py --kills=3 \
  --workdir=runs/kills [--seed=0] [--config.SECTION.KEY=VALUE ...]

Runs the command once undisturbed; then, `--kills` times, starts it in a fresh
folder, sends SIGKILL after a random part of the undisturbed time, runs it
again to the end, and compares detections.json byte by byte.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def start(config: str, workdir: Path, overrides: list[str]):
  """The main command, its output thrown away."""
  command = [sys.executable, "-m", "ptlr_jax.main", f"--config={config}"]
  return subprocess.Popen(
    [*command, f"--workdir={workdir}", *overrides],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def finish(config: str, workdir: Path, overrides: list[str]) -> bytes:
  """Runs to the end and returns detections.json."""
  if start(config, workdir, overrides).wait():
    raise SystemExit(f"{workdir}: the command failed")
  return (workdir / "detections.json").read_bytes()


def where(workdir: Path) -> str:
  """What the workdir holds: the newest checkpoint or label file."""
  found = [*workdir.glob("checkpoints/*/*"), *workdir.glob("labels/*.npz")]
  newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
  return str(newest.relative_to(workdir)) if newest else "nothing yet"


def main() -> None:
  """Command line entry; exits with 1 if any run ended differently."""
  parser = argparse.ArgumentParser(
    description=str(__doc__).split("\n")[0], allow_abbrev=False
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--kills", type=int, default=3)
  parser.add_argument("--seed", type=int, default=0)
  args, overrides = parser.parse_known_args()
  root, rng = args.workdir.absolute(), random.Random(args.seed)
  if root.exists() and any(root.iterdir()):
    parser.error(f"--workdir={root}: expected a new or empty folder")
  begun = time.monotonic()
  expected = finish(args.config, root / "undisturbed", overrides)
  whole = time.monotonic() - begun
  print(f"undisturbed: {whole:.0f} s, {len(expected)} bytes", flush=True)
  equal = killed = 0
  for i in range(args.kills):
    workdir, delay = root / f"kill-{i}", rng.uniform(0.05, 0.95) * whole
    process = start(args.config, workdir, overrides)
    try:
      process.wait(delay)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    if not process.returncode:
      print(f"ended before {delay:.0f} s: not killed", flush=True)
      continue
    state = where(workdir)
    same = finish(args.config, workdir, overrides) == expected
    equal += same
    word = "equal" if same else "DIFFERENT"
    print(f"killed after {delay:.0f} s ({state}): {word}", flush=True)
    killed += 1
  print(f"{equal} of {killed} killed runs end with the same detections.json")
  sys.exit(equal != killed)


if __name__ == "__main__":
  main()
