"""Several seeds of a configuration at once, each in a workdir of its own.

Their training phases run as one program (`stacked_seeds.train_seeds`), the rest
one after the other. Each leaves what `main` with that seed alone leaves, so
that either goes on with what the other has begun.
"""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import FrozenConfigDict

from ptlr_jax.data.dataset import Dataset
from ptlr_jax.runs import space_estimate
from ptlr_jax.runs.pipeline import Run
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import Damaged, Diverged, InputError, OtherVersion
from ptlr_jax.runtime.progress import say, show
from ptlr_jax.training import stacked_seeds
from ptlr_jax.workdir.phases import Phase, phases


def run_seeds(
  configs: Mapping[Path, FrozenConfigDict],
  data: Dataset,
  reuse: Path | None = None,
) -> None:
  """Runs what is missing of {workdir: configuration}; see `run_folder.runs_of`.

  What `reuse`, a workdir of one or more runs, has alike is taken from there.

  Raises:
    Diverged: a loss or gradient of a seed is not finite; the other seeds are
      finished before.
    InputError: a run began on other data.
    NoSpace: the disk has no room for what is missing.
  """
  runs = [Run(config, data, path) for path, config in configs.items()]
  for one in runs:
    one.record()
    if reuse is not None and processes.is_first():
      _reuse(one, reuse)
  if processes.is_first():
    space_estimate.check_disk_space(runs)
  processes.exchange()
  if len(runs) == 1:
    runs[0].run()
    return
  for other in runs[1:]:
    other.features_of = runs[0]
  try:
    failed = _run_together(runs)
  finally:
    for one in runs:
      one.close()
  if failed:
    raise Diverged("; ".join(failed))


def _run_together(runs: list[Run]) -> list[str]:
  """Runs every phase of several runs; what diverged."""
  failed: list[str] = []
  for phase in phases(runs[0].config):
    if phase.kind == "train":
      runs = _trained(runs, phase, failed)
    else:
      for one in runs:
        one.finish(phase)
  return failed


def _reuse(one: Run, reuse: Path) -> None:
  """Takes over what was done alike, of the same seed where there are more."""
  own = reuse / f"seed-{one.config.seed}"
  source = own if own.is_dir() else reuse
  if not (source / "config.json").exists():
    raise InputError(
      f"--reuse={reuse}: expected the workdir of a run, came a folder without "
      "config.json; give another or leave it out"
    )
  try:
    taken = one.files.adopt_from(source)
  except (Damaged, OtherVersion) as error:
    raise InputError(
      f"--reuse={reuse}: {error.lines[0]}; or leave it out"
    ) from None
  say(f"{source}: {', '.join(taken) or 'nothing'} taken over from there")


def _trained(runs: list[Run], phase: Phase, failed: list[str]) -> list[Run]:
  """Trains a phase; the runs that can go on from it."""
  missing = [one for one in runs if not one.is_done(phase)]
  try:
    stacked_seeds.train_seeds([one.trainer(phase) for one in missing])
    return runs
  except Diverged as error:
    show(f"{error}; each seed goes on alone")
  able = []
  for one in runs:
    try:
      one.finish(phase)
      able.append(one)
    except Diverged as error:
      failed.append(str(error))
      show(failed[-1])
  return able
