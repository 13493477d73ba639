"""Stages whose products are shared, minimal or rounded: what stays the same."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import (
  KEY,
  QUICK,
  B,
  C,
  T,
  batch_of,
  leaves,
  options,
  padded,
  params_of,
  stage,
)

from ptlr_jax.method.registry import STAGES
from ptlr_jax.models.basnet import BasNet
from ptlr_jax.models.layers import TemporalConv, products_of

METHODS = ["direct", "winograd2", "winograd4"]
OWN, SHARED = ("share_products", False), ("share_products", True)
RGB, FUSED = ("streams", ("rgb",)), ("streams", ("fused",))
DIRECT = ("model.convolution", "direct")
WINOGRAD = ("model.convolution", "winograd2")  # as it is at full width
WIDE = 2**16  # all but products of features hardly counts
EVERYTHING = (
  FUSED,
  ("loss.transformed_mil_weight", 0.5),
  ("scale.align_corners", True),
)
# The smallest ILG, and the smallest RTS.
SMALL = (RGB, WINOGRAD, ("loss.beta", 0.0))
ONE_BRANCH = ("model.branches", 1)


def jitted(function):
  return jax.jit(function, compiler_options=QUICK)


def params(name, changes=()) -> Any:
  """Of the shapes that go with the changes."""
  shape = "streams", "model.branches"
  return params_of(name, *(c for c in changes if c[0] in shape))


@functools.cache
def program(name, *changes):
  loss = stage(name, *changes).loss
  return jitted(jax.value_and_grad(loss, has_aux=True))


def run(name, *changes, batch=None):
  """A loss, its terms and the gradient of every parameter, with dropout."""
  batch = batch_of() if batch is None else batch
  (value, terms), gradient = program(name, *changes)(
    params(name, changes), batch, KEY
  )
  return value, terms, gradient


def assert_same(found, expected, rtol=1e-5):
  """Gradients to `rtol` of the largest value of each parameter's."""
  (value, terms, gradient), (value2, terms2, gradient2) = found, expected
  assert terms.keys() == terms2.keys()
  np.testing.assert_allclose(value, value2, rtol=rtol)
  for name, term in terms.items():
    np.testing.assert_allclose(term, terms2[name], rtol=rtol, err_msg=name)
  assert jax.tree.structure(gradient) == jax.tree.structure(gradient2)
  for a, b in zip(leaves(gradient), leaves(gradient2), strict=True):
    assert np.abs(b).max() > 1e-5
    np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("scale", [(0.75, 0.75), (1.6, 0.5), (1, 2)])
@pytest.mark.parametrize("changes", [SMALL, EVERYTHING], ids=["small", "all"])
def test_sharing_changes_no_term_and_no_gradient(changes, scale):
  batch = batch_of(scale)
  shared = run("ilg", *changes, SHARED, batch=batch)
  own = run("ilg", *changes, OWN, batch=batch)
  assert_same(shared, own)
  # Dropout is on, of the same draws: others give another loss.
  net, drawn = program("ilg", *changes, SHARED), jax.random.key(1)
  (other, _), _ = net(params("ilg", changes), batch, drawn)
  assert abs(other / shared[0] - 1) > 1e-3


def test_sharing_changes_no_term_of_two_streams():
  batch, found = batch_of((0.6, 1.3)), {}
  for sharing in (OWN, SHARED):
    loss = jitted(stage("ilg", WINOGRAD, sharing).loss)
    value, terms = loss(params("ilg"), batch, KEY)
    found[sharing] = {**terms, "total": value}
  assert {"csc", "rgb/sc", "flow/sc", "rgb/base"} < set(found[SHARED])
  for name, term in found[OWN].items():
    np.testing.assert_allclose(found[SHARED][name], term, rtol=1e-5)


