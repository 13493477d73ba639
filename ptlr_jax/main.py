"""From features to detections and an mAP table: the main command.

python -m ptlr_jax.main --config=configs/simulated.py --workdir=runs/simulated

With --reuse=OTHER the phases that the run in OTHER has done alike are taken
from there. Several processes (`cluster`) do the run together.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ml_collections import FrozenConfigDict

from ptlr_jax import cluster, command_line, interruption, processes, workdir
from ptlr_jax.errors import Diverged
from ptlr_jax.progress import say, show

USAGE = command_line.USAGE.replace(
  "--workdir=DIR", "--workdir=DIR [--reuse=OTHER_DIR]"
)


def run(argv: Sequence[str]) -> None:
  """Starts a run, goes on with one, or shows a finished one again."""
  own = {"reuse": "", **cluster.FLAGS}
  config, directory, said = command_line.parse(argv, USAGE, own)
  runs = workdir.runs_of(config, directory)
  with (
    interruption.watched(),
    processes.joined(cluster.place(os.environ, said)),
    workdir.opened(runs),
  ):
    if workdir.are_whole(runs):
      say(f"{directory}: finished before; nothing to do")
    else:
      _go_on(config, runs, Path(said["reuse"]) if said["reuse"] else None)
    _show(runs)


def _go_on(
  config: FrozenConfigDict,
  runs: Mapping[Path, FrozenConfigDict],
  reuse: Path | None,
) -> None:
  # These import JAX, which a finished run spares.
  from ptlr_jax import startup

  startup.settle(config)
  from ptlr_jax import seeds
  from ptlr_jax.data.loading import load_in_turn

  data = load_in_turn(config.data, config.evaluate)
  for note in data.notes:
    say(f"data: {note}")
  say(
    f"{len(data.train)} training and {len(data.test)} test videos of "
    f"{len(data.classes)} classes"
  )
  try:
    seeds.run(runs, data, reuse)
  except Diverged:  # the other seeds are worth showing
    _show(runs)
    raise


def _show(runs: Iterable[Path]) -> None:
  """Prints the table of the runs that are finished."""
  metrics = [found for found in map(workdir.finished, runs) if found]
  if metrics and processes.is_first():
    show(workdir.seeds_table(metrics))


def main() -> None:
  """Command line entry."""
  command_line.execute(run, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
