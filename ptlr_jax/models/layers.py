"""Temporal convolution on masked input, and PyTorch's initialiser."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ptlr_jax.models import convolution
from ptlr_jax.models.convolution import product


def torch_uniform(fan_in: int):
  """PyTorch's default for convolutions: U(-1, 1) / sqrt(fan_in)."""
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


# Numbers that a row has for its segments: more than there are in any.
ROW = 1 << 16


def segment_numbers(row: jax.Array, size: int) -> jax.Array:
  """Numbers of the segments of whole rows. i32[B] -> i32[B,size].

  They do not depend on `size`, so padding changes none of them.
  """
  return row[:, None] * ROW + jnp.arange(size)


class Dropout(nn.Module):
  """Dropout that knows a segment by its number. f32[B,T,F], i32[B,T] ->
  f32[B,T,F].

  Every segment draws with a key of its own, made of the key and its number in
  the whole batch. So it is dropped alike wherever in a batch it lies, and
  whatever part, row or device holds it. Without numbers rows count from 0.
  """

  rate: float

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    number: jax.Array | None = None,
    *,
    deterministic: bool,
  ) -> jax.Array:
    if deterministic or not self.rate:
      return x
    key, kept = self.make_rng("dropout"), 1 - self.rate
    if number is None:
      number = segment_numbers(jnp.arange(len(x)), x.shape[1])

    def keep(own):
      own = jax.random.fold_in(key, own)
      return jax.random.bernoulli(own, kept, x.shape[2:])

    return jnp.where(jax.vmap(jax.vmap(keep))(number), x / kept, 0)


# What the matrix products of a network have cost; the rest is cheap to make
# again, see `stages.remembering`.
COSTLY = "convolved"


class Products(NamedTuple):
  """What a convolution makes of every segment by itself: taps x f32[B,T,F].

  A convolution is linear in each segment, so what its input is multiplied
  with, or how it is interpolated in time, may as well be done to these: one
  set of products serves every branch that sees the same features.
  """

  taps: tuple[jax.Array, ...]

  def weighted(self, weights: jax.Array) -> "Products":
    """As if segment t had been multiplied with weights f32[B,T]."""
    return Products(tuple(tap * weights[..., None] for tap in self.taps))


def products_of(
  x: jax.Array, kernel: jax.Array, precision: str = "float32"
) -> Products:
  """f32[B,T,D], f32[taps,D,F] -> Products."""
  taps = (product(x, tap, precision) for tap in kernel)
  return Products(tuple(checkpoint_name(tap, COSTLY) for tap in taps))


class TemporalConv(nn.Module):
  """A 1D convolution over time on masked input, kernel 1 or 3.

  f32[B,T,D] or Products, bool[B,T] -> f32[B,ceil(T/stride),features].

  Padded segments are read as zeros whatever they hold, so padding changes
  neither outputs nor gradients. Output t is centred on input t x stride
  (padding 1 on both sides); with `centred=False` it is centred on
  t x stride + 1, as SAME padding does for even lengths and stride 2.
  `method` is one of `convolution.METHODS`, `precision` of
  `convolution.PRECISIONS`.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  use_bias: bool = True
  centred: bool = True
  method: str = "auto"
  precision: str = "float32"

  @nn.compact
  def __call__(self, x: jax.Array | Products, mask: jax.Array) -> jax.Array:
    taps = self.kernel_size
    if isinstance(x, Products):
      y = self._joined(x, mask)
      fan_in = 1  # the kernel is there: nothing is drawn
    else:
      fan_in = taps * x.shape[-1]
      shape = (taps, x.shape[-1], self.features)
      kernel = self.param("kernel", torch_uniform(fan_in), shape)
      y = self._convolved(jnp.where(mask[..., None], x, 0), kernel)
    y = checkpoint_name(y, COSTLY)
    if self.use_bias:
      y += self.param("bias", torch_uniform(fan_in), (self.features,))
    return y

  def _before(self) -> int:
    return self.kernel_size // 2 if self.centred else 0

  def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if self.kernel_size == 1:
      return product(x[:, :: self.stride], kernel[0], self.precision)
    return convolution.convolve(
      x,
      kernel,
      stride=self.stride,
      before=self._before(),
      method=self.method,
      precision=self.precision,
    )

  def _joined(self, x: Products, mask: jax.Array) -> jax.Array:
    if self.stride != 1:
      raise ValueError(f"Products: expected stride 1, got {self.stride}")
    taps = [jnp.where(mask[..., None], tap, 0) for tap in x.taps]
    return convolution.shifted_sum(taps, self._before())
