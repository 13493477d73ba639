"""What the refinement networks may do beyond the paper: worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptlr_jax.method import losses, pseudo_labels
from ptlr_jax.method.registry import STAGES
from tests import tiny_config

# Softmax of log p is p: three frames, actions a and b and the background.
P = np.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.3, 0.5]]])
TARGETS = np.eye(3)[[[0, 2, 2]]]
ALL = np.ones((1, 3), bool)


def _loss(selected=ALL, **options):
  return float(
    losses.selected_cross_entropy(
      jnp.log(P), jnp.asarray(TARGETS), jnp.asarray(selected), **options
    )
  )


def test_balance_gives_action_and_background_half_the_weight_each():
  # -log of 0.5 (action), of 0.8 and 0.5 (background): the action's one frame
  # weighs as much as both others.
  a, b = np.log(2), (-np.log(0.8) + np.log(2)) / 2
  assert _loss() == pytest.approx((a + 2 * b) / 3, rel=1e-6)
  assert _loss(balance=True) == pytest.approx((a + b) / 2, rel=1e-6)


def test_balance_leaves_a_batch_of_one_kind_alone():
  only = np.array([[False, True, True]])
  assert _loss(only, balance=True) == pytest.approx(_loss(only), rel=1e-6)
  nothing = np.zeros((1, 3), bool)
  assert _loss(nothing, balance=True) == 0


def test_balance_counts_selected_frames_only():
  some = np.array([[True, True, False]])
  expected = (np.log(2) - np.log(0.8)) / 2  # one of each
  assert _loss(some, balance=True) == pytest.approx(expected, rel=1e-6)


def test_smoothing_mixes_the_uniform_distribution_in():
  # 0.7 of the target and 0.1 of each class.
  frame = np.array([[True, False, False]])
  uniform = -(np.log(0.5) + 2 * np.log(0.25)) / 3
  expected = 0.7 * np.log(2) + 0.3 * uniform
  assert _loss(frame, smoothing=0.3) == pytest.approx(expected, rel=1e-6)


def test_branches_take_the_same_options():
  selected, targets = jnp.asarray(ALL), jnp.asarray(TARGETS)
  branch = [jnp.log(P[:, ::2])]
  options = {"balance": True, "smoothing": 0.3}
  one = losses.branch_cross_entropy(branch, targets, selected, **options)
  same = losses.selected_cross_entropy(
    branch[0], targets[:, ::2], selected[:, ::2], **options
  )
  assert float(one) == float(same)
  plain = losses.branch_cross_entropy(branch, targets, selected)
  assert float(one) != float(plain)


def _stage(name, **changes):
  options = tiny_config.get_config()[name]
  options.update(changes)
  return STAGES[name](2, options.to_dict())


def _batch(rng):
  x = {s: rng.normal(size=(2, 16, 4)).astype("f4") for s in ("rgb", "flow")}
  return {
    "features": x,
    "mask": np.ones((2, 16), bool),
    "targets": np.eye(3, dtype="f4")[rng.integers(0, 3, (2, 16))],
    "selected": rng.random((2, 16)) < 0.7,
  }


@pytest.mark.parametrize("name", ["ots", "rts"])
def test_temperature_softens_what_is_predicted_and_not_what_is_learnt(name):
  batch = _batch(np.random.default_rng(0))
  plain, soft = _stage(name), _stage(name, temperature=2.0)
  key = jax.random.key(0)
  params = plain.init(key, {"rgb": 4, "flow": 4})
  cas, softer = (s.predict(params, batch)["cas"] for s in (plain, soft))
  np.testing.assert_allclose(softer.sum(-1), 1, rtol=1e-5)
  assert (softer.max(-1) < cas.max(-1)).all()
  assert plain.loss(params, batch, key)[0] == soft.loss(params, batch, key)[0]
  if name == "ots":  # p^(1/T), normalised
    power = np.asarray(cas) ** 0.5
    expected = power / power.sum(-1, keepdims=True)
    np.testing.assert_allclose(softer, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["ots", "rts"])
@pytest.mark.parametrize(
  "changes", [{"class_balance": True}, {"label_smoothing": 0.2}]
)
def test_the_options_reach_the_loss_of_each_network(name, changes):
  batch = _batch(np.random.default_rng(1))
  plain, other = _stage(name), _stage(name, **changes)
  key = jax.random.key(0)
  params = plain.init(key, {"rgb": 4, "flow": 4})
  ours, theirs = (s.loss(params, batch, key)[0] for s in (plain, other))
  assert abs(float(ours - theirs)) > 1e-4


def test_a_relative_threshold_is_a_share_of_the_videos_best_frame():
  cas = np.array([[0.4, 0.6], [0.32, 0.68], [0.2, 0.8], [0.0, 1.0]])
  allowed = np.array([True])
  plain = pseudo_labels.network_labels(cas, allowed, threshold=0.7)
  assert plain.labels[:, 0].sum() == 0
  # 0.4, 0.32, 0.2, 0 of at most 0.4: 1, 0.8, 0.5, 0. Background stays absolute,
  # and an action comes before it.
  new = pseudo_labels.network_labels(
    cas, allowed, threshold=0.7, space="minmax"
  )
  np.testing.assert_array_equal(new.labels[:, 0], [1, 1, 0, 0])
  np.testing.assert_array_equal(new.labels[:, 1], [0, 0, 1, 1])
  with pytest.raises(KeyError, match="raw"):
    pseudo_labels.network_labels(cas, allowed, threshold=0.7, space="raw")
