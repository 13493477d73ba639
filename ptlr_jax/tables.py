"""The paper's tables from one command: trains what they need, and no more.

python -m ptlr_jax.tables --config=configs/thumos14.py --table=all --seeds=5 \\
  --config.data.root=ROOT --workdir=runs/tables

Every run lies in WORKDIR/seed-N/VARIANT and is a run of `main`; what variants
have in common is trained once. A run that was stopped goes on, a finished one
is not run again, more seeds or tables add what is missing. WORKDIR/tables
holds each table as text, Markdown, CSV and LaTeX, written anew after each seed.

--seeds=5 are five seeds from config.seed on: 0 to 4, or with --config.seed=10
10 to 14. --seeds=0,7 are these two, and --seeds=7, is one, whatever config.seed
is. A run is the same in either case.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.cli import command_line, config_checks
from ptlr_jax.io import storage
from ptlr_jax.paper_tables import ablations, formats
from ptlr_jax.runtime import signals
from ptlr_jax.runtime.errors import Diverged, InputError
from ptlr_jax.runtime.progress import say, show
from ptlr_jax.workdir import run_folder

USAGE = (
  "usage: python -m ptlr_jax.tables --config=configs/NAME.py "
  "--table=1|2|3|4|5|6|all --seeds=5|0,7 --workdir=DIR "
  "[--config.SECTION.KEY=VALUE ...]"
)


def numbers_of(said: str, protocol: str) -> list[int]:
  """`all`, or numbers with commas. Raises InputError."""
  usual = ablations.usual(protocol)
  if said == "all":
    return list(usual)
  parts = said.split(",")
  if not set(parts) <= set(map(str, ablations.TABLES)):
    raise InputError(f"--table: expected 1 to 6 or all, got {said!r}; {USAGE}")
  numbers = sorted({int(part) for part in parts})
  for number in numbers:
    if number not in usual:
      table = ablations.TABLES[number]
      raise InputError(
        f"--table: Table {table.roman} is {table.title}, but the "
        f"configuration's evaluate.protocol is {protocol}; give a "
        f"--config of {table.dataset} or --table=all"
      )
  return numbers


def seeds_of(said: str, first: int) -> list[int]:
  """A count, from `first` on, or seeds with commas. Raises InputError."""
  listed = re.fullmatch(r"[0-9]+(,[0-9]+)*,?", said)
  if not listed or re.fullmatch("0+", said):
    raise InputError(
      "--seeds: expected how many, or the seeds with commas (0,1,5 or 7,), "
      f"got {said!r}; {USAGE}"
    )
  if "," in said:
    return sorted({int(part) for part in said.split(",") if part})
  return list(range(first, first + int(said)))


def variant(config: FrozenConfigDict, name: str, seed: int) -> FrozenConfigDict:
  """The configuration of a run."""
  changed = ConfigDict(config.to_dict())
  changed.seed = seed
  if name != ablations.OURS:
    try:
      delta = importlib.import_module(f"configs.ablations.{name}")
    except ImportError as error:
      raise InputError(
        f"configs/ablations/{name}.py: cannot be imported ({error}); run from "
        "a checkout of the repository"
      ) from None
    changed = delta.change(changed)
  try:
    return config_checks.freeze_config(changed)
  except InputError as error:
    raise InputError(*(f"{name}: {p}" for p in error.problems)) from None


class Runs:
  """The runs of a set of tables below a folder; `of_labels` where one of them
  holds pseudo labels against the truth."""

  def __init__(
    self, config: FrozenConfigDict, root: Path, of_labels: bool = False
  ):
    self.config, self.root, self.of_labels = config, root, of_labels
    self._data = None

  def directory(self, name: str, seed: int) -> Path:
    """The workdir of a run."""
    return self.root / f"seed-{seed}" / name

  def finish(self, name: str, seed: int) -> None:
    """Runs what is missing of a run, on what the others of its seed have."""
    directory = self.directory(name, seed)
    config = variant(self.config, name, seed)
    with run_folder.open_run_folders({directory: config}):
      if not run_folder.is_whole(directory, config):
        self._go_on(directory, config)

  def _go_on(self, directory: Path, config: FrozenConfigDict) -> None:
    # These import JAX, which finished tables spare.
    from ptlr_jax.cli import startup

    startup.settle_jax(config)
    from ptlr_jax.runs import pipeline, space_estimate
    from ptlr_jax.runs.dataset import load_dataset

    self._data = self._data or load_dataset(config.data, config.evaluate)
    if fault := self._data.not_scorable():
      raise InputError(
        f"{config.data.root}: expected a test set that can be scored, but "
        f"{fault}; the tables need one, ptlr_jax.main does not"
      )
    if self.of_labels and not any(v.instances for v in self._data.train):
      raise InputError(
        f"{config.data.root}: expected temporal annotations of training videos "
        "too, to hold their pseudo labels against, came none; leave the tables "
        "of pseudo labels out of --table="
      )
    run = pipeline.Run(config, self._data, directory)
    run.record()
    run.files.adopt_neighbours()
    space_estimate.check_disk_space([run])
    run.run()

  def metrics(
    self, names: Sequence[str], seeds: Sequence[int]
  ) -> dict[str, dict[int, Mapping[str, Any]]]:
    """{variant: {seed: metrics}} of the finished runs."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for name in names:
      measured = {
        s: run_folder.finished_metrics(self.directory(name, s)) for s in seeds
      }
      found[name] = {s: m for s, m in measured.items() if m}
    return found


