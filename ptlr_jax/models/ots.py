"""Network-OTS (Sec. III-D): class scores at the original temporal scale."""

import flax.linen as nn
import jax

from ptlr_jax.models.basnet import CASModule


class NetworkOTS(nn.Module):
  """conv3, conv3, dropout, conv1 on the fused two-stream features.

  f32[B,T,2D], bool[B,T] -> logits f32[B,T,C+1], background last. `number`
  i32[B,T] as for `Dropout`.
  """

  num_classes: int
  width: int = 2048
  dropout: float = 0.7
  leaky_slope: float = 0.01
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
  ) -> jax.Array:
    return CASModule(
      self.num_classes,
      self.width,
      self.dropout,
      self.leaky_slope,
      classifier_bias=True,
      convolution=self.convolution,
      precision=self.precision,
      name="cas_module",
    )(x, mask, number, deterministic=deterministic)
