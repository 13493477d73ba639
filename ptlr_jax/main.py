"""From features to detections and an mAP table: the main command.

python -m ptlr_jax.main --config=configs/simulated.py --workdir=runs/simulated

With --reuse=OTHER the phases that the run in OTHER has done alike are taken
from there. Several processes (`runtime.cluster`) share a run.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ml_collections import FrozenConfigDict

from ptlr_jax.cli import command_line, startup
from ptlr_jax.runtime import cluster, processes, signals
from ptlr_jax.runtime.errors import Diverged
from ptlr_jax.runtime.progress import say, show
from ptlr_jax.workdir import run_folder

USAGE = command_line.USAGE.replace(
  "--workdir=DIR", "--workdir=DIR [--reuse=OTHER_DIR]"
)


def run_command(argv: Sequence[str]) -> None:
  """Starts a run, goes on with one, or shows a finished one again."""
  own = {"reuse": "", **cluster.FLAGS}
  config, directory, said = command_line.parse(argv, USAGE, own)
  runs = run_folder.runs_of(config, directory)
  place = cluster.place(os.environ, said)
  if place:  # to meet, the processes compute
    startup.settle_jax(config)
  opened = run_folder.open_run_folders(runs)
  with signals.watched(), processes.joined(place), opened:
    if run_folder.are_whole(runs):
      say(f"{directory}: finished before; nothing to do")
    else:
      train_missing(config, runs, said["reuse"])
    _show(runs)


def train_missing(
  config: FrozenConfigDict,
  runs: Mapping[Path, FrozenConfigDict],
  reuse: str = "",
) -> None:
  """Runs what is missing of {workdir: configuration}; `seeds.run_seeds`."""
  startup.settle_jax(config)  # imports JAX: not for a finished run
  from ptlr_jax.runs import seeds
  from ptlr_jax.runs.dataset import load_dataset_in_turn

  data = load_dataset_in_turn(config.data, config.evaluate)
  for note in data.notes:
    say(f"data: {note}")
  numbers = map(len, (data.train, data.test, data.classes))
  say("{} training and {} test videos of {} classes".format(*numbers))
  try:
    seeds.run_seeds(runs, data, Path(reuse) if reuse else None)
  except Diverged:  # the other seeds are worth showing
    _show(runs)
    raise


def _show(runs: Iterable[Path]) -> None:
  """Prints the table of the runs that are finished."""
  metrics = [found for found in map(run_folder.finished_metrics, runs) if found]
  if metrics and processes.is_first():
    show(run_folder.seeds_table(metrics))


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
