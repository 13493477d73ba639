"""The data set that a configuration names."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from ptlr_jax.data import digest, reading, simulated
from ptlr_jax.data.dataset import Dataset, holdout
from ptlr_jax.data.layouts import read_source
from ptlr_jax.data.layouts.source import ReadOptions
from ptlr_jax.data.tfds import prepared
from ptlr_jax.evaluation.protocols import PROTOCOLS
from ptlr_jax.runtime import config_tree, processes
from ptlr_jax.runtime.errors import InputError


def load_dataset_in_turn(options: Any, evaluate: Any = None) -> Dataset:
  """`load`, by process 0 first: problems are told once, by whoever checks all
  that there is, and what it prepares is there for the others.

  Raises:
    InputError: see there; or the processes see different data.
  """
  if processes.is_first():
    data = load_dataset(options, evaluate)
  processes.exchange()
  if not processes.is_first():
    checked = ConfigDict(options.to_dict())
    checked.check_finite = False
    data = load_dataset(checked, evaluate)
  seen = digest.data_digest(data) if processes.count() > 1 else {}
  hint = "give all processes the same files"
  processes.agree(seen, "the data", hint)
  return data


def load_dataset(options: Any, evaluate: Any = None) -> Dataset:
  """Reads, or simulates, what `config.data` says.

  With `config.evaluate`, without the test videos that its protocol leaves out.

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
    said = config_tree.flatten(options)
    names = [field.name for field in dataclasses.fields(ReadOptions)]
    how = ReadOptions(**{name: said[name] for name in names})
    if prepared.is_prepared(how):
      data = prepared.load_prepared(how)
    else:
      problems: list[str] = []
      data = reading.read_dataset(read_source(how, problems), how, problems)
  data = holdout(data, options.holdout, options.holdout_seed)
  if evaluate is not None:
    data = _for_protocol(data, evaluate.protocol)
    if evaluate.ambiguous and not any(v.ambiguous for v in data.test):
      raise InputError(
        f"--config.evaluate.ambiguous={evaluate.ambiguous}: expected test "
        "videos with ambiguous stretches, the data have none (W-TALC's "
        "annotations do); leave it out"
      )
  return data


def _for_protocol(data: Dataset, protocol: str) -> Dataset:
  """The rule `disputed`: the data without what the protocol leaves out."""
  left_out = set(PROTOCOLS[protocol].left_out)
  test = tuple(v for v in data.test if v.id not in left_out)
  if len(test) == len(data.test):
    return data
  names = sorted(left_out & {v.id for v in data.test})
  note = (
    f"rule disputed: {', '.join(names)} are not tested under the protocol "
    f"{protocol}, as their annotations are mistaken; thumos14-212 tests them"
  )
  return dataclasses.replace(data, test=test, notes=(*data.notes, note))
