"""Bas-Net whose CAS module attends to the whole video."""

import flax.linen as nn
import jax

from ptlr_jax.method import ilg
from ptlr_jax.models.basnet import BasNet
from ptlr_jax.models.layers import Dropout, TemporalConv


class AttentionCAS(nn.Module):
  """conv3, self-attention with a residual, dropout, conv1 without bias.

  f32[B,T,D], bool[B,T] -> logits f32[B,T,C+1]; `number` as for `Dropout`.
  """

  num_classes: int
  width: int
  heads: int
  dropout: float

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    number: jax.Array | None = None,
    *,
    deterministic: bool,
  ) -> jax.Array:
    x = nn.relu(TemporalConv(self.width, name="conv1")(x, mask))
    seen = nn.LayerNorm(name="norm")(x)
    pairs = mask[:, None, None, :]  # padded segments are not attended to
    x += nn.MultiHeadDotProductAttention(self.heads, name="attention")(
      seen, mask=pairs
    )
    x = Dropout(self.dropout)(x, number, deterministic=deterministic)
    classes = self.num_classes + 1
    return TemporalConv(
      classes, kernel_size=1, use_bias=False, name="classifier"
    )(x, mask)


class AttentionBasNet(BasNet):
  """As `BasNet`, with `heads` of attention; to be trained with
  `ilg.share_products` off, since it has other first layers."""

  heads: int = 4

  def made_cas_module(self) -> nn.Module:
    width, heads = self.cas_width, self.heads
    return AttentionCAS(self.num_classes, width, heads, self.dropout)


ilg.NETWORKS["attention"] = AttentionBasNet
