"""The command lines: flags to a checked, frozen configuration."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from ptlr_jax.cli import config_checks
from ptlr_jax.io import disk_space
from ptlr_jax.runtime import (
  config_files,
  config_tree,
  processes,
  progress,
  schema,
  signals,
)
from ptlr_jax.runtime.errors import (
  Absent,
  Diverged,
  InputError,
  NoSpace,
  Stopped,
)
from ptlr_jax.workdir import log_followers

USAGE = (
  "usage: python -m ptlr_jax.main --config=configs/NAME.py --workdir=DIR "
  "[--config.SECTION.KEY=VALUE ...]"
)
QUIET = "--quiet: prints the result, problems and where it stopped alone"


class Arguments(NamedTuple):
  """What the user asked for."""

  config: FrozenConfigDict
  workdir: Path
  others: dict[str, str]


def _flag_values(
  argv: Sequence[str], others: Mapping[str, str]
) -> flags.FlagValues:
  values = flags.FlagValues()
  # It looks for the overrides in sys.argv unless it is given another.
  config_flags.DEFINE_config_file(
    "config", lock_config=True, flag_values=values, sys_argv=list(argv)
  )
  flags.DEFINE_string("workdir", None, "folder of this run", flag_values=values)
  for name, default in others.items():
    flags.DEFINE_string(name, default, "", flag_values=values)
  return values


def _config_path(argv: Sequence[str], usage: str) -> str:
  """The last --config=PATH or --config PATH."""
  path = None
  for arg, following in zip(argv, [*argv[1:], ""], strict=True):
    if match := re.match(r"--?config(?:=(.*)|$)", arg):
      path = following if match[1] is None else match[1]
  if not path:
    raise InputError(f"--config: expected a file, got none; {usage}")
  if not Path(path.partition(":")[0]).is_file():
    raise InputError(f"--config: expected a file, {path} is none; {usage}")
  return path


def _config_of(path: str) -> ConfigDict:
  """What the file itself says, without overrides."""
  config_files.make_importable(path)
  argv = ["", f"--config={path}"]
  values = _flag_values(argv, {})
  try:
    values(argv)
    config: Any = values["config"].value
  except Exception as error:  # it is the user's code: anything can happen
    came = str(error).strip().splitlines() or [""]
    raise InputError(
      f"{path}: cannot be loaded: {type(error).__name__}: {came[-1]}"
    ) from error
  if not isinstance(config, ConfigDict):
    raise InputError(
      f"{path}: expected get_config() to return a ConfigDict, got {config!r}; "
      "begin from configs/base.py"
    )
  return config


def _given(argv: Sequence[str]) -> list[str]:
  """The keys that are overridden on the command line."""
  found = (re.match(r"--?(?:no)?config\.([\w.]+)", arg) for arg in argv)
  return [match[1] for match in found if match]


def _unknown_keys(argv: Sequence[str], config: ConfigDict) -> list[str]:
  """A line for every override of a key that the config file does not have."""
  leaves = list(config_tree.flatten(config))
  sections = {key.rpartition(".")[0] for key in leaves}
  lines = []
  for key in _given(argv):
    if key not in leaves and key not in sections:
      hint = schema.suggestion(key, leaves)
      lines.append(f"--config.{key}: there is no such key; {hint}")
  return lines


def _parsed(
  argv: Sequence[str], usage: str, others: Mapping[str, str]
) -> flags.FlagValues:
  argv = config_files.resolved(argv)
  path = _config_path(argv, usage)
  if unknown := _unknown_keys(argv, _config_of(path)):
    raise InputError(*unknown)
  values = _flag_values(argv, others)
  read_flags(values, argv, usage)
  return values


def read_flags(
  values: flags.FlagValues, argv: Sequence[str], usage: str
) -> None:
  """Gives the defined flags what the command line says; --quiet, which every
  command has, holds from here on.

  Raises:
    InputError: a flag is not known or not of its type, or there is more.
  """
  flags.DEFINE_boolean("quiet", False, "", flag_values=values)
  try:
    rest = values(list(argv))
  except flags.Error as error:
    raise InputError(f"{error}; {usage}") from None
  if rest[1:]:
    raise InputError(f"expected flags only, got {rest[1]!r}; {usage}")
  progress.be_quiet(bool(values["quiet"].value))


def parse(
  argv: Sequence[str],
  usage: str = USAGE,
  others: Mapping[str, str] | None = None,
) -> Arguments:
  """Reads the command line.

  `others` are flags of the command's own, {name: default}.

  Raises:
    InputError: a line for everything that is wrong with it.
  """
  others = others or {}
  values = _parsed(argv, usage, others)
  workdir = values["workdir"].value
  if not workdir:
    raise InputError(f"--workdir: expected a folder, got none; {usage}")
  config: Any = values["config"].value
  config_checks.apply_compat(config, _given(argv))
  frozen = config_checks.freeze_config(config)
  log_followers.check_followers(frozen)
  own = {name: str(values[name].value) for name in others}
  return Arguments(frozen, Path(workdir), own)


def execute(run: Callable[[Sequence[str]], None], doc: str, usage: str) -> None:
  """Runs a command on `sys.argv`; exits with 2 for a mistake in what was given,
  1 for a run that cannot go on, and as usual where a signal ended it.

  Every error of ours is shown as lines, without a traceback.
  """
  if {"-h", "--help"} & set(sys.argv):
    keys = "\n--help_config: prints every key of a configuration"
    keys *= "--config=" in usage
    print(f"{doc}\n{usage}{keys}\n{QUIET}")
    return
  if "--help_config" in sys.argv:
    print(schema.help_text())
    return
  try:
    _execute(run)
  except BaseException as error:
    if processes.count() == 1:
      raise
    if not isinstance(error, SystemExit):
      traceback.print_exc()
    leave(error.code if isinstance(error, SystemExit) else 1)
  if processes.count() > 1:
    leave(0)  # at its own end JAX would wait for the other processes


def _execute(run: Callable[[Sequence[str]], None]) -> None:
  """Runs a command; what it raises of ours is told, and is a SystemExit."""
  try:
    run(sys.argv)
    sys.stdout.flush()
  except InputError as error:
    sys.exit(_complain(error.lines, 2))
  except BrokenPipeError:
    # Whoever read our output has had enough; nothing more can be said.
    _close_stdout()
    sys.exit(1)
  except (Absent, Diverged, NoSpace) as error:
    sys.exit(_complain([str(error)], 1))
  except OSError as error:
    if not disk_space.is_full(error):
      raise
    _close_stdout()
    where = error.filename or "standard output"
    sys.exit(_complain([f"{where}: no space left on the disk; make room"], 1))
  except Stopped as error:
    said = f"stopped by {signals.name()}: {error}; the same command goes on"
    leave(_complain([said], signals.exit_status()))
  except KeyboardInterrupt:
    sys.exit(_complain(["stopped by SIGINT"], 130))


def leave(status: Any) -> NoReturn:
  """Ends the process without tidying up: all is written and no lock is held,
  and where a compilation was left XLA's own end is a crash."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):
      stream.flush()
  os._exit(status)


def _close_stdout() -> None:
  """Else what is left to print would fail once more, at the exit."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(lines: Sequence[str], status: int) -> int:
  who = "" if processes.is_first() else f"process {processes.index()}: "
  for line in lines:
    print(f"ptlr_jax: {who}{line}", file=sys.stderr)
  return status
