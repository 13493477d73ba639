"""A stop in the training loop: no update is lost, and no term of the log."""

import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ptlr_jax.io import checkpoints
from ptlr_jax.runtime import signals
from ptlr_jax.runtime.errors import Diverged, Stopped
from ptlr_jax.training import stacked_seeds, train_loop, train_step


@jax.jit
def _step(state, batch, key):
  value = batch["x"] * jax.random.normal(jax.random.fold_in(key, state.step))
  params = {"w": 0.9 * state.params["w"] + value}
  terms = {"loss": value**2, "size": jnp.abs(params["w"])}
  return train_step.TrainState(state.step + 1, params, state.opt_state), terms


def _begin():
  return train_step.TrainState(
    jnp.zeros((), jnp.int32), {"w": jnp.ones(())}, ()
  )


def _fit(state=None, stop_at=0, bad=0, **changes):
  """{step: log}, {step: (state, pending terms)}, the last state."""
  logs, saved, done = {}, {}, []

  def batch_at(i):
    done.append(i + 1)
    return {"x": np.float32("nan" if i + 1 == bad else 1 / (i + 3))}

  def keep(step, kept, terms):
    assert step not in saved
    saved[step] = jax.device_get(kept), terms

  def log(step, values):
    assert step not in logs
    logs[step] = values

  state = _begin() if state is None else state
  last = train_loop.run_updates(
    state,
    _step,
    batch_at,
    **{"steps": 23, "log_every": 7, "checkpoint_every": 10, **changes},
    key=jax.random.key(3),
    on_log=log,
    on_checkpoint=keep,
    stopping=lambda step: step == stop_at,
  )
  assert done[-1:] == [stop_at or changes.get("steps", 23)]
  return logs, saved, jax.device_get(last)


def test_a_stop_saves_the_state_and_what_is_not_logged():
  logs, saved, last = _fit(stop_at=5)
  assert logs == {}
  assert list(saved) == [5]
  state, pending = saved[5]
  assert int(state.step) == 5
  assert state == last
  each, *_ = _fit(log_every=1, checkpoint_every=0)
  assert [{n: float(x) for n, x in terms.items()} for terms in pending] == [
    each[step] for step in range(1, 6)
  ]


def test_a_checkpoint_that_is_due_holds_nothing_that_is_logged():
  logs, saved, _ = _fit(stop_at=10)
  assert list(logs) == [7, 10]
  assert list(saved) == [10]
  assert saved[10][1] == []


def test_the_last_step_is_saved_once():
  logs, saved, _ = _fit(stop_at=23)
  assert list(logs) == [7, 10, 14, 20, 21, 23]
  assert list(saved) == [10, 20, 23]


def test_going_on_from_any_step_logs_and_ends_as_if_nothing_had_been():
  logs, _, last = _fit()
  for at in range(1, 23):
    before, saved, _ = _fit(stop_at=at)
    state, pending = saved[at]
    notes = [{n: float(x) for n, x in terms.items()} for terms in pending]
    terms = [{n: np.float32(x) for n, x in each.items()} for each in notes]
    after, _, end = _fit(state, pending=terms)
    assert {**before, **after} == logs, at
    assert not before.keys() & after.keys()
    assert end == last, at


def test_what_is_pending_outlasts_several_stops():
  logs, _, last = _fit()
  state, pending, found = None, (), {}
  for at in (2, 3, 6, 8, 0):
    more, saved, end = _fit(state, at, pending=pending)
    found |= more
    state, pending = saved[at or 23]
  assert found == logs
  assert end == last


def test_nothing_is_saved_at_a_stop_after_a_loss_that_is_not_finite():
  with pytest.raises(Diverged, match=r"at step 4 \(checked at .* 1 to 5\)"):
    _fit(stop_at=5, bad=4)


def test_a_stop_waits_for_few_updates(monkeypatch):
  """However rarely the losses are looked at."""
  waited, block = [], jax.block_until_ready
  monkeypatch.setattr(
    jax, "block_until_ready", lambda x: waited.append(x) or block(x)
  )
  _, saved, _ = _fit(steps=12, log_every=0, checkpoint_every=0, stop_at=11)
  _, pending = saved[11]
  assert [jax.device_get(x) for x in waited] == pending[: 11 - train_loop.AHEAD]


# Several runs at once.


@pytest.mark.parametrize(
  ("saved", "common"),
  [
    ([[], []], 0),
    ([[4], [4]], 4),
    ([[4], []], 0),  # a kill between the first checkpoints of the two
    ([[4, 8], [4]], 4),
    ([[4, 8], [4, 8], [4]], 4),
    ([[4, 5], [4]], 4),  # between those of a stop
    ([[8, 11], [4, 8]], 8),
    ([[8, 9], [5, 9]], 9),
    ([[8, 12], [4]], None),  # that were never together there
    ([[8, 12], []], None),
  ],
)
def test_runs_go_on_from_the_step_that_they_have_in_common(
  saved, common, monkeypatch
):
  monkeypatch.setattr(checkpoints, "sound_steps", lambda directory: directory)
  settings = types.SimpleNamespace(checkpoint_every=4)
  trainings = [
    types.SimpleNamespace(directory=steps, settings=settings) for steps in saved
  ]
  found = stacked_seeds.common_step(trainings)  # type: ignore[arg-type]
  assert found == common


@pytest.mark.parametrize("what", ["finish", "restore", "final_params"])
def test_a_checkpoint_is_written_or_read_to_its_end(
  what, tmp_path, monkeypatch
):
  """A signal acts afterwards; orbax knows no exception but its own."""
  monkeypatch.setattr(signals._watch, "asked", None)  # also afterwards
  tree = {"w": jnp.ones(3)}
  checkpoints.finish(tmp_path, tree)
  checkpoints.save(tmp_path, 1, tree)
  calls = {
    "finish": lambda: checkpoints.finish(tmp_path, tree),
    "restore": lambda: checkpoints.restore(tmp_path, tree),
    "final_params": lambda: checkpoints.final_params(tmp_path, tree),
  }
  name = "save" if what == "finish" else "restore"
  function = getattr(ocp.StandardCheckpointer, name)
  done = []

  def signalled(self, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    found = function(self, *args, **kwargs)
    done.append(name)
    return found

  monkeypatch.setattr(ocp.StandardCheckpointer, name, signalled)
  with pytest.raises(Stopped), signals.watched():
    calls[what]()
  assert done == [name]
