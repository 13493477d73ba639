"""Temporal convolution as a sum of matmuls, and PyTorch's initialiser."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp


def torch_uniform(fan_in: int):
  """PyTorch's default for convolutions: U(-1, 1) / sqrt(fan_in)."""
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class TemporalConv(nn.Module):
  """A 1D convolution over time on masked input, kernel 1 or 3.

  f32[B,T,D], bool[B,T] -> f32[B,ceil(T/stride),features].

  Padded segments are read as zeros whatever they hold, so padding changes
  neither outputs nor gradients. Output t is centred on input t x stride
  (padding 1 on both sides); with `centred=False` it is centred on
  t x stride + 1, as SAME padding does for even lengths and stride 2.
  The taps are matmuls: `lax.conv`'s weight gradient inside a scan is far
  slower on CPU.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  use_bias: bool = True
  centred: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
    taps, width = self.kernel_size, x.shape[-1]
    init = torch_uniform(taps * width)
    kernel = self.param("kernel", init, (taps, width, self.features))
    x = jnp.where(mask[..., None], x, 0)
    out_length = -(-x.shape[1] // self.stride)
    before = taps // 2 if self.centred else 0
    after = (out_length - 1) * self.stride + taps - before - x.shape[1]
    x = jnp.pad(x, ((0, 0), (before, max(after, 0)), (0, 0)))
    stop = (out_length - 1) * self.stride + 1
    y = sum(
      x[:, tap : tap + stop : self.stride] @ kernel[tap] for tap in range(taps)
    )
    assert isinstance(y, jax.Array)
    if self.use_bias:
      y += self.param("bias", init, (self.features,))
    return y
