"""From a CAS to frame-level pseudo labels, and how good they are.

Legend: T segments ("frames" in the paper), C action classes, background in
column C. NumPy; one video at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class PseudoLabels(NamedTuple):
  """labels bool[T,C+1]; selected bool[T], the index set T of the paper.

  Rows that are not selected are all False.
  """

  labels: np.ndarray
  selected: np.ndarray


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
  values: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
  """Weighted average over the streams (1 : 1.5 in the paper, Sec. III-C).

  A lone stream needs no weight.
  """
  if len(values) == 1:
    return next(iter(values.values()))
  total = sum(weights[name] for name in values)
  return np.sum([weights[n] * v for n, v in values.items()], axis=0) / total


class Probabilities(dict[str, np.ndarray]):
  """Probabilities where logits are expected: they are their own softmax."""


def fused_cas(
  logits: Mapping[str, np.ndarray], weights: Mapping[str, float], space: str
) -> np.ndarray:
  """The ILG's CAS A before its thresholds. {stream: f[T,C+1]} -> f[T,C+1].

  softmax_minmax: softmax of each stream, fused, then min-max over time.
  minmax: min-max of each stream's logits, fused. raw_minmax: logits fused,
  then min-max. relu_minmax: the same with BaSNet-pytorch's min-max.
  softmax, raw: only fused.
  """
  if isinstance(logits, Probabilities):
    soft: Mapping[str, np.ndarray] = logits
  else:
    soft = {n: softmax(v) for n, v in logits.items()}
  if space == "softmax_minmax":
    return minmax(fuse(soft, weights))
  if space == "minmax":
    return fuse({n: minmax(v) for n, v in logits.items()}, weights)
  if space == "softmax":
    return fuse(soft, weights)
  if space == "raw":
    return fuse(logits, weights)
  if space == "raw_minmax":
    return minmax(fuse(logits, weights))
  if space == "relu_minmax":
    return relu_minmax(fuse(logits, weights))
  raise ValueError(
    "CAS space: expected softmax_minmax, minmax, raw_minmax, relu_minmax, "
    f"softmax or raw, got {space!r}"
  )


def _actions(
  cas: np.ndarray, allowed: np.ndarray, threshold: float, several: str
) -> np.ndarray:
  """Labels bool[T,C] of allowed classes above the threshold."""
  above = (cas[:, :-1] > threshold) & allowed
  if several == "multi_hot":
    return above
  if several != "highest":
    raise ValueError(f"several: expected highest or multi_hot, got {several!r}")
  best = np.where(above, cas[:, :-1], -np.inf).argmax(1)
  return above & (np.arange(above.shape[1]) == best[:, None])


def _join(actions: np.ndarray, background: np.ndarray) -> PseudoLabels:
  background = background & ~actions.any(1)
  labels = np.concatenate([actions, background[:, None]], 1)
  return PseudoLabels(labels, actions.any(1) | background)


def initial_labels(
  cas: np.ndarray,
  allowed: np.ndarray,
  *,
  high: float = 0.7,
  low: float = 0.1,
  several: str = "highest",
  background_sum: str = "own",
) -> PseudoLabels:
  """Label generation of the ILG (Sec. III-C). f[T,C+1], bool[C] -> labels.

  Above `high` a frame is of that class (of several, the highest, or all with
  `several="multi_hot"`); otherwise, where the allowed classes sum to less
  than `low`, it is background. `allowed` are the video's own labels; with
  `background_sum="all"` the sum runs over every class, as the paper prints.
  """
  if background_sum not in ("own", "all"):
    raise ValueError(
      f"background_sum: expected own or all, got {background_sum!r}"
    )
  actions = _actions(cas, allowed, high, several)
  summed = allowed | (background_sum == "all")
  return _join(actions, cas[:, :-1][:, summed].sum(1) < low)


def network_labels(
  cas: np.ndarray,
  allowed: np.ndarray,
  *,
  threshold: float,
  several: str = "highest",
  space: str = "probability",
) -> PseudoLabels:
  """Labels from the probabilities of OTS or RTS (Sec. III-D), theta_p.

  f[T,C+1], bool[C] -> labels; background by its own column. In the space
  `minmax` the threshold of an action is relative to its probabilities in this
  video, as it is for the ILG's CAS; the background's stays absolute.
  """
  if space not in ("probability", "minmax"):
    raise ValueError(f"space: expected probability or minmax, got {space!r}")
  scores = minmax(cas) if space == "minmax" else cas
  actions = _actions(scores, allowed, threshold, several)
  return _join(actions, cas[:, -1] > threshold)


def has_action(labels: PseudoLabels) -> bool:
  """Whether any frame is labelled with an action."""
  return bool(labels.labels[:, :-1].any())


def update(
  old: PseudoLabels, new: PseudoLabels, *, keep_empty: bool, rule: str
) -> PseudoLabels:
  """The update of Algorithm 1.

  `replace`: the new set; `merge`: new frames override, others stay. With
  `keep_empty` a video left without any action frame keeps its old labels.
  """
  if keep_empty and not has_action(new):
    return old
  if rule == "replace":
    return new
  if rule != "merge":
    raise ValueError(f"rule: expected replace or merge, got {rule!r}")
  labels = np.where(new.selected[:, None], new.labels, old.labels)
  return PseudoLabels(labels, new.selected | old.selected)


class Counts(NamedTuple):
  """Frames, and videos without an action; those of more videos add up."""

  right: int = 0
  chosen: int = 0
  frames: int = 0
  action_right: int = 0
  action_chosen: int = 0
  action_frames: int = 0
  without_action: int = 0

  def plus(self, other: "Counts | Sequence[int]") -> "Counts":
    """Those of both."""
    return Counts(*map(int.__add__, self, other))


def counts(
  labels: Iterable[PseudoLabels], truths: Iterable[np.ndarray]
) -> Counts:
  """Counts of labels against frame_truth bool[T,C+1].

  A frame is right when one of its labels is among the true ones.
  """
  found = Counts()
  for (label, selected), truth in zip(labels, truths, strict=True):
    hit = (label & truth).any(1)
    acted = label[:, :-1].any(1)
    own = (
      *(hit.sum(), selected.sum(), len(selected)),
      *((hit & acted).sum(), acted.sum(), (~truth[:, -1]).sum()),
      not acted.any(),
    )
    found = found.plus(tuple(map(int, own)))
  return found


def quality(found: Counts) -> dict[str, float]:
  """Precision and recall against the truth. Fractions.

  `precision`: right labels / selected frames; `recall`: right labels / all
  frames (Sec. IV-A of the paper). The paper's pair cannot see a collapse to
  background, so `action_precision` and `action_recall` count action labels
  and action frames alone, `selected` is the share of frames selected, and
  `videos_without_action` the number of videos with no frame of an action.
  """
  return {
    "precision": found.right / max(found.chosen, 1),
    "recall": found.right / max(found.frames, 1),
    "action_precision": found.action_right / max(found.action_chosen, 1),
    "action_recall": found.action_right / max(found.action_frames, 1),
    "selected": found.chosen / max(found.frames, 1),
    "videos_without_action": found.without_action,
  }
