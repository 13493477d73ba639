"""Batches as dicts of NumPy arrays; see `stages` for what they hold."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data import packing, sampling
from ptlr_jax.data.annotations import Video
from ptlr_jax.data.packing import Layout, own_rows

Batch = dict[str, Any]
# Whole videos are padded to a power of two from this on: each is a program of
# its own, and takes longer to compile than all videos to predict.
SHORTEST = 128


def video_labels(videos: Sequence[Video], num_classes: int) -> np.ndarray:
  """Video-level labels f32[B,C]."""
  labels = np.zeros((len(videos), num_classes), np.float32)
  for row, video in zip(labels, videos, strict=True):
    row[list(video.labels)] = 1
  return labels


def gathered_batch(
  videos: Sequence[Video], indexes: Sequence[np.ndarray], layout: Layout
) -> Batch:
  """The given segments of each video: features and mask."""
  # One whole video at a time: they may be large, and on disk.
  cut = [
    {s: np.asarray(x[index], np.float32) for s, x in video.load().items()}
    for video, index in zip(videos, indexes, strict=True)
  ]
  features = {s: layout.laid([own[s] for own in cut]) for s in cut[0]}
  return {"features": features, "mask": layout.mask(list(map(len, indexes)))}


def resident_batch(
  first: np.ndarray, indexes: Sequence[np.ndarray], layout: Layout
) -> Batch:
  """The same as rows of `resident.Store`, where each video has its `first`."""
  rows = [
    (start + index).astype(np.int32)
    for start, index in zip(first, indexes, strict=True)
  ]
  mask = layout.mask(list(map(len, indexes)))
  return {"rows": layout.laid(rows), "mask": mask}


class _Draw(NamedTuple):
  """What an update sees: videos, by index too, and a generator for the rest."""

  order: np.ndarray
  videos: list[Video]
  rng: np.random.Generator

  def batch(
    self,
    indexes: Sequence[np.ndarray],
    layout: Layout,
    first: np.ndarray | None,
  ) -> Batch:
    """Segments of the videos; their rows where features are resident."""
    if first is not None:
      return resident_batch(first[self.order], indexes, layout)
    return gathered_batch(self.videos, indexes, layout)


def _update(
  videos: Sequence[Video], batch_size: int, i: int, *, seed: int, name: str
) -> _Draw:
  order = sampling.epoch_order(len(videos), batch_size, i, seed=seed, name=name)
  rng = sampling.generator(seed, f"{name}/segments", i)
  return _Draw(order, [videos[v] for v in order], rng)


def drawn(
  videos: Sequence[Video], batch_size: int, i: int, *, seed: int, name: str
) -> list[Video]:
  """The videos that update i (from 0) of a phase sees."""
  return _update(videos, batch_size, i, seed=seed, name=name).videos


def ilg_batches(
  videos: Sequence[Video],
  num_classes: int,
  options: Any,
  *,
  seed: int,
  name: str,
  first: np.ndarray | None = None,
) -> Callable[[int], Batch]:
  """The function from an update's number to its batch, for the ILG.

  `options` is config.ilg; `name` is the phase, so that phases draw anew;
  `first` of the `resident.Store` of the videos, where there is one.
  """
  loss = options.loss
  rescaled = loss.beta or loss.gamma or loss.transformed_mil_weight

  def batch_at(i: int) -> Batch:
    drawn = _update(videos, options.batch_size, i, seed=seed, name=name)
    indexes = [
      sampling.perturbed_indexes(
        video.num_segments, options.segments, drawn.rng
      )
      if options.sampling == "random"
      else sampling.uniform_indexes(video.num_segments, options.segments)
      for video in drawn.videos
    ]
    layout = own_rows(len(indexes), options.segments)
    batch = drawn.batch(indexes, layout, first)
    batch["labels"] = video_labels(drawn.videos, num_classes)
    if not rescaled:
      return batch
    scale = sampling.draw_scale(
      drawn.rng, options.segments, len(options.streams), options.scale
    )
    return {**batch, **scale}

  return batch_at


def labelled_batches(
  videos: Sequence[Video],
  labels: Sequence[tuple[np.ndarray, np.ndarray]],
  batch_size: int,
  *,
  window: int,
  align: int,
  seed: int,
  name: str,
  first: np.ndarray | None = None,
  packed_rows: int = 0,
) -> Callable[[int], Batch]:
  """The function from an update's number to its batch, for OTS and RTS.

  Features with their pseudo labels: targets, selected, and the video of each
  segment. Videos longer than `window` segments come as a random run of that
  length which starts at a multiple of `align`. They lie in `packed_rows` rows,
  see `packing`, or for 0 each in its own. `first` as for `ilg_batches`.
  """

  def batch_at(i: int) -> Batch:
    drawn = _update(videos, batch_size, i, seed=seed, name=name)
    windows = [
      sampling.draw_window(video.num_segments, window, align, drawn.rng)
      for video in drawn.videos
    ]
    indexes = [np.arange(w.start, w.stop) for w in windows]
    lengths = list(map(len, indexes))
    layout = layout_of(lengths, window, align, packed_rows)
    batch = drawn.batch(indexes, layout, first)
    own = [labels[v] for v in drawn.order]
    cut = list(zip(own, windows, strict=True))
    targets = layout.laid([target[w] for (target, _), w in cut])
    batch["targets"] = targets.astype(np.float32)
    batch["selected"] = layout.laid([chosen[w] for (_, chosen), w in cut])
    batch["video"] = layout.laid(
      [np.full(n, i, np.int32) for i, n in enumerate(lengths)]
    )
    return batch

  return batch_at


def layout_of(
  lengths: Sequence[int], window: int, align: int, packed_rows: int
) -> Layout:
  """Where videos of OTS and RTS lie; see `labelled_batches`."""
  if packed_rows:
    return packing.packed(lengths, packed_rows, align)
  longest = max(lengths)
  size = sampling.padded_length(longest)
  size = min(size, max(window, longest)) if window else size
  return own_rows(len(lengths), size)


def prediction_batches(
  videos: Sequence[Video], batch_size: int, segments: int = 0
) -> Iterator[tuple[list[int], Batch]]:
  """(indexes, batch) over all videos, those of like padded length together.

  Every video comes at its own length (`segments` 0) or uniformly sampled at
  `segments`. The last batch of a length repeats a video to stay full, so that
  each length compiles once.
  """
  groups: dict[int, list[int]] = {}
  for i, video in enumerate(videos):
    size = segments or sampling.padded_length(
      video.num_segments, smallest=SHORTEST, parts=1
    )
    groups.setdefault(size, []).append(i)
  for size, members in sorted(groups.items()):
    for start in range(0, len(members), batch_size):
      part = members[start : start + batch_size]
      full = part + part[-1:] * (batch_size - len(part))
      chosen = [videos[i] for i in full]
      indexes = [
        sampling.uniform_indexes(video.num_segments, segments)
        if segments
        else np.arange(video.num_segments)
        for video in chosen
      ]
      yield part, gathered_batch(chosen, indexes, own_rows(len(chosen), size))
