"""Readings of the paper's silent points, tried one at a time.

python benchmarks/choices.py --config=configs/thumos14_small.py \
  --config.data.root=ROOT --workdir=runs/choices --seeds=0,1,2 \
  [--arms=paper,balance] [--config.SECTION.KEY=VALUE ...]

Every seed splits the training videos anew, trains on one half and is scored on
the other: no test video is looked at. What arms have in common is trained
once. Arms that are finished are not run again; `--report` only prints what is
there, as Markdown: mAP 0.1:0.7 of the ILG and of each stage, mean and standard
deviation over seeds, the action precision/recall of the pseudo labels (initial,
then OTS and RTS of each stage), and the last stage's difference to `paper`.
"""

import argparse
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.cli import command_line
from ptlr_jax.paper_tables import ablations
from ptlr_jax.runs import pipeline
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.workdir import run_folder
from ptlr_jax.workdir.artefacts import Artefacts

BOTH = ("ots", "rts")


def both(key, value):
  """The same value for OTS and RTS."""
  return {f"{net}.{key}": value for net in BOTH}


BALANCE = both("class_balance", True)
RELATIVE = {"labels.network_cas": "minmax"}
NEAREST = {"rts.upsampling": "nearest"}
ALL_SOURCES = {"detect.sources": ("ots", "rts", "ilg")}

# Deltas of the configuration given; "paper" is that configuration itself.
ARMS = {
  "paper": {},
  # Labels.
  "labels.cas=minmax": {"labels.cas": "minmax"},
  "labels.cas=raw_minmax": {"labels.cas": "raw_minmax"},
  "labels.cas=softmax": {"labels.cas": "softmax"},
  "labels.cas=raw": {"labels.cas": "raw"},
  "labels.high=0.5": {"labels.high": 0.5},
  "labels.high=0.3": {"labels.high": 0.3},
  "background_sum=all": {"labels.background_sum": "all"},
  "background_sum=all, softmax": {
    "labels.background_sum": "all",
    "labels.cas": "softmax",
  },
  "labels.low=0.03": {"labels.low": 0.03},
  "labels.low=0.01": {"labels.low": 0.01},
  "labels.low=0.3": {"labels.low": 0.3},
  "class_filter=False": {"labels.class_filter": False},
  "keep_empty=False": {"labels.keep_empty": False},
  "multi_hot": {"labels.several": "multi_hot"},
  "update_rule=merge": {"labels.update_rule": "merge"},
  "network_cas=minmax": RELATIVE,
  # Training.
  "warm_start": {"ptlr.warm_start": True},
  "steps=150": both("steps", 150),
  "steps=1200": both("steps", 1200),
  "learning_rate=3e-4": both("learning_rate", 3e-4),
  "learning_rate=3e-3": both("learning_rate", 3e-3),
  "dropout=0": both("model.dropout", 0.0),
  "dropout=0.5": both("model.dropout", 0.5),
  "width=256": both("model.width", 256),
  "loss per video": both("loss_average", "video"),
  # Calibration.
  "class_balance": BALANCE,
  "label_smoothing=0.2": both("label_smoothing", 0.2),
  "temperature=2": both("temperature", 2.0),
  "temperature=0.5": both("temperature", 0.5),
  # Network-RTS.
  "upsampling=nearest": NEAREST,
  "upsampling=linear": {"rts.upsampling": "linear"},
  "average=logit": {"rts.average": "logit"},
  "branches=2": {"rts.model.branches": 2},
  # Detection; nothing is trained.
  "class_scores=ptlr": {"detect.class_scores": "ptlr"},
  "class_threshold=0.1": {"detect.class_threshold": 0.1},
  "class_threshold=0.4": {"detect.class_threshold": 0.4},
  "detect.cas=minmax": {"detect.cas": "minmax"},
  "detect.cas=logit_minmax": {"detect.cas": "logit_minmax"},
  "ilg_cas=softmax_minmax": {"detect.ilg_cas": "softmax_minmax"},
  "contrast=thresholded": {"detect.contrast": "thresholded"},
  "nms=0.5": {"detect.nms": 0.5},
  "nms=0.4": {"detect.nms": 0.4},
  "sources + ilg": ALL_SOURCES,
  "sources + ilg, nms=0.5": {**ALL_SOURCES, "detect.nms": 0.5},
  # Consistency losses: these train an ILG of their own.
  "consistency_space=minmax": {"ilg.loss.consistency_space": "minmax"},
  "consistency_space=raw": {"ilg.loss.consistency_space": "raw"},
  # Together.
  "balance, nearest": {**BALANCE, **NEAREST},
  "relative, nearest": {**RELATIVE, **NEAREST},
  "balance, relative, nearest": {**BALANCE, **RELATIVE, **NEAREST},
  "balance, dropout=0.5": {**BALANCE, **both("model.dropout", 0.5)},
  "balance, temperature=2": {**BALANCE, **both("temperature", 2.0)},
  "balance, merge": {**BALANCE, "labels.update_rule": "merge"},
  "balance, labels.high=0.5": {**BALANCE, "labels.high": 0.5},
  "balance, background_sum=all": {**BALANCE, "labels.background_sum": "all"},
  "balance, labels.low=0.01": {**BALANCE, "labels.low": 0.01},
  "best": {**BALANCE, **ALL_SOURCES, "detect.nms": 0.5},
}


