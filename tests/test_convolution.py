"""Temporal convolutions: every method against a loop, and what it costs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import QUICK

from ptlr_jax.models import convolution
from ptlr_jax.models.convolution import chosen, convolve, shifted_sum

B, D, F = 2, 3, 4
LENGTHS = [1, 2, 3, 5, 8, 9]
DIRECT, F2, F4 = "direct", "winograd2", "winograd4"
CASES = [
  (method, stride, before)
  for method in (DIRECT, F2, F4)
  for stride in (1, 2)
  for before in (0, 1)
]


def problem(length, stride):
  """x, kernel and the cotangent of the output, in float64."""
  rng = np.random.default_rng(length)
  count = -(-length // stride)
  shapes = (B, length, D), (3, D, F), (B, count, F)
  return tuple(rng.normal(size=shape) for shape in shapes)


@functools.cache
def computed(length):
  """Outputs and both gradients of every case, compiled together."""

  def all_cases(problems):
    found = {}
    for method, stride, before in CASES:
      x, kernel, cotangent = problems[stride]
      how = {"stride": stride, "before": before, "method": method}
      y, pullback = jax.vjp(functools.partial(convolve, **how), x, kernel)
      found[method, stride, before] = y, *pullback(cotangent)
    return found

  quick = functools.partial(jax.jit, compiler_options=QUICK)
  with jax.enable_x64(True):
    problems = {stride: problem(length, stride) for stride in (1, 2)}
    return jax.tree.map(np.asarray, quick(all_cases)(problems))


def read_by(length, stride, before):
  """Every (output, tap, segment) of the definition."""
  for t in range(-(-length // stride)):
    for tap in range(3):
      segment = t * stride - before + tap
      if 0 <= segment < length:
        yield t, tap, segment


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("method", "stride", "before"), CASES)
def test_every_method_equals_a_plain_loop(method, stride, before, length):
  x, kernel, _ = problem(length, stride)
  y = computed(length)[method, stride, before][0]
  expected = np.zeros((B, -(-length // stride), F))
  for t, tap, segment in read_by(length, stride, before):
    expected[:, t] += x[:, segment] @ kernel[tap]
  assert y.dtype == np.float64
  np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("method", "stride", "before"), CASES)
def test_gradients_of_every_method_equal_a_plain_loop(
  method, stride, before, length
):
  x, kernel, cotangent = problem(length, stride)
  _, of_x, of_kernel = computed(length)[method, stride, before]
  x_expected, kernel_expected = np.zeros_like(x), np.zeros_like(kernel)
  for t, tap, segment in read_by(length, stride, before):
    x_expected[:, segment] += cotangent[:, t] @ kernel[tap].T
    kernel_expected[tap] += x[:, segment].T @ cotangent[:, t]
  np.testing.assert_allclose(of_x, x_expected, rtol=0, atol=1e-12)
  np.testing.assert_allclose(of_kernel, kernel_expected, rtol=0, atol=1e-12)


def test_a_convolution_by_hand():
  x = jnp.array([1.0, 10, 100, 1000])[None, :, None]
  kernel = jnp.array([1.0, 2, 4])[:, None, None]
  for method in (DIRECT, F2, F4):

    def outputs(stride, before, method=method):
      how = {"stride": stride, "before": before, "method": method}
      return np.asarray(convolve(x, kernel, **how))[0, :, 0]

    # 2 + 40, 1 + 20 + 400, 10 + 200 + 4000, 100 + 2000; then one later.
    for stride in (1, 2):
      centred, later = [42, 421, 4210, 2100], [421, 4210, 2100, 1000]
      np.testing.assert_allclose(
        outputs(stride, 1), centred[::stride], rtol=1e-5, atol=2e-3
      )
      np.testing.assert_allclose(
        outputs(stride, 0), later[::stride], rtol=1e-5, atol=2e-3
      )


def test_shifted_sum_joins_the_products_of_single_segments():
  taps = [jnp.array(v)[None, :, None] for v in ([1, 2], [10, 20], [100, 200])]
  # Tap 0 comes from the segment before, tap 2 from the one behind.
  assert shifted_sum(taps, 1)[0, :, 0].tolist() == [10 + 200, 1 + 20]
  assert shifted_sum(taps, 0)[0, :, 0].tolist() == [1 + 20, 2]


def flops(method, length, inputs=2048, outputs=2048, stride=1) -> Any:
  """Of one video; nothing is run."""
  x = jax.ShapeDtypeStruct((1, length, inputs), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, inputs, outputs), jnp.float32)
  how = functools.partial(convolve, stride=stride, method=method)
  cost: Any = jax.jit(how).lower(x, kernel).cost_analysis()
  return cost["flops"]


@pytest.mark.parametrize(
  ("method", "stride", "expected"),
  [
    # Of 800 segments, or of 400 outputs with stride 2.
    (DIRECT, 1, 800 * 3),
    (F2, 1, 800 * 4 / 2),
    (F4, 1, 800 * 6 / 4),
    (DIRECT, 2, 400 * 3),
    (F2, 2, 400 * 5 / 2),
    (F4, 2, 400 * 5 / 2),
  ],
)
def test_winograd_multiplies_less_often(method, stride, expected):
  # In products of a segment with a tap; so large, all else hardly counts.
  done = flops(method, 800, stride=stride) / (2 * 2048**2)
  assert done == pytest.approx(expected, rel=0.02)


def test_winograd2_is_as_accurate_as_float32():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 32, 256))
  kernel = rng.uniform(-1, 1, size=(3, 256, 256)) / np.sqrt(3 * 256)
  expected = np.zeros((1, 32, 256))
  x, kernel = x.astype(np.float32), kernel.astype(np.float32)
  for t, tap, segment in read_by(32, 1, 1):
    expected[:, t] += x[:, segment].astype(float) @ kernel[tap].astype(float)
  for method, most in [(DIRECT, 1e-6), (F2, 2e-6), (F4, 1e-5)]:
    y = np.asarray(convolve(jnp.asarray(x), jnp.asarray(kernel), method=method))
    assert y.dtype == np.float32
    error = np.abs(y - expected).max() / np.abs(expected).max()
    assert 0 < error < most, method


def test_auto_is_winograd2_for_wide_float32_on_a_cpu_alone(monkeypatch):
  on_cpu = {p: chosen("auto", p) for p in ("float32", "tf32", "bf16")}
  assert on_cpu == {"float32": F2, "tf32": DIRECT, "bf16": DIRECT}
  assert chosen("auto", "float32", 1024) == F2
  assert chosen("auto", "float32", 1023) == DIRECT
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert chosen("auto", "float32") == DIRECT
  # What is named stays.
  for method in convolution.METHODS:
    assert chosen(method, "float32") == chosen(method, "bf16") == method
    assert chosen(method, "float32", 1) == method


@pytest.mark.parametrize(
  ("widths", "expected"),
  [((1024, 1024), F2), ((1023, 2048), DIRECT), ((2048, 1023), DIRECT)],
)
def test_auto_goes_by_the_narrower_side_of_the_kernel(widths, expected):
  auto, direct, winograd = (flops(m, 8, *widths) for m in ("auto", DIRECT, F2))
  assert auto == {DIRECT: direct, F2: winograd}[expected]
  assert direct != winograd


def test_what_is_unknown_is_refused():
  x, kernel, _ = map(jnp.asarray, problem(5, 1))
  for stride in (1, 2):
    with pytest.raises(KeyError, match="fft"):
      convolve(x, kernel, stride=stride, method="fft")
  for method in (DIRECT, F2, "auto"):
    for stride in (0, 3):
      with pytest.raises(ValueError, match=f"expected 1 or 2, got {stride}"):
        convolve(x, kernel, stride=stride, method=method)
    with pytest.raises(KeyError, match="fp8"):
      convolve(x, kernel, method=method, precision="fp8")
