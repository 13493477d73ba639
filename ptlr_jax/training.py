"""A training phase of a run: where it starts, what it sees, what it leaves.

Several runs that differ in their seed can take a phase together: their states
and batches are stacked and one program updates them all (`train.make_steps`).
Each leaves the log and the checkpoints that it would have left alone.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from ptlr_jax import checkpoints, resident, train
from ptlr_jax.artefacts import Artefacts
from ptlr_jax.data import batches
from ptlr_jax.data.annotations import Dataset
from ptlr_jax.errors import Diverged
from ptlr_jax.networks import Networks
from ptlr_jax.phases import Phase
from ptlr_jax.progress import Progress, say
from ptlr_jax.pseudo_labels import PseudoLabels


@dataclasses.dataclass
class Training:
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

  def _key(self) -> jax.Array:
    key = jax.random.key(self.config.seed)
    return jax.random.fold_in(key, zlib.crc32(self.phase.name.encode()))

  @property
  def key(self) -> jax.Array:
    """What the updates' own keys are made of."""
    return jax.random.fold_in(self._key(), 1)

  def _initial_params(self) -> Any:
    phase, first = self.phase, jax.random.fold_in(self._key(), 0)
    params = self.networks.initial_params(phase.network, first)
    if self.config.ptlr.warm_start and phase.stage > 1:
      before = self.files.checkpoint_dir(f"{phase.network}-{phase.stage - 1}")
      params = checkpoints.final_params(before, params)
    return params

  def begin(self) -> train.TrainState:
    """The state that training goes on from; the log is cut to it."""
    state = train.create(self._initial_params(), self.network.optimizer)
    restored = checkpoints.restore(self.directory, state)
    state = state if restored is None else restored
    start = int(state.step)
    self.files.log.rewind(self.phase.name, start)
    if start:
      say(f"{self.phase.name:<14} goes on from step {start}")
    return state

  def batches(self, start: int) -> Callable[[int], dict[str, Any]]:
    """The function from an update's number to its batch; `start` is the first
    that is asked for."""
    config, videos = self.config, self.data.train
    drawn: dict[str, Any] = {"seed": config.seed, "name": self.phase.name}
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
        packed_rows=config.ptlr.pack and self.options.accumulate,
        **drawn,
      )
    if self.store is not None or not self.data.on_disk:
      return batch_at
    # Grain, which starts JAX's own imports, only where it has work to do.
    from ptlr_jax.data.streaming import read_ahead

    threads = self.config.data.stream_threads
    return read_ahead(batch_at, start, self.options.steps, threads)

  def on_log(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the means of an interval."""
    self.files.log.append(self.phase.name, step, values)

  def on_checkpoint(self, step: int, state: train.TrainState) -> None:
    """Saves a state."""
    checkpoints.save(self.directory, step, state)

  def finish(self, state: train.TrainState) -> None:
    """Leaves the final parameters."""
    checkpoints.finish(self.directory, state.params)

  def diverged(self, error: Diverged) -> Diverged:
    """The error with the phase, and what can be done."""
    saved = checkpoints.steps(self.directory)
    good = f"step {saved[-1]} in {self.directory}" if saved else "none yet"
    return Diverged(
      f"{self.phase.name}: {error}; last good checkpoint: {good}; look at the "
      f"features, or lower --config.{self.phase.network}.learning_rate in a "
      "new --workdir"
    )


def run(training: Training, state: train.TrainState | None = None) -> None:
  """Trains a phase to its end, from where it `begin`s or from a state.

  Raises:
    Diverged: a loss or gradient is not finite.
  """
  state = training.begin() if state is None else state
  start = int(state.step)
  try:
    state = _fit(
      training,
      training.phase.name,
      training.network.step,
      state,
      training.batches(start),
      start=start,
      key=training.key,
      on_log=training.on_log,
      on_checkpoint=training.on_checkpoint,
    )
  except Diverged as error:
    raise training.diverged(error) from None
  training.finish(state)


def _fit(
  training: Training,
  name: str,
  step: Callable[..., Any],
  state: train.TrainState,
  batch_at: Callable[[int], Mapping[str, Any]],
  *,
  start: int,
  on_log: Callable[[int, dict[str, Any]], None],
  **how: Any,
) -> train.TrainState:
  """`train.fit` with the settings and the resident features of a phase, under
  a bar of that name."""
  if training.store is not None:
    step = functools.partial(step, store=training.store.features)
  steps, options = training.options.steps, training.config.train
  bar = Progress(name, steps, start)

  def told(at: int, values: dict[str, Any]) -> None:
    on_log(at, values)
    bar.at(at, float(np.mean(values["loss"])))

  try:
    return train.fit(
      state,
      step,
      batch_at,
      steps=steps,
      start=start,
      log_every=options.log_every,
      checkpoint_every=options.checkpoint_every,
      on_log=told,
      **how,
    )
  finally:
    bar.close()


def run_together(trainings: Sequence[Training]) -> None:
  """The same phase of several runs, those at the same step at once.

  Raises:
    Diverged: a loss or gradient of one of them is not finite; the others have
      their last checkpoints.
  """
  starts = [(training, training.begin()) for training in trainings]
  groups: dict[int, list[tuple[Training, train.TrainState]]] = {}
  for training, state in starts:
    groups.setdefault(int(state.step), []).append((training, state))
  for start, members in sorted(groups.items()):
    if len(members) == 1:
      run(*members[0])
    else:
      _run_group(start, *zip(*members, strict=True))


def _run_group(
  start: int,
  trainings: Sequence[Training],
  states: Sequence[train.TrainState],
) -> None:
  first, count = trainings[0], len(trainings)
  sources = [training.batches(start) for training in trainings]
  name = f"{first.phase.name} x {count}"

  def on_log(step, values):
    for i, training in enumerate(trainings):
      own = {term: float(value[i]) for term, value in values.items()}
      training.on_log(step, own)

  def on_checkpoint(step, state):
    for training, own in zip(trainings, unstacked(state, count), strict=True):
      training.on_checkpoint(step, own)

  try:
    state = _fit(
      first,
      name,
      first.network.steps,
      jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *states),
      lambda i: stacked([batch_at(i) for batch_at in sources]),
      start=start,
      key=jax.numpy.stack([training.key for training in trainings]),
      on_log=on_log,
      on_checkpoint=on_checkpoint,
    )
  except Diverged as error:
    raise Diverged(f"{name}: {error}") from None
  for training, own in zip(trainings, unstacked(state, count), strict=True):
    training.finish(own)


def unstacked(tree: Any, count: int) -> list[Any]:
  """[k,...] leaves as k trees."""
  return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(count)]


def stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Batches as one with a leading axis; shorter ones are padded with what
  their masks leave out, up to the longest."""

  def together(*arrays: np.ndarray) -> np.ndarray:
    shape = np.max([array.shape for array in arrays], axis=0)
    found = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for row, array in zip(found, arrays, strict=True):
      row[tuple(slice(size) for size in array.shape)] = array
    return found

  return jax.tree.map(together, *map(dict, parts))
