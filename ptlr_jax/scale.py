"""The temporal scale transform ST(., s) of Sec. III-C, with static shapes."""

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
  low = jnp.floor(position).astype(jnp.int32)
  high = jnp.minimum(low + 1, (lengths - 1)[:, None])
  weight = (position - low).astype(x.dtype)[..., None]
  at_low = jnp.take_along_axis(x, low[..., None], axis=1)
  at_high = jnp.take_along_axis(x, high[..., None], axis=1)
  mask = jnp.arange(num_segments)[None] < out_lengths[:, None]
  value = at_low + weight * (at_high - at_low)
  return jnp.where(mask[..., None], value, 0), mask
