"""Products with weights: values, gradients and what they are rounded to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptlr_jax.models import convolution
from ptlr_jax.models.convolution import product

# What x and the kernel have, beside rows: leading dims, D, F.
SHAPES = {
  "wide": ((2, 3), 4, 9),
  "narrow": ((2, 3), 9, 4),  # F < D / 2: the other operand is turned
  "half": ((2, 3), 8, 4),
  "one column": ((2, 3), 5, 1),
  "one channel": ((2, 3), 1, 5),
  "one row": ((1,), 3, 2),
  "no leading dims": ((), 3, 2),
  "three leading dims": ((2, 1, 3), 6, 2),
}


def drawn(*shapes):
  rng = np.random.default_rng(0)
  return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def by_loop(x, kernel, cotangent):
  """x @ kernel, and the gradients of its product with the cotangent."""
  y = np.zeros(cotangent.shape)
  of_x, of_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
  for row in np.ndindex(x.shape[:-1]):
    for i, j in np.ndindex(kernel.shape):
      y[*row, j] += x[*row, i] * kernel[i, j]
      of_x[*row, i] += cotangent[*row, j] * kernel[i, j]
      of_kernel[i, j] += cotangent[*row, j] * x[*row, i]
  return y, of_x, of_kernel


def with_gradients(x, kernel, cotangent, precision="float32"):
  """product, and the gradients of x and of the kernel."""
  of = functools.partial(product, precision=precision)
  y, pullback = jax.vjp(of, x, kernel)
  return y, *pullback(jnp.asarray(cotangent))


def assert_all_close(found, expected, **how):
  for a, b in zip(found, expected, strict=True):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, **how)


@pytest.mark.parametrize("on", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_equal_a_plain_loop(shape, on, monkeypatch):
  # The float32 products of another device run here as well.
  monkeypatch.setattr(jax, "default_backend", lambda: on)
  leading, inputs, outputs = SHAPES[shape]
  problem = drawn((*leading, inputs), (inputs, outputs), (*leading, outputs))
  expected = by_loop(*problem)
  found = with_gradients(*problem)
  assert [a.dtype for a in found] == [np.float32] * 3
  assert_all_close(found, expected, atol=1e-5)
  anew = jax.jit(functools.partial(with_gradients))  # traced for `on`
  assert_all_close(anew(*problem), expected, atol=1e-5)


@pytest.mark.parametrize("precision", convolution.PRECISIONS)
@pytest.mark.parametrize("outputs", [2, 9])
def test_vmap_over_both_operands_is_each_by_itself(outputs, precision):
  problem = drawn((3, 2, 4, 6), (3, 6, outputs), (3, 2, 4, outputs))
  of = functools.partial(with_gradients, precision=precision)
  found = jax.jit(jax.vmap(of))(*problem)
  for i in range(3):
    alone = of(*(v[i] for v in problem))
    assert_all_close([a[i] for a in found], alone, atol=1e-5)


@pytest.mark.parametrize(("of_x", "of_kernel"), [(0, None), (None, 0)])
def test_vmap_over_one_operand_is_each_by_itself(of_x, of_kernel):
  x, kernel, cotangent = drawn((3, 4, 6), (3, 6, 2), (3, 4, 2))
  x, kernel = x if of_x == 0 else x[0], kernel if of_kernel == 0 else kernel[0]
  found = jax.vmap(with_gradients, (of_x, of_kernel, 0))(x, kernel, cotangent)
  for i in range(3):
    alone = with_gradients(
      x[i] if of_x == 0 else x,
      kernel[i] if of_kernel == 0 else kernel,
      cotangent[i],
    )
    assert_all_close([a[i] for a in found], alone, atol=1e-5)


def rounded_by_hand(precision, value):
  """value x 1 and 1 x value, and the two gradients of a cotangent of value:
  what each of the operands of the three products is rounded to."""
  v, one = jnp.full((1, 1), value), jnp.ones((1, 1))
  found = [
    product(v, one, precision),
    product(one, v, precision),
    *with_gradients(one, one, v, precision)[1:],
    with_gradients(v, one, one, precision)[2],  # the gradient of the kernel
    with_gradients(one, v, one, precision)[1],  # of x
  ]
  assert all(y.dtype == np.float32 for y in found)
  values = {float(y[0, 0]) for y in found}
  assert len(values) == 1
  return values.pop()


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 10), ("bf16", 7)])
def test_operands_are_rounded_to_their_bits_of_mantissa(precision, bits):
  by_hand = functools.partial(rounded_by_hand, precision)
  last = 2.0**-bits
  for kept in (1.0, 1 + last, 1 + 2 * last, -1 - last, 2.0**100, 2.0**-100):
    assert by_hand(kept) == kept
  assert by_hand(1 + 0.5 * last) == 1  # a tie goes to the even
  assert by_hand(1 + 1.5 * last) == 1 + 2 * last
  assert by_hand(1 + 0.75 * last) == 1 + last
  assert by_hand(1 + 0.25 * last) == 1


def test_values_that_tell_the_precisions_apart():
  for value, expected in [
    (1 + 2**-9, {"float32": 1 + 2**-9, "tf32": 1 + 2**-9, "bf16": 1}),
    (1 + 2**-11, {"float32": 1 + 2**-11, "tf32": 1, "bf16": 1}),
    (1 + 2**-23, {"float32": 1 + 2**-23, "tf32": 1, "bf16": 1}),
    (1 + 2**-7, dict.fromkeys(convolution.PRECISIONS, 1 + 2**-7)),
  ]:
    for precision in convolution.PRECISIONS:
      assert rounded_by_hand(precision, value) == expected[precision]


@pytest.mark.parametrize("precision", convolution.PRECISIONS)
def test_sums_are_accumulated_and_returned_in_float32(precision):
  # 4096 ones and 2^-7: neither bfloat16 nor 10 bits of mantissa hold the sum.
  ones = np.ones(4097, np.float32)
  ones[-1] = 2**-7
  kernel = np.ones((4097, 1), np.float32)
  expected = 4096 + 2**-7
  y = product(jnp.asarray(ones[None]), jnp.asarray(kernel), precision)
  assert y.tolist() == [[expected]]
  # The gradients sum over columns and over rows.
  of_x = with_gradients(
    np.ones((1, 1), np.float32), kernel.T, ones[None], precision
  )[1]
  assert of_x.tolist() == [[expected]]
  of_kernel = with_gradients(
    kernel, np.ones((1, 1), np.float32), ones[:, None], precision
  )[2]
  assert of_kernel.tolist() == [[expected]]


@pytest.mark.parametrize("precision", convolution.PRECISIONS)
def test_values_and_gradients_are_the_float32_of_rounded_operands(precision):
  problem = drawn((2, 5, 8), (8, 3), (2, 5, 3))
  found = with_gradients(*problem, precision=precision)
  assert [a.dtype for a in found] == [np.float32] * 3
  bits = {"float32": 23, "tf32": 10, "bf16": 7}[precision]
  rounded = [to_bits(v, bits) for v in problem]
  assert_all_close(found, by_loop(*rounded), atol=3e-6)
  unlike = max(
    np.abs(a - b).max() for a, b in zip(found, by_loop(*problem), strict=True)
  )
  assert (unlike > 1e-4) == (precision != "float32")


def to_bits(v, bits):
  """v with so many bits of mantissa, besides the one that is always 1."""
  fraction, exponent = np.frexp(v.astype(float))  # in [1/2, 1)
  return np.ldexp(np.round(fraction * 2 ** (bits + 1)), exponent - bits - 1)


def test_an_unknown_precision_is_refused():
  x, kernel = map(jnp.asarray, drawn((2, 3), (3, 4)))
  with pytest.raises(KeyError, match="fp16"):
    product(x, kernel, "fp16")
