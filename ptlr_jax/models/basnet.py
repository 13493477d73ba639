"""Bas-Net of one stream (Sec. III-A): filter module and shared CAS module."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ptlr_jax.models.layers import TemporalConv


class FilterModule(nn.Module):
  """Foreground weights in (0, 1). f32[B,T,D], bool[B,T] -> f32[B,T]."""

  width: int = 512
  leaky_slope: float = 0.01

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
    x = TemporalConv(self.width, kernel_size=1, name="conv1")(x, mask)
    x = nn.leaky_relu(x, self.leaky_slope)
    x = TemporalConv(1, kernel_size=1, name="conv2")(x, mask)
    return nn.sigmoid(x[..., 0])


class CASModule(nn.Module):
  """Class activation sequence. f32[B,T,D], bool[B,T] -> logits f32[B,T,C+1].

  conv3, conv3, dropout, conv1 without bias. Network-OTS has the same shape
  (its classifier has a bias), see `ots.py`.
  """

  num_classes: int
  width: int = 2048
  dropout: float = 0.7
  leaky_slope: float = 0.01
  classifier_bias: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, mask: jax.Array, *, deterministic: bool
  ) -> jax.Array:
    for name in ("conv1", "conv2"):
      x = TemporalConv(self.width, name=name)(x, mask)
      x = nn.leaky_relu(x, self.leaky_slope)
    x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
    return TemporalConv(
      self.num_classes + 1,
      kernel_size=1,
      use_bias=self.classifier_bias,
      name="classifier",
    )(x, mask)


class BasNet(nn.Module):
  """One stream of Bas-Net; the branches share the CAS module's parameters.

  f32[B,T,D], bool[B,T] -> {"suppression": f32[B,T,C+1],
  "foreground_weights": f32[B,T], and "base": f32[B,T,C+1] unless
  `base=False`}; logits, background in the last column.
  """

  num_classes: int
  filter_width: int = 512
  cas_width: int = 2048
  dropout: float = 0.7
  leaky_slope: float = 0.01

  def setup(self):
    self.filter_module = FilterModule(self.filter_width, self.leaky_slope)
    self.cas_module = CASModule(
      self.num_classes, self.cas_width, self.dropout, self.leaky_slope
    )

  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    *,
    deterministic: bool = True,
    base: bool = True,
  ) -> dict[str, jax.Array]:
    x = jnp.where(mask[..., None], x, 0)  # a NaN in padding stays there
    weights = self.filter_module(x, mask)
    out = {"foreground_weights": weights}
    out["suppression"] = self.cas_module(
      x * weights[..., None], mask, deterministic=deterministic
    )
    if base:
      out["base"] = self.cas_module(x, mask, deterministic=deterministic)
    return out