def write_tables(
  root: Path, numbers: Sequence[int], runs: Mapping[str, Mapping[int, Any]]
) -> str:
  """Writes each table in every format, and all in one; returns the text."""
  filled = [ablations.fill(ablations.TABLES[n], runs) for n in numbers]
  tables = [table for table in filled if table]
  if not tables:
    return ""
  some = next(iter(m for by_seed in runs.values() for m in by_seed.values()))
  note = run_folder.SIMULATED if some["simulated"] else ""
  for form, render in formats.FORMATS.items():
    said = f"{note}\n" if note and form in ("txt", "md") else ""
    said = f"% {note}\n" if note and form == "tex" else said
    for table in tables:
      path = root / "tables" / f"table-{table.table.number}.{form}"
      storage.write_bytes(path, (said + render(table)).encode())
    joined = said + formats.joined(tables, form)
    storage.write_bytes(root / "tables" / f"tables.{form}", joined.encode())
  text = formats.joined(tables, "txt")
  return f"{text}\n{note}" if note else text


def run_command(argv: Sequence[str]) -> None:
  """Trains what is missing, then writes and shows the tables."""
  with signals.watched():
    _run(argv)


def _run(argv: Sequence[str]) -> None:
  config, root, said = command_line.parse(
    argv, USAGE, {"table": "all", "seeds": "5"}
  )
  numbers = numbers_of(said["table"], config.evaluate.protocol)
  seeds = seeds_of(said["seeds"], config.seed)
  if config.seeds != 1:
    raise InputError(
      f"--config.seeds: expected 1, got {config.seeds}; the tables' seeds are "
      "--seeds"
    )
  if config.ptlr.cas:
    raise InputError(
      "--config.ptlr.cas: expected none, since the tables compare ILGs, which "
      f"it replaces, got {config.ptlr.cas}; leave it out"
    )
  names = ablations.variants(numbers)
  for name in names:  # a row that cannot run is told before hours of others
    variant(config, name, seeds[0])
  of_labels = any(ablations.TABLES[n].kind == "labels" for n in numbers)
  runs, failed, text = Runs(config, root, of_labels), [], ""
  runs.metrics(names, seeds)  # nor one of another version after hours
  for seed in seeds:
    for i, name in enumerate(names, 1):
      say(f"seed {seed}, {name} ({i} of {len(names)})")
      try:
        runs.finish(name, seed)
      except Diverged as error:  # the other runs are worth having
        failed.append(f"seed {seed}, {name}: {error}")
        show(failed[-1])
    text = write_tables(root, numbers, runs.metrics(names, seeds))
  show(f"\n{text}")
  say(f"{root / 'tables'}: the same as txt, md, csv and tex")
  if failed:
    raise Diverged(
      f"{len(failed)} runs diverged, their rows lack those seeds: "
      + "; ".join(failed)
    )


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
