"""Batches as dicts of NumPy arrays; see `stages` for what they hold."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ptlr_jax.data import sampling
from ptlr_jax.data.annotations import Video

Batch = dict[str, Any]


def video_labels(videos: Sequence[Video], num_classes: int) -> np.ndarray:
  """Video-level labels f32[B,C]."""
  labels = np.zeros((len(videos), num_classes), np.float32)
  for row, video in zip(labels, videos, strict=True):
    row[list(video.labels)] = 1
  return labels


def _stacked(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """[{stream: f[T,D]}] of the videos -> {stream: f[B,T,D]}."""
  return {s: np.stack([row[s] for row in rows]) for s in rows[0]}


def gathered_batch(
  videos: Sequence[Video], indexes: Sequence[np.ndarray]
) -> Batch:
  """The same number of segments of every video: features and mask."""
  return {
    "features": _stacked(
      [
        {s: np.asarray(x[index], np.float32) for s, x in video.load().items()}
        for video, index in zip(videos, indexes, strict=True)
      ]
    ),
    "mask": np.ones((len(videos), len(indexes[0])), bool),
  }


def _update(
  videos: Sequence[Video], batch_size: int, i: int, *, seed: int, name: str
) -> tuple[np.ndarray, list[Video], np.random.Generator]:
  """Indexes and videos of update `i`, and a generator for the rest of it."""
  order = sampling.epoch_order(len(videos), batch_size, i, seed=seed, name=name)
  rng = sampling.generator(seed, f"{name}/segments", i)
  return order, [videos[v] for v in order], rng


def ilg_batches(
  videos: Sequence[Video],
  num_classes: int,
  options: Any,
  *,
  seed: int,
  name: str,
) -> Callable[[int], Batch]:
  """The function from an update's number to its batch, for the ILG.

  `options` is config.ilg; `name` is the phase, so that phases draw anew.
  """
  loss = options.loss
  rescaled = loss.beta or loss.gamma or loss.transformed_mil_weight

  def batch_at(i: int) -> Batch:
    _, part, rng = _update(videos, options.batch_size, i, seed=seed, name=name)
    batch = gathered_batch(
      part,
      [
        sampling.perturbed_indexes(video.num_segments, options.segments, rng)
        if options.sampling == "random"
        else sampling.uniform_indexes(video.num_segments, options.segments)
        for video in part
      ],
    )
    batch["labels"] = video_labels(part, num_classes)
    if not rescaled:
      return batch
    scale = sampling.draw_scale(
      rng, options.segments, len(options.streams), options.scale
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
) -> Callable[[int], Batch]:
  """The function from an update's number to its batch, for OTS and RTS.

  Videos longer than `window` segments come as a random run of that length
  which starts at a multiple of `align`.
  """

  def batch_at(i: int) -> Batch:
    order, part, rng = _update(videos, batch_size, i, seed=seed, name=name)
    return labelled_batch(
      part,
      [labels[v] for v in order],
      window=window,
      align=align,
      rng=rng,
    )

  return batch_at


def _pad(array: np.ndarray, size: int) -> np.ndarray:
  return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))


def padded_batch(
  videos: Sequence[Video], windows: Sequence[slice], size: int
) -> Batch:
  """Videos at their own resolution, padded to `size`: features and mask."""
  lengths = np.array([w.stop - w.start for w in windows])
  return {
    "features": _stacked(
      [
        {
          s: _pad(np.asarray(x[w], np.float32), size)
          for s, x in video.load().items()
        }
        for video, w in zip(videos, windows, strict=True)
      ]
    ),
    "mask": np.arange(size)[None] < lengths[:, None],
  }


def labelled_batch(
  videos: Sequence[Video],
  labels: Sequence[tuple[np.ndarray, np.ndarray]],
  *,
  window: int,
  align: int,
  rng: np.random.Generator,
) -> Batch:
  """A padded batch with its pseudo labels: targets and selected."""
  windows = [
    sampling.draw_window(v.num_segments, window, align, rng) for v in videos
  ]
  longest = max(w.stop - w.start for w in windows)
  size = sampling.padded_length(longest)
  size = min(size, max(window, longest)) if window else size
  batch = padded_batch(videos, windows, size)
  batch["targets"] = np.stack(
    [
      _pad(target[w], size).astype(np.float32)
      for (target, _), w in zip(labels, windows, strict=True)
    ]
  )
  batch["selected"] = np.stack(
    [
      _pad(chosen[w], size)
      for (_, chosen), w in zip(labels, windows, strict=True)
    ]
  )
  return batch


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
    size = segments or sampling.padded_length(video.num_segments)
    groups.setdefault(size, []).append(i)
  for size, members in sorted(groups.items()):
    for start in range(0, len(members), batch_size):
      part = members[start : start + batch_size]
      full = part + part[-1:] * (batch_size - len(part))
      chosen = [videos[i] for i in full]
      if segments:
        batch = gathered_batch(
          chosen,
          [sampling.uniform_indexes(v.num_segments, segments) for v in chosen],
        )
      else:
        whole = [slice(0, v.num_segments) for v in chosen]
        batch = padded_batch(chosen, whole, size)
      yield part, batch
