"""Pseudo labels of a whole training set, as one phase writes them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax import pseudo_labels
from ptlr_jax.data.annotations import Dataset, Video, frame_truth
from ptlr_jax.pseudo_labels import PseudoLabels


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


def quality(labels: Sequence[PseudoLabels], data: Dataset) -> dict[str, float]:
  """Precision and recall of the training videos' labels, for the log only.

  See `pseudo_labels.quality`; training never reads it. Videos without temporal
  annotations are left out; where none has any, what needs no truth is left.
  """
  pairs = list(zip(labels, data.train, strict=True))
  annotated = [(label, video) for label, video in pairs if video.instances]
  chosen = annotated or pairs
  found = pseudo_labels.quality(
    [label for label, _ in chosen],
    (frame_truth(video, len(data.classes)) for _, video in chosen),
  )
  if annotated:
    return found
  return {name: found[name] for name in ("selected", "videos_without_action")}


def gaps(labels: Sequence[PseudoLabels], data: Dataset) -> list[str]:
  """What the labels of the training videos leave without a frame, in words."""
  columns = len(data.classes) + 1
  frames = np.zeros(columns, int)
  for label in labels:
    frames += label.labels[label.selected].sum(0)
  said = []
  if not frames.any():
    return ["no frame of any video is labelled"]
  if empty := sum(not label.selected.any() for label in labels):
    said.append(f"{empty} of {len(labels)} videos have no labelled frame")
  taught = sorted({c for video in data.train for c in video.labels})
  lost = [data.classes[c] for c in taught if not frames[c]]
  if lost:
    more = f" and {len(lost) - 5} more" if lost[5:] else ""
    said.append(f"no frame is labelled {', '.join(lost[:5])}{more}")
  if not frames[-1]:
    said.append("no frame is labelled background")
  return said
