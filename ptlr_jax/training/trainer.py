"""A training phase of a run: where it starts, what it sees, what it leaves.

Several runs can take a phase at once, see `stacked_seeds`.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ptlr_jax.data import batches
from ptlr_jax.data.dataset import Dataset
from ptlr_jax.io import checkpoints
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.method.stage import COMMON
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import Diverged
from ptlr_jax.runtime.progress import say, show
from ptlr_jax.training import resident, train_loop, train_step
from ptlr_jax.training.networks import Networks
from ptlr_jax.training.train_loop import Start
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import Phase


class TrainSettings(NamedTuple):
  """What all training phases of a run have in common.

  seed: of parameters, batches and dropout.
  parts: of the training set, which every batch has as many videos of.
  segments: that a video is sampled at for OTS and RTS; 0: its own length.
  window: segments that a longer video is cut to for OTS and RTS; 0: none.
  align: 2^M of Network-RTS, a multiple of which each packed video begins at.
  pack: whether a batch's videos lie one after the other.
  warm_start: whether a stage begins with the parameters of the one before.
  log_every, checkpoint_every: updates.
  stream_threads: that read ahead where features stay on disk.
  """

  seed: int
  parts: int
  segments: int
  window: int
  align: int
  pack: bool
  warm_start: bool
  log_every: int
  checkpoint_every: int
  stream_threads: int


@dataclasses.dataclass
class Trainer:
  """One training phase of one run.

  `options` are those of the phase's network, `labels` the pseudo labels that
  OTS and RTS learn.
  """

  settings: TrainSettings
  options: Any
  data: Dataset
  files: Artefacts
  networks: Networks
  phase: Phase
  store: resident.Store | None = None
  labels: Sequence[PseudoLabels] = ()

  def __post_init__(self):
    self.network = self.networks[self.phase.network]
    self.directory = self.files.checkpoint_dir(self.phase.name)
    self.empty: set[int] = set()  # batches without any labelled frame here

  def _key(self) -> jax.Array:
    key = jax.random.key(self.settings.seed)
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
    if self.settings.warm_start and phase.stage > 1:
      before = self.files.checkpoint_dir(f"{phase.network}-{phase.stage - 1}")
      params = checkpoints.final_params(before, params)
    return params

  def begin(self, at: int | None = None) -> Start:
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
    settings, options, videos = self.settings, self.options, self.data.train
    drawn: dict[str, Any] = {
      "seed": settings.seed,
      "name": self.phase.name,
      "parts": settings.parts,
      "share": (processes.index(), processes.count()),
    }
    if self.store is not None:
      drawn["first"] = self.store.first
    if self.phase.network == "ilg":
      classes = len(self.data.classes)
      batch_at = batches.ilg_batches(videos, classes, options, **drawn)
    else:
      # A row for each device and each part that the gradient is computed in.
      rows = options.accumulate * self.networks.devices.count
      batch_at = batches.labelled_batches(
        videos,
        self.labels,
        options.batch_size,
        segments=settings.segments,
        window=settings.window,
        align=settings.align,
        packed_rows=rows if settings.pack else 0,
        **drawn,
      )
    if self.store is not None or not self.data.on_disk:
      return self._counting(batch_at)
    # Grain, which starts JAX's own imports, only where it has work to do.
    from ptlr_jax.data.streaming import read_ahead

    threads = settings.stream_threads
    ahead = read_ahead(batch_at, start, options.steps, threads)
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
      seed=self.settings.seed,
      name=self.phase.name,
      parts=self.settings.parts,
    )
    ids = ", ".join(video.id for video in drawn)
    return Diverged(
      f"seed {self.settings.seed}: {self.phase.name}: {error}; videos of step "
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

  def run(self, start: Start | None = None) -> None:
    """Trains to the end, from where it `begin`s or from a start.

    Raises:
      Diverged: a loss or gradient is not finite.
      Stopped: a signal asked for it; what is reached is saved.
    """
    if self.idle:
      self.skip()
      return
    start = self.begin() if start is None else start
    try:
      state = self.fit(
        self.phase.name,
        self.network.step,
        start,
        self.batches(start.step),
        key=self.key,
        on_log=self.on_log,
        on_checkpoint=self.on_checkpoint,
      )
    except Diverged as error:
      raise self.diverged(error) from None
    self.finish(state)

  def fit(
    self,
    name: str,
    step: Callable[..., Any],
    start: Start,
    batch_at: Callable[[int], Mapping[str, Any]],
    *,
    axis: int = 0,
    **how: Any,
  ) -> train_step.TrainState:
    """`train_loop.fit` with the settings, devices and resident features of this
    phase, under the name of all who train with it; `axis` is that of the
    batches' rows."""
    if self.store is not None:
      step = functools.partial(step, store=self.store.features)
    devices = self.networks.devices
    put = functools.partial(devices.put, common=COMMON, axis=axis)
    others = "" if name == self.phase.name else " and so are the other seeds"
    return train_loop.fit(
      name,
      step,
      start,
      lambda i: put(batch_at(i)),
      steps=self.options.steps,
      log_every=self.settings.log_every,
      checkpoint_every=self.settings.checkpoint_every,
      place_of=lambda at: (
        f"{checkpoints.step_path(self.directory, at)}{others}"
      ),
      **how,
    )
