"""The jitted train step: Adam, gradient accumulation, several seeds at once."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ptlr_jax.runtime.mesh import Devices


def adam(
  learning_rate: float,
  *,
  weight_decay: float = 5e-4,
  decoupled: bool = False,
  decay_biases: bool = True,
) -> optax.GradientTransformation:
  """PyTorch's `Adam(weight_decay=)`: L2 is added to the gradient.

  That is not AdamW, which `decoupled=True` gives. Biases decay too unless
  `decay_biases=False`.
  """

  def mask(params):
    if decay_biases:
      return jax.tree.map(lambda _: True, params)
    return jax.tree.map(lambda p: p.ndim > 1, params)

  decay = optax.add_decayed_weights(weight_decay, mask=mask)
  scale = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
  order = (scale, decay) if decoupled else (decay, scale)
  return optax.chain(*order, optax.scale_by_learning_rate(learning_rate))


Batch = Mapping[str, Any]
Terms = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, Terms]]


class TrainState(flax.struct.PyTreeNode):
  """What a checkpoint holds. `step` counts finished updates."""

  step: jax.Array
  params: Any
  opt_state: optax.OptState


def create_state(params: Any, tx: optax.GradientTransformation) -> TrainState:
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
  features where the batch only says which it wants (`training.resident`).

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
