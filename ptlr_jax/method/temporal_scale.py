"""The temporal scale transform ST(., s) of Sec. III-C, with static shapes."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp


def scaled_lengths(lengths: jax.Array, scale: jax.Array) -> jax.Array:
  """Number of segments after ST(., s): floor(s x length), at least one.

  i32[B], f32[] -> i32[B], in segments.
  """
  product = lengths.astype(scale.dtype) * scale
  # In float32 a product such as 10 x 0.7 may fall a hair below the integer.
  hair = 4 * float(jnp.finfo(scale.dtype).eps)
  scaled = jnp.floor(product * (1 + hair)).astype(jnp.int32)
  return jnp.maximum(scaled, 1)


def scale_transform(
  x: jax.Array,
  lengths: jax.Array,
  scale: jax.Array,
  num_segments: int,
  *,
  align_corners: bool = False,
  max_scale: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Linear interpolation of a padded batch in time, ST(x, s) of Eqs. (3), (4).

  f32[B,T,D], i32[B], f32[], static S -> f32[B,S,D], bool[B,S].

  Output segment i of a video of L valid segments is read at
  (i + 0.5) / s - 0.5 (half-pixel centres, clipped to [0, L - 1], no
  antialiasing), as PyTorch's `F.interpolate(align_corners=False)` does. With
  `align_corners` the first and last segments are mapped onto each other.
  The transform is linear in `x` and acts on every channel alike, so it
  commutes with a product over channels. Outputs past the scaled length are 0.

  Args:
    x: the sequences; segments at or past `lengths` are never read.
    lengths: valid segments of each video, at least 1.
    scale: s, usually in [0.5, 2].
    num_segments: S, the padded length of the output; scaled lengths past it
      are cut.
    align_corners: see above.
    max_scale: a bound of `scale`, above 0: the gradient then gathers what each
      segment was read by, in place of scattering what each output has read.
      That is many times faster on CPU, and on a GPU the same bits every time.
  """
  out_lengths = jnp.minimum(scaled_lengths(lengths, scale), num_segments)
  grid = jnp.arange(num_segments, dtype=jnp.float32)[None]
  last = (lengths - 1).astype(jnp.float32)[:, None]
  if align_corners:
    steps = jnp.maximum(out_lengths - 1, 1).astype(jnp.float32)[:, None]
    position = grid * last / steps
  else:
    position = (grid + 0.5) / scale - 0.5
  position = jnp.clip(position, 0.0, last)
  mask = jnp.arange(num_segments)[None] < out_lengths[:, None]
  if not max_scale:
    return _read_at(x, position, mask), mask
  # Half-pixel: a segment lies within 1 of at most 2 s + 1 positions, at most
  # 1.5 s + 1 where they are held at an end. Corners aligned: 4 s, for L = 2.
  most = 4 * max_scale if align_corners else 2 * max_scale + 1
  most = min(math.ceil(most) + 1, num_segments)
  return _read_and_gather(x, position, mask, most), mask


# Indexes over time that the caller keeps within the sequence.
_take = functools.partial(jnp.take_along_axis, axis=1, mode="promise_in_bounds")


def _read_at(x: jax.Array, position: jax.Array, mask: jax.Array) -> jax.Array:
  """x between its segments. f32[B,T,D], f32[B,S], bool[B,S] -> f32[B,S,D].

  Positions lie within each video's valid segments; 0 where not in the mask.
  """
  low = jnp.floor(position).astype(jnp.int32)
  # At the last valid segment the weight is 0, so that padding is not read.
  weight = (position - low).astype(x.dtype)[..., None]
  high = low + (weight[..., 0] > 0)
  at_low = _take(x, low[..., None])
  at_high = _take(x, high[..., None])
  value = at_low + weight * (at_high - at_low)
  return jnp.where(mask[..., None], value, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _read_and_gather(
  x: jax.Array, position: jax.Array, mask: jax.Array, most: int
) -> jax.Array:
  """`_read_at`; a segment is read by at most `most` outputs, which follow each
  other as positions never fall."""
  del most
  return _read_at(x, position, mask)


def _forward(x: jax.Array, position: jax.Array, mask: jax.Array, most: int):
  del most
  return _read_at(x, position, mask), (position, mask, x.shape[1])


def _backward(most: int, saved: Any, g: jax.Array):
  """The transpose of `_read_at`: a segment gets from every output that lies
  within 1 of it, with the weight it was read with."""
  position, mask, length = saved
  segment = jnp.arange(length, dtype=position.dtype)
  first = jax.vmap(lambda p: jnp.searchsorted(p, segment - 1, side="right"))
  first = first(position)
  g = jnp.where(mask[..., None], g, 0)
  total = jnp.zeros((), g.dtype)
  for i in range(most):
    reader = jnp.minimum(first + i, position.shape[1] - 1)
    away = jnp.abs(_take(position, reader) - segment)
    weight = jnp.where(first + i < position.shape[1], 1 - away, 0)
    weight = jnp.maximum(weight, 0).astype(g.dtype)[..., None]
    total += weight * _take(g, reader[..., None])
  return total, None, None


_read_and_gather.defvjp(_forward, _backward)
