"""Pseudo labels of a whole training set, as one phase writes them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax import pseudo_labels
from ptlr_jax.data.annotations import Dataset, Video, frame_truth
from ptlr_jax.pseudo_labels import Counts, PseudoLabels


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


def initial(
  outputs: Sequence[Mapping[str, Any]],
  allowed: Sequence[np.ndarray],
  options: Any,
  fusion: Mapping[str, float],
) -> list[PseudoLabels]:
  """Labels from the ILG's logits, {"logits": {stream: f[T,C+1]}} a video.

  `options` is config.labels.
  """
  return [
    pseudo_labels.initial_labels(
      pseudo_labels.fused_cas(out["logits"], fusion, options.cas),
      classes,
      high=options.high,
      low=options.low,
      several=options.several,
      background_sum=options.background_sum,
    )
    for out, classes in zip(outputs, allowed, strict=True)
  ]


def refine(
  outputs: Sequence[Mapping[str, Any]],
  old: Sequence[PseudoLabels],
  allowed: Sequence[np.ndarray],
  threshold: float,
  options: Any,
) -> tuple[list[PseudoLabels], int]:
  """Labels from a network's {"cas": f[T,C+1]} a video, and how many videos
  were left without an action frame and kept their old labels.

  `threshold` is theta_p of the stage, `options` config.labels.
  """
  labels, kept = [], 0
  for out, before, classes in zip(outputs, old, allowed, strict=True):
    new = pseudo_labels.network_labels(
      out["cas"],
      classes,
      threshold=threshold,
      several=options.several,
      space=options.network_cas,
    )
    kept += options.keep_empty and not pseudo_labels.has_action(new)
    labels.append(
      pseudo_labels.update(
        before, new, keep_empty=options.keep_empty, rule=options.update_rule
      )
    )
  return labels, kept


def label(
  predictions: Iterable[tuple[int, Mapping[str, Any]]],
  old: Sequence[PseudoLabels] | None,
  allowed: Sequence[np.ndarray],
  threshold: float,
  options: Any,
  fusion: Mapping[str, float],
) -> tuple[list[PseudoLabels], int]:
  """Labels of every video, {index: prediction} as they come: `initial` without
  `old` labels, else `refine`; and how many videos kept their old ones."""
  found: list[Any] = [None] * len(allowed)
  kept = 0
  for i, out in predictions:
    if old is None:
      (found[i],) = initial([out], [allowed[i]], options, fusion)
    else:
      (found[i],), stayed = refine(
        [out], [old[i]], [allowed[i]], threshold, options
      )
      kept += stayed
  return found, kept


class Tally(NamedTuple):
  """What is counted of labels; that of more videos adds up.

  `annotated` and `others` are of the videos with temporal annotations and of
  those without; `frames` i64[C+1] are the labelled frames of each class,
  `empty` the videos without any.
  """

  annotated: Counts
  others: Counts
  frames: tuple[int, ...]
  empty: int

  def plus(self, other: "Tally | Sequence[Any]") -> "Tally":
    """That of both; of the other as JSON gives it back, too."""
    annotated, others, frames, empty = other
    return Tally(
      self.annotated.plus(annotated),
      self.others.plus(others),
      tuple(map(int.__add__, self.frames, frames)),
      self.empty + empty,
    )


def tally(
  labels: Iterable[PseudoLabels], videos: Iterable[Video], num_classes: int
) -> Tally:
  """Counts the labels of training videos."""
  found = {True: Counts(), False: Counts()}
  frames, empty = np.zeros(num_classes + 1, int), 0
  for label, video in zip(labels, videos, strict=True):
    own = pseudo_labels.counts([label], [frame_truth(video, num_classes)])
    kind = bool(video.instances)
    found[kind] = found[kind].plus(own)
    frames += label.labels[label.selected].sum(0)
    empty += not label.selected.any()
  return Tally(found[True], found[False], tuple(frames.tolist()), empty)


def quality(found: Tally) -> dict[str, float]:
  """Precision and recall of the training videos' labels, for the log only.

  See `pseudo_labels.quality`; training never reads it. Videos without temporal
  annotations are left out; where none has any, what needs no truth is left.
  """
  if found.annotated.frames:
    return pseudo_labels.quality(found.annotated)
  said = pseudo_labels.quality(found.others)
  return {name: said[name] for name in ("selected", "videos_without_action")}


def gaps(found: Tally, data: Dataset) -> list[str]:
  """What the labels of the training videos leave without a frame, in words."""
  frames, said = found.frames, []
  if not any(frames):
    return ["no frame of any video is labelled"]
  if found.empty:
    total = len(data.train)
    said.append(f"{found.empty} of {total} videos have no labelled frame")
  taught = sorted({c for video in data.train for c in video.labels})
  lost = [data.classes[c] for c in taught if not frames[c]]
  if lost:
    more = f" and {len(lost) - 5} more" if lost[5:] else ""
    said.append(f"no frame is labelled {', '.join(lost[:5])}{more}")
  if not frames[-1]:
    said.append("no frame is labelled background")
  return said
