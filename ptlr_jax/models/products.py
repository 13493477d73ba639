"""Matrix products with weights, in the precision that a configuration names.

Parameters, activations, gradients and losses are float32 in all of them; what
differs is what the multipliers see. Sums are accumulated in float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# What the operands of a product are rounded to: 23, 10 and 7 bits of mantissa.
PRECISIONS = ("float32", "tf32", "bf16")


def _on_cpu() -> bool:
  return jax.default_backend() == "cpu"


def _dot(a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
  """f32[M,K], f32[K,N] -> f32[M,N]."""
  if precision == "bf16":
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return lax.dot(a, b, preferred_element_type=jnp.float32)
  if precision == "float32":
    # JAX's default on a GPU is TF32.
    return lax.dot(a, b, precision=lax.Precision.HIGHEST)
  if precision != "tf32":
    raise ValueError(
      f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}"
    )
  if _on_cpu():  # which has no such multipliers: their rounding alone
    a, b = (lax.reduce_precision(x, 8, 10) for x in (a, b))
    return lax.dot(a, b)
  return lax.dot(a, b, precision=lax.DotAlgorithmPreset.TF32_TF32_F32)


def _rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1, x.shape[-1])


def product(
  x: jax.Array, kernel: jax.Array, precision: str = "float32"
) -> jax.Array:
  """x @ kernel over the last axis. f32[...,D], f32[D,F] -> f32[...,F].

  Its gradient is written out because XLA on CPU joins the transposition for
  the kernel's gradient with the element-wise operations around it, and then
  spends more time on it than on the product.
  """
  y: Any = _product(x, kernel, precision)
  return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
  y = _dot(_rows(x), kernel, precision)
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


def _forward(x: jax.Array, kernel: jax.Array, precision: str):
  return _product(x, kernel, precision), (x, kernel)


def _backward(precision: str, saved: Any, g: jax.Array):
  x, kernel = saved
  rows, g = _rows(x), _rows(g)
  if _on_cpu():
    # The transposition stands alone, where it costs what a copy costs, and
    # is that of the narrower operand.
    rows, g = lax.optimization_barrier((rows, g))
    narrow = g.shape[1] < rows.shape[1] // 2
    turned = lax.optimization_barrier((g if narrow else rows).T)
    of_kernel = _dot(turned, rows if narrow else g, precision)
    of_kernel = of_kernel.T if narrow else of_kernel
  else:
    of_kernel = _dot(rows.T, g, precision)
  of_x = _dot(g, kernel.T, precision).reshape(x.shape)
  return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


_product.defvjp(_forward, _backward)
