"""A configuration and another over several seeds: mean and spread of the mAP.

python benchmarks/seeds.py --config=configs/simulated.py \
  --baseline=configs/simulated_basnet.py --seeds=5 --workdir=runs/seeds \
  [--config.SECTION.KEY=VALUE ...]

Overrides go to both configurations. Runs that are finished are not run again;
they lie in WORKDIR/baseline/seed-N and WORKDIR/ours/seed-N. Prints Markdown:
mean ± standard deviation over seeds (n - 1) in percent, a row for each line of
the two, and against the row above the difference and the p of a paired t-test.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ptlr_jax.paper_tables import ablations, formats

ROOT = Path(__file__).resolve().parent.parent


def train(config: str, seeds: int, workdir: Path, overrides: list[str]) -> dict:
  """Runs the main command and returns {seed: what it measured}."""
  command = [sys.executable, "-m", "ptlr_jax.main", f"--config={config}"]
  command += [f"--workdir={workdir}", f"--config.seeds={seeds}", *overrides]
  if subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode:
    raise SystemExit(1)
  return {
    int(path.parent.name.removeprefix("seed-")): json.loads(path.read_text())
    for path in workdir.glob("seed-*/metrics.json")
  }


def table(runs: dict[str, dict[int, Any]]) -> str:
  """Markdown of {configuration: {seed: metrics}}."""
  rows = tuple(
    ablations.Row(f"{name}, {line}", name, line)
    for name, measured in runs.items()
    for line in next(iter(measured.values()))["stages"]
  )
  filled = ablations.fill(ablations.Table(1, "mAP", "map", "", rows), runs)
  assert filled
  return formats.markdown(filled).split("\n\n")[1]  # without the caption


def main() -> None:
  """Command line entry."""
  parser = argparse.ArgumentParser(
    description=str(__doc__).split("\n")[0], allow_abbrev=False
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--baseline", required=True)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", type=int, default=5)
  args, overrides = parser.parse_known_args()
  if args.seeds < 2:
    parser.error(f"--seeds: expected 2 or more for a spread, got {args.seeds}")
  configs = {"baseline": args.baseline, "ours": args.config}
  root = args.workdir.absolute()
  runs = {
    name: train(config, args.seeds, root / name, overrides)
    for name, config in configs.items()
  }
  print(table(runs))


if __name__ == "__main__":
  main()
