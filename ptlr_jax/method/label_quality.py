"""Precision and recall of pseudo labels, and what has no label. NumPy."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.dataset import Dataset, Video, frame_truth
from ptlr_jax.method.pseudo_labels import PseudoLabels


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


def counts_quality(found: Counts) -> dict[str, float]:
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


def tally_labels(
  labels: Iterable[PseudoLabels], videos: Iterable[Video], num_classes: int
) -> Tally:
  """Counts the labels of training videos."""
  found = {True: Counts(), False: Counts()}
  frames, empty = np.zeros(num_classes + 1, int), 0
  for label, video in zip(labels, videos, strict=True):
    own = counts([label], [frame_truth(video, num_classes)])
    kind = bool(video.instances)
    found[kind] = found[kind].plus(own)
    frames += label.labels[label.selected].sum(0)
    empty += not label.selected.any()
  return Tally(found[True], found[False], tuple(frames.tolist()), empty)


def label_quality(found: Tally) -> dict[str, float]:
  """Precision and recall of the training videos' labels, for the log only.

  See `counts_quality`; training never reads it. Videos without temporal
  annotations are left out; where none has any, what needs no truth is left.
  """
  if found.annotated.frames:
    return counts_quality(found.annotated)
  said = counts_quality(found.others)
  return {name: said[name] for name in ("selected", "videos_without_action")}


def label_gaps(found: Tally, data: Dataset) -> list[str]:
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
