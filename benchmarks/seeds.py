"""The method and its baseline over several seeds: mean and spread of the mAP.

python benchmarks/seeds.py --config=configs/simulated.py \
  --baseline=configs/simulated_basnet.py --seeds=5 --workdir=runs/seeds \
  [--config.SECTION.KEY=VALUE ...]

Overrides go to both configurations. Runs that are finished are not run again.
Prints, as Markdown, mean ± standard deviation over seeds (n - 1) in percent,
and in how many seeds each line beats the one above it.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def train(config: str, seed: int, workdir: Path, overrides: list[str]) -> dict:
  """Runs the main command and returns what it measured."""
  command = [sys.executable, "-m", "ptlr_jax.main", f"--config={config}"]
  command += [f"--workdir={workdir}", f"--config.seed={seed}", *overrides]
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=False
  )
  if done.returncode:
    raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
  return json.loads((workdir / "metrics.json").read_text())


def collect(runs: list[dict], name: str | None = None) -> dict[str, np.ndarray]:
  """{line: f[seeds, columns + averages]} in percent."""
  lines = {}
  for row in runs[0]["stages"]:
    lines[name or row] = 100 * np.array(
      [
        [run["stages"][row]["mAP"][c] for c in run["mAP"]]
        + list(run["stages"][row]["averages"].values())
        for run in runs
      ]
    )
  return lines


def table(
  lines: dict[str, np.ndarray], tious: list[str], averages: list[str]
) -> str:
  """Markdown: a row a line of `collect`; every other tIoU.

  The last column counts seeds by the second last average, 0.1:0.7 on
  THUMOS14, or by the only one.
  """
  column = len(tious) + max(len(averages) - 2, 0)
  shown = [*range(0, len(tious), 2)]
  shown += range(len(tious), len(tious) + len(averages))
  names = [f"@{float(c):g}" for c in tious] + averages
  head = [names[i] for i in shown] + ["above the line before"]
  text = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
  before = None
  for name, values in lines.items():
    mean, spread = values.mean(0), values.std(0, ddof=1)
    cells = [f"{mean[i]:.1f} ± {spread[i]:.1f}" for i in shown]
    wins = ""
    if before is not None:
      better = int((values[:, column] > before[:, column]).sum())
      wins = f"{better} of {len(values)} seeds"
    text.append(f"| {name} | " + " | ".join([*cells, wins]) + " |")
    before = values
  return "\n".join(text)


def main() -> None:
  """Command line entry."""
  parser = argparse.ArgumentParser(
    description=str(__doc__).split("\n")[0], allow_abbrev=False
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--baseline", required=True)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
  args, overrides = parser.parse_known_args()
  if args.seeds < 2:
    parser.error(f"--seeds: expected 2 or more for a spread, got {args.seeds}")
  with ThreadPoolExecutor(args.jobs) as pool:
    jobs = [
      pool.submit(
        train,
        config,
        seed,
        args.workdir.absolute() / f"{name}-{seed}",
        overrides,
      )
      for seed in range(args.seeds)
      for name, config in (("basnet", args.baseline), ("ours", args.config))
    ]
    try:
      runs = [job.result() for job in jobs]
    except SystemExit:
      pool.shutdown(cancel_futures=True)
      raise
  lines = collect(runs[0::2], "Bas-Net") | collect(runs[1::2])
  print(table(lines, list(runs[0]["mAP"]), list(runs[0]["averages"])))


if __name__ == "__main__":
  main()
