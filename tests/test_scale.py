"""The temporal scale transform ST(., s): positions and lengths by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import QUICK

from ptlr_jax.method import temporal_scale as scale_module
from ptlr_jax.method.temporal_scale import scaled_lengths

scale_transform = jax.jit(
  scale_module.scale_transform,
  static_argnums=3,
  static_argnames="align_corners",
)
SQUARES = [0.0, 1.0, 4.0, 9.0]  # tells interpolation from averaging


def transform(values, scale, size, **how):
  """ST of one sequence without padding, as a list, and its mask."""
  x = jnp.asarray(values, jnp.float32)[None, :, None]
  y, mask = scale_transform(
    x, jnp.array([len(values)]), jnp.float32(scale), size, **how
  )
  return y[0, :, 0].tolist(), mask[0].tolist()


@pytest.mark.parametrize(
  ("scale", "expected"),
  [
    # Positions 0.5 and 2.5: the mean of two neighbours, nothing wider.
    (0.5, [0.5, 6.5]),
    (1.0, SQUARES),
    # 6 of 6.8 outputs, at (2i + 1) / 3.4 - 0.5: -7/34 (held at 0), 13/34,
    # 33/34, 53/34, 73/34, 93/34.
    (1.7, [0, 13 / 34, 33 / 34, 91 / 34, 161 / 34, 261 / 34]),
    # -0.25 (held at 0), 0.25, 0.75, ..., 2.75, 3.25 (held at 3).
    (2.0, [0, 0.25, 0.75, 1.75, 3.25, 5.25, 7.75, 9]),
  ],
)
def test_transform_by_hand(scale, expected):
  y, mask = transform(SQUARES, scale, 9)
  padding = [0.0] * (9 - len(expected))
  np.testing.assert_allclose(y, [*expected, *padding], atol=2e-6)
  assert mask == [i < len(expected) for i in range(9)]


def test_align_corners_by_hand():
  # 8 outputs at 3i/7.
  y, _ = transform(SQUARES, 2.0, 8, align_corners=True)
  expected = np.array([0, 3, 6, 13, 22, 33, 48, 63]) / 7
  np.testing.assert_allclose(y, expected, atol=2e-6)
  assert transform(SQUARES, 0.5, 2, align_corners=True)[0] == [0, 9]
  # A single output is the first segment.
  assert transform([3.0, 5.0], 0.5, 1, align_corners=True)[0] == [3]


def test_scale_one_is_the_identity():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 3)), jnp.float32)
  lengths = jnp.array([7, 4])
  for align in (False, True):
    y, mask = scale_transform(
      x, lengths, jnp.float32(1), 7, align_corners=align
    )
    assert mask.sum(1).tolist() == [7, 4]
    assert bool((y == jnp.where(mask[..., None], x, 0)).all())


def test_lengths_are_floors_and_at_least_one():
  lengths = jnp.array([1, 3, 7, 10, 750])
  for scale, expected in [
    (0.5, [1, 1, 3, 5, 375]),
    (0.7, [1, 2, 4, 7, 525]),  # 10 x float32(0.7) < 7
    (1.0, [1, 3, 7, 10, 750]),
    (1.7, [1, 5, 11, 17, 1275]),
    (2.0, [2, 6, 14, 20, 1500]),
  ]:
    assert scaled_lengths(lengths, jnp.float32(scale)).tolist() == expected


def test_num_segments_cuts():
  y, mask = transform(SQUARES, 2.0, 5)
  np.testing.assert_allclose(y, [0, 0.25, 0.75, 1.75, 3.25], atol=1e-6)
  assert mask == [True] * 5


def test_videos_have_their_own_lengths():
  x = jnp.asarray([[0, 1, 4, 9], [5, 7, 0, 0]], jnp.float32)[..., None]
  y, mask = scale_transform(x, jnp.array([4, 2]), jnp.float32(2), 8)
  # Video 1 is read at 0, 0.25, 0.75, 1.
  np.testing.assert_allclose(y[1, :, 0], [5, 5.5, 6.5, 7, 0, 0, 0, 0])
  np.testing.assert_allclose(
    y[0, :, 0], [0, 0.25, 0.75, 1.75, 3.25, 5.25, 7.75, 9]
  )
  assert mask.sum(1).tolist() == [8, 4]


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.3, 2.0])
def test_padding_is_never_read(scale, align):
  x = np.random.default_rng(0).normal(size=(1, 9, 2)).astype(np.float32)
  x[:, 6:] = np.nan
  lengths = jnp.array([6])

  def read(x):
    return scale_transform(
      x, lengths, jnp.float32(scale), 12, align_corners=align
    )[0]

  y, pullback = jax.vjp(read, jnp.asarray(x))
  np.testing.assert_array_equal(y, read(jnp.asarray(x[:, :6])))
  (gradient,) = pullback(jnp.ones_like(y))
  assert (np.asarray(gradient[:, 6:]) == 0).all()
  # Interpolation weights sum to 1.
  np.testing.assert_allclose(gradient.sum(), 2 * int(6 * scale), rtol=1e-5)


def test_equals_interp():
  x = np.random.default_rng(0).normal(size=13).astype(np.float32)
  for scale in (0.61, 0.93, 1.37, 1.99):
    y, mask = transform(x, scale, 26)
    count = int(13 * scale)
    position = (np.arange(count) + 0.5) / scale - 0.5
    assert sum(mask) == count
    np.testing.assert_allclose(
      y[:count], np.interp(position, np.arange(13), x), atol=1e-5
    )


def test_linear_and_commutes_with_a_product_over_channels():
  rng = np.random.default_rng(0)
  a, b = jnp.asarray(rng.normal(size=(2, 2, 7, 3)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)

  def st(x):
    return scale_transform(x, jnp.array([7, 5]), jnp.float32(1.4), 10)[0]

  np.testing.assert_allclose(
    st(2 * a - 3 * b), 2 * st(a) - 3 * st(b), atol=1e-5
  )
  np.testing.assert_allclose(st(a @ w), st(a) @ w, atol=1e-5)


# Gradients that gather (max_scale > 0) against autodiff's, which scatter: many
# scales, every length, and grids that cut some of the videos.
SCALES = [0.3, 1 / 3, 0.5, 0.75, 1, 1 + 1e-6, 4 / 3, 1.5, 1.99, 2, 2.5, 3, 4]
SCALES += np.random.default_rng(0).uniform(0.3, 3, 4).tolist()
LENGTHS = np.arange(1, 10)
PADDED = np.arange(11)[None] >= LENGTHS[:, None]


def with_gradient(scale, grid, **how):
  """Value, mask and a gradient of a video of each length, NaN in padding.

  Operation by operation: each compiles once for all scales.
  """
  rng = np.random.default_rng(0)
  x = rng.normal(size=(9, 11, 2)).astype(np.float32)
  cotangent = rng.uniform(-1, 1, (9, grid, 2)).astype(np.float32)
  x[PADDED] = np.nan

  def read(x):
    return scale_module.scale_transform(
      x, jnp.asarray(LENGTHS), jnp.float32(scale), grid, **how
    )

  y, pullback, mask = jax.vjp(read, jnp.asarray(x), has_aux=True)
  (gradient,) = pullback(jnp.asarray(cotangent))
  return np.asarray(y), np.asarray(mask), np.asarray(gradient)


@pytest.mark.parametrize("grid", [7, 30])
@pytest.mark.parametrize("align", [False, True])
def test_a_gradient_that_gathers_equals_one_that_scatters(align, grid):
  for scale in SCALES:
    y, mask, expected = with_gradient(scale, grid, align_corners=align)
    assert np.isfinite(y).all()
    assert np.abs(expected).max() > 0.1
    for bound in (scale, 1.3 * scale + 0.4):
      how = {"align_corners": align, "max_scale": bound}
      same, same_mask, gradient = with_gradient(scale, grid, **how)
      np.testing.assert_array_equal(same, y)
      np.testing.assert_array_equal(same_mask, mask)
      assert gradient.dtype == np.float32
      assert (gradient[PADDED] == 0).all()
      np.testing.assert_allclose(
        gradient, expected, rtol=1e-6, atol=1e-6, err_msg=f"{scale}, {bound}"
      )


def compiled_gradient(cotangent, length, size, scale, **how):
  """Of a video of `length` of `size` segments and one channel."""

  def gradient(cotangent):
    def read(x):
      lengths, grid = jnp.array([length]), len(cotangent)
      return scale_module.scale_transform(
        x, lengths, jnp.float32(scale), grid, **how
      )[0]

    _, pullback = jax.vjp(read, jnp.ones((1, size, 1)))
    return pullback(cotangent[None, :, None])[0][0, :, 0]

  return jax.jit(gradient, compiler_options=QUICK)(jnp.asarray(cotangent))


@pytest.mark.parametrize("max_scale", [0.0, 2.0])
def test_a_gradient_by_hand(max_scale):
  # Read at 0, 0.25, 0.75, 1.25, ..., 2.75, 3 by outputs of cotangents 1 to
  # 128; two more are past the end, and nobody gets theirs.
  cotangent = np.float32(2) ** np.arange(10)
  gradient = compiled_gradient(cotangent, 4, 5, 2, max_scale=max_scale)
  assert gradient.tolist() == [
    1 + 2 * 3 / 4 + 4 / 4,
    2 / 4 + 4 * 3 / 4 + 8 * 3 / 4 + 16 / 4,
    8 / 4 + 16 * 3 / 4 + 32 * 3 / 4 + 64 / 4,
    32 / 4 + 64 * 3 / 4 + 128,
    0,
  ]


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("scale", [0.7, 1.93, 2.0])
def test_a_long_video_has_the_gradient_of_a_loop_over_outputs(scale, align):
  # Long enough for positions that float32 cannot hold to the last digit.
  cotangent = np.random.default_rng(0).uniform(size=1500).astype(np.float32)
  gradient = compiled_gradient(
    cotangent, 750, 760, scale, align_corners=align, max_scale=scale
  )
  expected, count = np.zeros(760), int(750 * scale)
  for i in range(count):
    position = (i + 0.5) / scale - 0.5
    if align:
      position = i * 749 / (count - 1)
    position = min(max(position, 0), 749)
    low = int(position)
    expected[low] += (1 - (position - low)) * cotangent[i]
    expected[low + 1] += (position - low) * cotangent[i]
  np.testing.assert_allclose(gradient, expected, atol=5e-4)
