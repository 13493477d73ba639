"""The command line of `main`: flags to a checked, frozen configuration."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import FrozenConfigDict, config_flags

from ptlr_jax import settings
from ptlr_jax.errors import InputError

_USAGE = (
  "usage: python -m ptlr_jax.main --config=configs/NAME.py --workdir=DIR "
  "[--config.SECTION.KEY=VALUE ...]"
)


class Arguments(NamedTuple):
  """What the user asked for."""

  config: FrozenConfigDict
  workdir: Path


def _flag_values() -> flags.FlagValues:
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config", lock_config=True, flag_values=values
  )
  flags.DEFINE_string("workdir", None, "folder of this run", flag_values=values)
  return values


def _override_keys(argv: Sequence[str]) -> list[str]:
  found = (re.match(r"--?(?:no)?config\.([\w.]+)", arg) for arg in argv)
  return [match[1] for match in found if match]


def _unknown_keys(argv: Sequence[str]) -> list[str]:
  """A line for every override of a key that the config file does not have."""
  plain = [arg for arg in argv if not _override_keys([arg])]
  values = _flag_values()
  values(plain, known_only=True)
  config: Any = values["config"].value
  known = settings.flatten(config)
  lines = []
  for key in _override_keys(argv):
    if key not in known:
      guess = settings.nearest(key, list(known))
      hint = f"did you mean --config.{guess}?" if guess else "see configs/"
      lines.append(f"--config.{key}: there is no such key; {hint}")
  return lines


def _parsed(argv: Sequence[str]) -> flags.FlagValues:
  files = [arg for arg in argv if re.match(r"--?config(=|$)", arg)]
  if not files:
    raise InputError(f"--config: expected a file, got none; {_USAGE}")
  # `from configs import base` finds the configs beside the one that is asked
  # for, wherever the command is called from.
  path = files[-1].partition("=")[2] or argv[argv.index(files[-1]) + 1]
  if not Path(path.partition(":")[0]).is_file():
    raise InputError(f"--config: expected a file, {path} is none; {_USAGE}")
  sys.path.append(str(Path(path).absolute().parent.parent))
  values = _flag_values()
  try:
    rest = values(argv)
  except (AttributeError, KeyError) as error:
    lines = _unknown_keys(argv)
    if not lines:
      raise InputError(f"{path}: {error}") from error
    raise InputError(*lines) from None
  except flags.Error as error:
    raise InputError(f"{error}; {_USAGE}") from None
  except (OSError, ImportError) as error:
    raise InputError(f"{path}: cannot be loaded: {error}") from error
  if rest[1:]:
    raise InputError(f"expected flags only, got {rest[1]!r}; {_USAGE}")
  return values


def parse(argv: Sequence[str]) -> Arguments:
  """Reads the command line.

  Raises:
    InputError: a line for everything that is wrong with it.
  """
  values = _parsed(argv)
  workdir = values["workdir"].value
  if not workdir:
    raise InputError(f"--workdir: expected a folder, got none; {_USAGE}")
  config: Any = values["config"].value
  settings.check(config)
  return Arguments(FrozenConfigDict(config), Path(workdir))
