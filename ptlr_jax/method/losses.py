"""The paper's losses, one equation a function.

Legend: B videos, T segments, C action classes; score arrays have C + 1
columns, background last. `mask` is True at valid segments.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_FAR_BELOW = -1e30


def topk_mean(cas: jax.Array, mask: jax.Array, *, ratio: int = 8) -> jax.Array:
  """Mean of the k largest scores of every class over time.

  f32[B,T,C], bool[B,T] -> f32[B,C]; k = max(1, valid length // ratio).
  """
  kmax = max(1, cas.shape[1] // ratio)
  k = jnp.maximum(1, mask.sum(1) // ratio)
  scores = jnp.where(mask[..., None], cas, _FAR_BELOW)
  top, _ = jax.lax.top_k(jnp.swapaxes(scores, 1, 2), kmax)
  counted = jnp.arange(kmax)[None] < k[:, None]
  total = jnp.where(counted[:, None], top, 0).sum(-1)
  return total / k[:, None].astype(cas.dtype)


def video_bce(
  logits: jax.Array, labels: jax.Array, *, reference_classes: int = 21
) -> jax.Array:
  """Binary cross-entropy of the softmax of video scores, L_base and L_supp.

  f32[B,C+1], f32[B,C+1] -> f32[].

  Labels are normalised to sum 1, the loss is averaged over videos and classes
  and multiplied by (C + 1) / `reference_classes`, so that it keeps the size
  it has on THUMOS14 when there are more classes; 0 leaves the factor out.
  """
  labels = labels / jnp.maximum(labels.sum(-1, keepdims=True), 1)
  total = labels.shape[-1]
  log_p = jax.nn.log_softmax(logits, axis=-1)
  # log(1 - p_c) = logsumexp of the others - logsumexp of all: exact near 1.
  others = jnp.where(jnp.eye(total, dtype=bool), _FAR_BELOW, logits[:, None])
  log_rest = jax.nn.logsumexp(others, axis=-1)
  log_not_p = log_rest - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  loss = -(labels * log_p + (1 - labels) * log_not_p).mean()
  return loss * (total / reference_classes if reference_classes else 1.0)


def foreground_norm(weights: jax.Array, mask: jax.Array) -> jax.Array:
  """L1 norm of the foreground weights, L_norm of Eq. (1).

  f32[B,T], bool[B,T] -> f32[]; mean over videos of the sum over time.
  """
  return jnp.where(mask, jnp.abs(weights), 0).sum(1).mean()


def basnet_terms(
  base: jax.Array,
  suppression: jax.Array,
  weights: jax.Array,
  mask: jax.Array,
  labels: jax.Array,
  *,
  topk_ratio: int = 8,
  reference_classes: int = 21,
  norm_weight: float = 1e-4,
) -> dict[str, jax.Array]:
  """The three terms of Bas-Net, Eq. (1), weighted; L_bas-net is their sum.

  f32[B,T,C+1], f32[B,T,C+1], f32[B,T], bool[B,T], f32[B,C] -> {name: f32[]}.

  Every video holds background for the base branch and none for the
  suppression branch. The paper shows weight 1 for L_norm; BaS-Net's code has
  1e-4.
  """
  one = jnp.ones((len(labels), 1), base.dtype)
  terms = {}
  for name, cas, background in (
    ("base", base, one),
    ("supp", suppression, 0 * one),
  ):
    terms[name] = video_bce(
      topk_mean(cas, mask, ratio=topk_ratio),
      jnp.concatenate([labels, background], 1),
      reference_classes=reference_classes,
    )
  terms["norm"] = norm_weight * foreground_norm(weights, mask)
  return terms


def consistency_space(cas: jax.Array, mask: jax.Array, space: str) -> jax.Array:
  """The CAS as the consistency losses compare it.

  f32[B,T,C+1], bool[B,T] -> f32[B,T,C+1]. `softmax` over classes, `minmax`
  of every class over valid time, or `raw` logits.
  """
  return _SPACES[space](cas, mask)


def _minmax(cas: jax.Array, mask: jax.Array) -> jax.Array:
  valid = mask[..., None]
  low = jnp.where(valid, cas, -_FAR_BELOW).min(1, keepdims=True)
  high = jnp.where(valid, cas, _FAR_BELOW).max(1, keepdims=True)
  return jnp.where(valid, (cas - low) / jnp.maximum(high - low, 1e-6), 0)


_SPACES: dict[str, Callable[..., jax.Array]] = {
  "softmax": lambda cas, _: jax.nn.softmax(cas, axis=-1),
  "minmax": _minmax,
  "raw": lambda cas, _: cas,
}


def l1_distance(
  a: jax.Array, b: jax.Array, mask: jax.Array, *, reduce: str = "mean"
) -> jax.Array:
  """L1 distance of two CASs over valid segments, the norm of Eqs. (2)-(4).

  f32[B,T,C], f32[B,T,C], bool[B,T] -> f32[].

  `mean` over valid segments and classes of the batch, or `sum` over them,
  averaged over videos.
  """
  total = jnp.where(mask[..., None], jnp.abs(a - b), 0).sum()
  count = {
    "mean": jnp.maximum(mask.sum(), 1) * a.shape[-1],
    "sum": len(a),
  }
  return total / count[reduce]


def cross_stream_consistency(
  first: jax.Array, second: jax.Array, mask: jax.Array, *, reduce: str = "mean"
) -> jax.Array:
  """Cross-stream consistency L_csc, Eq. (2).

  f32[B,T,C+1], f32[B,T,C+1], bool[B,T] -> f32[]. Both streams' CASs are already
  in the space in which they are compared (`consistency_space`).
  """
  return l1_distance(first, second, mask, reduce=reduce)


def scale_consistency(
  cas_scaled: jax.Array,
  transformed_cas: jax.Array,
  mask: jax.Array,
  *,
  reduce: str = "mean",
) -> jax.Array:
  """Temporal multi-resolution consistency L_sc of a stream, Eqs. (3), (4).

  f32[B,S,C+1], f32[B,S,C+1], bool[B,S] -> f32[].

  `cas_scaled` is ST(A, s), the transform of the original branch's CAS;
  `transformed_cas` comes from the branch that saw ST(F, s). Both are already
  in the space in which they are compared (`consistency_space`).
  """
  return l1_distance(cas_scaled, transformed_cas, mask, reduce=reduce)


# What L_csc and L_sc may be sums of, called as these; plugins add others. The
# name is that of the log.
CROSS_STREAM_LOSSES: dict[str, Callable[..., jax.Array]] = {
  "csc": cross_stream_consistency
}
SCALE_LOSSES: dict[str, Callable[..., jax.Array]] = {"sc": scale_consistency}


def frame_weights(
  targets: jax.Array,
  selected: jax.Array,
  *,
  video: jax.Array | None = None,
  average: str = "batch",
  balance: bool = False,
) -> jax.Array:
  """What each frame counts for in Eqs. (6) and (7).

  f32[B,T,C+1], bool[B,T] -> f32[B,T], of sum 1 (unless `video` is balanced),
  or all 0 without a selected frame.

  `batch` divides by N_in, the frames selected in the batch; `video` first
  averages every video that has any: a row, or where rows hold several those
  that i32[B,T] numbers. Beyond the paper, `balance` gives the
  action and the background frames of the batch half of the weight each where
  there are both.
  """
  weights = selected.astype(targets.dtype)
  if {"video": True, "batch": False}[average]:
    if video is None:
      video = jnp.broadcast_to(jnp.arange(len(weights))[:, None], weights.shape)
    count = jnp.zeros(weights.size, weights.dtype).at[video].add(weights)
    videos = jnp.maximum((count > 0).sum(), 1)
    weights = weights / (jnp.maximum(count, 1)[video] * videos)
  else:
    weights = weights / jnp.maximum(weights.sum(), 1)
  return weights * _balance(targets, selected) if balance else weights


def _balance(targets: jax.Array, selected: jax.Array) -> jax.Array:
  """Factors f32[B,T] of mean 1 over the selected frames; see above."""
  background = targets.argmax(-1) == targets.shape[-1] - 1
  kinds = (selected & background, selected & ~background)
  both = kinds[0].any() & kinds[1].any()
  half = selected.sum() / 2
  factors = sum(kind * half / jnp.maximum(kind.sum(), 1) for kind in kinds)
  return jnp.where(both, factors, 1.0)


def selected_cross_entropy(
  logits: jax.Array,
  targets: jax.Array,
  selected: jax.Array,
  *,
  average: str = "batch",
  balance: bool = False,
  smoothing: float = 0.0,
  weights: jax.Array | None = None,
) -> jax.Array:
  """Cross-entropy over the selected frames, L_ots of Eq. (6).

  f32[B,T,C+1], f32[B,T,C+1], bool[B,T] -> f32[].

  The print lacks the minus. `average` and `balance` as for `frame_weights`, or
  its `weights` where they were taken of a larger batch. No frame at all gives
  0. `smoothing`, beyond the paper, mixes that share of the uniform
  distribution into the targets.
  """
  if weights is None:
    weights = frame_weights(targets, selected, average=average, balance=balance)
  if smoothing:
    targets = (1 - smoothing) * targets + smoothing / targets.shape[-1]
  ce = -(targets * jax.nn.log_softmax(logits, axis=-1)).sum(-1)
  return (jnp.where(selected, ce, 0) * weights).sum()


def branch_cross_entropy(
  branch_logits: Sequence[jax.Array],
  targets: jax.Array,
  selected: jax.Array,
  *,
  weights: Sequence[jax.Array] | None = None,
  **options: Any,
) -> jax.Array:
  """Mean over branches of their own cross-entropy, L_rts of Eq. (7).

  M x f32[B,T/2^m,C+1], f32[B,T,C+1], bool[B,T] -> f32[].

  Branch m = 1..M learns low-resolution index t where t x 2^m is selected,
  with the label of frame t x 2^m (the index set T^m). `options`, and the
  `weights` of each branch's frames, as for `selected_cross_entropy`.
  """
  total = jnp.zeros((), branch_logits[0].dtype)
  for m, logits in enumerate(branch_logits, 1):
    own = weights[m - 1] if weights is not None else None
    step = 2**m
    total += selected_cross_entropy(
      logits, targets[:, ::step], selected[:, ::step], weights=own, **options
    )
  return total / len(branch_logits)
