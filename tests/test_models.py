"""Convolution, BasNet, OTS and RTS: shapes, masks, positions in time."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptlr_jax.method.pseudo_labels import network_labels
from ptlr_jax.models import rts
from ptlr_jax.models.basnet import BasNet
from ptlr_jax.models.layers import Dropout, TemporalConv
from ptlr_jax.models.ots import NetworkOTS
from ptlr_jax.models.rts import NetworkRTS

KEY = jax.random.key(0)
NETS: dict[str, Any] = {
  "basnet": BasNet(2, filter_width=4, cas_width=5),
  "ots": NetworkOTS(2, width=5),
  "rts": NetworkRTS(2, branches=2, width=5),
}


def features(batch, segments, width=3):
  rng = np.random.default_rng(0)
  return rng.normal(size=(batch, segments, width)).astype(np.float32)


def prefix_mask(lengths, segments):
  return np.arange(segments)[None] < np.asarray(lengths)[:, None]


def random_params(net, width=3) -> Any:
  """Random parameters of the shapes that init gives; nothing to compile."""
  x, mask = jnp.zeros((1, 4, width)), jnp.ones((1, 4), bool)
  made = jax.eval_shape(net.init, KEY, x, mask)
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: rng.uniform(-0.4, 0.4, leaf.shape).astype(leaf.dtype),
    made,
  )


@functools.cache
def net_params(name):
  return random_params(NETS[name])


@functools.cache
def applied(name):
  """The net's outputs as a function of x and mask, jitted."""
  net, params = NETS[name], net_params(name)
  return jax.jit(lambda x, mask: net.apply(params, x, mask))


def shapes(tree):
  return jax.tree.map(lambda leaf: leaf.shape, tree)


