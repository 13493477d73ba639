"""The data set that a configuration names."""

import dataclasses
from typing import Any

from ptlr_jax.data import prepared, reading, simulated
from ptlr_jax.data.annotations import Dataset, holdout
from ptlr_jax.data.layouts import read_source
from ptlr_jax.data.source import ReadOptions
from ptlr_jax.errors import InputError


def read_options(options: Any) -> ReadOptions:
  """The part of `config.data` that says how to read."""
  values = {}
  for field in dataclasses.fields(ReadOptions):
    value = options[field.name]
    values[field.name] = tuple(value) if isinstance(value, list) else value
  return ReadOptions(**values)


def load(options: Any) -> Dataset:
  """Reads, or simulates, what `config.data` says.

  Raises:
    InputError: a line for every file or setting that is wrong.
  """
  if options.layout == "simulated":
    data = simulated.simulate(width=options.width or 32, **options.simulated)
  else:
    if not options.root:
      raise InputError(
        "--config.data.root: expected the folder of the features and "
        "annotations, got none; pass --config.data.root=ROOT"
      )
    how = read_options(options)
    if prepared.is_prepared(how):
      data = prepared.load(how)
    else:
      problems: list[str] = []
      data = reading.read(read_source(how, problems), how, problems)
  return holdout(data, options.holdout, options.holdout_seed)
