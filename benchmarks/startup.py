"""From the command to the first finished update, by compile cache.

python benchmarks/startup.py --config=configs/simulated.py [--repeats=3]

`main` starts in a process of its own with its log written after every update,
and is stopped once the first line is there. `off` compiles everything; `cold`
does and fills an empty cache; `warm` finds it full.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).absolute().parents[1]
CONFIG = flags.DEFINE_string("config", "configs/simulated.py", "configuration")
REPEATS = flags.DEFINE_integer("repeats", 3, "starts of each kind", 1)
OVERRIDES = flags.DEFINE_multi_string("set", [], "KEY=VALUE for the run")


def seconds_to_first_update(folder: Path, cache: str) -> float:
  """Wall seconds from the start of `main` to its first line of log."""
  command = [
    *(sys.executable, "-m", "ptlr_jax.main", f"--config={CONFIG.value}"),
    *(f"--workdir={folder}", f"--config.compile_cache={cache}"),
    *("--config.train.log_every=1", "--config.train.checkpoint_every=1000000"),
    *(f"--config.{change}" for change in OVERRIDES.value),
  ]
  log = folder / "metrics.jsonl"
  begun = time.perf_counter()
  run = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
  )
  try:
    while not log.exists() or not log.stat().st_size:
      if run.poll() is not None:
        assert run.stdout is not None
        sys.exit(run.stdout.read().decode())
      time.sleep(0.01)
    return time.perf_counter() - begun
  finally:
    run.kill()
    run.wait()


def main(argv: list[str]) -> None:
  """Prints a line for each kind of start."""
  del argv
  print("| compile cache | seconds to the first update | each |")
  print("|---|---|---|")
  with tempfile.TemporaryDirectory() as name:
    for kind in ("off", "cold", "warm"):
      times = []
      for i in range(REPEATS.value):
        cache = {"off": "off", "cold": f"{name}/cold-{i}"}.get(kind)
        found = seconds_to_first_update(
          Path(name) / f"{kind}-{i}", cache or f"{name}/cold-0"
        )
        times.append(found)
      each = ", ".join(f"{value:.1f}" for value in times)
      print(f"| {kind} | {statistics.median(times):.1f} | {each} |", flush=True)


if __name__ == "__main__":
  app.run(main)