@pytest.mark.parametrize("sharing", [OWN, SHARED], ids=["own", "shared"])
@pytest.mark.parametrize("changes", [SMALL, EVERYTHING], ids=["small", "all"])
def test_nan_in_padded_features_changes_nothing(changes, sharing):
  batch = batch_of()
  spoilt = padded(batch, T, functools.partial(np.full, fill_value=np.nan))
  spoilt["scale_grid"] = batch["scale_grid"]
  assert np.isnan(spoilt["features"]["rgb"]).any()
  found = run("ilg", *changes, sharing, batch=spoilt)
  expected = run("ilg", *changes, sharing, batch=batch)
  for a, b in zip(leaves(found), leaves(expected), strict=True):
    np.testing.assert_array_equal(a, b)


@functools.cache
def flops(width, method, *changes) -> Any:
  """Of a loss of the rgb stream alone; nothing is run."""
  made = stage("ilg", RGB, ("model.convolution", method), *changes)
  params = jax.eval_shape(lambda: made.init(KEY, {"rgb": width}))
  batch: dict[str, Any] = batch_of()
  features = jax.ShapeDtypeStruct((B, T, width), jnp.float32)
  batch = {**batch, "features": {"rgb": features}}
  cost: Any = jax.jit(made.loss).lower(params, batch, KEY).cost_analysis()
  return cost["flops"]


def test_sharing_is_the_default():
  assert options("ilg").share_products is True
  changes = (), (SHARED,), (OWN,)
  found = [flops(WIDE, "direct", *change) for change in changes]
  assert found[0] == found[1] < found[2]


@pytest.mark.parametrize("method", ["direct", "winograd2"])
def test_sharing_leaves_out_the_products_that_it_says(method):
  # In products of a segment with one column of a kernel. Both modules are 4
  # wide: one tap of the filter's, three of the CAS module's.
  segments, grid = B * T, B * len(batch_of()["scale_grid"])
  shared = segments * (4 + 3 * 4)
  # Base, suppression and transformed branch; Winograd's 2 in place of 3 taps.
  taps = 3 * 4 if method == "direct" else 2 * 4
  own = segments * (4 + 2 * taps) + grid * (4 + taps)

  done = {sharing: flops(WIDE, method, sharing) for sharing in (OWN, SHARED)}
  done = {sharing: count / (2 * WIDE) for sharing, count in done.items()}
  assert done[SHARED] == pytest.approx(shared, rel=0.05)
  assert done[OWN] - done[SHARED] >= own - shared


@pytest.mark.parametrize("name", STAGES)
def test_predictions_are_the_same_for_every_method(name):
  found = {
    method: jitted(stage(name, ("model.convolution", method)).predict)(
      params(name), batch_of()
    )
    for method in METHODS
  }
  flat = {
    method: np.concatenate([v.ravel() for v in leaves(arrays)])
    for method, arrays in found.items()
  }
  for method in METHODS[1:]:
    np.testing.assert_allclose(flat[method], flat["direct"], atol=1e-5)
    # The option reaches the network: it rounds differently.
    assert (flat[method] != flat["direct"]).any()


@pytest.mark.parametrize(
  ("name", "changes"), [("ots", ()), ("rts", (ONE_BRANCH,))]
)
def test_losses_and_gradients_are_the_same_for_every_method(name, changes):
  found = {m: run(name, *changes, ("model.convolution", m)) for m in METHODS}
  for method in METHODS[1:]:
    assert_same(found[method], found["direct"])


ROUNDED = {
  "ilg": (*SMALL, SHARED),
  "ots": (DIRECT,),
  "rts": (ONE_BRANCH, DIRECT),
}


