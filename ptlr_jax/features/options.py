"""The flags of feature extraction, on one machine or many."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from ptlr_jax.cli import command_line
from ptlr_jax.features import listing, optical_flow, output
from ptlr_jax.features.segments import Settings, check_settings
from ptlr_jax.features.video import pyav
from ptlr_jax.runtime.errors import InputError

EXTRACTION_USAGE = (
  "usage: python -m ptlr_jax.{} --videos=DIR_OR_LIST --output=DIR "
  "[--rgb_weights=FILE] [--flow_weights=FILE] [--layout=basnet] {} "
  "[--KEY=VALUE ...]"
)
SETTINGS = ("fps", "window", "stride", "crops", "flow", "batch", "damaged")


class ExtractionFlags(NamedTuple):
  """What the user asked for."""

  videos: str
  output: str
  rgb_weights: str
  flow_weights: str
  layout: str
  split: str
  jobs: int


def parse_extraction_flags(
  argv: Sequence[str], usage: str
) -> tuple[ExtractionFlags, Settings]:
  """The command, and how to extract.

  Raises:
    InputError: a line for everything that is wrong with it.
  """
  values = flags.FlagValues()
  for name in ("videos", "output", "rgb_weights", "flow_weights"):
    flags.DEFINE_string(name, "", "", flag_values=values)
  flags.DEFINE_string("layout", output.LAYOUTS[0], "", flag_values=values)
  flags.DEFINE_string("split", "", "", flag_values=values)
  flags.DEFINE_integer("jobs", 0, "", 0, flag_values=values)
  define: dict[type, Any] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
  }
  for name in SETTINGS:
    default = getattr(Settings(), name)
    define[type(default)](name, default, "", flag_values=values)
  command_line.read_flags(values, argv, usage)
  own: Any = {name: values[name].value for name in ExtractionFlags._fields}
  chosen: Any = {name: values[name].value for name in SETTINGS}
  command, settings = ExtractionFlags(**own), Settings(**chosen)
  _check(command, settings, usage)
  return command, settings


def _check(command: ExtractionFlags, settings: Settings, usage: str) -> None:
  problems = [
    f"--{name}: expected {what}, got none; {usage}"
    for name, what in (("videos", listing.FORM), ("output", "a folder"))
    if not getattr(command, name)
  ]
  if not command.rgb_weights and not command.flow_weights:
    problems.append(
      "--rgb_weights, --flow_weights: expected one or both, got none; "
      "docs/I3D_WEIGHTS.md says where they come from"
    )
  problems += [
    f"--{name}: expected one of {', '.join(known)}, got "
    f"{getattr(command, name)!r}"
    for name, known in (("layout", output.LAYOUTS), ("split", output.SPLITS))
    if getattr(command, name) not in known
  ]
  if command.split and command.layout != "basnet":
    problems.append(
      f"--split: expected none with --layout={command.layout}, which has no "
      f"folders of splits, got {command.split}; leave it out"
    )
  try:
    check_settings(settings)
  except InputError as error:
    problems += [f"--{line}" for line in error.problems]
  if problems:
    raise InputError(*problems)


def check_packages(command: ExtractionFlags) -> None:
  """Decoding and flow need packages that training does without.

  Raises:
    InputError: one is missing; what to install.
  """
  pyav()
  if command.flow_weights:
    optical_flow.opencv()


def available_cores() -> int:
  """How many cores this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # not Linux
    return os.cpu_count() or 1
