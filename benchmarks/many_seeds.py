"""Updates a second of k seeds at once, against one after the other.

python benchmarks/many_seeds.py --config=configs/simulated.py [--counts=2,4,8]

Both run the program that a run's training phases run, on its data, and make
their batches as it does; rounds of k updates are timed in turn.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from ptlr_jax.cli import command_line  # noqa: E402
from ptlr_jax.method.pseudo_labels import PseudoLabels  # noqa: E402
from ptlr_jax.runs.dataset import load_dataset  # noqa: E402
from ptlr_jax.runs.pipeline import Run  # noqa: E402
from ptlr_jax.training.stacked_seeds import stacked  # noqa: E402
from ptlr_jax.workdir import run_folder  # noqa: E402
from ptlr_jax.workdir.phases import phases  # noqa: E402

USAGE = (
  "usage: python benchmarks/many_seeds.py --config=FILE [--counts=2,4,8] "
  "[--rounds=9] [--config.SECTION.KEY=VALUE ...]"
)


def runs_of(config: Any, data: Any, folder: Path, count: int) -> list[Run]:
  """`count` runs that differ in their seed."""
  many = config.to_dict() | {"seeds": count}
  configs = run_folder.runs_of(type(config)(many), folder)
  return [Run(own, data, path) for path, own in configs.items()]


def some_labels(data: Any) -> list[PseudoLabels]:
  """Every frame labelled background: what is learnt costs the same."""
  found = []
  for video in data.train:
    labels = np.zeros((video.num_segments, len(data.classes) + 1), bool)
    labels[:, -1] = True
    found.append(PseudoLabels(labels, labels[:, -1].copy()))
  return found


def rates(
  runs: list[Run], phase: Any, labels: list[PseudoLabels], rounds: int
) -> tuple[float, float]:
  """Updates a second: one after the other, and at once."""
  trainings = [run.trainer(phase, labels) for run in runs]
  states = [one.begin().state for one in trainings]
  sources = [one.batches(0) for one in trainings]
  keys = [one.key for one in trainings]
  network = trainings[0].network
  together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
  together_keys = jnp.stack(keys)

  def alone(i: int) -> None:
    for j, source in enumerate(sources):
      states[j], _ = network.step(states[j], source(i), keys[j])
    jax.block_until_ready(states)

  def at_once(i: int) -> None:
    nonlocal together
    batch = stacked([source(i) for source in sources])
    together, _ = network.steps(together, batch, together_keys)
    jax.block_until_ready(together)

  times: dict[Any, list[float]] = {alone: [], at_once: []}
  for kept in (False, True):  # every shape is compiled in the first pass
    for i in range(rounds):
      for way, spent in times.items():
        begun = time.perf_counter()
        way(i)
        if kept:
          spent.append(time.perf_counter() - begun)
  return tuple(len(runs) / statistics.median(v) for v in times.values())  # pyright: ignore[reportReturnType]


def main() -> None:
  """Prints a line for every network and number of seeds."""
  others = {"counts": "2,4,8", "rounds": "9"}
  with tempfile.TemporaryDirectory() as name:
    config, _, said = command_line.parse(
      [*sys.argv, f"--workdir={name}"], USAGE, others
    )
    data = load_dataset(config.data)
    labels = some_labels(data)
    print("| network | seeds | one after the other | at once | ratio |")
    print("|---|---|---|---|---|")
    for count in map(int, said["counts"].split(",")):
      runs = runs_of(config, data, Path(name), count)
      for phase in phases(config):
        if phase.kind == "train" and phase.stage < 2:
          one, many = rates(runs, phase, labels, int(said["rounds"]))
          print(
            f"| {phase.network} | {count} | {one:.1f} | {many:.1f} | "
            f"{many / one:.2f} |",
            flush=True,
          )


if __name__ == "__main__":
  main()
