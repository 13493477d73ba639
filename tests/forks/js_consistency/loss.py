"""Jensen-Shannon divergence between the original and the transformed CAS."""

import jax
import jax.numpy as jnp

from ptlr_jax.method import losses


def _entropy(p: jax.Array) -> jax.Array:
  """f32[B,S,C+1] -> f32[B,S]; 0 log 0 is 0, with a finite gradient."""
  return -(p * jnp.log(jnp.maximum(p, 1e-6))).sum(-1)


def jensen_shannon(
  cas_scaled: jax.Array,
  transformed_cas: jax.Array,
  mask: jax.Array,
  *,
  reduce: str = "mean",
) -> jax.Array:
  """H((p + q) / 2) - (H(p) + H(q)) / 2 over valid segments, in [0, log 2].

  f32[B,S,C+1], f32[B,S,C+1], bool[B,S] -> f32[]. Both are probabilities, as
  `consistency_space` softmax makes them.
  """
  middle = _entropy((cas_scaled + transformed_cas) / 2)
  apart = middle - (_entropy(cas_scaled) + _entropy(transformed_cas)) / 2
  total = jnp.where(mask, apart, 0).sum()
  count = mask.sum() if reduce == "mean" else len(mask)
  return total / jnp.maximum(count, 1)


losses.SCALE_LOSSES["js"] = jensen_shannon
