"""Tests of ptlr_jax.training.train_step, on a linear model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptlr_jax.io import checkpoints
from ptlr_jax.runtime.errors import Diverged
from ptlr_jax.training import train_loop, train_step

KEY = jax.random.key(7)


def _loss(params, batch, key):
  """Squared error of a linear model, with noise from the step's own key."""
  noise = jax.random.normal(key, batch["x"].shape)
  error = (batch["x"] + 0.1 * noise) @ params["w"] + params["b"] - batch["y"]
  total = jnp.mean(error**2) / batch["divisor"]
  return total, {"square": total, "noise": noise.sum()}


def _batch(i):
  rng = np.random.default_rng(i)
  x = rng.normal(size=(4, 3)).astype(np.float32)
  return {"x": x, "y": x.sum(1), "divisor": np.float32(1)}


def _bad_batch(i):
  """Infinite loss at the update that finishes step 6."""
  return {**_batch(i), "divisor": np.float32(i != 5)}


TX = train_step.adam(0.1)
STEP = train_step.make_step(_loss, TX)  # one, so that all tests compile it once


def _begin():
  return train_step.create_state({"w": jnp.zeros(3), "b": jnp.zeros(())}, TX)


def _fit(state, steps, batch_at=_batch, **changes):
  """The state after `steps`, its logs and its checkpoints."""
  logs, saved = {}, {}
  how = {
    "steps": steps,
    "key": KEY,
    "log_every": 2,
    "checkpoint_every": 4,
    "on_log": logs.__setitem__,
    "on_checkpoint": lambda step, state, _: saved.update(
      {step: jax.device_get(state)}
    ),
  }
  return (
    train_loop.run_updates(state, STEP, batch_at, **{**how, **changes}),
    logs,
    saved,
  )


def _assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_due_is_every_so_often_and_at_the_last_step():
  assert [s for s in range(1, 11) if train_loop.due(s, 4, 10)] == [4, 8, 10]
  assert [s for s in range(1, 9) if train_loop.due(s, 4, 8)] == [4, 8]
  assert [s for s in range(1, 5) if train_loop.due(s, 0, 4)] == [4]
  assert [s for s in range(1, 4) if train_loop.due(s, 1, 3)] == [1, 2, 3]


def test_training_lowers_the_loss_and_counts_its_steps():
  state, logs, saved = _fit(_begin(), 60)
  assert int(state.step) == 60
  assert logs[60]["loss"] < 0.2 * logs[2]["loss"]
  assert list(logs) == list(range(2, 61, 2))
  assert list(saved) == list(range(4, 61, 4))
  assert [int(state.step) for state in saved.values()] == list(saved)


def test_eight_steps_are_five_and_three_more_bit_for_bit():
  whole, logs, _ = _fit(_begin(), 8)
  half, *_ = _fit(_begin(), 5)
  rest, later, _ = _fit(half, 8)
  _assert_same(whole, rest)
  assert logs[8] == later[8]


def test_eight_steps_are_five_a_checkpoint_and_three_more(tmp_path):
  whole, *_ = _fit(_begin(), 8)

  def save(step, state, _):
    checkpoints.save(tmp_path, step, state)

  _fit(_begin(), 5, on_checkpoint=save)
  restored = checkpoints.restore(tmp_path, _begin())
  assert restored is not None
  assert int(restored.state.step) == 5
  rest, *_ = _fit(restored.state, 8)
  _assert_same(whole, rest)


def test_every_step_has_a_key_of_its_own():
  _, logs, _ = _fit(_begin(), 8, log_every=1)
  assert len({values["noise"] for values in logs.values()}) == 8
  _, again, _ = _fit(_begin(), 8, log_every=1)
  assert logs == again
  _, other, _ = _fit(_begin(), 8, log_every=1, key=jax.random.key(8))
  assert other[1]["noise"] != logs[1]["noise"]


def test_a_log_holds_the_means_since_the_one_before():
  _, each, _ = _fit(_begin(), 6, log_every=1)
  _, both, _ = _fit(_begin(), 6, log_every=4, checkpoint_every=100)
  assert list(both) == [4, 6]
  assert both[4].keys() == {"loss", "grad_norm", "square", "noise"}
  for name in both[4]:
    first = np.mean([each[s][name] for s in (1, 2, 3, 4)])
    last = np.mean([each[s][name] for s in (5, 6)])
    np.testing.assert_allclose(both[4][name], first, rtol=1e-5)
    np.testing.assert_allclose(both[6][name], last, rtol=1e-5)


def test_nothing_happens_past_the_last_step():
  state, *_ = _fit(_begin(), 5)
  kept = jax.device_get(state)
  again, logs, saved = _fit(state, 5)
  _assert_same(kept, again)
  assert not logs
  assert not saved


def test_one_shape_compiles_once():
  step = train_step.make_step(_loss, TX)
  state = _begin()
  for i in range(4):
    state, _ = step(state, _batch(i), KEY)
  assert step._cache_size() == 1  # type: ignore[attr-defined]


def test_a_loss_that_is_not_finite_names_its_step():
  with pytest.raises(Diverged) as caught:
    _fit(_begin(), 20, _bad_batch, log_every=4, checkpoint_every=8)
  assert "loss" in str(caught.value)
  assert "at step 6 (checked at the end of steps 5 to 8)" in str(caught.value)


def test_nothing_is_saved_after_a_loss_that_is_not_finite(tmp_path):
  def save(step, state, _):
    checkpoints.save(tmp_path, step, state)

  how = {"log_every": 100, "checkpoint_every": 4, "on_checkpoint": save}
  with pytest.raises(Diverged, match="at step 6"):
    _fit(_begin(), 20, _bad_batch, **how)
  assert checkpoints.steps(tmp_path) == [4]
  restored = checkpoints.restore(tmp_path, _begin())
  assert restored is not None
  good, *_ = _fit(_begin(), 4)
  _assert_same(good, restored.state)


def test_a_frugal_step_does_the_same():
  frugal = train_step.make_step(_loss, TX, frugal=True)
  usual, _ = STEP(_begin(), _batch(0), KEY)
  sparing, _ = frugal(_begin(), _batch(0), KEY)
  for a, b in zip(
    jax.tree.leaves(usual), jax.tree.leaves(sparing), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-6)
