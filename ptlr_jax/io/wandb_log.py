"""Weights & Biases: the lines of metrics.jsonl, for those who ask for it.

Nothing is imported, and nothing leaves this machine, without a project in
`config.log.wandb`. Sent are the configuration without the places of this
machine, and the log's numbers; not the code, the command line, the name of the
host, its load or what is printed. Whatever fails there ends no run.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.runtime.progress import show

PACKAGE = "wandb"
PATIENCE = 30.0  # seconds for the server to answer, at the start and the end


class Tracker:
  """A run of Weights & Biases that follows the log (`metrics_log.Follower`).

  It begins with the first new line, and is told all before: its curves are
  whole. A run that stops and goes on has another there, of the same group, as
  what is sent cannot be taken back.

  `project` is NAME or ENTITY/NAME, `config` what is shown as configuration.
  """

  def __init__(self, project: str, directory: Path, config: Mapping[str, Any]):
    entity, _, self._project = project.rpartition("/")
    self._entity = entity or None
    self._directory, self._config = directory, dict(config)
    self._before: list[Mapping[str, Any]] = []
    self._run: Any = None
    self._phases: set[str] = set()  # that it knows
    self._off = False

  def restart(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """What was sent before is void, and these are the lines there are."""
    self.close()
    self._before = list(lines)

  def add(self, line: Mapping[str, Any]) -> None:
    """Sends a line."""
    self._try(self._add, line)

  def replace(self, phase: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Sends the lines of a phase that are not in the log."""
    del phase
    for line in lines:
      self.add(line)

  def close(self) -> None:
    """Ends the run there, if one has begun: as failed where an error passes."""
    run, self._run = self._run, None
    if run is not None:
      status = int(sys.exc_info()[0] is not None)
      self._try(lambda: run.finish(exit_code=status))

  def _try(self, act: Callable[..., Any], *what: Any) -> None:
    if self._off:
      return
    try:
      act(*what)
    except Exception as error:  # theirs have no common class
      self._off, self._run = True, None
      said = " ".join(str(error).split())[:200] or type(error).__name__
      show(f"Weights & Biases: {said}; going on without")

  def _add(self, line: Mapping[str, Any]) -> None:
    if self._run is None:
      self._begin()
    self._send(line)

  def _begin(self) -> None:
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
    place = self._directory.absolute()
    self._run = wandb.init(
      project=self._project,
      entity=self._entity,
      name=place.name,
      group=f"{place.parent.name}/{place.name}",
      dir=str(place),
      config=self._config,
      reinit="create_new",  # seeds that are trained at once have one each
      settings=quiet,
    )
    before, self._before, self._phases = self._before, [], set()
    for line in before:
      self._send(line)

  def _send(self, line: Mapping[str, Any]) -> None:
    phase = line["phase"]
    if phase not in self._phases:  # each counts its own steps
      self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
      self._phases.add(phase)
    names = line.keys() - {"phase"}
    self._run.log({f"{phase}/{name}": line[name] for name in sorted(names)})
