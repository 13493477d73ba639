"""The training loop: updates, logs, checkpoints, and where it stops."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ptlr_jax.runtime import signals
from ptlr_jax.runtime.errors import Diverged, Stopped
from ptlr_jax.runtime.progress import Progress
from ptlr_jax.training.train_step import Terms, TrainState

# Updates that may be queued behind the one that runs, unless one takes longer
# than so many seconds: a signal has to wait for them all.
AHEAD, SLOW = 4, 0.5


def due(step: int, every: int, last: int) -> bool:
  """Whether something periodic happens after update `step`."""
  return step == last or (every > 0 and step % every == 0)


def _fetched(pending: Sequence[Terms], step: int) -> list[dict[str, Any]]:
  """The terms of the updates up to `step`; refuses what is not finite."""
  values = jax.device_get(list(pending))
  first = step - len(values) + 1
  for i, terms in enumerate(values):
    bad = {n: ~np.isfinite(v) for n, v in terms.items()}
    bad = {n: where for n, where in bad.items() if where.any()}
    if bad:
      members = np.flatnonzero(np.any(list(bad.values()), axis=0))
      raise Diverged(
        f"{', '.join(bad)} not finite at step {first + i} "
        f"(checked at the end of steps {first} to {step})",
        first + i,
        members.tolist(),
      )
  return values


def _means(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Means of the terms of some updates."""
  means = {n: sum(v[n] for v in values) / len(values) for n in values[0]}
  return {n: float(m) if np.ndim(m) == 0 else m for n, m in means.items()}


@jax.jit
def _finite(tree: Any) -> jax.Array:
  leaves = [
    x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)
  ]
  return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def check_state(state: TrainState, step: int) -> None:
  """Raises Diverged where a parameter or its moments are not finite."""
  if not _finite((state.params, state.opt_state)):
    raise Diverged(
      f"parameters, or moments of their gradients, not finite at step {step}",
      step,
    )


class Start(NamedTuple):
  """A state to go on from, and the terms since the last log before it."""

  step: int
  state: TrainState
  pending: list[dict[str, Any]]


def run_updates(
  state: TrainState,
  step_fn: Callable[..., tuple[TrainState, Terms]],
  batch_at: Callable[[int], Mapping[str, Any]],
  *,
  steps: int,
  key: jax.Array,
  start: int | None = None,
  pending: Sequence[Mapping[str, Any]] = (),
  log_every: int,
  checkpoint_every: int,
  on_log: Callable[[int, dict[str, Any]], None],
  on_checkpoint: Callable[[int, TrainState, list[dict[str, Any]]], None],
  stopping: Callable[[int], bool] = lambda step: False,
) -> TrainState:
  """Trains from `state.step` to `steps` updates, or until it is `stopping`
  after one.

  `start` is that step, where states of several runs are trained at once.
  `batch_at(i)` is the batch of update i (from 0), whatever came before.
  Nothing is saved before the losses that led to it are known to be finite.
  Saved with a state are the terms of the updates since the last log, which are
  `pending` when training goes on from there.

  Raises:
    Diverged: a loss or gradient is not finite.
  """
  unlogged: list[Any] = list(pending)
  start = int(state.step) if start is None else start
  ahead, before = AHEAD, time.monotonic()
  for i in range(start, steps):
    state, terms = step_fn(state, batch_at(i), key)
    unlogged.append(terms)
    done = i + 1
    saving = due(done, checkpoint_every, steps)
    if saving or due(done, log_every, steps):
      on_log(done, _means(_fetched(unlogged, done)))
      unlogged = []
    elif len(unlogged) > ahead:
      jax.block_until_ready(unlogged[-1 - ahead])
    now = time.monotonic()
    ahead, before = (0 if now - before > SLOW else AHEAD), now
    stop = stopping(done)
    if saving or stop:
      on_checkpoint(done, state, _fetched(unlogged, done))
    if stop:
      break
  return state


def fit(
  name: str,
  step: Callable[..., Any],
  start: Start,
  batch_at: Callable[[int], Mapping[str, Any]],
  *,
  steps: int,
  on_log: Callable[[int, dict[str, Any]], None],
  on_checkpoint: Callable[..., None],
  place_of: Callable[[int], str],
  **how: Any,
) -> TrainState:
  """`run_updates` under a progress bar, until a signal to any process ends it
  after an update.

  `place_of(step)` is where that checkpoint is, in words.

  Raises:
    Diverged: a loss or gradient is not finite.
    Stopped: a signal asked for it; the message says what is saved, where.
  """
  bar = Progress(name, steps, start.step)
  saved = start.step

  def log(at: int, values: dict[str, Any]) -> None:
    on_log(at, values)
    bar.at(at, float(np.mean(values["loss"])))

  def save(at: int, *what: Any) -> None:
    nonlocal saved
    on_checkpoint(at, *what)
    saved = at

  try:
    # A signal waits for the end of the update, whose state is saved.
    with signals.deferred():
      return run_updates(
        start.state,
        step,
        batch_at,
        steps=steps,
        start=start.step,
        pending=start.pending,
        on_log=log,
        on_checkpoint=save,
        stopping=lambda step: signals.stops(),
        **how,
      )
  except Stopped:
    if not saved:
      raise
    raise Stopped(
      f"{name} is saved at step {saved} in {place_of(saved)}"
    ) from None
  finally:
    bar.close()
