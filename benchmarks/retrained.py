"""The ILG trained again, on frame labels that a first run has found.

python benchmarks/retrained.py --config=configs/thumos14_small.py \
  --config.data.root=ROOT --workdir=runs/retrained [--seeds=5|0,7] \
  [--config.SECTION.KEY=VALUE ...]

Beside its own losses each stream's CAS learns the labels by cross-entropy
(Eq. 6), all weights 1. They are labels-0, the first ILG's own, or labels-1-rts,
those after a stage of the arm `sum, expand` of benchmarks/readings.py, whose
splits and readings are used. One stage follows each. Prints, for each row, the
mean and standard deviation over seeds by the paper's reading and by the row's
best.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import readings
from ml_collections import FrozenConfigDict

from ptlr_jax import tables
from ptlr_jax.cli import command_line, startup
from ptlr_jax.data import dataset
from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.io import storage
from ptlr_jax.method import ilg, losses, stage
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runs import pipeline
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.workdir import run_folder

LABELS = "labels"  # a stream: f32[T,C+2], labels and whether one is selected
FIRST, ROWS = "first", ("ilg", "stage-1")


class Retrained(ilg.ILG):
  """The ILG that learns frame labels too, where there are any."""

  def stream_terms(self, i, params, batch, key):
    """Those of the ILG, and the cross-entropy of the labels."""
    added, terms, cas = super().stream_terms(i, params, batch, key)
    if LABELS not in batch["features"]:
      return added, terms, cas
    labels = batch["features"][LABELS]
    selected = (labels[..., -1] > 0) & batch["mask"]
    found = losses.selected_cross_entropy(cas, labels[..., :-1], selected)
    return [*added, found], {**terms, LABELS: found}, cas


def with_labels(data: Dataset, labels: Sequence[PseudoLabels]) -> Dataset:
  """Training videos with their labels as a stream, test videos with none."""

  def one(video: Video, own: PseudoLabels | None) -> Video:
    found = np.zeros((video.num_segments, len(data.classes) + 2), np.float32)
    if own is not None:
      found[:, :-1], found[:, -1] = own.labels, own.selected
    return dataclasses.replace(video, features={**video.load(), LABELS: found})

  train = zip(data.train, labels, strict=True)
  return dataclasses.replace(
    data,
    train=tuple(one(video, own) for video, own in train),
    test=tuple(one(video, None) for video in data.test),
  )


def finished(config: Any, data: Dataset, directory: Path) -> pipeline.Run:
  """A run, and in readings.json what is read of it."""
  run_folder.prepare_run_folder(directory, config)
  run = pipeline.Run(config, data, directory)
  run.run()
  path = directory / "readings.json"
  if not path.exists():
    storage.write_json(path, readings.read(run, data))
  return run


def report(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
  """Prints a line for each row of each kind, {kind: readings of each seed}."""
  for kind, seeds in found.items():
    for row in ROWS:
      ways = {w: [one[row][w] for one in seeds] for w in seeds[0][row]}
      best = max(ways, key=lambda way: np.mean(ways[way]))
      said = [
        f"{np.mean(ways[way]):.1f} ± {np.std(ways[way], ddof=1):.1f} ({way})"
        for way in (readings.PAPER, best)
      ]
      print(f"{kind:<14} {row:<8} {', '.join(said)}", flush=True)


def main() -> None:
  """Command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", default="5", help="how many, or 0,7")
  args, rest = parser.parse_known_args()
  rest.append("--config.ptlr.stages=1")
  given = command_line.parse(["", f"--workdir={args.workdir}", *rest]).config
  startup.settle_jax(given)
  # OTS and RTS join all streams but the labels.
  order = dataset.stream_order
  stage.stream_order = lambda names: order(n for n in names if n != LABELS)
  ilg.ILG = Retrained
  found: dict[str, list[Any]] = {FIRST: [], "labels-0": [], "labels-1-rts": []}
  for seed in tables.seeds_of(args.seeds, given.seed):
    config: FrozenConfigDict = readings.configuration(
      given, seed, "sum, expand"
    )
    data = load_dataset(config.data)
    run = finished(config, data, args.workdir / f"seed-{seed}" / FIRST)
    for kind in found:
      directory = args.workdir / f"seed-{seed}" / kind
      if kind != FIRST:
        labels = run.labels.read(kind, range(run.files.parts))
        finished(config, with_labels(data, labels), directory)
      found[kind].append(storage.read_json(directory / "readings.json"))
  report(found)


if __name__ == "__main__":
  main()
