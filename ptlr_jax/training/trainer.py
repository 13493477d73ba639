"""A training phase of a run: where it starts, what it sees, what it leaves.

Several runs can take a phase `together`.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from ptlr_jax.data import batches
from ptlr_jax.data.dataset import Dataset
from ptlr_jax.io import checkpoints
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.method.stage import COMMON
from ptlr_jax.runtime import processes, signals
from ptlr_jax.runtime.errors import Diverged, Stopped
from ptlr_jax.runtime.progress import Progress, say, show
from ptlr_jax.training import resident, train_loop, train_step
from ptlr_jax.training.networks import Networks
from ptlr_jax.workdir import shares
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import Phase


@dataclasses.dataclass
class Trainer:
  """One phase of one run; `labels` are those that OTS and RTS learn."""

  config: FrozenConfigDict
  data: Dataset
  files: Artefacts
  networks: Networks
  phase: Phase
  store: resident.Store | None = None
  labels: Sequence[PseudoLabels] = ()

  def __post_init__(self):
    self.options = self.config[self.phase.network]
    self.network = self.networks[self.phase.network]
    self.directory = self.files.checkpoint_dir(self.phase.name)
    self.empty: set[int] = set()  # batches without any labelled frame here

  def _key(self) -> jax.Array:
    key = jax.random.key(self.config.seed)
    return jax.random.fold_in(key, zlib.crc32(self.phase.name.encode()))

  @functools.cached_property
  def idle(self) -> bool:
    """Whether there is no labelled frame at all to learn from."""
    if self.phase.network == "ilg":
      return False
    own = any(label.selected.any() for label in self.labels)
    return not any(processes.exchange(own))

  def skip(self) -> None:
    """Leaves the parameters that the phase begins with."""
    show(
      f"{self.phase.name:<14} no video has a labelled frame: nothing to learn, "
      "its network stays as it begins; see --config.labels.high and low"
    )
    checkpoints.finish(self.directory, self._initial_params())

  @property
  def key(self) -> jax.Array:
    """What the updates' own keys are made of."""
    return self.networks.devices.copied(jax.random.fold_in(self._key(), 1))

  def _initial_params(self) -> Any:
    phase, first = self.phase, jax.random.fold_in(self._key(), 0)
    params = self.networks.initial_params(phase.network, first)
    if self.config.ptlr.warm_start and phase.stage > 1:
      before = self.files.checkpoint_dir(f"{phase.network}-{phase.stage - 1}")
      params = checkpoints.final_params(before, params)
    return params

  def begin(self, at: int | None = None) -> "Start":
    """Where training goes on from; the log is cut to it. With `at` at no later
    step than that.

    Raises:
      OtherVersion, InputError: a checkpoint is of something else.
    """
    state = self.network.create(self._initial_params())
    saved = checkpoints.restore(self.directory, state, at)
    state, notes = (state, {}) if saved is None else saved
    start = int(state.step)
    self.files.log.rewind(self.phase.name, start)
    if start:
      say(f"{self.phase.name:<14} goes on from step {start}")
    pending = [
      {name: np.float32(x) for name, x in terms.items()}
      for terms in notes.get("pending", ())
    ]
    return Start(start, state, pending)

  def batches(self, start: int) -> Callable[[int], dict[str, Any]]:
    """The function from an update's number to its batch; `start` is the first
    that is asked for."""
    config, videos = self.config, self.data.train
    drawn: dict[str, Any] = {
      "seed": config.seed,
      "name": self.phase.name,
      "parts": config.data.parts,
      "share": (processes.index(), processes.count()),
    }
    if self.store is not None:
      drawn["first"] = self.store.first
    if self.phase.network == "ilg":
      classes = len(self.data.classes)
      batch_at = batches.ilg_batches(videos, classes, config.ilg, **drawn)
    else:
      batch_at = batches.labelled_batches(
        videos,
        self.labels,
        self.options.batch_size,
        window=config.ptlr.window,
        align=2**config.rts.model.branches,
        packed_rows=shares.packed_rows(
          config, self.phase.network, self.networks.devices
        ),
        **drawn,
      )
    if self.store is not None or not self.data.on_disk:
      return self._counting(batch_at)
    # Grain, which starts JAX's own imports, only where it has work to do.
    from ptlr_jax.data.streaming import read_ahead

    threads = self.config.data.stream_threads
    ahead = read_ahead(batch_at, start, self.options.steps, threads)
    return self._counting(ahead)

  def on_log(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the means of an interval."""
    self.files.log.append(self.phase.name, step, values)

  def on_checkpoint(
    self,
    step: int,
    state: train_step.TrainState,
    pending: Sequence[Mapping[str, Any]],
  ) -> None:
    """Saves a state, and what is not logged yet of what led to it.

    Raises:
      Diverged: it is not finite.
      NoSpace: the disk is full.
    """
    train_loop.check_state(state, step)
    notes = [{n: float(x) for n, x in terms.items()} for terms in pending]
    checkpoints.save(self.directory, step, state, {"pending": notes})

  def finish(self, state: train_step.TrainState) -> None:
    """Leaves the final parameters."""
    checkpoints.finish(self.directory, state.params)
    everywhere = processes.exchange(sorted(self.empty))
    if empty := set.intersection(*map(set, everywhere)):
      show(
        f"{self.phase.name:<14} {len(empty)} batches had no labelled frame: "
        "they taught nothing"
      )

  def diverged(self, error: Diverged) -> Diverged:
    """The error with the phase, the batch, and what can be done."""
    saved = checkpoints.sound_steps(self.directory)
    good = (
      f"{checkpoints.step_path(self.directory, saved[-1])}"
      if saved
      else "none yet"
    )
    drawn = batches.drawn(
      self.data.train,
      self.options.batch_size,
      error.step - 1,
      seed=self.config.seed,
      name=self.phase.name,
      parts=self.config.data.parts,
    )
    ids = ", ".join(video.id for video in drawn)
    return Diverged(
      f"seed {self.config.seed}: {self.phase.name}: {error}; videos of step "
      f"{error.step}: {ids}; last good checkpoint: {good}; look at their "
      f"features, or lower --config.{self.phase.network}.learning_rate in a "
      "new --workdir",
      error.step,
      error.members,
    )

  def _counting(
    self, batch_at: Callable[[int], dict[str, Any]]
  ) -> Callable[[int], dict[str, Any]]:
    """The batches; those without any labelled frame are counted."""

    def counted(i: int) -> dict[str, Any]:
      batch = batch_at(i)
      if "selected" in batch and not batch["selected"].any():
        self.empty.add(i)
      return batch

    return counted


class Start(NamedTuple):
  """A state to go on from, and the terms since the last log before it."""

  step: int
  state: train_step.TrainState
  pending: list[dict[str, Any]]


def train_phase(training: Trainer, start: Start | None = None) -> None:
  """Trains a phase to its end, from where it `begin`s or from a start.

  Raises:
    Diverged: a loss or gradient is not finite.
    Stopped: a signal asked for it; what is reached is saved.
  """
  if training.idle:
    training.skip()
    return
  start = training.begin() if start is None else start
  try:
    state = fit_phase(
      training,
      training.phase.name,
      training.network.step,
      start,
      training.batches(start.step),
      key=training.key,
      on_log=training.on_log,
      on_checkpoint=training.on_checkpoint,
    )
  except Diverged as error:
    raise training.diverged(error) from None
  training.finish(state)


def fit_phase(
  training: Trainer,
  name: str,
  step: Callable[..., Any],
  start: Start,
  batch_at: Callable[[int], Mapping[str, Any]],
  *,
  on_log: Callable[[int, dict[str, Any]], None],
  on_checkpoint: Callable[..., None],
  axis: int = 0,
  **how: Any,
) -> train_step.TrainState:
  """`run_updates` with the settings, the devices and the resident features of a
  phase, under a bar of that name; `axis` is that of the batches' rows."""
  if training.store is not None:
    step = functools.partial(step, store=training.store.features)
  steps, options = training.options.steps, training.config.train
  bar = Progress(name, steps, start.step)
  saved = start.step

  def told(at: int, values: dict[str, Any]) -> None:
    on_log(at, values)
    bar.at(at, float(np.mean(values["loss"])))

  def kept(at: int, *what: Any) -> None:
    nonlocal saved
    on_checkpoint(at, *what)
    saved = at

  put = functools.partial(
    training.networks.devices.put, common=COMMON, axis=axis
  )
  processes.begin_loop(start.step + 1)
  try:
    with signals.deferred():
      return train_loop.run_updates(
        start.state,
        step,
        lambda i: put(batch_at(i)),
        steps=steps,
        start=start.step,
        pending=start.pending,
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
        on_log=told,
        on_checkpoint=kept,
        stopping=_stopping,
        **how,
      )
  except Stopped:
    if not saved:
      raise
    where = checkpoints.step_path(training.directory, saved)
    rest = " and so are the other seeds" if name != training.phase.name else ""
    raise Stopped(f"{name} is saved at step {saved} in {where}{rest}") from None
  finally:
    bar.close()


def _stopping(step: int) -> bool:
  """Whether training ends after an update, as a signal has asked one of the
  processes."""
  stop = processes.stops_after(step, signals.asked())
  if stop:
    signals.ask()
  return stop
