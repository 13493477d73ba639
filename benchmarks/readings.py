"""Readings of refinement, alone and together, on one source of features.

python benchmarks/readings.py --config=configs/thumos14_small.py \
  --config.data.root=ROOT --workdir=runs/readings [--seeds=5|0,7] \
  ["--arms=letter;sum, expand"] [--config.SECTION.KEY=VALUE ...]

Every seed splits the training videos anew, trains on one half and is scored on
the other: no test video is looked at. What arms have in common is trained
once; what is finished is not run again. The same networks are read in several
ways; `benchmarks/readings_report.py` shows each row by the paper's, and by the
one that is best for that row on the mean over seeds ("0.5 softmax + own": NMS
0.5, the softmax of the first CAS, which is a source of proposals, too).
"""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from configs import thumos14_letter
from ptlr_jax import tables
from ptlr_jax.cli import command_line, startup
from ptlr_jax.io import storage
from ptlr_jax.localization import detection
from ptlr_jax.paper_tables.ablations import OURS
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
THETA: dict[str, Changes] = {  # schedules of theta_p
  "0.99": {"ptlr.thresholds": (0.99, 0.95, 0.9, 0.7)},
  "0.5": {"ptlr.thresholds": (0.7, 0.5, 0.3, 0.3)},
}
SMOOTHING = {"ots.label_smoothing": 0.2, "rts.label_smoothing": 0.2}
WITHDRAW = {  # a label that a network contradicts: docs/FORKING.md
  "plugins": ("tests.forks.withdrawn_labels.rule",),
  "labels.update_rule": "withdraw",
}
# The thresholds that 0.7 and 0.1 of the weighted sum are after a division by
# the weights' 2.5, for a CAS that has one stream.
DIVIDED = {"labels.high": 0.28, "labels.low": 0.04}

# What the paper states, put in place of what `sum, expand` departs in.
STATED: dict[str, Changes] = {
  "no class_filter": {"labels.class_filter": False},
  "no keep_empty": {"labels.keep_empty": False},
  "background_sum=all": {"labels.background_sum": "all"},
  "norm_weight=1": {"ilg.loss.norm_weight": 1.0},
  "class_scores=ptlr": {"detect.class_scores": "ptlr"},
}
# The origin of the labels is a row of the paper's tables (configs/ablations),
# or OURS for the ILG; changes are of what configs/thumos14_letter.py says.
OF_BASNET: Changes = {"ptlr.stages": 3}
# {arm: (origin, changes)}
ARMS: dict[str, tuple[str, Changes]] = {
  "letter": (OURS, {}),
  "expand": (OURS, EXPAND),
  "sum": (OURS, SUM),
  "uniform": (OURS, UNIFORM),
  "balance": (OURS, BALANCE),
  "sum, expand": (OURS, {**SUM, **EXPAND}),
  "sum, uniform": (OURS, {**SUM, **UNIFORM}),
  "expand, uniform": (OURS, {**EXPAND, **UNIFORM}),
  "sum, expand, uniform": (OURS, {**SUM, **EXPAND, **UNIFORM}),
  "sum, expand, balance": (OURS, {**SUM, **EXPAND, **BALANCE}),
  "all": (OURS, {**SUM, **EXPAND, **UNIFORM, **BALANCE}),
  # What might make stages 2 and 3 add
  "sum, expand, theta 0.99": (OURS, {**SUM, **EXPAND, **THETA["0.99"]}),
  "sum, expand, theta 0.5": (OURS, {**SUM, **EXPAND, **THETA["0.5"]}),
  "sum, expand, smoothing": (OURS, {**SUM, **EXPAND, **SMOOTHING}),
  "sum, withdraw": (OURS, {**SUM, **WITHDRAW}),
  "Bas-Net, letter": ("basnet", OF_BASNET),
  "Bas-Net, expand": ("basnet", {**OF_BASNET, **EXPAND}),
  "Bas-Net, divided": ("basnet", {**OF_BASNET, **DIVIDED}),
  "Bas-Net, divided, expand": ("basnet", {**OF_BASNET, **DIVIDED, **EXPAND}),
  "Bas-Net, divided, expand, balance": (
    "basnet",
    {**OF_BASNET, **DIVIDED, **EXPAND, **BALANCE},
  ),
  # Table III, and what was tried on the ILG's two losses
  "Bas-Net": ("basnet", {}),
  "ILG without cs, tm": ("ilg_without_cs_tm", {}),
  "ILG without tm": ("ilg_without_tm", {}),
  "ILG without cs": ("ilg_without_cs", {}),
  "ILG": ("ilg", {}),
  "ILG, weights 0.05": (
    "ilg",
    {f"ilg.loss.{name}": 0.05 for name in ("alpha", "beta", "gamma")},
  ),
  "ILG, stop-gradient": (
    "ilg",
    {"ilg.loss.consistency_stop_gradient": "original"},
  ),
  "ILG, min-max": ("ilg", {"ilg.loss.consistency_space": "minmax"}),
  **{
    name: (OURS, {**SUM, **EXPAND, **changes})
    for name, changes in STATED.items()
  },
}

PAPER = "0.7"
# Ways to read the same networks, {name: delta of config.detect}: NMS, and of
# the first CAS its space or whether it is a source of proposals beside OTS and
# RTS. The first is the paper's.
_NMS: dict[str, Changes] = {
  name: {"nms": float(name)} for name in (PAPER, "0.5", "0.4", "0.3")
}
_BELOW = {
  f"{name}{space}": {**_NMS[name], **changes}
  for name in ("0.5", "0.4", "0.3")
  for space, changes in (("", {}), (" softmax", {"ilg_cas": "softmax_minmax"}))
}
OF_FIRST: dict[str, Changes] = {PAPER: _NMS[PAPER], **_BELOW}
OF_STAGES: dict[str, Changes] = {
  **_NMS,
  **{
    f"{name} + own": {**changes, "sources": ("ots", "rts", "ilg")}
    for name, changes in _BELOW.items()
  },
}
AVERAGE = "0.1:0.7"


def ways_of(rows: list[str]) -> dict[str, dict[str, Changes]]:
  """{row: the ways to read it}; the first row is the origin of the labels."""
  return {rows[0]: OF_FIRST, **dict.fromkeys(rows[1:], OF_STAGES)}


def configuration(config, seed: int, arm: str) -> FrozenConfigDict:
  """The delta of an arm, on a split of its own."""
  origin, changes = ARMS[arm]
  letter = thumos14_letter.change(ConfigDict(config.to_dict()))
  row = tables.variant(FrozenConfigDict(letter), origin, seed)
  split = {"data.holdout": 0.5, "data.holdout_seed": seed}
  changed = ConfigDict(row.to_dict())
  changed.update_from_flattened_dict({**split, **changes})
  return FrozenConfigDict(changed)


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


def main() -> None:
  """Command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", default="5", help="how many, or 0,7")
  parser.add_argument("--arms", default=";".join(ARMS), help="separated by ;")
  args, rest = parser.parse_known_args()
  arms = args.arms.split(";")
  given = command_line.parse(["", f"--workdir={args.workdir}", *rest]).config
  seeds = tables.seeds_of(args.seeds, given.seed)
  startup.settle_jax(given)
  for seed in seeds:
    data = load_dataset(configuration(given, seed, "letter").data)
    for arm in arms:
      config = configuration(given, seed, arm)
      finish(config, data, args.workdir / f"seed-{seed}" / arm)


if __name__ == "__main__":
  main()
