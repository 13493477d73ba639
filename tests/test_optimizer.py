"""Adam with L2 in the gradient, against PyTorch's update in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ptlr_jax.training.train_step import adam


def params_and_gradients(steps):
  """A convolution's parameters in float32 and gradients of `steps` updates."""
  rng = np.random.default_rng(0)

  def draw():
    return {
      "kernel": rng.normal(size=(3, 2, 2)).astype(np.float32),
      "bias": rng.normal(size=2).astype(np.float32),
    }

  return draw(), [draw() for _ in range(steps)]


def train(tx, params, gradients):
  update = jax.jit(tx.update)
  params = jax.tree.map(jnp.asarray, params)
  state = tx.init(params)
  for g in gradients:
    updates, state = update(g, state, params)
    params = optax.apply_updates(params, updates)
  return params


def torch_adam(p, gradients, lr, decay, *, decoupled=False):
  """torch.optim.Adam and AdamW, as their documentation has them, float64."""
  p = p.astype(np.float64)
  m, v = np.zeros_like(p), np.zeros_like(p)
  for t, g in enumerate(gradients, 1):
    if decoupled:
      p = p - lr * decay * p
    else:
      g = g + decay * p
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    p = p - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
  return p


# The decay is large enough for its place in the update to show.
LR, DECAY, STEPS = 0.01, 0.3, 20


@pytest.mark.parametrize("decoupled", [False, True])
def test_20_steps_equal_pytorch(decoupled):
  params, gradients = params_and_gradients(STEPS)
  ours = train(
    adam(LR, weight_decay=DECAY, decoupled=decoupled), params, gradients
  )
  for name, p in params.items():
    history = [g[name] for g in gradients]
    expected = torch_adam(p, history, LR, DECAY, decoupled=decoupled)
    other = torch_adam(p, history, LR, DECAY, decoupled=not decoupled)
    np.testing.assert_allclose(ours[name], expected, atol=2e-6)
    assert np.abs(expected - other).max() > 1e-3


def test_biases_decay_unless_told_not_to():
  params, gradients = params_and_gradients(STEPS)
  free = train(
    adam(LR, weight_decay=DECAY, decay_biases=False), params, gradients
  )
  for name, decay in (("kernel", DECAY), ("bias", 0.0)):
    history = [g[name] for g in gradients]
    expected = torch_adam(params[name], history, LR, decay)
    np.testing.assert_allclose(free[name], expected, atol=2e-6)
  biased = train(adam(LR, weight_decay=DECAY), params, gradients)
  assert float(jnp.abs(free["bias"] - biased["bias"]).max()) > 1e-3


def test_default_decay_moves_a_parameter_without_gradient():
  # g = 5e-4 x 2, and the first step of Adam is lr x sign(g).
  params = {"kernel": np.full((1, 1), 2.0, np.float32)}
  moved = train(adam(0.1), params, [{"kernel": np.zeros((1, 1), np.float32)}])
  np.testing.assert_allclose(moved["kernel"], [[1.9]], rtol=1e-5)
