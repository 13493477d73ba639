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
COLUMNS = ("0.10", "0.30", "0.50", "0.70")


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
        [run["stages"][row]["mAP"][c] for c in COLUMNS]
        + list(run["stages"][row]["averages"].values())
        for run in runs
      ]
    )
  return lines


def table(lines: dict[str, np.ndarray], averages: list[str]) -> str:
  """Markdown: a row a line of `collect`."""
  head = [f"@{float(c):g}" for c in COLUMNS] + averages
  text = ["| | " + " | ".join(head) + " | above the line before |"]
  text.append("|---" * (len(head) + 2) + "|")
  before = None
  for name, values in lines.items():
    mean, spread = values.mean(0), values.std(0, ddof=1)
    cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, spread, strict=True)]
    wins = ""
    if before is not None:
      column = len(COLUMNS) + averages.index("0.1:0.7")
      better = int((values[:, column] > before[:, column]).sum())
      wins = f"{better} of {len(values)} seeds"
    text.append(f"| {name} | " + " | ".join(cells) + f" | {wins} |")
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
    runs = [job.result() for job in jobs]
  lines = collect(runs[0::2], "Bas-Net") | collect(runs[1::2])
  print(table(lines, list(runs[0]["averages"])))


if __name__ == "__main__":
  main()
