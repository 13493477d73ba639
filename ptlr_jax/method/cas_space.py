"""A CAS before it is read: streams fused and normalized. NumPy."""

from collections.abc import Mapping

import numpy as np


def minmax(cas: np.ndarray) -> np.ndarray:
  """Every class stretched to [0, 1] over time. f[T,C] -> f[T,C]."""
  low, high = cas.min(0, keepdims=True), cas.max(0, keepdims=True)
  return np.clip((cas - low) / np.maximum(high - low, 1e-6), 0.0, 1.0)


def relu_minmax(cas: np.ndarray) -> np.ndarray:
  """Min-max over time as BaSNet-pytorch has it. f[T,C] -> f[T,C].

  Minimum and maximum count from 0 up, nothing is clipped: what lies below 0
  stays there, and a class that never rises above 0 is left as it is.
  """
  low = np.maximum(cas.min(0, keepdims=True), 0)
  span = np.maximum(cas.max(0, keepdims=True), 0) - low
  return (cas - low) / np.where(span > 0, span, 1)


def softmax(logits: np.ndarray) -> np.ndarray:
  """Softmax over classes. f[T,C] -> f[T,C]."""
  e = np.exp(logits - logits.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def fuse(
  values: Mapping[str, np.ndarray],
  weights: Mapping[str, float],
  normalise: bool = True,
) -> np.ndarray:
  """Weighted average over the streams (1 : 1.5 in the paper, Sec. III-C), or
  where not to `normalise` their weighted sum.

  A lone stream needs no weight.
  """
  if len(values) == 1:
    return next(iter(values.values()))
  total = sum(weights[name] for name in values) if normalise else 1
  return np.sum([weights[n] * v for n, v in values.items()], axis=0) / total


class Probabilities(dict[str, np.ndarray]):
  """Probabilities where logits are expected: they are their own softmax."""


def _same(cas: np.ndarray) -> np.ndarray:
  return cas


# {space: (whether softmax comes first, what is done with each stream, and with
# what is fused)}.
SPACES = {
  "softmax_minmax": (True, _same, minmax),
  "softmax_stream_minmax": (True, minmax, _same),
  "minmax": (False, minmax, _same),
  "raw_minmax": (False, _same, minmax),
  "relu_minmax": (False, _same, relu_minmax),
  "softmax": (True, _same, _same),
  "raw": (False, _same, _same),
}


def fused_cas(
  logits: Mapping[str, np.ndarray],
  weights: Mapping[str, float],
  space: str,
  normalise: bool = True,
) -> np.ndarray:
  """The ILG's CAS A before its thresholds. {stream: f[T,C+1]} -> f[T,C+1].

  softmax_minmax: softmax of each stream, fused, then min-max over time.
  softmax_stream_minmax: softmax and min-max of each stream, then fused.
  minmax: min-max of each stream's logits, fused. raw_minmax: logits fused,
  then min-max. relu_minmax: the same with BaSNet-pytorch's min-max.
  softmax, raw: only fused. `normalise` as for `fuse`.
  """
  soft, of_stream, of_fused = SPACES[space]
  values: Mapping[str, np.ndarray] = logits
  if soft and not isinstance(logits, Probabilities):
    values = {n: softmax(v) for n, v in logits.items()}
  streams = {n: of_stream(v) for n, v in values.items()}
  return of_fused(fuse(streams, weights, normalise))
