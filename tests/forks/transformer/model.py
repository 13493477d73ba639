"""A transformer encoder in place of Bas-Net's convolutions."""

import flax.linen as nn
import jax

from ptlr_jax.method import ilg
from ptlr_jax.models.layers import Dropout


class Transformer(nn.Module):
  """Bas-Net's two branches on an encoder that sees the whole video.

  f32[B,T,D], bool[B,T] -> {"base", "suppression": logits f32[B,T,C+1],
  "foreground_weights": f32[B,T]}; `number` as for `Dropout`.
  """

  num_classes: int
  width: int
  layers: int = 2
  heads: int = 4
  dropout: float = 0.5

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    number: jax.Array | None = None,
    *,
    deterministic: bool = True,
    base: bool = True,
  ) -> dict[str, jax.Array]:
    x = nn.Dense(self.width, name="embedding")(x * mask[..., None])
    pairs = mask[:, None, None, :]  # padded segments are not attended to
    for i in range(self.layers):
      seen = nn.LayerNorm(name=f"norm{i}")(x)
      attention = nn.MultiHeadDotProductAttention(self.heads, name=f"layer{i}")
      x += attention(seen, mask=pairs)
    weights = nn.sigmoid(nn.Dense(1, name="foreground")(x))[..., 0]
    x = Dropout(self.dropout)(x, number, deterministic=deterministic)
    classifier = nn.Dense(self.num_classes + 1, name="classifier")
    out = {"foreground_weights": weights}
    out["suppression"] = classifier(x * weights[..., None])
    return {**out, "base": classifier(x)} if base else out


ilg.NETWORKS["transformer"] = Transformer