def loop_convolution(x, kernel, bias, stride, first):
  """y[t] = sum over taps of x[t stride + first + tap], 0 outside, + bias."""
  y = np.zeros((len(x), -(-x.shape[1] // stride), kernel.shape[-1]))
  for b in range(len(x)):
    for t in range(y.shape[1]):
      y[b, t] = bias
      for tap in range(len(kernel)):
        source = t * stride + first + tap
        if 0 <= source < x.shape[1]:
          y[b, t] += x[b, source] @ kernel[tap]
  return y


@pytest.mark.parametrize("segments", [6, 7])
@pytest.mark.parametrize(
  ("taps", "stride", "centred", "first"),
  [
    (1, 1, True, 0),
    (3, 1, True, -1),
    (3, 2, True, -1),  # output t is centred on 2t
    (3, 1, False, 0),
    (3, 2, False, 0),  # ... on 2t + 1
  ],
)
def test_convolution_equals_a_plain_loop(
  segments, taps, stride, centred, first
):
  conv = TemporalConv(4, taps, stride, centred=centred)
  x = features(2, segments)
  mask = prefix_mask([segments, segments - 3], segments)
  variables = random_params(conv)
  y, p = jax.jit(conv.apply)(variables, x, mask), variables["params"]
  assert shapes(p) == {"kernel": (taps, 3, 4), "bias": (4,)}
  masked = np.where(mask[..., None], x, 0)
  expected = loop_convolution(masked, p["kernel"], p["bias"], stride, first)
  np.testing.assert_allclose(y, expected, atol=1e-5)


def test_initialiser_is_pytorchs():
  # U(-b, b), b = 1/sqrt(3 x 16), of variance b^2/3; 3 x 16 x 128 draws.
  conv = TemporalConv(128, name="conv")
  p: Any = conv.init(KEY, jnp.zeros((1, 1, 16)), jnp.ones((1, 1), bool))
  bound = 1 / math.sqrt(48)
  for leaf, tolerance in [("kernel", 0.05), ("bias", 0.3)]:
    draws = np.asarray(p["params"][leaf])
    assert np.abs(draws).max() <= bound
    assert np.abs(draws).max() > 0.9 * bound
    assert draws.var() == pytest.approx(bound**2 / 3, rel=tolerance)


def test_parameter_shapes():
  def conv(taps, inputs, outputs):
    return {"kernel": (taps, inputs, outputs), "bias": (outputs,)}

  assert shapes(net_params("basnet")["params"]) == {
    "filter_module": {"conv1": conv(1, 3, 4), "conv2": conv(1, 4, 1)},
    "cas_module": {
      "conv1": conv(3, 3, 5),
      "conv2": conv(3, 5, 5),
      "classifier": {"kernel": (1, 5, 3)},  # no bias, and one for both branches
    },
  }
  assert shapes(net_params("ots")["params"]) == {
    "cas_module": {
      "conv1": conv(3, 3, 5),
      "conv2": conv(3, 5, 5),
      "classifier": conv(1, 5, 3),
    }
  }
  assert shapes(net_params("rts")["params"]) == {
    "conv": conv(3, 3, 5),
    "branch1_conv1": conv(3, 5, 5),
    "branch1_classifier": conv(1, 5, 3),
    "branch2_conv1": conv(3, 5, 5),
    "branch2_conv2": conv(3, 5, 5),
    "branch2_classifier": conv(1, 5, 3),
  }


@pytest.mark.parametrize("name", NETS)
def test_padding_changes_no_output(name):
  lengths = [5, 8]
  x, mask = features(2, 8), prefix_mask(lengths, 8)
  longer, longer_mask = (
    np.full((2, 13, 3), np.nan, np.float32),
    np.zeros((2, 13), bool),
  )
  longer[:, :8][mask] = x[mask]
  longer_mask[:, :8] = mask
  plain = jax.tree.leaves(applied(name)(np.where(mask[..., None], x, 0), mask))
  padded = jax.tree.leaves(applied(name)(longer, longer_mask))
  assert plain
  for a, b in zip(plain, padded, strict=True):
    step = round(8 / a.shape[1])
    for video, length in enumerate(lengths):
      valid = -(-length // step)
      np.testing.assert_allclose(a[video, :valid], b[video, :valid], atol=1e-6)
  # And a video alone gives what it gives in a batch.
  alone = jax.tree.leaves(applied(name)(x[:1, :5], mask[:1, :5]))
  for a, b in zip(plain, alone, strict=True):
    np.testing.assert_allclose(a[:1, : b.shape[1]], b, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_padded_segments_get_exactly_zero_gradient(name):
  mask = prefix_mask([5, 8], 8)

  @jax.jit
  @jax.grad
  def gradient(x):
    return sum((y**2).sum() for y in jax.tree.leaves(applied(name)(x, mask)))

  g = np.asarray(gradient(100 * features(2, 8)))
  assert (g[~mask] == 0).all()
  assert (g[mask] != 0).all()


def test_base_and_suppression_are_one_module():
  # A filter of exactly 1: both branches see the same input.
  net = NETS["basnet"]
  params = jax.tree.map(jnp.array, net_params("basnet"))
  params["params"]["filter_module"]["conv2"] = {
    "kernel": jnp.zeros((1, 4, 1)),
    "bias": jnp.full(1, 100.0),
  }
  x, mask = features(2, 8), prefix_mask([8, 6], 8)

  @jax.jit
  def apply(key):
    same = net.apply(params, x, mask)
    dropped = net.apply(
      params, x, mask, deterministic=False, rngs={"dropout": key}
    )
    return same, dropped

  same, dropped = apply(jax.random.key(1))
  assert (np.asarray(same["foreground_weights"]) == 1).all()
  np.testing.assert_array_equal(same["base"], same["suppression"])
  # Yet each branch draws its own dropout, as in PyTorch.
  assert np.abs(dropped["base"] - dropped["suppression"]).max() > 1e-3


def test_foreground_weights_weigh_the_suppression_branch_alone():
  x, mask = features(1, 6), prefix_mask([6], 6)
  net, params = NETS["basnet"], net_params("basnet")
  out = applied("basnet")(x, mask)
  weighed = applied("basnet")(
    x * np.asarray(out["foreground_weights"])[..., None], mask
  )
  assert set(out) == {"foreground_weights", "suppression", "base"}
  assert (
    (out["foreground_weights"] > 0) & (out["foreground_weights"] < 1)
  ).all()
  np.testing.assert_allclose(out["suppression"], weighed["base"], atol=1e-6)
  without = jax.eval_shape(
    functools.partial(net.apply, base=False), params, x, mask
  )
  assert set(without) == {"foreground_weights", "suppression"}


def test_ots_scores_every_segment():
  y = applied("ots")(features(2, 7), prefix_mask([7, 3], 7))
  assert y.shape == (2, 7, 3)


@pytest.mark.parametrize("segments", [1, 5, 8, 9])
def test_rts_lengths_are_ceilings(segments):
  net = NetworkRTS(2, branches=3, width=4)
  x, mask = jnp.zeros((1, segments, 3)), jnp.ones((1, segments), bool)
  branches, _ = jax.eval_shape(net.init_with_output, KEY, x, mask)
  assert [b.shape for b in branches] == [
    (1, math.ceil(segments / 2**m), 3) for m in (1, 2, 3)
  ]


@pytest.mark.parametrize("centred", [True, False])
def test_rts_output_is_centred_on_segment_t_times_2_to_the_m(centred):
  # Half a field: 1 of the shared convolution + 1 + 2 + ... + 2^(m-1) = 2^m.
  # Without centring each strided convolution adds its step: 2^m - 1 late.
  net = NetworkRTS(1, branches=3, width=4, leaky_slope=0.5, centred=centred)
  # Video i has segment i changed, the last none.
  x = np.repeat(features(1, 32), 33, 0)
  x[np.arange(32), np.arange(32)] += 10
  mask = np.ones((33, 32), bool)
  branches = jax.jit(net.apply)(random_params(net), x, mask)
  for m, y in enumerate(np.asarray(branch) for branch in branches):
    step = 2 ** (m + 1)
    centre = step + (0 if centred else step - 1)
    read = np.flatnonzero(np.abs(y[:32, 1] - y[32, 1]).max(-1) > 1e-6)
    assert read.tolist() == list(range(centre - step, centre + step + 1))


def rows(values):
  return jnp.asarray(values, jnp.float32)[None, :, None]


@pytest.mark.parametrize(
  ("mode", "expected"),
  [
    ("copy", [10, 10, 20, 20, 30, 30, 30]),
    ("nearest", [10, 20, 20, 30, 30, 30, 30]),  # 1 and 3 lie between centres
    ("linear", [10, 15, 20, 25, 30, 30, 30]),
  ],
)
def test_upsample_an_odd_length_shorter_than_its_padding(mode, expected):
  # 5 valid of 7 segments: centres 0, 2, 4, and a fourth value to ignore.
  y = rts.upsample(rows([10, 20, 30, np.nan]), 2, jnp.array([5]), 7, mode)
  assert y[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
  ("mode", "expected"),
  [
    ("copy", [0, 0, 0, 0, 8, 8, 8, 8, 4]),
    ("nearest", [0, 0, 8, 8, 8, 8, 4, 4, 4]),
    ("linear", [0, 2, 4, 6, 8, 7, 6, 5, 4]),
  ],
)
def test_upsample_by_four(mode, expected):
  y = rts.upsample(rows([0, 8, 4]), 4, jnp.array([9]), 9, mode)
  assert y[0, :, 0].tolist() == expected


def test_upsample_videos_of_different_lengths():
  cas = jnp.concatenate([rows([1, 2]), rows([3, np.nan])])
  y = rts.upsample(cas, 2, jnp.array([4, 2]), 4, "copy")
  assert y[..., 0].tolist() == [[1, 1, 2, 2], [3, 3, 3, 3]]


def test_combine_averages_probabilities_or_logits():
  # Branch 1: (3/4, 1/4), then (1/2, 1/2); branch 2: (1/2, 1/2).
  ln3 = math.log(3)
  branches = [jnp.array([[[ln3, 0], [0, 0]]]), jnp.zeros((1, 1, 2))]
  mask = jnp.ones((1, 4), bool)
  by_probability = rts.combine(branches, mask)
  np.testing.assert_allclose(
    by_probability[0, :, 0], [5 / 8, 5 / 8, 1 / 2, 1 / 2], rtol=1e-6
  )
  by_logit = rts.combine(branches, mask, average="logit")
  root = math.sqrt(3)  # half of ln 3
  np.testing.assert_allclose(
    by_logit[0, :, 0], [root / (1 + root)] * 2 + [0.5] * 2, rtol=1e-6
  )
  for y in (by_probability, by_logit):
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)


def test_mean_of_three_branches_over_an_odd_length():
  # 9 frames: 3, 3, 6, 6, 9, 9, 12, 12, 15, four times 0, four times 3 and 6,
  # and eight times 0 and 9.
  branches = [rows([3, 6, 9, 12, 15]), rows([0, 3, 6]), rows([0, 9])]
  y = rts.mean_of_branches(branches, jnp.ones((1, 9), bool), mode="copy")
  assert y[0, :, 0].tolist() == [1, 1, 2, 2, 4, 4, 5, 5, 10]


def test_the_papers_example_of_8_frames():
  """Sec. III-D, M = 1: the copy is the paper's, its labels need "at least".

  The print counts 0.7 as passing theta_p = 0.7; the text says "larger than",
  which is what the package does: exactly 0.7 is not selected.
  """
  low = rows([0.7, 0.6, 0.7, 0.8])
  copied = rts.upsample(low, 2, jnp.array([8]), 8, "copy")[0, :, 0]
  np.testing.assert_allclose(
    copied, [0.7, 0.7, 0.6, 0.6, 0.7, 0.7, 0.8, 0.8], rtol=1e-6
  )
  ots = np.array([0.7, 0.6, 0.6, 0.5, 0.7, 0.5, 0.8, 0.7], np.float32)

  def frames(scores, threshold):
    cas = np.stack([scores, 0 * scores], 1)
    labels = network_labels(cas, np.array([True]), threshold=threshold)
    return "".join("1" if s else "I" for s in labels.selected)

  # The print: 1, I, I, I, 1, (I), 1, 1 and 1, 1, I, I, 1, 1, 1, 1.
  below = 0.7 - 1e-6
  assert frames(ots, below) == "1III1I11"
  assert frames(np.asarray(copied), below) == "11II1111"
  assert frames(ots, 0.7) == "IIIIII1I"
  assert frames(np.asarray(copied), 0.7) == "IIIIII11"


def test_unknown_choices_are_refused():
  with pytest.raises(KeyError, match="x"):
    rts.upsample(rows([1]), 2, jnp.array([2]), 2, "x")
  with pytest.raises(KeyError, match="x"):
    rts.combine([rows([1])], jnp.ones((1, 2), bool), average="x")


def test_dropout_knows_a_segment_by_its_number():
  def dropped(number):
    x = jnp.ones((*number.shape, 50))
    how: Any = {"deterministic": False, "rngs": {"dropout": KEY}}
    return np.asarray(Dropout(0.5).apply({}, x, number, **how))

  number = np.random.default_rng(0).permutation(12)
  one, other = dropped(number.reshape(3, 4)), dropped(np.arange(12)[None])
  np.testing.assert_array_equal(one.reshape(12, 50), other[0, number])
  assert len(np.unique(other[0], axis=0)) == 12


@pytest.mark.parametrize("name", NETS)
def test_every_network_passes_the_numbers_of_its_segments_on(name):
  """Videos that change places keep their dropout where numbers go along."""
  x, mask = features(2, 8), prefix_mask([8, 8], 8)
  number, net = np.arange(16).reshape(2, 8), NETS[name]

  def run(x, number):
    how: Any = {"deterministic": False, "rngs": {"dropout": KEY}}
    found: Any = net.apply(net_params(name), x, mask, number, **how)
    return jax.tree.leaves(found)

  plain, moved = run(x, number), run(x[::-1], number[::-1])
  for a, b in zip(plain, moved, strict=True):
    np.testing.assert_allclose(a, b[::-1], atol=1e-6)
  left = run(x[::-1], number)
  pairs = zip(plain, left, strict=True)
  assert max(np.abs(a - b[::-1]).max() for a, b in pairs) > 1e-3


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_dropout_draws_the_same_however_long_the_padding_is(rate):
  def dropped(segments):
    x = jnp.ones((3, segments, 50))
    return np.asarray(
      Dropout(rate).apply({}, x, deterministic=False, rngs={"dropout": KEY})
    )

  short, long = dropped(6), dropped(9)
  np.testing.assert_array_equal(short, long[:, :6])
  # Rows, segments and channels draw apart, and what is kept makes up for it.
  kept = long > 0
  assert (kept[0] != kept[1]).any()
  assert (kept[:, 0] != kept[:, 1]).any()
  assert kept.mean() == pytest.approx(1 - rate, abs=0.05)
  np.testing.assert_allclose(long[kept], 1 / (1 - rate), rtol=1e-6)
  x = np.ones((3, 6, 50), np.float32)
  np.testing.assert_array_equal(
    Dropout(rate).apply({}, x, deterministic=True), x
  )