@pytest.mark.parametrize(
  ("precision", "most", "cosine"), [("tf32", 2e-3, 0.999), ("bf16", 1e-2, 0.95)]
)
@pytest.mark.parametrize("name", STAGES)
def test_rounded_products_are_close_and_leave_the_rest_float32(
  name, precision, most, cosine
):
  changes = ROUNDED[name]
  value, _, gradient = run(name, *changes, ("model.precision", precision))
  expected, _, exact = run(name, *changes)
  assert value.dtype == np.float32
  assert 1e-7 < abs(value / expected - 1) < most
  assert all(leaf.dtype == np.float32 for leaf in leaves(gradient))
  a, b = (
    np.concatenate([leaf.ravel() for leaf in leaves(tree)])
    for tree in (gradient, exact)
  )
  assert np.isfinite(a).all()
  assert (a != b).any()
  # Not of each parameter: at width 4 a rounding may turn a ReLU.
  assert a @ b / np.sqrt((a @ a) * (b @ b)) > cosine


@pytest.mark.parametrize(
  ("method", "precision"),
  [("winograd2", "float32"), ("winograd4", "bf16")],
)
def test_vmap_over_parameters_and_keys_is_each_by_itself(method, precision):
  changes = ("model.convolution", method), ("model.precision", precision)
  of = jax.value_and_grad(stage("ots", *changes).loss, has_aux=True)
  assert_vmap_is_each_by_itself(of, program("ots", *changes), params("ots"))


def assert_vmap_is_each_by_itself(of, alone, made):
  made = [made, jax.tree.map(lambda leaf: -0.7 * leaf, made)]
  keys, batch = jax.random.split(KEY), batch_of()
  stacked = jax.tree.map(lambda *v: jnp.stack(v), *made)
  found = jitted(jax.vmap(of, (0, None, 0)))(stacked, batch, keys)
  for i in range(2):
    expected = leaves(alone(made[i], batch, keys[i]))
    for a, b in zip(leaves(found), expected, strict=True):
      np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-6)


def test_vmap_of_shared_products_is_each_by_itself():
  loss = stage("ilg", *SMALL, SHARED).loss
  made = params("ilg", (RGB,))
  assert_vmap_is_each_by_itself(loss, jitted(loss), made)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("taps", [1, 3])
def test_products_stand_in_for_a_convolutions_input(taps, centred):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 6, 3)).astype(np.float32)
  mask = np.arange(6)[None] < np.array([[6], [4]])
  weights = rng.uniform(size=(2, 6)).astype(np.float32)
  conv = TemporalConv(4, taps, centred=centred)
  made: Any = {
    "kernel": rng.normal(size=(taps, 3, 4)).astype(np.float32),
    "bias": rng.normal(size=4).astype(np.float32),
  }
  products = products_of(jnp.asarray(x), jnp.asarray(made["kernel"]))
  assert [tap.shape for tap in products.taps] == [(2, 6, 4)] * taps
  for seen, shared in [
    (x, products),
    (x * weights[..., None], products.weighted(jnp.asarray(weights))),
  ]:
    expected: Any = conv.apply({"params": made}, jnp.asarray(seen), mask)
    found: Any = conv.apply({"params": made}, shared, mask)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_products_are_of_stride_1():
  products = products_of(jnp.ones((1, 4, 2)), jnp.ones((3, 2, 2)))
  conv, mask = TemporalConv(2, stride=2), jnp.ones((1, 4), bool)
  made = {"bias": jnp.zeros(2)}
  with pytest.raises(ValueError, match="expected stride 1, got 2"):
    conv.apply({"params": made}, products, mask)


def test_basnet_makes_of_products_what_it_makes_of_features():
  batch = batch_of()
  x, mask = batch["features"]["rgb"], batch["mask"]
  net, made = BasNet(C, 4, 4), {"params": params("ilg")["rgb"]}
  shared: Any = net.apply(made, x, mask, method="products")
  assert [len(first.taps) for first in shared] == [1, 3]
  for base in (True, False):
    found: Any = net.apply(made, shared, mask, base=base)
    expected: Any = net.apply(made, x, mask, base=base)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
      np.testing.assert_allclose(found[name], value, atol=5e-6)
