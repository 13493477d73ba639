"""Network-RTS (Sec. III-D): class scores at M reduced temporal scales."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ptlr_jax.models.layers import Dropout, TemporalConv


class NetworkRTS(nn.Module):
  """A shared conv3, then m strided conv3 and a conv1 in branch m = 1..M.

  f32[B,T,2D], bool[B,T] -> M x logits f32[B,ceil(T/2^m),C+1].

  Low-resolution output t of branch m is centred on segment t x 2^m, which is
  the frame whose pseudo label it learns (index set T^m); not so with
  `centred=False`, where every strided layer moves it on by one. It draws
  dropout with that segment's `number` i32[B,T], see `Dropout`.
  """

  num_classes: int
  branches: int = 3
  width: int = 2048
  dropout: float = 0.7
  leaky_slope: float = 0.01
  centred: bool = True
  convolution: str = "auto"
  precision: str = "float32"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    number: jax.Array | None = None,
    *,
    deterministic: bool = True,
  ) -> list[jax.Array]:
    how: dict[str, Any] = {
      "method": self.convolution,
      "precision": self.precision,
    }
    x = TemporalConv(self.width, **how, name="conv")(x, mask)
    shared = nn.leaky_relu(x, self.leaky_slope)
    outputs = []
    for m in range(1, self.branches + 1):
      x, valid, own = shared, mask, number
      for i in range(1, m + 1):
        x = TemporalConv(
          self.width,
          stride=2,
          centred=self.centred,
          **how,
          name=f"branch{m}_conv{i}",
        )(x, valid)
        x, valid = nn.leaky_relu(x, self.leaky_slope), valid[:, ::2]
        own = None if own is None else own[:, ::2]
      x = Dropout(self.dropout)(x, own, deterministic=deterministic)
      outputs.append(
        TemporalConv(
          self.num_classes + 1,
          kernel_size=1,
          precision=self.precision,
          name=f"branch{m}_classifier",
        )(x, valid)
      )
    return outputs


def upsample(
  cas: jax.Array, factor: int, lengths: jax.Array, num_segments: int, mode: str
) -> jax.Array:
  """A low-resolution CAS at the original resolution.

  f32[B,T/factor,C], i32[B] -> f32[B,num_segments,C].

  `copy` repeats each value `factor` times, as in the paper's 8-frame example.
  Output t of Network-RTS is centred on segment t x factor, so the copy is late
  by half a cell: `nearest` takes the closest centre, `linear` interpolates
  between centres. Nothing is read past a video's valid length.
  """
  last = ((lengths + factor - 1) // factor - 1)[:, None]
  segment = jnp.arange(num_segments)[None]
  if mode == "linear":
    position = jnp.minimum(segment / factor, last)
    low = jnp.floor(position).astype(jnp.int32)
    weight = (position - low).astype(cas.dtype)[..., None]
    at_low = jnp.take_along_axis(cas, low[..., None], 1)
    high = jnp.minimum(low + 1, last)[..., None]
    return at_low + weight * (jnp.take_along_axis(cas, high, 1) - at_low)
  index = (segment + {"copy": 0, "nearest": factor // 2}[mode]) // factor
  return jnp.take_along_axis(cas, jnp.minimum(index, last)[..., None], 1)


def mean_of_branches(
  values: Sequence[jax.Array], mask: jax.Array, *, mode: str
) -> jax.Array:
  """Low-resolution values, upsampled and averaged over the branches.

  M x f32[B,T/2^m,C], bool[B,T] -> f32[B,T,C]; `mode` as for `upsample`.
  """
  total = jnp.zeros((*mask.shape, values[0].shape[-1]), values[0].dtype)
  for m, value in enumerate(values, 1):
    total += upsample(value, 2**m, mask.sum(1), mask.shape[1], mode)
  return total / len(values)


def combine(
  branch_logits: Sequence[jax.Array],
  mask: jax.Array,
  *,
  mode: str = "copy",
  average: str = "probability",
) -> jax.Array:
  """The output of Network-RTS: the mean of its upsampled branches.

  M x logits f32[B,T/2^m,C+1], bool[B,T] -> probabilities f32[B,T,C+1].

  `average` says what is averaged: each branch's `probability`, or its
  `logit` before one softmax.
  """
  first, last = {  # the softmax before the mean, or after
    "probability": (nn.softmax, lambda mean: mean),
    "logit": (lambda logits: logits, nn.softmax),
  }[average]
  values = [first(logits) for logits in branch_logits]
  return last(mean_of_branches(values, mask, mode=mode))
