"""The model that a finished run has in its workdir."""

import functools
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax import (
  checkpoints,
  exported,
  plugins,
  provenance,
  storage,
)
from ptlr_jax.artefacts import Artefacts, config_of
from ptlr_jax.data import description, digest
from ptlr_jax.data.loading import load
from ptlr_jax.errors import Damaged, InputError
from ptlr_jax.exported import Model, flattened, networks_of
from ptlr_jax.stages import STAGES, Stage, entry

LEARNED_FROM = "learned_from"  # of a start in provenance.json


@functools.cache
def stage_of(name: str, classes: int, options: FrozenConfigDict) -> Stage:
  """One a network and its settings, so that nothing is compiled twice."""
  return entry(STAGES, name, "ptlr.networks")(classes, options.to_dict())


def check_shapes(model: Model, where: str) -> None:
  """Holds parameters against what the configuration makes.

  Raises:
    InputError: they are not of this configuration.
  """
  for name in networks_of(model.config, model.stage):
    expected = flattened(shapes_of(name, model))
    came = flattened(model.params.get(name, {}))
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
  stage = stage_of(name, len(model.classes), model.config[name])
  return jax.eval_shape(
    lambda key: stage.init(key, model.widths), jax.random.key(0)
  )


def from_workdir(
  directory: Path, source: str = "", stage: int | None = None
) -> Model:
  """The networks of a run's last stage, or of another, 0 for the ILG alone.

  `source` is the data set of a run that did not note down its classes, as
  those before version 0.2 did not.

  Raises:
    InputError: there is no run that is trained so far, or it is damaged.
  """
  config = config_of(directory, str(directory))
  plugins.load(config.plugins)  # the user's own run; not those of a file
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
    for start in provenance.distinct(directory)
  ]
  return [x for i, x in enumerate(found) if x not in found[:i]]


def _learned_from(
  config: FrozenConfigDict, directory: Path, source: str
) -> dict[str, Any]:
  """What `description.of` says of the run's data set."""
  starts = provenance.read(directory)
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
  data = load(options, config.evaluate)
  for start in starts:
    if other := digest.contradict(start["data"], _annotated(data)):
      raise InputError(
        f"--source={source}: expected the data set of the run in {directory}, "
        f"came one with other {' and '.join(other)}"
      )
  return description.of(data)


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
    return from_workdir(path, stage=stage)
  model = exported.read(path)
  check_shapes(model, str(path))
  return model
