"""Temporal convolutions of three taps as matrix products.

x f32[B,T,D] is padded with zeros: `before` (1 or 0) in front, and behind as
far as it is read. kernel f32[3,D,F]. Output t = 0..ceil(T/stride)-1 is the sum
over taps of x[t stride - before + tap] @ kernel[tap], without a bias.

`direct` multiplies what the definition says. `winograd2` and `winograd4` are
Winograd's minimal filtering algorithms F(2, 3) and F(4, 3) over time (Lavin
and Gray, "Fast Algorithms for Convolutional Neural Networks", Sec. 4.1): two
outputs for 4 products in place of 6, four for 6 in place of 12. They are
exact; in float32 the first loses no accuracy to speak of, the second about a
digit. With stride 2 the outer taps see every other segment, as a filter of two
taps whose F(2, 2) needs 3 products in place of 4.

`product` is the matrix product with weights. Parameters, activations, gradients
and losses are float32 in every precision; what differs is what the multipliers
see. Sums are accumulated in float32.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


def _on_cpu() -> bool:
  return jax.default_backend() == "cpu"


def _float32(a: jax.Array, b: jax.Array) -> jax.Array:
  # JAX's default on a GPU is TF32.
  return lax.dot(a, b, precision=lax.Precision.HIGHEST)


def _tf32(a: jax.Array, b: jax.Array) -> jax.Array:
  if _on_cpu():  # which has no such multipliers: their rounding alone
    a, b = (lax.reduce_precision(x, 8, 10) for x in (a, b))
    return lax.dot(a, b)
  return lax.dot(a, b, precision=lax.DotAlgorithmPreset.TF32_TF32_F32)


def _bf16(a: jax.Array, b: jax.Array) -> jax.Array:
  a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  return lax.dot(a, b, preferred_element_type=jnp.float32)


# Products f32[M,K], f32[K,N] -> f32[M,N] of operands that are rounded to 23, 10
# and 7 bits of mantissa.
PRECISIONS = {"float32": _float32, "tf32": _tf32, "bf16": _bf16}


def _dot(a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
  return PRECISIONS[precision](a, b)


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


WIDE = 1024  # channels; below, a saved product is worth little


class _Filtering(NamedTuple):
  """F(m, r) for the points 0, 1, -1, ... and infinity: rows of coefficients."""

  data: tuple[tuple[float, ...], ...]
  kernel: tuple[tuple[float, ...], ...]
  output: tuple[tuple[float, ...], ...]


METHODS: dict[str, _Filtering | None] = {
  "direct": None,
  "winograd2": _Filtering(
    data=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    kernel=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    output=((1, 1, 1, 0), (0, 1, -1, -1)),
  ),
  "winograd4": _Filtering(
    data=(
      (4, 0, -5, 0, 1, 0),
      (0, -4, -4, 1, 1, 0),
      (0, 4, -4, -1, 1, 0),
      (0, -2, -1, 2, 1, 0),
      (0, 2, -1, -2, 1, 0),
      (0, 4, 0, -5, 0, 1),
    ),
    kernel=(
      (1 / 4, 0, 0),
      (-1 / 6, -1 / 6, -1 / 6),
      (-1 / 6, 1 / 6, -1 / 6),
      (1 / 24, 1 / 12, 1 / 6),
      (1 / 24, -1 / 12, 1 / 6),
      (0, 0, 1),
    ),
    output=(
      (1, 1, 1, 1, 1, 0),
      (0, 1, -1, 2, -2, 0),
      (0, 1, 1, 4, 4, 0),
      (0, 1, -1, 8, -8, 1),
    ),
  ),
}
# Of two taps.
_STRIDED = _Filtering(
  data=((1, -1, 0), (0, 1, 0), (0, 1, -1)),
  kernel=((1, 0), (1, 1), (0, 1)),
  output=((1, 1, 0), (0, 1, -1)),
)


def chosen(method: str, precision: str, width: int = WIDE) -> str:
  """What `auto` stands for: winograd2 where float32 products are what a step
  waits for, on a CPU and WIDE channels or more; direct elsewhere. Any other
  method is itself."""
  if method != "auto":
    return method
  on_cpu = jax.default_backend() == "cpu"
  wide = width >= WIDE
  return "winograd2" if on_cpu and wide and precision == "float32" else "direct"


def _combined(row: Sequence[float], terms: Sequence[jax.Array]) -> jax.Array:
  """The sum of the terms, each times its coefficient."""
  found = None
  for factor, term in zip(row, terms, strict=True):
    if factor:
      term = term if factor == 1 else -term if factor == -1 else factor * term
      found = term if found is None else found + term
  assert found is not None
  return found


def _padded(x: jax.Array, before: int, length: int) -> jax.Array:
  """x from `before` zeros in front of it, `length` segments in all."""
  after = max(0, length - before - x.shape[1])
  return jnp.pad(x, ((0, 0), (before, after), (0, 0)))[:, :length]


def _filtered(
  x: jax.Array,
  kernel: Sequence[jax.Array],
  count: int,
  rows: _Filtering,
  precision: str,
) -> jax.Array:
  """Outputs t = 0..count-1, sum over taps of x[t + tap] @ kernel[tap].

  x is read as zeros behind its end.
  """
  size, inputs = len(rows.output), len(rows.data)
  tiles = -(-count // size)
  x = _padded(x, 0, size * (tiles + 1))
  x = x.reshape(len(x), tiles + 1, size, x.shape[-1])
  data = [x[:, :-1, i] for i in range(min(size, inputs))]
  data += [x[:, 1:, i] for i in range(inputs - size)]
  parts = [
    product(_combined(of_x, data), _combined(of_kernel, kernel), precision)
    for of_x, of_kernel in zip(rows.data, rows.kernel, strict=True)
  ]
  y = jnp.stack([_combined(row, parts) for row in rows.output], 2)
  return y.reshape(len(y), tiles * size, -1)[:, :count]


def shifted_sum(taps: Sequence[jax.Array], before: int) -> jax.Array:
  """Outputs from the products of every segment with every tap.

  3 x f32[B,T,F] -> f32[B,T,F]: the sum over taps of taps[tap][t - before +
  tap], zero outside.
  """
  length = taps[0].shape[1]
  total = jnp.zeros((), taps[0].dtype)
  for tap, values in enumerate(taps):
    wide = jnp.pad(values, ((0, 0), (before, len(taps) - 1), (0, 0)))
    total += wide[:, tap : tap + length]
  return total


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  before: int = 1,
  method: str = "direct",
  precision: str = "float32",
) -> jax.Array:
  """f32[B,T,D], f32[3,D,F] -> f32[B,ceil(T/stride),F]; see above.

  Raises:
    KeyError: another method or precision.
    ValueError: a stride above 2.
  """
  method = chosen(method, precision, min(kernel.shape[1:]))
  minimal = METHODS[method]
  if stride not in (1, 2):
    raise ValueError(f"stride: expected 1 or 2, got {stride}")
  count = -(-x.shape[1] // stride)
  if stride == 1 and not minimal:
    return shifted_sum([product(x, tap, precision) for tap in kernel], before)
  if stride == 1 and minimal:
    x = _padded(x, before, before + x.shape[1])
    return _filtered(x, list(kernel), count, minimal, precision)
  x = _padded(x, before, 2 * count + 2)
  even, odd = x[:, ::2], x[:, 1::2]
  middle = product(odd[:, :count], kernel[1], precision)
  if not minimal:
    first = product(even[:, :count], kernel[0], precision)
    return first + middle + product(even[:, 1:], kernel[2], precision)
  outer = [kernel[0], kernel[2]]
  return middle + _filtered(even, outer, count, _STRIDED, precision)
