"""Options for small cards: the gradient of a batch in parts, and activations
that are computed again, are those of the whole."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import (
  KEY,
  NO_DROPOUT,
  QUICK,
  WIDTHS,
  C,
  batch_of,
  leaves,
  options,
  params_of,
  stage,
)

from configs import base
from ptlr_jax.cli import config_checks
from ptlr_jax.method.registry import STAGES
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.training import train_step

TX = train_step.adam(0.1)
# What has as much to do with batches at less to compile.
FEWER = {"ilg": (), "ots": (), "rts": (("model.branches", 2),)}
LENGTHS = (16, 11, 16, 5)
SELECTED = (13, 2, 0, 5)  # frames of each video


@functools.cache
def _whole():
  """Four videos; one has no selected frame, and kinds are unlike."""
  rng = np.random.default_rng(0)
  shape = len(LENGTHS), max(LENGTHS)
  kinds = rng.choice(C + 1, shape, p=[0.15, 0.15, 0.7])
  selected = np.zeros(shape, bool)
  for row, length, count in zip(selected, LENGTHS, SELECTED, strict=True):
    row[rng.choice(length, count, replace=False)] = True
  targets = np.eye(C + 1, dtype=np.float32)[kinds] * selected[..., None]
  assert 0 < targets[..., :C].sum() < 0.45 * selected.sum()
  return {
    "features": {
      name: rng.normal(size=(*shape, width)).astype(np.float32)
      for name, width in WIDTHS.items()
    },
    "mask": np.arange(shape[1])[None] < np.array(LENGTHS)[:, None],
    "targets": targets,
    "selected": selected,
  }


@functools.cache
def _gradient_of(name, *changes):
  found = jax.value_and_grad(stage(name, *changes).loss, has_aux=True)
  return jax.jit(found, compiler_options=QUICK)


def _value_and_gradient(name, changes, batch, key=KEY):
  changes = (*changes, *FEWER[name])
  found = _gradient_of(name, *changes)
  return found(params_of(name, *changes), batch, key)


def _in_parts(name, changes, batch, parts=2):
  """The mean over the parts of a batch."""
  stacked: Any = stage(name, *changes).split(batch, parts)
  each = [
    _value_and_gradient(
      name, changes, jax.tree.map(lambda x, i=i: x[i], stacked)
    )
    for i in range(parts)
  ]
  return jax.tree.map(lambda *x: sum(x) / parts, *each)


def _assert_near(one, other, tolerance=1e-5):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(leaves(one), leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


OPTIONS = [  # every two of them together
  ("batch", False, 0.0),
  ("batch", True, 0.1),
  ("video", False, 0.1),
  ("video", True, 0.0),
]


@pytest.mark.parametrize("name", ["ots", "rts"])
@pytest.mark.parametrize(("average", "balance", "smoothing"), OPTIONS)
def test_parts_of_a_labelled_batch_have_the_gradient_of_the_whole(
  name, average, balance, smoothing
):
  changes = (
    NO_DROPOUT,
    ("loss_average", average),
    ("class_balance", balance),
    ("label_smoothing", smoothing),
  )
  whole = _value_and_gradient(name, changes, _whole())
  _assert_near(_in_parts(name, changes, _whole()), whole)


def test_parts_on_their_own_would_have_another_gradient():
  """The tests above can fail: each part must weigh as it does in the whole."""
  batch = _whole()
  halves = [jax.tree.map(lambda x, i=i: x[i : i + 2], batch) for i in (0, 2)]
  (whole, _), _ = _value_and_gradient("ots", (NO_DROPOUT,), batch)
  own = [
    _value_and_gradient("ots", (NO_DROPOUT,), half)[0][0] for half in halves
  ]
  assert abs(sum(own) / 2 - whole) > 1e-3


def test_a_batch_of_which_nothing_is_selected_has_no_gradient_in_parts():
  batch = _whole()
  none = {
    "targets": 0 * batch["targets"],
    "selected": batch["selected"] & False,
  }
  found = _in_parts("ots", (NO_DROPOUT,), {**batch, **none})
  assert all((x == 0).all() for x in leaves(found))


def _full(videos=4, size=16):
  """A batch of the ILG, whose videos have as many segments each."""
  halves = [
    batch_of(lengths=(size,) * 2, seed=i, size=size) for i in range(videos // 2)
  ]
  common = {name: halves[0][name] for name in ("scale", "scale_grid")}
  own = [{k: v for k, v in half.items() if k not in common} for half in halves]
  joined = jax.tree.map(lambda *x: np.concatenate(x), *own)
  for name in ("targets", "selected"):
    del joined[name]
  return {**joined, **common}


@pytest.mark.parametrize(
  ("name", "parts"), [("ilg", 2), ("ots", 4), ("rts", 2)]
)
def test_parts_draw_the_dropout_of_the_whole(name, parts):
  """Which rows they have then shows in no gradient either."""
  batch = _full() if name == "ilg" else _whole()
  whole = _value_and_gradient(name, (), batch)
  _assert_near(_in_parts(name, (), batch, parts), whole)
  if name == "ilg":
    assert whole[0][1].keys() >= {"csc", "rgb/sc", "flow/sc", "flow/norm"}
  other = _value_and_gradient(name, (), batch, jax.random.key(1))
  assert abs(whole[0][0] - other[0][0]) > 1e-3


@pytest.mark.parametrize("name", STAGES)
def test_rows_go_round_the_parts(name):
  """Row i, its number and its weights are in part i mod the parts."""
  batch = _full() if name == "ilg" else _whole()
  found: Any = stage(name).split(batch, 2)
  for part in (0, 1):
    for kind in ("features", "mask"):
      own = jax.tree.map(lambda x, part=part: x[part], found[kind])
      theirs = jax.tree.map(lambda x, part=part: x[part::2], batch[kind])
      for a, b in zip(leaves(own), leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
  if name == "ilg":
    assert found["row"].tolist() == [[0, 2], [1, 3]]
    assert found["scale"].tolist() == [batch["scale"].tolist()] * 2
    found = stage(name).split({**batch, "row": np.array([7, 5, 9, 4])}, 2)
    assert found["row"].tolist() == [[7, 9], [5, 4]]
    return
  number = np.arange(4 * 16).reshape(4, 16)
  found = stage(name).split({**batch, "number": number}, 2)
  assert found["number"][1].tolist() == number[1::2].tolist()
  for weights in found["weights"]:
    assert weights.shape[:2] == (2, 2)
    assert (weights[0, 1] == 0).all()  # row 2 has no selected frame


@functools.cache
def _update(parts):
  own = stage("ots")
  return jax.jit(
    train_step.update_of(own.loss, TX, split=own.split, parts=parts)
  )


def _store():
  """(features, batch of their rows): `_whole`, other videos before it."""
  whole: dict[str, Any] = _whole()
  rows = np.zeros(whole["mask"].shape, np.int32)
  rows[whole["mask"]] = 7 + np.arange(sum(LENGTHS))
  features = {
    name: jnp.concatenate([jnp.full((7, x.shape[2]), 9.0), x[whole["mask"]]])
    for name, x in whole["features"].items()
  }
  rest = {k: v for k, v in whole.items() if k != "features"}
  return features, {**rest, "rows": rows}


def test_an_update_in_parts_is_the_update_of_the_whole():
  state = train_step.create_state(params_of("ots"), TX)
  one, terms = _update(1)(state, _whole(), KEY)
  two, accumulated = _update(2)(state, _whole(), KEY)
  assert int(two.step) == 1
  assert terms.keys() == {"ots", "loss", "grad_norm"}
  _assert_near(accumulated, terms)
  # Adam's first update moves every parameter by about its rate.
  assert max(np.abs(x).max() for x in leaves(one.opt_state)) > 0
  _assert_near(two, one, 1e-4)
  features, by_rows = _store()
  resident, own = _update(2)(state, by_rows, KEY, features)
  _assert_near(own, terms)
  _assert_near(resident, one, 1e-4)


def test_every_part_is_given_the_key_of_the_whole():
  """What it draws, it draws by the numbers of its segments."""

  def loss(params, batch, key):
    noise = jax.random.normal(key, batch["x"].shape)
    return (params * noise).sum(), {"square": (noise**2).sum()}

  def split(batch, parts):
    return {"x": batch["x"].reshape(parts, -1)}

  update = train_step.update_of(loss, TX, split=split, parts=2)
  state = train_step.create_state(jnp.ones(()), TX)
  _, terms = update(state, {"x": np.zeros(4)}, KEY)
  key = jax.random.fold_in(KEY, 0)  # of step 0
  draws = jax.random.normal(key, (2,))
  np.testing.assert_allclose(terms["loss"], draws.sum(), rtol=1e-6)


@pytest.mark.parametrize("name", STAGES)
def test_activations_computed_again_change_no_gradient(name):
  """With dropout: what is computed again must draw the same."""
  batch = _full(2) if name == "ilg" else _whole()
  one = (("streams", ("rgb",)), ("loss.alpha", 0.0)) if name == "ilg" else ()
  plain = _value_and_gradient(name, one, batch)
  again = _value_and_gradient(name, (*one, ("remat", True)), batch)
  _assert_near(again, plain, 1e-6)
  other = _value_and_gradient(name, one, batch, jax.random.key(1))
  assert abs(plain[0][0] - other[0][0]) > 1e-4


def _memory(name, size=512, parts=1, **changes):
  """Bytes that an update of four long videos needs beside its arguments."""
  own = options(name)
  widths = ("filter_width", "cas_width") if name == "ilg" else ("width",)
  own.model.update(dict.fromkeys(widths, 32))
  own.update(changes)
  made = STAGES[name](C, own)

  def update(key, batch):
    state = train_step.create_state(made.init(KEY, WIDTHS), TX)
    how = {"split": made.split, "parts": parts}
    return train_step.update_of(made.loss, TX, **how)(state, batch, key)

  batch = jax.tree.map(
    lambda x: np.zeros((len(x), size, *x.shape[2:]), x.dtype), dict(_whole())
  )
  compiled = jax.jit(update).lower(KEY, batch).compile()
  analysis: Any = compiled.memory_analysis()
  return analysis.temp_size_in_bytes


def test_a_batch_in_parts_needs_less_memory():
  whole = _memory("ots")
  assert _memory("ots", parts=4) < 0.5 * whole


@pytest.mark.parametrize("net", config_checks.NETWORKS)
def test_parts_that_do_not_divide_a_batch_are_refused_in_a_line(net):
  config = base.get_config()
  config[net].update({"batch_size": 6, "accumulate": 3})
  config_checks.freeze_config(config)
  config[net].accumulate = 4
  with pytest.raises(InputError) as caught:
    config_checks.freeze_config(config)
  assert caught.value.problems == (
    f"--config.{net}.accumulate: expected a divisor of {net}.batch_size 6, "
    "got 4",
  )
  config[net].accumulate = 0
  with pytest.raises(InputError, match=rf"{net}\.accumulate: .* at least"):
    config_checks.freeze_config(config)


@pytest.mark.parametrize("name", STAGES)
def test_what_is_kept_for_the_gradient_is_a_fraction_with_remat(name):
  # As the program asks for it; XLA on a CPU keeps what it likes.
  def kept(remat):
    options = base.get_config()[name]
    options.remat = remat
    stage = STAGES[name](C, options)
    params = jax.eval_shape(lambda: stage.init(KEY, {"rgb": 64, "flow": 64}))
    shapes = {"rgb": 64, "flow": 64}
    batch = batch_of(grid=128, lengths=(64, 40), size=64)
    batch["features"] = {
      n: np.zeros((2, 64, width), np.float32) for n, width in shapes.items()
    }

    def residuals(params):
      return jax.vjp(lambda p: stage.loss(p, batch, KEY), params, has_aux=True)[
        1
      ]

    saved = jax.tree.leaves(jax.eval_shape(residuals, params))
    own = sum(x.size for x in jax.tree.leaves(params))
    return sum(x.size * x.dtype.itemsize for x in saved) - 4 * own

  assert kept(True) < 0.6 * kept(False)
