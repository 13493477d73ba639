"""Checks a data set, or writes it as TFDS: ArrayRecord shards, read faster.

python -m ptlr_jax.prepare --source=DIR --data_dir=OUT [--jobs=2]
python -m ptlr_jax.prepare --check --source=DIR

The first writes OUT/NAME/LAYOUT-DIGEST/1.0.0, which configurations take as
--config.data.root= and any user of tensorflow_datasets can read. A stop loses
nothing, the same command goes on; a changed source gets a folder of its own.
With --parts=K files end where the parts of --config.data.parts=K do, so that
each of several processes opens its own only.
The second prints what was found and everything that is wrong with it.

Other flags are the keys of `data` in configs/base.py: --annotations, --classes,
--streams, --fps, --stride, --window, --trim, --skip_missing and so on.
"""

import dataclasses
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from ptlr_jax.cli import command_line
from ptlr_jax.data import reading, simulated, summary
from ptlr_jax.data.dataset import Dataset
from ptlr_jax.data.layouts import LAYOUTS, read_source
from ptlr_jax.data.layouts.source import ReadOptions, Source, read_options
from ptlr_jax.data.tfds import prepared
from ptlr_jax.runtime import config_tree
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import Progress, say, show

USAGE = (
  "usage: python -m ptlr_jax.prepare --source=DIR (--check | --data_dir=OUT) "
  "[--layout=auto] [--jobs=N] [--name=NAME] [--shard_mb=N] "
  "[--parts=K] [--KEY=VALUE ...]"
)
_NAMES = ("thumos14_i3d", "activitynet_i3d", "own", "simulated")


class Command(NamedTuple):
  """The command's own flags."""

  data_dir: str
  name: str
  jobs: int
  shard_mb: int
  parts: int
  check: bool


def _parse(argv: Sequence[str]) -> tuple[Command, ReadOptions]:
  """The command's own flags, and how to read."""
  values = flags.FlagValues()
  texts = {"source": "", "data_dir": "", "name": ""}
  for name, default in texts.items():
    flags.DEFINE_string(name, default, "", flag_values=values)
  for name, default in {"jobs": 1, "shard_mb": 128, "parts": 1}.items():
    flags.DEFINE_integer(name, default, "", 1, flag_values=values)
  flags.DEFINE_boolean("check", False, "", flag_values=values)
  define: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    tuple: flags.DEFINE_list,
  }
  usual = vars(read_options())
  del usual["root"]
  for name, default in usual.items():
    define[type(default)](name, default, "", flag_values=values)
  command_line.read_flags(values, argv, USAGE)
  said = config_tree.flatten({name: values[name].value for name in usual})
  own: Any = {name: values[name].value for name in Command._fields}
  return Command(**own), ReadOptions(root=str(values["source"].value), **said)


def _check_flags(command: Command, options: ReadOptions) -> None:
  known = ("auto", *LAYOUTS, "prepared", "simulated")
  if options.layout not in known:
    raise InputError(
      f"--layout: expected one of {', '.join(known)}, got {options.layout!r}"
    )
  if not options.root and options.layout != "simulated":
    raise InputError(f"--source: expected a folder, got none; {USAGE}")
  if not command.check and not command.data_dir:
    raise InputError(
      f"--data_dir: expected a folder to write to, or --check; {USAGE}"
    )
  if command.name not in ("", *_NAMES):
    raise InputError(
      f"--name: expected one of {', '.join(_NAMES)}, got {command.name!r}"
    )


def _as_flags(lines: Sequence[str]) -> tuple[str, ...]:
  """Ways out, which name keys of a configuration, as flags of this command."""
  said = [line.replace("--config.data.root", "--source") for line in lines]
  said = [line.replace("--config.data.", "--") for line in said]
  # "('rgb','flow')" is rgb,flow here.
  return tuple(
    re.sub(r"=\"\(([^)]*)\)\"", lambda m: "=" + m[1].replace("'", ""), line)
    for line in said
  )


def _check_prepared(options: ReadOptions) -> None:
  folder = prepared.folder_of(options)
  problems = prepared.verify_prepared(folder)
  if problems:
    raise InputError(*problems)
  for line in summary.of_dataset(prepared.load_prepared(options)):
    show(line)
  show(f"{folder}: every shard is as it was written")


