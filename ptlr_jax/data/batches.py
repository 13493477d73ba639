"""Batches as dicts of NumPy arrays; see `method.stage` for what they hold."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data import packing, sampling
from ptlr_jax.data.dataset import Video
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
  """What an update sees: videos, by index too, and a generator for the rest.

  All of it is of the whole batch, of which this process holds `own`.
  """

  order: np.ndarray
  videos: list[Video]
  rng: np.random.Generator
  own: range

  def batch(
    self,
    indexes: Sequence[np.ndarray],
    layout: Layout,
    first: np.ndarray | None,
  ) -> Batch:
    """Segments of the own videos, `layout`'s; their rows where features are
    resident. `indexes` are of all videos."""
    indexes = [indexes[i] for i in self.own]
    if first is not None:
      return resident_batch(first[self.order[self.own]], indexes, layout)
    return gathered_batch([self.videos[i] for i in self.own], indexes, layout)


def _update(
  videos: Sequence[Video],
  batch_size: int,
  i: int,
  share: tuple[int, int] = (0, 1),
  **how: Any,
) -> _Draw:
  """Update i of a phase; `how` is seed, name and parts of `epoch_order`."""
  order = sampling.epoch_order(len(videos), batch_size, i, **how)
  rng = sampling.generator(how["seed"], f"{how['name']}/segments", i)
  p, count = share[0], batch_size // share[1]
  own = range(p * count, (p + 1) * count)
  return _Draw(order, [videos[v] for v in order], rng, own)


def drawn(
  videos: Sequence[Video],
  batch_size: int,
  i: int,
  *,
  seed: int,
  name: str,
  parts: int = 1,
) -> list[Video]:
  """The videos that update i (from 0) of a phase sees, in all processes."""
  how = {"seed": seed, "name": name, "parts": parts}
  return _update(videos, batch_size, i, **how).videos


def ilg_batches(
  videos: Sequence[Video],
  num_classes: int,
  options: Any,
  *,
  seed: int,
  name: str,
  first: np.ndarray | None = None,
  parts: int = 1,
  share: tuple[int, int] = (0, 1),
) -> Callable[[int], Batch]:
  """The function from an update's number to its batch, for the ILG.

  `options` is config.ilg; `name` is the phase, so that phases draw anew;
  `first` of the `resident.Store` of the videos, where there is one; `parts` of
  the videos as for `epoch_order`.

  `share` is (process, number of processes): a batch is then the process's
  consecutive rows of the whole, all that is drawn is drawn as for the whole,
  and of no other videos more than the lengths is read.
  """
  loss = options.loss
  rescaled = loss.beta or loss.gamma or loss.transformed_mil_weight
  how = {"seed": seed, "name": name, "parts": parts, "share": share}

  def batch_at(i: int) -> Batch:
    drawn = _update(videos, options.batch_size, i, **how)
    indexes = [
      sampling.perturbed_indexes(
        video.num_segments, options.segments, drawn.rng
      )
      if options.sampling == "random"
      else sampling.uniform_indexes(video.num_segments, options.segments)
      for video in drawn.videos
    ]
    layout = own_rows(len(drawn.own), options.segments)
    batch = drawn.batch(indexes, layout, first)
    own = [drawn.videos[i] for i in drawn.own]
    batch["labels"] = video_labels(own, num_classes)
    batch["row"] = np.array(drawn.own, np.int32)
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
  parts: int = 1,
  share: tuple[int, int] = (0, 1),
  segments: int = 0,
) -> Callable[[int], Batch]:
  """The function from an update's number to its batch, for OTS and RTS.

  Features with their pseudo labels: targets, selected, and the video and the
  number of each segment. Videos come at their own length, or uniformly sampled
  at `segments`; those longer than `window` segments as a random run of that
  length which starts at a multiple of `align`. They lie in
  `packed_rows` rows of the whole batch, see `packing`, or for 0 each in its
  own. A segment's number counts the segments of the batch, video after video,
  however they lie. `first`, `parts` and `share` as for `ilg_batches`; a process
  reads the `labels` of its own videos alone.
  """
  how = {"seed": seed, "name": name, "parts": parts, "share": share}

  def batch_at(i: int) -> Batch:
    drawn = _update(videos, batch_size, i, **how)
    sampled = [
      sampling.sampled_indexes(video.num_segments, segments)
      for video in drawn.videos
    ]
    indexes = [
      index[sampling.draw_window(len(index), window, align, drawn.rng)]
      for index in sampled
    ]
    lengths = list(map(len, indexes))
    whole = layout_of(lengths, window, align, packed_rows, share[1])
    layout = whole.share(*share)
    batch = drawn.batch(indexes, layout, first)
    cut = [(labels[drawn.order[i]], indexes[i]) for i in drawn.own]
    targets = layout.laid([target[index] for (target, _), index in cut])
    batch["targets"] = targets.astype(np.float32)
    batch["selected"] = layout.laid(
      [chosen[index] for (_, chosen), index in cut]
    )
    ends = np.cumsum(lengths)
    numbers = [np.arange(ends[i] - lengths[i], ends[i]) for i in drawn.own]
    batch["number"] = layout.laid(numbers).astype(np.int32)
    batch["video"] = layout.laid(
      [np.full(lengths[i], i, np.int32) for i in drawn.own]
    )
    return batch

  return batch_at


def layout_of(
  lengths: Sequence[int],
  window: int,
  align: int,
  packed_rows: int,
  parts: int = 1,
) -> Layout:
  """Where videos of OTS and RTS lie; see `labelled_batches` and, for `parts`,
  `packed`."""
  if packed_rows:
    return packing.packed(lengths, packed_rows, align, parts)
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
        sampling.sampled_indexes(video.num_segments, segments)
        for video in chosen
      ]
      yield part, gathered_batch(chosen, indexes, own_rows(len(chosen), size))
