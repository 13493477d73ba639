"""The jitted train step, and the loop that every phase runs."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ptlr_jax.errors import Diverged

Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


class TrainState(flax.struct.PyTreeNode):
  """What a checkpoint holds. `step` counts finished updates."""

  step: jax.Array
  params: Any
  opt_state: optax.OptState


def create(params: Any, tx: optax.GradientTransformation) -> TrainState:
  """A state before its first update."""
  return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def make_step(loss: Loss, tx: optax.GradientTransformation):
  """step(state, batch, key) -> (state, terms); jitted, the state is donated.

  The step's own key is `fold_in(key, state.step)`, so that an update is a
  function of (state, batch, key) and resuming is starting later. `terms`
  holds every loss term, their total `loss`, and `grad_norm`.
  """

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: TrainState, batch: Mapping[str, Any], key: jax.Array):
    key = jax.random.fold_in(key, state.step)
    grad = jax.value_and_grad(loss, has_aux=True)
    (total, terms), grads = grad(state.params, batch, key)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = TrainState(state.step + 1, params, opt_state)
    terms = {**terms, "loss": total, "grad_norm": optax.tree.norm(grads)}
    return new, terms

  return step


def due(step: int, every: int, last: int) -> bool:
  """Whether something periodic happens after update `step`."""
  return step == last or (every > 0 and step % every == 0)


def _interval_means(pending: list[dict[str, Any]], step: int):
  """Means of the terms of the last updates; refuses what is not finite."""
  values = jax.device_get(pending)
  first = step - len(values) + 1
  for i, terms in enumerate(values):
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad:
      raise Diverged(
        f"{', '.join(bad)} not finite at step {first + i} "
        f"(checked at the end of steps {first} to {step})"
      )
  return {
    name: float(sum(terms[name] for terms in values) / len(values))
    for name in values[0]
  }


def fit(
  state: TrainState,
  step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
  batch_at: Callable[[int], Mapping[str, Any]],
  *,
  steps: int,
  key: jax.Array,
  log_every: int,
  checkpoint_every: int,
  on_log: Callable[[int, dict[str, float]], None],
  on_checkpoint: Callable[[int, TrainState], None],
) -> TrainState:
  """Trains from `state.step` to `steps` updates.

  `batch_at(i)` is the batch of update i (from 0), whatever came before.
  Nothing is saved before the losses that led to it are known to be finite.

  Raises:
    Diverged: a loss or gradient is not finite.
  """
  pending = []
  for i in range(int(state.step), steps):
    state, terms = step_fn(state, batch_at(i), key)
    pending.append(terms)
    done = i + 1
    saving = due(done, checkpoint_every, steps)
    if saving or due(done, log_every, steps):
      on_log(done, _interval_means(pending, done))
      pending = []
    if saving:
      on_checkpoint(done, state)
  return state
