"""Weights & Biases: the lines of metrics.jsonl, for those who ask for it.

Nothing is imported, and nothing leaves this machine, without a project in
`config.log.wandb`. Sent are the configuration without the places of this
machine, and the log's numbers; not the code, the command line, the name of the
host, its load or what is printed.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGE = "wandb"
PATIENCE = 30.0  # seconds for the server to answer, at the start and the end


class Tracker:
  """A run of Weights & Biases that follows the log (`metrics_log.Follower`).

  A run that stops and goes on has another there, of the same group and with
  whole curves, as what is sent cannot be taken back.

  `project` is NAME or ENTITY/NAME, `config` what is shown as configuration.
  """

  def __init__(self, project: str, directory: Path, config: Mapping[str, Any]):
    entity, _, self._project = project.rpartition("/")
    self._entity = entity or None
    self._directory, self._config = directory.absolute(), dict(config)
    self._run: Any = None
    self._phases: set[str] = set()  # that it knows

  def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """Sends lines; begins the run there with the first."""
    if self._run is None:
      self._run, self._phases = self._begun(), set()
    for line in lines:
      phase, names = line["phase"], sorted(line.keys() - {"phase"})
      if phase not in self._phases:  # each counts its own steps
        self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
        self._phases.add(phase)
      self._run.log({f"{phase}/{name}": line[name] for name in names})

  def close(self) -> None:
    """Ends the run there, if one has begun: as failed where an error passes."""
    run, self._run = self._run, None
    if run is not None:
      run.finish(exit_code=int(sys.exc_info()[0] is not None))

  def lost(self, why: str) -> str:
    """What is told where something fails there, which ends no run."""
    return f"Weights & Biases: {why}; going on without"

  def _begun(self) -> Any:
    import wandb  # pyright: ignore[reportMissingImports]

    quiet = wandb.Settings(
      silent=True,
      console="off",
      disable_code=True,
      disable_git=True,
      host="",  # it would be this one's name
      save_code=False,
      x_disable_machine_info=True,
      x_disable_meta=True,
      x_disable_stats=True,
      x_save_requirements=False,
      init_timeout=PATIENCE,
      finish_timeout=PATIENCE,
    )
    mode = wandb.setup(settings=quiet).settings.mode
    # It would ask for a key, and wait, on a terminal.
    if mode == "online" and not wandb.login(prompt=False):
      raise RuntimeError(
        "expected an API key, found none; give `wandb login` once, or set "
        "WANDB_MODE=offline and send later with `wandb sync`"
      )
    place = self._directory
    return wandb.init(
      project=self._project,
      entity=self._entity,
      name=place.name,
      group=f"{place.parent.name}/{place.name}",
      dir=str(place),
      config=self._config,
      reinit="create_new",  # seeds that are trained at once have one each
      settings=quiet,
    )
