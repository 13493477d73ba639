"""Adam as the field trains with it."""

import jax
import optax


def adam(
  learning_rate: float,
  *,
  weight_decay: float = 5e-4,
  decoupled: bool = False,
  decay_biases: bool = True,
) -> optax.GradientTransformation:
  """PyTorch's `Adam(weight_decay=)`: L2 is added to the gradient.

  That is not AdamW, which `decoupled=True` gives. Biases decay too unless
  `decay_biases=False`.
  """

  def mask(params):
    if decay_biases:
      return jax.tree.map(lambda _: True, params)
    return jax.tree.map(lambda p: p.ndim > 1, params)

  decay = optax.add_decayed_weights(weight_decay, mask=mask)
  scale = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
  order = (scale, decay) if decoupled else (decay, scale)
  return optax.chain(*order, optax.scale_by_learning_rate(learning_rate))