def configuration(config, seed: int, changes) -> FrozenConfigDict:
  """The delta of an arm, on a split of its own."""
  config = ConfigDict(config.to_dict())
  split = {"data.holdout": 0.5, "data.holdout_seed": seed, "seed": seed}
  config.update_from_flattened_dict({**split, **changes})
  return FrozenConfigDict(config)


def run(config, data, directory: Path) -> None:
  """Runs an arm on what earlier arms of its seed have left."""
  run_folder.prepare_run_folder(directory, config)
  Artefacts(config, directory).adopt_neighbours()
  pipeline.Run(config, data, directory).run()


AVERAGE = "0.1:0.7"


def results(root: Path, arm: str, seeds) -> dict[int, dict]:
  """What the finished seeds of an arm measured."""
  runs = {seed: root / f"seed-{seed}" / arm for seed in seeds}
  found = {
    seed: run_folder.finished_metrics(path) for seed, path in runs.items()
  }
  return {seed: metrics for seed, metrics in found.items() if metrics}


def averages(found: dict[int, dict], stage: str) -> np.ndarray:
  """mAP of a line over seeds, in percent."""
  runs = found.values()
  return np.array([100 * r["stages"][stage]["averages"][AVERAGE] for r in runs])


def label_quality(found: dict[int, dict]) -> str:
  """Action precision/recall of every phase of labels, means over seeds."""
  pairs = []
  for phase in zip(*(r["pseudo_labels"] for r in found.values()), strict=True):
    precision, recall = (
      100 * np.mean([entry[f"action_{name}"] for entry in phase])
      for name in ("precision", "recall")
    )
    pairs.append(f"{precision:.0f}/{recall:.0f}")
  return " ".join(pairs)


def report(root: Path, arms, seeds) -> str:
  """The Markdown table of all arms; the last column is against `paper`."""
  paper = results(root, "paper", seeds)
  heads, text = [], []
  for arm in arms:
    found = results(root, arm, seeds)
    if not found:
      continue
    stages = list(next(iter(found.values()))["stages"])
    heads = heads or ["arm", "seeds", *stages, "labels, action", "last stage"]
    cells = [
      ablations.Cell(averages(found, stage), None).spread for stage in stages
    ]
    both = [s for s in found if s in paper]
    against = ""
    if both and arm != "paper":
      ours, theirs = (
        averages({s: runs[s] for s in both}, stages[-1])
        for runs in (found, paper)
      )
      difference, p = ablations.compare(theirs, ours)
      against = f"{difference:+.1f}" + (f" (p {p:.2f})" if p else "")
    row = [arm, str(len(found)), *cells, label_quality(found), against]
    text.append(f"| {' | '.join(row)} |")
  return "\n".join(
    [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *text]
  )


def main() -> None:
  """Command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", default="0,1,2")
  parser.add_argument("--arms", default=",".join(ARMS).replace(", ", "; "))
  parser.add_argument("--report", action="store_true")
  args, rest = parser.parse_known_args()
  arms = [arm.replace("; ", ", ") for arm in args.arms.split(",")]
  seeds = [int(seed) for seed in args.seeds.split(",")]
  if not args.report:
    base = command_line.parse(["", f"--workdir={args.workdir}", *rest]).config
    for seed in seeds:
      data = load_dataset(configuration(base, seed, {}).data)
      for arm in arms:
        config = configuration(base, seed, ARMS[arm])
        run(config, data, args.workdir / f"seed-{seed}" / arm)
  print(report(args.workdir, arms, seeds))


if __name__ == "__main__":
  main()
