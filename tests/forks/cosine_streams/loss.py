"""Cosine distance between the CASs of the two streams."""

import jax
import jax.numpy as jnp

from ptlr_jax.method import losses


def cosine_distance(
  first: jax.Array, second: jax.Array, mask: jax.Array, *, reduce: str = "mean"
) -> jax.Array:
  """1 - cos of the class scores of a segment, over valid segments, in [0, 2].

  f32[B,T,C+1], f32[B,T,C+1], bool[B,T] -> f32[].
  """
  lengths = jnp.square(first).sum(-1) * jnp.square(second).sum(-1)
  cosine = (first * second).sum(-1) / jnp.sqrt(jnp.maximum(lengths, 1e-12))
  total = jnp.where(mask, 1 - cosine, 0).sum()
  count = mask.sum() if reduce == "mean" else len(mask)
  return total / jnp.maximum(count, 1)


losses.CROSS_STREAM_LOSSES["cosine"] = cosine_distance
