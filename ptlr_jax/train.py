"""The jitted train step, and the loop that every phase runs."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ptlr_jax.devices import Devices
from ptlr_jax.errors import Diverged

Batch = Mapping[str, Any]
Terms = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, Terms]]
# Updates that may be queued behind the one that runs, unless one takes longer
# than so many seconds: a signal has to wait for them all.
AHEAD, SLOW = 4, 0.5


class TrainState(flax.struct.PyTreeNode):
  """What a checkpoint holds. `step` counts finished updates."""

  step: jax.Array
  params: Any
  opt_state: optax.OptState


def create(params: Any, tx: optax.GradientTransformation) -> TrainState:
  """A state before its first update."""
  return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def _filled(batch: Batch, features: Mapping[str, jax.Array] | None) -> Batch:
  """The batch with the features in place of their rows, 0 in padding."""
  if "rows" not in batch:
    return batch
  if features is None:
    raise ValueError("rows: expected the features they are of, got none")
  rest = {name: value for name, value in batch.items() if name != "rows"}
  mask = batch["mask"][..., None]
  found = {
    stream: jnp.where(mask, x[batch["rows"]].astype(jnp.float32), 0)
    for stream, x in features.items()
  }
  return {**rest, "features": found}


def update_of(
  loss: Loss,
  tx: optax.GradientTransformation,
  *,
  split: Callable[[Batch, int], Batch] | None = None,
  parts: int = 1,
) -> Callable[..., tuple[TrainState, Terms]]:
  """update(state, batch, key, store=None) -> (state, terms), a pure function.

  The update's own key is `fold_in(key, state.step)`, so that an update is a
  function of (state, batch, key) and resuming is starting later. `terms`
  holds every loss term, their total `loss`, and `grad_norm`. `store` are the
  features where the batch only says which it wants (`resident`).

  With `parts` above 1 the batch is `split` and its gradient accumulated: of
  the activations, only those of one part are alive at a time.
  """

  def gradient(params: Any, batch: Batch, key: jax.Array, store: Any):
    grad = jax.value_and_grad(loss, has_aux=True)
    (total, terms), grads = grad(params, _filled(batch, store), key)
    return {**terms, "loss": total}, grads

  def accumulated(params: Any, batch: Batch, key: jax.Array, store: Any):
    assert split is not None
    stacked = split(batch, parts)

    def one(sums, part):
      found = gradient(params, part, key, store)
      return jax.tree.map(jnp.add, sums, found), None

    first = jax.tree.map(lambda x: x[0], stacked)
    like = jax.eval_shape(gradient, params, first, key, store)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    sums, _ = jax.lax.scan(one, zeros, stacked)
    return jax.tree.map(lambda x: x / parts, sums)

  def update(
    state: TrainState, batch: Batch, key: jax.Array, store: Any = None
  ):
    key = jax.random.fold_in(key, state.step)
    of_batch = gradient if parts == 1 else accumulated
    terms, grads = of_batch(state.params, batch, key, store)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = TrainState(state.step + 1, params, opt_state)
    return new, {**terms, "grad_norm": optax.tree.norm(grads)}

  return update


def _jitted(update: Callable[..., Any], devices: Devices | None, frugal: bool):
  """An update as a program that is given its state for good, and leaves it on
  every device; `frugal` asks for an order of computation that needs less
  memory."""
  # XLA's usual order on a CPU is for many cores, and keeps more alive.
  order = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
  sparing = frugal and jax.default_backend() == "cpu"
  how: dict[str, Any] = {"compiler_options": order if sparing else None}
  if devices is not None:
    how["out_shardings"] = devices.everywhere
  return jax.jit(update, donate_argnums=0, **how)


def make_step(
  loss: Loss,
  tx: optax.GradientTransformation,
  *,
  devices: Devices | None = None,
  frugal: bool = False,
  **how: Any,
):
  """`update_of`, jitted; the state is donated. See `_jitted` for `frugal`.

  Where the batch is spread over `devices` each computes its rows, and the sums
  over the batch, as of gradients, are over all.
  """
  return _jitted(update_of(loss, tx, **how), devices, frugal)


def make_steps(
  loss: Loss,
  tx: optax.GradientTransformation,
  *,
  devices: Devices | None = None,
  frugal: bool = False,
  **how: Any,
):
  """`make_step` for k runs at once: states, batches and keys have a leading
  axis k, terms are f32[k]; the store is common."""
  update = update_of(loss, tx, **how)

  def steps(states: Any, batches: Batch, keys: jax.Array, store: Any = None):
    many = jax.vmap(update, in_axes=(0, 0, 0, None))
    return many(states, batches, keys, store)

  return _jitted(steps, devices, frugal)


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


def fit(
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
