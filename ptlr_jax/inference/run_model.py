"""The model that a finished run has in its workdir."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.data import dataset, digest
from ptlr_jax.inference import model_file
from ptlr_jax.inference.model_file import Model, flatten_params, networks_of
from ptlr_jax.io import checkpoints, storage
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime import plugins
from ptlr_jax.runtime.errors import Damaged, InputError
from ptlr_jax.training.networks import cached_stage
from ptlr_jax.workdir import provenance
from ptlr_jax.workdir.artefacts import Artefacts, read_run_config

LEARNED_FROM = "learned_from"  # of a start in provenance.json


def check_shapes(model: Model, where: str) -> None:
  """Holds parameters against what the configuration makes.

  Raises:
    InputError: they are not of this configuration.
  """
  for name in networks_of(model.config, model.stage):
    expected = flatten_params(shapes_of(name, model))
    came = flatten_params(model.params.get(name, {}))
    for key in sorted(expected.keys() | came.keys()):
      shapes = [
        f"{x[key].shape}" if key in x else "none" for x in (expected, came)
      ]
      if shapes[0] != shapes[1]:
        raise InputError(
          f"{where}: expected parameters {name}/{key} of shape {shapes[0]}, "
          f"came {shapes[1]}; use the ptlr_jax that wrote it"
        )


def shapes_of(name: str, model: Model) -> Any:
  """What the parameters of a network of the model are shaped like."""
  stage = cached_stage(name, len(model.classes), model.config[name])
  return jax.eval_shape(
    lambda key: stage.init(key, model.widths), jax.random.key(0)
  )


def model_from_workdir(
  directory: Path, source: str = "", stage: int | None = None
) -> Model:
  """The networks of a run's last stage, or of another, 0 for the ILG alone.

  `source` is the data set of a run that did not note down its classes, as
  those before version 0.2 did not.

  Raises:
    InputError: there is no run that is trained so far, or it is damaged.
  """
  config = read_run_config(directory, str(directory))
  plugins.import_plugins(
    config.plugins
  )  # the user's own run; not those of a file
  if config.ptlr.cas:
    raise InputError(
      f"{directory}: expected a run with an ILG, came one that began with the "
      f"CASs of another method ({config.ptlr.cas}), which say nothing of other "
      "videos; the detections of its own are in detections.json"
    )
  last = config.ptlr.stages
  stage = last if stage is None else stage
  if not 0 <= stage <= last:
    raise InputError(
      f"--stage={stage}: expected 0 to {last}, the stages of the run in "
      f"{directory}, 0 being the ILG alone"
    )
  files = Artefacts(config, directory)
  phases = {
    net: f"{net}-{stage}" if net != "ilg" else net
    for net in networks_of(config, stage)
  }
  for phase in phases.values():
    if not (files.checkpoint_dir(phase) / storage.FINAL).exists():
      raise InputError(
        f"{directory}: expected a finished run, came one without the "
        f"parameters of {phase}; give the command of the run again, which goes "
        "on with it"
      )
  said = _learned_from(config, directory, source)
  model = Model(
    config=config,
    classes=tuple(said["classes"]),
    widths=dict(said["widths"]),
    geometry=dict(said["geometry"]),
    stage=stage,
    simulated=said["simulated"],
    params={},
    made_with=_made_with(directory),
  )
  params = {
    net: _params(files.checkpoint_dir(phase), net, model)
    for net, phase in phases.items()
  }
  return model._replace(params=params)


def _made_with(directory: Path) -> list[dict[str, Any]]:
  """What the run was made with; its classes are said elsewhere."""
  found = [
    {k: v for k, v in start.items() if k != LEARNED_FROM}
    for start in provenance.distinct_starts(directory)
  ]
  return [x for i, x in enumerate(found) if x not in found[:i]]


def _learned_from(
  config: FrozenConfigDict, directory: Path, source: str
) -> dict[str, Any]:
  """What `dataset.describe_dataset` says of the run's data set."""
  starts = provenance.read_starts(directory)
  said = [s[LEARNED_FROM] for s in starts if LEARNED_FROM in s]
  if said and not source:
    return said[-1]
  options: Any = ConfigDict(config.data.to_dict())
  if config.data.layout != "simulated" and not source:
    raise InputError(
      f"{directory}: its provenance.json does not say which classes it learned "
      "(an earlier version made it, or it is damaged); pass --source=ROOT, its "
      "data set"
    )
  # Features stay unread.
  options.update({"root": source, "check_finite": False, "memory_gb": 0.0})
  data = load_dataset(options, config.evaluate)
  for start in starts:
    if other := digest.contradict(start["data"], _annotated(data)):
      raise InputError(
        f"--source={source}: expected the data set of the run in {directory}, "
        f"came one with other {' and '.join(other)}"
      )
  return dataset.describe_dataset(data)


def _annotated(data: Any) -> dict[str, str | None]:
  if data.simulated:  # made from the configuration alone
    return {}
  return digest.data_digest(data)


def _params(directory: Path, network: str, model: Model) -> Any:
  template = shapes_of(network, model)
  path = directory / storage.FINAL
  try:
    return jax.device_get(checkpoints.final_params(directory, template))
  except Damaged as error:
    raise InputError(
      f"{error}; give the command of the run again, which makes it anew"
    ) from None
  except InputError:
    raise
  except Exception as error:  # what orbax raises has no common class
    reason = " ".join(str(error).split())[:200]
    raise InputError(
      f"{path}: expected parameters for the {len(model.classes)} classes and "
      f"features {model.widths} of this run, they cannot be restored ({reason})"
    ) from error


def open_model(path: Path, stage: int | None = None) -> Model:
  """The model in a file that `export` wrote, or in the folder of a run.

  Raises:
    InputError: there is none that can be used.
  """
  if path.is_dir():
    return model_from_workdir(path, stage=stage)
  model = model_file.read_model(path)
  check_shapes(model, str(path))
  return model
