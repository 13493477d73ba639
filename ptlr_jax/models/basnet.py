"""Bas-Net of one stream (Sec. III-A): filter module and shared CAS module."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ptlr_jax.models.layers import Dropout, Products, TemporalConv, products_of


class FilterModule(nn.Module):
  """Foreground weights in (0, 1). f32[B,T,D], bool[B,T] -> f32[B,T]."""

  width: int = 512
  leaky_slope: float = 0.01
  precision: str = "float32"

  @nn.compact
  def __call__(self, x: jax.Array | Products, mask: jax.Array) -> jax.Array:
    how: dict[str, Any] = {"kernel_size": 1, "precision": self.precision}
    x = TemporalConv(self.width, **how, name="conv1")(x, mask)
    x = nn.leaky_relu(x, self.leaky_slope)
    x = TemporalConv(1, **how, name="conv2")(x, mask)
    return nn.sigmoid(x[..., 0])


class CASModule(nn.Module):
  """Class activation sequence. f32[B,T,D], bool[B,T] -> logits f32[B,T,C+1].

  conv3, conv3, dropout, conv1 without bias. Network-OTS has the same shape
  (its classifier has a bias), see `ots.py`. `number` i32[B,T] as for
  `Dropout`.
  """

  num_classes: int
  width: int = 2048
  dropout: float = 0.7
  leaky_slope: float = 0.01
  classifier_bias: bool = False
  convolution: str = "auto"
  precision: str = "float32"

  @nn.compact
  def __call__(
    self,
    x: jax.Array | Products,
    mask: jax.Array,
    number: jax.Array | None = None,
    *,
    deterministic: bool,
  ) -> jax.Array:
    how: dict[str, Any] = {
      "method": self.convolution,
      "precision": self.precision,
    }
    for name in ("conv1", "conv2"):
      x = TemporalConv(self.width, **how, name=name)(x, mask)
      x = nn.leaky_relu(x, self.leaky_slope)
    x = Dropout(self.dropout)(x, number, deterministic=deterministic)
    return TemporalConv(
      self.num_classes + 1,
      kernel_size=1,
      use_bias=self.classifier_bias,
      name="classifier",
      precision=self.precision,
    )(x, mask)


class FirstProducts(NamedTuple):
  """What the first layers of both modules make of every segment."""

  of_filter: Products
  of_cas: Products


class BasNet(nn.Module):
  """One stream of Bas-Net; the branches share the CAS module's parameters.

  f32[B,T,D], bool[B,T] -> {"suppression": f32[B,T,C+1],
  "foreground_weights": f32[B,T], and "base": f32[B,T,C+1] unless
  `base=False`}; logits, background in the last column. `number` i32[B,T] as
  for `Dropout`: each branch draws its own with it.

  In place of the features it takes what `products` made of them: computed
  once, it serves every branch, the transformed one too, since ST(., s)
  commutes with a product over channels.
  """

  num_classes: int
  filter_width: int = 512
  cas_width: int = 2048
  dropout: float = 0.7
  leaky_slope: float = 0.01
  convolution: str = "auto"
  precision: str = "float32"

  def setup(self):
    self.filter_module = FilterModule(
      self.filter_width, self.leaky_slope, self.precision
    )
    self.cas_module = self.made_cas_module()

  def made_cas_module(self) -> nn.Module:
    """The CAS module, called as a `CASModule`; for others to override."""
    return CASModule(
      self.num_classes,
      self.cas_width,
      self.dropout,
      self.leaky_slope,
      convolution=self.convolution,
      precision=self.precision,
    )

  def products(self, x: jax.Array, mask: jax.Array) -> FirstProducts:
    """f32[B,T,D], bool[B,T] -> what `__call__` takes in place of x."""
    x = jnp.where(mask[..., None], x, 0)  # a NaN in padding stays there
    params = self.variables["params"]

    def made(module: str) -> Products:
      return products_of(x, params[module]["conv1"]["kernel"], self.precision)

    return FirstProducts(made("filter_module"), made("cas_module"))

  def __call__(
    self,
    x: jax.Array | FirstProducts,
    mask: jax.Array,
    number: jax.Array | None = None,
    *,
    deterministic: bool = True,
    base: bool = True,
  ) -> dict[str, jax.Array]:
    if isinstance(x, FirstProducts):
      weights = self.filter_module(x.of_filter, mask)
      seen, suppressed = x.of_cas, x.of_cas.weighted(weights)
    else:
      seen = jnp.where(mask[..., None], x, 0)
      weights = self.filter_module(seen, mask)
      suppressed = seen * weights[..., None]
    out = {"foreground_weights": weights}
    out["suppression"] = self.cas_module(
      suppressed, mask, number, deterministic=deterministic
    )
    if base:
      out["base"] = self.cas_module(
        seen, mask, number, deterministic=deterministic
      )
    return out
