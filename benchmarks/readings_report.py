"""The tables of benchmarks/readings.py, from what it has left.

python benchmarks/readings_report.py --workdir=runs/readings \
  [--seeds=5|0,7] ["--arms=letter;sum, expand"] [--against=letter]

Prints Markdown: each row by the paper's reading and by its own best, the steps
from stage to stage and the differences from the arm `--against` (paired over
seeds, with how many rise and the p of a t-test), and the pseudo labels.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.readings import ARMS, PAPER, ways_of
from ptlr_jax import tables
from ptlr_jax.io import storage
from ptlr_jax.paper_tables import ablations


class Found:
  """What the finished seeds of an arm have come to."""

  def __init__(self, root: Path, arm: str, seeds):
    folders = {seed: root / f"seed-{seed}" / arm for seed in seeds}
    folders = {
      seed: path
      for seed, path in folders.items()
      if (path / "readings.json").exists()
    }
    self.seeds = tuple(folders)
    self._read = [
      storage.read_json(path / "readings.json") for path in folders.values()
    ]
    self._labels = [
      storage.read_json(path / "metrics.json")["pseudo_labels"]
      for path in folders.values()
    ]
    self.rows = list(self._read[0]) if folders else []

  def scores(self, row: str, reading: str) -> np.ndarray:
    """mAP over seeds."""
    return np.array([read[row][reading] for read in self._read])

  def best(self, row: str) -> str:
    """The reading with the highest mean."""
    there = [n for n in ways_of(self.rows)[row] if n in self._read[0][row]]
    return max(there, key=lambda name: self.scores(row, name).mean())

  def read_by(self, kind: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """{row: mAP over seeds} by the paper's reading or the best; as text."""
    best = kind == "best"
    ways = {row: self.best(row) if best else PAPER for row in self.rows}
    values = {row: self.scores(row, way) for row, way in ways.items()}
    cells = [
      _spread(x) + (f" ({ways[row]})" if best else "")
      for row, x in values.items()
    ]
    return values, cells

  def labels(self) -> str:
    """Action precision/recall of every phase of labels, means over seeds."""
    pairs = []
    for phase in zip(*self._labels, strict=True):
      precision, recall = (
        100 * np.mean([entry[f"action_{name}"] for entry in phase])
        for name in ("precision", "recall")
      )
      pairs.append(f"{precision:.0f}/{recall:.0f}")
    return " ".join(pairs)


def _spread(values: np.ndarray) -> str:
  return ablations.Cell(values, None).spread


def report(root: Path, arms, seeds, against: str) -> str:
  """Four Markdown tables: the rows by both readings, the steps from one to the
  next, the differences from the arm `against`, the labels."""
  all_found = {arm: Found(root, arm, seeds) for arm in arms}
  all_found = {arm: found for arm, found in all_found.items() if found.seeds}
  if not all_found:
    return f"{root}: no finished seed of these arms"
  rows = max((found.rows for found in all_found.values()), key=len)
  names = ["own", *(f"stage {n}" for n in range(1, len(rows)))]
  heads = {
    "scores": ["arm", "reading", *names],
    "steps": ["arm", "reading", *itertools.starmap(_less, _pairs(names))],
    "differences": [f"less {against}", "reading", *names],
    "labels": ["arm", "seeds", "labels of actions, precision/recall"],
  }
  lines: dict[str, list[list[str]]] = {name: [] for name in heads}
  for arm, found in all_found.items():
    seen = ",".join(map(str, found.seeds))
    lines["labels"].append([arm, seen, found.labels()])
    compared = arm != against and against in all_found
    base = Found(root, against, found.seeds) if compared else None
    for kind in ("paper", "best"):
      values, cells = found.read_by(kind)
      lines["scores"].append([arm, kind, *cells])
      steps = [_step(values[a], values[b]) for a, b in _pairs(list(values))]
      lines["steps"].append([arm, kind, *steps])
      if base:
        other, _ = base.read_by(kind)
        steps = [
          _step(other[row], values[row]) for row in values if row in other
        ]
        lines["differences"].append([arm, kind, *steps])
  return "\n\n".join(_table([heads[name], *lines[name]]) for name in heads)


def _pairs(rows: list[str]) -> list[tuple[str, str]]:
  """Every row with the next, and the first stage with the last."""
  return [
    *itertools.pairwise(rows),
    *([(rows[1], rows[-1])] if rows[2:] else []),
  ]


def _less(before: str, after: str) -> str:
  return f"{after} - {before}".replace("stage ", "")


def _step(before: np.ndarray, after: np.ndarray) -> str:
  """The mean difference, the seeds that rise, and p of a paired t-test."""
  difference, p = ablations.compare(before, after)
  up = f"{(after > before).sum()}/{len(after)}"
  return (
    f"{difference:+.1f} ({up}" + ("" if p is None else f", p {p:.1g}") + ")"
  )


def _table(lines: list[list[str]]) -> str:
  width = len(lines[0])
  padded = [line + [""] * (width - len(line)) for line in lines]
  return "\n".join(
    f"| {' | '.join(line)} |"
    for line in (padded[0], ["---"] * width, *padded[1:])
  )


def main() -> None:
  """Command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", default="5", help="how many, or 0,7")
  parser.add_argument("--arms", default=";".join(ARMS), help="separated by ;")
  parser.add_argument("--against", default="letter", help="an arm")
  args = parser.parse_args()
  seeds = tables.seeds_of(args.seeds, 0)
  print(report(args.workdir, args.arms.split(";"), seeds, args.against))


if __name__ == "__main__":
  main()
