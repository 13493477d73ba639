"""Frame-level pseudo labels from a CAS, and their update (Algorithm 1).

Legend: T segments ("frames" in the paper), C action classes, background in
column C. NumPy; one video at a time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ptlr_jax.data.dataset import Video
from ptlr_jax.method import cas_space
from ptlr_jax.runtime.plugins import registered


class PseudoLabels(NamedTuple):
  """labels bool[T,C+1]; selected bool[T], the index set T of the paper.

  Rows that are not selected are all False.
  """

  labels: np.ndarray
  selected: np.ndarray


def _actions(
  cas: np.ndarray, allowed: np.ndarray, threshold: float, several: str
) -> np.ndarray:
  """Labels bool[T,C] of allowed classes above the threshold."""
  above = (cas[:, :-1] > threshold) & allowed
  return _OF_SEVERAL[several](cas[:, :-1], above)


def _highest(scores: np.ndarray, above: np.ndarray) -> np.ndarray:
  best = np.where(above, scores, -np.inf).argmax(1)
  return above & (np.arange(above.shape[1]) == best[:, None])


# By `config.labels.several`: which of several classes label a frame.
_OF_SEVERAL: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "highest": _highest,
  "multi_hot": lambda scores, above: above,
}


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
  actions = _actions(cas, allowed, high, several)
  summed = {"own": allowed, "all": np.ones_like(allowed)}[background_sum]
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
  of_video = {"probability": np.asarray, "minmax": cas_space.minmax}
  scores = of_video[space](cas)
  actions = _actions(scores, allowed, threshold, several)
  return _join(actions, cas[:, -1] > threshold)


def has_action(labels: PseudoLabels) -> bool:
  """Whether any frame is labelled with an action."""
  return bool(labels.labels[:, :-1].any())


def _overlaid(first: PseudoLabels, second: PseudoLabels) -> PseudoLabels:
  """Both sets; where a frame has two labels, those of the first."""
  labels = np.where(first.selected[:, None], first.labels, second.labels)
  return PseudoLabels(labels, first.selected | second.selected)


def replace(old: PseudoLabels, new: PseudoLabels) -> PseudoLabels:
  """The new set alone, as Algorithm 1 prints."""
  return new


def merge(old: PseudoLabels, new: PseudoLabels) -> PseudoLabels:
  """Both sets, and the new label where a frame has two."""
  return _overlaid(new, old)


def expand(old: PseudoLabels, new: PseudoLabels) -> PseudoLabels:
  """Both sets, and the old label where a frame has two ("progressively expand
  the training set", Sec. III-D)."""
  return _overlaid(old, new)


# By `config.labels.update_rule`, f(old, new) of one video; plugins add others.
UPDATE_RULES: dict[
  str, Callable[[PseudoLabels, PseudoLabels], PseudoLabels]
] = {
  "replace": replace,
  "merge": merge,
  "expand": expand,
}


def update(
  old: PseudoLabels, new: PseudoLabels, *, keep_empty: bool, rule: str
) -> PseudoLabels:
  """The update of Algorithm 1, by one of `UPDATE_RULES`.

  With `keep_empty` a video for which the network finds no action frame keeps
  its old labels.
  """
  chosen = registered(UPDATE_RULES, rule, "labels.update_rule")
  return old if keep_empty and not has_action(new) else chosen(old, new)


def allowed_classes(
  videos: Sequence[Video], num_classes: int, class_filter: bool
) -> list[np.ndarray]:
  """The classes that may label a video's frames, bool[C] each.

  Its own video-level labels, which training knows; all without the filter.
  """
  allowed = []
  for video in videos:
    row = np.full(num_classes, not class_filter)
    row[list(video.labels)] = True
    allowed.append(row)
  return allowed
