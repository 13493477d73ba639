"""A finished run without its training: parameters as they are drawn."""

from pathlib import Path

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.data import simulated
from ptlr_jax.data.dataset import Dataset
from ptlr_jax.io import checkpoints, storage
from ptlr_jax.runs.pipeline import Run
from ptlr_jax.workdir import run_folder
from ptlr_jax.workdir.phases import phases
from tests import tiny_config


def configuration(**changes: object) -> FrozenConfigDict:
  """The tiny configuration with one stage, and some keys changed."""
  config: ConfigDict = tiny_config.get_config()
  config.ptlr.stages = 1
  config.compile_cache = "off"
  config.update_from_flattened_dict(changes)
  return FrozenConfigDict(config)


def simulated_data(config: FrozenConfigDict) -> Dataset:
  """What the configuration trains on."""
  return simulated.simulate(width=config.data.width, **config.data.simulated)


def leave_run(
  directory: Path, config: FrozenConfigDict, data: Dataset | None = None
) -> Dataset:
  """Leaves what a run of the configuration does, but for logs, labels and
  metrics; its detections come from the test phase itself."""
  data = data or simulated_data(config)
  directory.mkdir(parents=True)
  run_folder.prepare_run_folder(directory, config)
  run = Run(config, data, directory)
  run.record()
  for i, phase in enumerate(phases(config)):
    if phase.kind == "train":
      params = run.networks.initial_params(phase.network, jax.random.key(i))
      # Larger than they are drawn, so that the curves differ from flat ones.
      params = jax.tree.map(lambda x: 4 * x, params)
      checkpoints.finish(run.files.checkpoint_dir(phase.name), params)
    elif phase.kind == "detect":
      run.finish(phase)
  return data


def results_of(directory: Path) -> dict[str, list[dict]]:
  """The detections that a run, or a prediction, has written."""
  return storage.read_json(directory / "detections.json")["results"]
