"""Network-DTS: dilated convolutions, at the original temporal scale."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ptlr_jax.method import refinement, registry, stage
from ptlr_jax.models.layers import Dropout, TemporalConv


def _neighbours(x: jax.Array, mask: jax.Array, step: int) -> jax.Array:
  """Segments t - step, t, t + step side by side. f32[B,T,F] -> f32[B,T,3F]."""
  x = jnp.where(mask[..., None], x, 0)
  wide = jnp.pad(x, ((0, 0), (step, step), (0, 0)))
  size = x.shape[1]
  return jnp.concatenate([wide[:, i * step :][:, :size] for i in range(3)], -1)


class NetworkDTS(nn.Module):
  """Residual layers of dilation 1, 2, 4, ... on the fused features.

  f32[B,T,2D], bool[B,T] -> logits f32[B,T,C+1], background last. No dilation
  may exceed 2^branches of Network-RTS, the masked segments that lie between
  two videos of a row (`data.packing`).
  """

  num_classes: int
  width: int = 512
  layers: int = 4
  dropout: float = 0.5

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    number: jax.Array | None = None,
    *,
    deterministic: bool = True,
  ) -> jax.Array:
    x = TemporalConv(self.width, kernel_size=1, name="first")(x, mask)
    for i in range(self.layers):
      seen = _neighbours(nn.relu(x), mask, 2**i)
      x += TemporalConv(self.width, kernel_size=1, name=f"layer{i}")(seen, mask)
    x = Dropout(self.dropout)(nn.relu(x), number, deterministic=deterministic)
    classes = self.num_classes + 1
    return TemporalConv(classes, kernel_size=1, name="classifier")(x, mask)


def _dts(num_classes: int, options: Mapping[str, Any]) -> stage.Stage:
  net = NetworkDTS(num_classes, **options["model"])
  return refinement.frame_stage("dts", options, net)


registry.STAGES["dts"] = _dts
