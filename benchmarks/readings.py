"""Readings of refinement, alone and together, on one source of features.

python benchmarks/readings.py --config=configs/thumos14_small.py \
  --config.data.root=ROOT --workdir=runs/readings --seeds=0,1,2,3,4 \
  ["--arms=letter;sum, expand"] [--config.SECTION.KEY=VALUE ...] [--report]

Every seed splits the training videos anew, trains on one half and is scored on
the other: no test video is looked at. What arms have in common is trained
once; what is finished is not run again, and `--report` only prints what is
there, as Markdown. The same networks are read in several ways: a table shows
each row by the paper's, and by the one that is best for that row on the mean
over seeds ("0.5 softmax + own": NMS 0.5, the softmax of the first CAS, which is
a source of proposals, too).
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from ptlr_jax.cli import command_line
from ptlr_jax.io import storage
from ptlr_jax.localization import detection
from ptlr_jax.paper_tables import ablations
from ptlr_jax.runs import pipeline
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runs.detection_phase import evaluate_detections
from ptlr_jax.training import prediction
from ptlr_jax.workdir import phases, run_folder

Changes = dict[str, Any]

EXPAND = {"labels.update_rule": "expand"}
SUM = {
  "labels.fusion": "sum",
  "labels.cas": "softmax_stream_minmax",
}
UNIFORM = {"ptlr.sampling": "uniform"}
BALANCE = {"ots.class_balance": True, "rts.class_balance": True}
# The thresholds that 0.7 and 0.1 of the weighted sum are after a division by
# the weights' 2.5, for a CAS that has one stream.
DIVIDED = {"labels.high": 0.28, "labels.low": 0.04}

# What configurations of ours have in place of what the paper states.
STATED: dict[str, Changes] = {
  "no class_filter": {"labels.class_filter": False},
  "no keep_empty": {"labels.keep_empty": False},
  "background_sum=all": {"labels.background_sum": "all"},
  "norm_weight=1": {"ilg.loss.norm_weight": 1.0},
  "class_scores=ptlr": {"detect.class_scores": "ptlr"},
}
# Deltas of the configuration given, with the ILG or early-fusion Bas-Net as
# the origin of the labels.
ARMS: dict[str, tuple[str, Changes]] = {
  "letter": ("ilg", {}),
  "expand": ("ilg", EXPAND),
  "sum": ("ilg", SUM),
  "uniform": ("ilg", UNIFORM),
  "balance": ("ilg", BALANCE),
  "sum, expand": ("ilg", {**SUM, **EXPAND}),
  "sum, uniform": ("ilg", {**SUM, **UNIFORM}),
  "expand, uniform": ("ilg", {**EXPAND, **UNIFORM}),
  "sum, expand, uniform": ("ilg", {**SUM, **EXPAND, **UNIFORM}),
  "sum, expand, balance": ("ilg", {**SUM, **EXPAND, **BALANCE}),
  "all": ("ilg", {**SUM, **EXPAND, **UNIFORM, **BALANCE}),
  "Bas-Net, letter": ("basnet", {}),
  "Bas-Net, expand": ("basnet", EXPAND),
  "Bas-Net, divided": ("basnet", DIVIDED),
  "Bas-Net, divided, expand": ("basnet", {**DIVIDED, **EXPAND}),
  "Bas-Net, divided, expand, balance": (
    "basnet",
    {**DIVIDED, **EXPAND, **BALANCE},
  ),
  **{name: ("ilg", changes) for name, changes in STATED.items()},
}

PAPER = "0.7"
# Ways to read the same networks, {name: delta of config.detect}: NMS, and of
# the first CAS its space or whether it is a source of proposals beside OTS and
# RTS. The first is the paper's.
_NMS = {"0.7": 0.7, "0.5": 0.5, "0.4": 0.4}
_SOFT = {"": {}, " softmax": {"ilg_cas": "softmax_minmax"}}
_BESIDE = {"sources": ("ots", "rts", "ilg")}
OF_FIRST: dict[str, Changes] = {
  f"{nms}{soft}": {"nms": value, **_SOFT[soft]}
  for (nms, value), soft in itertools.product(_NMS.items(), _SOFT)
}
OF_STAGES: dict[str, Changes] = {
  **{name: {"nms": value} for name, value in _NMS.items()},
  **{f"{name} + own": {**how, **_BESIDE} for name, how in OF_FIRST.items()},
}
AVERAGE = "0.1:0.7"


def ways_of(rows: list[str]) -> dict[str, dict[str, Changes]]:
  """{row: the ways to read it}; the first row is the origin of the labels."""
  return {rows[0]: OF_FIRST, **dict.fromkeys(rows[1:], OF_STAGES)}


def configuration(config, seed: int, arm: str) -> FrozenConfigDict:
  """The delta of an arm, on a split of its own."""
  origin, changes = ARMS[arm]
  config = ConfigDict(config.to_dict())
  stages = config.ptlr.stages
  if origin == "basnet":
    config = base.early_fusion(config)
  split = {"data.holdout": 0.5, "data.holdout_seed": seed, "seed": seed}
  config.update_from_flattened_dict({**split, "ptlr.stages": stages, **changes})
  return FrozenConfigDict(config)


def finish(config, data, directory: Path) -> None:
  """Runs an arm on what earlier arms of its seed have left, and reads it."""
  run_folder.prepare_run_folder(directory, config)
  run = pipeline.Run(config, data, directory)
  run.record()  # on which data, that what is alike can be told
  run.files.adopt_neighbours()
  run.run()
  path = directory / "readings.json"
  if not path.exists():
    storage.write_json(path, read(run, data))


def read(run: pipeline.Run, data) -> dict[str, dict[str, float]]:
  """{row: {reading: mAP 0.1:0.7}} of a finished run."""
  config = run.config

  def ask(name: str, network: str) -> list[Any]:
    said = run.networks.asking(name, network)(data.test)
    return prediction.in_order(said, len(data.test))

  rows = phases.table_rows(config)
  ilg = ask("ilg", "ilg")
  networks = {
    row: {net: ask(f"{net}-{n}", net) for net in config.ptlr.networks}
    for n, row in enumerate(rows)
    if n
  }

  def score(row: str, changes: Changes) -> float:
    changed = ConfigDict(config.detect.to_dict())
    changed.update(changes)
    detections = {
      video.id: detection.detect_video(
        data.classes,
        video,
        ilg[i],
        {net: said[i] for net, said in networks.get(row, {}).items()},
        options=changed,
        fusion=config.fusion,
        topk_ratio=config.ilg.loss.topk_ratio,
      )
      for i, video in enumerate(data.test)
    }
    protocol = config.evaluate.protocol
    scored = evaluate_detections({row: detections}, data, protocol)
    return 100 * scored[row]["averages"][AVERAGE]

  return {
    row: {name: score(row, how) for name, how in ways.items()}
    for row, ways in ways_of(rows).items()
  }


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


def report(root: Path, arms, seeds) -> str:
  """Three Markdown tables: the rows by both readings, the steps, the labels."""
  all_found = {arm: Found(root, arm, seeds) for arm in arms}
  all_found = {arm: found for arm, found in all_found.items() if found.seeds}
  heads = ["arm", "reading", "own", "stage 1", "stage 2", "stage 3"]
  first = [heads]
  steps = [["arm", "reading", "1 - own", "2 - 1", "3 - 2", "3 - 1"]]
  labels = [["arm", "seeds", "labels of actions, precision/recall"]]
  for arm, found in all_found.items():
    labels.append([arm, ",".join(map(str, found.seeds)), found.labels()])
    rows = found.rows
    for kind, ways in (
      ("paper", dict.fromkeys(rows, PAPER)),
      ("best", {row: found.best(row) for row in rows}),
    ):
      values = {row: found.scores(row, way) for row, way in ways.items()}
      cells = [
        _spread(x) + ("" if kind == "paper" else f" ({ways[row]})")
        for row, x in values.items()
      ]
      first.append([arm, kind, *cells])
      pairs = [*itertools.pairwise(rows), (rows[1], rows[-1])]
      steps.append(
        [arm, kind, *(_step(values[a], values[b]) for a, b in pairs)]
      )
  return "\n\n".join(_table(lines) for lines in (first, steps, labels))


def _step(before: np.ndarray, after: np.ndarray) -> str:
  """The mean difference, the seeds that rise, and p of a paired t-test."""
  difference, p = ablations.compare(before, after)
  up = f"{(after > before).sum()}/{len(after)}"
  return f"{difference:+.1f} ({up}" + (f", p {p:.3f})" if p else ")")


def _table(lines: list[list[str]]) -> str:
  rule = ["---"] * len(lines[0])
  return "\n".join(
    f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])
  )


def main() -> None:
  """Command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", default="0,1,2,3,4")
  parser.add_argument("--arms", default=";".join(ARMS), help="separated by ;")
  parser.add_argument("--report", action="store_true")
  args, rest = parser.parse_known_args()
  arms = args.arms.split(";")
  seeds = [int(seed) for seed in args.seeds.split(",")]
  if not args.report:
    given = command_line.parse(["", f"--workdir={args.workdir}", *rest]).config
    for seed in seeds:
      data = load_dataset(configuration(given, seed, "letter").data)
      for arm in arms:
        config = configuration(given, seed, arm)
        finish(config, data, args.workdir / f"seed-{seed}" / arm)
  print(report(args.workdir, arms, seeds))


if __name__ == "__main__":
  main()
