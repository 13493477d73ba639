"""The losses on numbers worked by hand.

Logits (ln 3, 0) have the softmax (3/4, 1/4), which most cases use.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptlr_jax.method import losses

LN2, LN3 = math.log(2), math.log(3)


video_bce = jax.jit(losses.video_bce, static_argnames="reference_classes")


@functools.partial(jax.jit, static_argnames=("space", "reduce"))
def cross_stream(rgb, flow, mask, space, reduce="mean"):
  """L_csc of logits."""
  a, b = (losses.consistency_space(x, mask, space) for x in (rgb, flow))
  return losses.cross_stream_consistency(a, b, mask, reduce=reduce)


def f32(values):
  return jnp.asarray(np.asarray(values, np.float32))


def test_topk_mean_takes_k_from_the_valid_length():
  t = np.arange(24.0)
  cas = np.stack([np.stack([t, -t], 1)] * 3)
  mask = t[None] < np.array([24, 17, 5])[:, None]
  cas[~mask] = 1e6
  # k = 3: 21, 22, 23 and 0, -1, -2; k = 2: 15, 16 and 0, -1; k = 1.
  np.testing.assert_allclose(
    losses.topk_mean(f32(cas), jnp.asarray(mask)),
    [[22, -1], [15.5, -0.5], [4, 0]],
  )


def test_topk_mean_of_a_short_video_is_its_maximum():
  cas = f32([[[1.0], [7.0], [2.0], [9.0], [9.0]]])
  mask = jnp.array([[True, True, True, False, False]])
  assert losses.topk_mean(cas, mask).tolist() == [[7.0]]
  assert losses.topk_mean(cas, mask, ratio=1).tolist() == [
    [pytest.approx(10 / 3)]
  ]


def test_topk_mean_gradient_is_one_kth_at_the_top():
  cas = f32([[[3.0], [1.0], [2.0], [0.0], [8.0]]])
  mask = jnp.array([[True, True, True, True, False]])
  gradient = jax.grad(lambda x: losses.topk_mean(x, mask, ratio=2).sum())(cas)
  assert gradient[0, :, 0].tolist() == [0.5, 0, 0.5, 0, 0]


def test_video_bce_by_hand():
  # One of two classes: -(ln 3/4 + ln(1 - 1/4)) / 2.
  one = video_bce(f32([[LN3, 0]]), f32([[1, 0]]), reference_classes=0)
  np.testing.assert_allclose(one, -math.log(3 / 4), rtol=1e-6)
  # Both, so 1/2 each: both classes give -(ln 3/4 + ln 1/4) / 2.
  two = video_bce(f32([[LN3, 0]]), f32([[1, 1]]), reference_classes=0)
  np.testing.assert_allclose(two, -math.log(3 / 16) / 2, rtol=1e-6)
  # p = 1/8, 2/8, 5/8 with labels 1/2, 0, 1/2, and p = 1/3 with 0, 1, 0.
  first = -(math.log(7 / 64) / 2 + math.log(6 / 8) + math.log(15 / 64) / 2)
  second = -(2 * math.log(2 / 3) + math.log(1 / 3))
  logits = f32([[0, LN2, math.log(5)], [4, 4, 4]])
  labels = f32([[1, 0, 1], [0, 1, 0]])
  for reference, factor in [(0, 1), (21, 3 / 21), (3, 1)]:
    np.testing.assert_allclose(
      video_bce(logits, labels, reference_classes=reference),
      factor * (first + second) / 6,
      rtol=1e-5,
    )


def test_video_bce_factor_is_one_with_20_classes_of_thumos14():
  logits = f32(np.random.default_rng(0).normal(size=(2, 21)))
  labels = jnp.zeros((2, 21)).at[:, 3].set(1)
  assert video_bce(logits, labels) == video_bce(
    logits, labels, reference_classes=0
  )


def test_video_bce_is_exact_for_huge_logits():
  def loss(logits, labels):
    return video_bce(logits, f32(labels), reference_classes=0)

  # p = (1, 0), wrong by 1e4: -ln p_1 = -ln(1 - p_0) = 1e4, slopes 1 and -1.
  value, gradient = jax.value_and_grad(loss)(f32([[1e4, 0]]), [[0, 1]])
  assert value == 1e4
  np.testing.assert_allclose(gradient, [[1, -1]], atol=1e-6)
  # Right by 1e4: nothing left to gain.
  value, gradient = jax.value_and_grad(loss)(f32([[1e4, 0]]), [[1, 0]])
  assert value == 0
  assert (np.asarray(gradient) == 0).all()
  # Three classes: (1, 1, 1)/3 at p = (1, 0, 0). Class 0: 2/3 of -ln(1 - p_0)
  # = 1e4; classes 1, 2: 1/3 of 1e4 and 2e4. 5e4/3 over 3 classes.
  logits = f32([[1e4, 0, -1e4]])
  value, gradient = jax.value_and_grad(loss)(logits, [[1, 1, 1]])
  np.testing.assert_allclose(value, 5e4 / 9, rtol=1e-6)
  assert bool(jnp.isfinite(gradient).all())


def test_video_bce_of_a_video_without_labels_is_finite():
  # No label: -(ln(1 - 3/4) + ln(1 - 1/4)) / 2.
  value = video_bce(f32([[LN3, 0]]), f32([[0, 0]]), reference_classes=0)
  np.testing.assert_allclose(value, -math.log(3 / 16) / 2, rtol=1e-6)


def test_foreground_norm_sums_time_and_averages_videos():
  weights = f32([[0.5, 0.25, 9], [1, -2, 3]])
  mask = jnp.array([[True, True, False], [True, True, True]])
  assert losses.foreground_norm(weights, mask) == (0.75 + 6) / 2


def test_eq_1_by_hand_with_background_positive_in_base_alone():
  # One action class, one valid segment; the second is padding. The softmax is
  # (3/4, 1/4) in the base branch, (1/9, 8/9) in the suppression branch.
  terms = losses.basnet_terms(
    f32([[[LN3, 0], [50, 90]]]),
    f32([[[0, 3 * LN2], [50, 90]]]),
    f32([[0.5, 8]]),
    jnp.array([[True, False]]),
    f32([[1]]),
    reference_classes=4,
    norm_weight=1e-2,
  )
  assert set(terms) == {"base", "supp", "norm"}
  # Labels (1/2, 1/2) and (1, 0), see test_video_bce_by_hand; (C + 1)/4 = 1/2.
  np.testing.assert_allclose(terms["base"], -math.log(3 / 16) / 4, rtol=1e-6)
  np.testing.assert_allclose(terms["supp"], math.log(9) / 2, rtol=1e-6)
  np.testing.assert_allclose(terms["norm"], 0.005, rtol=1e-6)
  # 0.418494 + 1.098612 + 0.005
  np.testing.assert_allclose(sum(terms.values()), 1.522106, rtol=1e-6)


@pytest.mark.parametrize(
  ("space", "distance"),
  [
    ("softmax", 1 / 2),  # (3/4, 1/4) against (1/2, 1/2) at segment 0
    ("raw", LN3),
    ("minmax", 1),  # class 0 of rgb runs from 1 to 0, all else is constant
  ],
)
def test_cross_stream_consistency_by_hand(space, distance):
  # Video 0: two segments, the streams differ in the first; video 1: one
  # segment, no difference. Padding holds something else.
  rgb = f32([[[LN3, 0], [0, 0], [7, 1]], [[2, 2], [5, 1], [5, 3]]])
  flow = f32([[[0, 0], [0, 0], [1, 9]], [[2, 2], [9, 9], [1, 0]]])
  mask = jnp.array([[True, True, False], [True, False, False]])
  how = {"space": space}
  # 3 valid segments of 2 classes; 2 videos.
  np.testing.assert_allclose(
    cross_stream(rgb, flow, mask, **how),
    distance / 6,
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    cross_stream(rgb, flow, mask, **how, reduce="sum"),
    distance / 2,
    rtol=1e-6,
  )
  gradient = jax.grad(cross_stream)(rgb, flow, mask, **how)
  assert bool(gradient[0, 0].any())
  assert (np.asarray(gradient)[~np.asarray(mask)] == 0).all()


def test_minmax_space_stretches_valid_time_and_leaves_padding_at_zero():
  cas = f32([[[1, 5], [3, 5], [2, 5], [99, -99]]])
  mask = jnp.array([[True, True, True, False]])
  np.testing.assert_allclose(
    losses.consistency_space(cas, mask, "minmax"),
    [[[0, 0], [1, 0], [0.5, 0], [0, 0]]],
  )


def test_scale_consistency_by_hand():
  scaled = f32([[[1, 2], [3, 4], [9, 9]]])
  transformed = f32([[[1, 1], [5, 1], [0, 0]]])
  mask = jnp.array([[True, True, False]])
  # |differences| 0, 1, 2, 3.
  mean = losses.scale_consistency(scaled, transformed, mask)
  total = losses.scale_consistency(scaled, transformed, mask, reduce="sum")
  assert (mean, total) == (1.5, 6)
  assert losses.scale_consistency(scaled, scaled, mask) == 0


def test_selected_cross_entropy_averages_the_batch_or_each_video():
  # Video 0: three frames of class 0, ln 4/3 each; video 1: one frame of class
  # 1, ln 4; video 2: none.
  logits = jnp.broadcast_to(f32([LN3, 0]), (3, 3, 2))
  first, second = jnp.eye(2)
  targets = jnp.stack([jnp.stack([row] * 3) for row in (first, second, first)])
  selected = jnp.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]], bool)
  a, b = math.log(4 / 3), math.log(4)
  np.testing.assert_allclose(
    losses.selected_cross_entropy(logits, targets, selected),
    (3 * a + b) / 4,
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    losses.selected_cross_entropy(logits, targets, selected, average="video"),
    (a + b) / 2,
    rtol=1e-6,
  )


def test_two_labels_of_a_frame_add_up():
  # -ln 3/4 - ln 1/4.
  value = losses.selected_cross_entropy(
    f32([[[LN3, 0]]]), f32([[[1, 1]]]), jnp.array([[True]])
  )
  np.testing.assert_allclose(value, -math.log(3 / 16), rtol=1e-6)


@pytest.mark.parametrize("average", ["batch", "video"])
def test_no_selected_frame_gives_zero_and_no_gradient(average):
  def loss(logits):
    return losses.selected_cross_entropy(
      logits, jnp.zeros((2, 3, 2)), jnp.zeros((2, 3), bool), average=average
    )

  value, gradient = jax.value_and_grad(loss)(jnp.ones((2, 3, 2)))
  assert value == 0
  assert (np.asarray(gradient) == 0).all()


def test_branch_cross_entropy_learns_frame_t_times_2_to_the_m():
  # 5 frames: branch 1 has frames 0, 2, 4, branch 2 frames 0, 4. Frame 2 is
  # not selected; frames 1 and 3 are, and belong to no branch.
  selected = jnp.array([[1, 1, 0, 1, 1]], bool)
  first, second = jnp.eye(2)
  targets = jnp.stack([first, second, 0 * first, first, second])[None]
  branches = [
    f32([[[LN3, 0], [5, -3], [LN3, 0]]]),  # ln 4/3 and ln 4
    f32([[[0, 0], [LN3, 0]]]),  # ln 2 and ln 4
  ]
  expected = ((math.log(4 / 3) + math.log(4)) / 2 + (LN2 + math.log(4)) / 2) / 2

  def loss(branches):
    return losses.branch_cross_entropy(branches, targets, selected)

  value, gradients = jax.value_and_grad(loss)(branches)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  assert gradients[0][0].any(-1).tolist() == [True, False, True]
  assert gradients[1][0].any(-1).tolist() == [True, True]


def test_the_index_sets_of_three_branches_over_13_frames():
  # Of T = {2, 3, 4, 7, 8, 12}, branch 1 has {1, 2, 4, 6} of 7, branch 2
  # {1, 2, 3} of 4, branch 3 {1} of 2. Frames 4 and 12 are of the second class.
  selected = jnp.zeros((1, 13), bool).at[0, [2, 3, 4, 7, 8, 12]].set(True)
  second = jnp.zeros((1, 13), int).at[0, [4, 12]].set(1)
  targets = jax.nn.one_hot(second, 2)

  def loss(branches):
    return losses.branch_cross_entropy(branches, targets, selected)

  value, gradients = jax.value_and_grad(loss)(
    [jnp.zeros((1, length, 2)) for length in (7, 4, 2)]
  )
  np.testing.assert_allclose(value, LN2, rtol=1e-6)
  # 1/2 - 1 or 1/2 for the first class, over the 4, 3, 1 frames of 3 branches.
  for gradient, signs, share in zip(
    gradients,
    ([0, -1, 1, 0, -1, 0, 1], [0, 1, -1, 1], [0, -1]),
    (1 / 24, 1 / 18, 1 / 6),
    strict=True,
  ):
    np.testing.assert_allclose(
      gradient[0], share * np.outer(signs, [1, -1]), atol=1e-7
    )


def test_branch_cross_entropy_averages_videos():
  # Branch 1 of 2 frames is frame 0. Video 0: ln 4/3; video 1: ln 4; video 2
  # selects frame 1 alone, which no branch sees.
  selected = jnp.array([[1, 1], [1, 0], [0, 1]], bool)
  targets = jnp.eye(2)[jnp.array([[0, 0], [1, 1], [1, 1]])]
  logits = [jnp.broadcast_to(f32([LN3, 0]), (3, 1, 2))]
  for average in ("batch", "video"):
    value = losses.branch_cross_entropy(
      logits, targets, selected, average=average
    )
    np.testing.assert_allclose(value, math.log(16 / 3) / 2, rtol=1e-6)


def test_unknown_choices_are_refused():
  x, mask = jnp.zeros((1, 2, 2)), jnp.ones((1, 2), bool)
  with pytest.raises(KeyError, match="log"):
    losses.consistency_space(x, mask, "log")
  with pytest.raises(KeyError, match="max"):
    losses.l1_distance(x, x, mask, reduce="max")
  with pytest.raises(KeyError, match="frame"):
    losses.selected_cross_entropy(x, x, mask, average="frame")