def check_dataset(options: ReadOptions) -> None:
  """Prints what is in a folder, then every problem.

  Raises:
    InputError: training would fail, with how many problems there are.
  """
  if options.layout == "simulated":
    for line in summary.of_dataset(_simulated(options)):
      show(line)
    return
  if prepared.is_prepared(options):
    _check_prepared(options)
    return
  problems: list[str] = []
  source = read_source(options, problems)
  # What is only counted needs no room in memory.
  counting = dataclasses.replace(options, memory_gb=0.0)
  report = reading.examine_source(source, counting, problems)
  for line in _as_flags(list(summary.of_report(report))):
    show(line)
  for line in _as_flags(problems):
    show(f"problem: {' '.join(line.splitlines())}")
  if problems:
    raise InputError(
      f"{options.root}: {len(problems)} problems, see above; training would "
      "refuse this data set"
    )
  show("no problem: training can start")


def name_of(data: Dataset) -> str:
  """The builder for a data set, by its ids and classes."""
  if data.simulated:
    return "simulated"
  ids = [video.id for video in (*data.train, *data.test)]
  if all(re.match(r"video_(validation|test)_\d{7}\Z", i) for i in ids):
    return "thumos14_i3d"
  if all(re.match(r"[\w-]{11}\Z", i, re.ASCII) for i in ids):
    return "activitynet_i3d"
  return "own"


def digest_of(source: Source, options: ReadOptions) -> str:
  """Of the annotations' bytes, the feature files' names, sizes and times, and
  how they are read: another state of the source has another digest."""
  found = hashlib.sha256()
  ours = dataclasses.replace(
    options, root="", layout=source.layout, memory_gb=0.0, check_finite=True
  )
  found.update(repr(ours).encode())
  for path in (*source.files, source.root / "geometry.json"):
    if path.is_file():
      found.update(path.name.encode() + path.read_bytes())
  for i, parts in sorted(source.parts.items()):
    for stream, part in sorted(parts.items()):
      if isinstance(part.array, np.ndarray):  # small ones inside a pickle
        said: Any = hashlib.sha256(part.array.tobytes()).hexdigest()
      else:
        stat = part.array.path.stat()
        said = (stat.st_size, stat.st_mtime_ns)
      found.update(repr((i, stream, said, part.array.shape)).encode())
  return found.hexdigest()[:10]


def _simulated(options: ReadOptions) -> Dataset:
  return simulated.simulate(width=options.width or 32)


def _source(options: ReadOptions) -> tuple[Dataset, str]:
  """The data set to write, its features on disk, and its config's name."""
  if options.layout == "simulated":
    return _simulated(options), "simulated"
  # Features are checked as they are written, so that they are read once.
  lazy = dataclasses.replace(options, memory_gb=0.0, check_finite=False)
  problems: list[str] = []
  source = read_source(lazy, problems)
  data = reading.read_dataset(source, lazy, problems)
  root = str(source.root)
  notes = (note.replace(root, source.root.name) for note in data.notes)
  data = dataclasses.replace(data, notes=tuple(notes))
  return data, f"{source.layout}-{digest_of(source, options)}"


def write_dataset(options: ReadOptions, command: Command) -> None:
  """Writes the data set as TFDS, or says that it is there."""
  from ptlr_jax.data.tfds import builders  # tensorflow_datasets takes a second

  logging.getLogger("absl").setLevel(logging.ERROR)
  if prepared.is_prepared(options):
    raise InputError(
      f"{options.root}: expected a data set in one of the field's layouts, "
      "came one that is prepared already; give it to training as it is"
    )
  data, config = _source(options)
  name = command.name or name_of(data)
  config += f"-parts{command.parts}" if command.parts > 1 else ""
  out = Path(command.data_dir).expanduser()
  for note in _as_flags(data.notes):
    say(f"data: {note}")
  target = builders.directory(out, name, config)
  if (target / prepared.INFO).exists():
    show(f"{target}: prepared before; nothing to do")
    return
  others = [path.parent.name for path in prepared.find_prepared(out / name)]
  layout = config.partition("-")[0]
  if same := [n for n in others if n.partition("-")[0] == layout]:
    say(
      f"{out / name}: also holds {', '.join(same)}, of another source or of "
      "another state of this one; it stays"
    )
  total = len(data.train) + len(data.test)
  bar = Progress("prepare", total, unit="video")
  try:
    builders.build(
      data,
      out,
      name,
      config,
      jobs=command.jobs,
      megabytes=command.shard_mb,
      parts=command.parts,
      on_wait=lambda: say(f"{target}: waiting for another preparation of it"),
      on_videos=bar.at,
    )
  finally:
    bar.close()
  show(f"{target}: {total} videos; train with --config.data.root={target}")


def run_command(argv: Sequence[str]) -> None:
  """Checks or writes."""
  try:
    command, options = _parse(argv)
    _check_flags(command, options)
    if command.check:
      check_dataset(options)
    else:
      write_dataset(options, command)
  except InputError as error:
    raise InputError(*_as_flags(error.problems)) from None


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
