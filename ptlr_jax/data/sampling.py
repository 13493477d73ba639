"""Which videos and segments update i sees: functions of (key, i), NumPy."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax.data.annotations import Video
from ptlr_jax.errors import InputError


def generator(seed: int, name: str, *counters: int) -> np.random.Generator:
  """A generator of its own for (seed, phase name, counters)."""
  return np.random.default_rng([seed, zlib.crc32(name.encode()), *counters])


def epoch_order(
  num_videos: int, batch_size: int, step: int, *, seed: int, name: str
) -> np.ndarray:
  """Video indexes i64[batch_size] of update `step`.

  Videos are drawn without replacement, epoch after epoch; a batch may span
  two epochs.
  """
  position = np.arange(step * batch_size, (step + 1) * batch_size)
  epochs = position // num_videos
  orders = {
    int(e): generator(seed, name, int(e)).permutation(num_videos)
    for e in np.unique(epochs)
  }
  return np.array(
    [orders[int(e)][p % num_videos] for e, p in zip(epochs, position)]
  )


def perturbed_indexes(
  length: int, count: int, rng: np.random.Generator
) -> np.ndarray:
  """One segment from each of `count` equal parts of a video. -> i64[count].

  Where parts are shorter than a segment, segments repeat; the order stays.
  """
  edges = np.arange(count + 1) * length // count
  high = np.maximum(edges[1:], edges[:-1] + 1)
  return rng.integers(edges[:-1], high)


def uniform_indexes(length: int, count: int) -> np.ndarray:
  """`count` segments evenly from the first to the last. -> i64[count]."""
  return np.linspace(0, length - 1, count).astype(np.int64)


def padded_length(length: int, smallest: int = 16) -> int:
  """The next length of the form 2^k or 3 x 2^k, to bound compilations."""
  size = smallest
  while size < length:
    size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
  return size


def scale_grid_size(segments: int, scale: float, options: Mapping) -> int:
  """Padded length of ST(., scale): the next of `lengths` even steps."""
  low, high = options["min"], options["max"]
  parts = np.arange(1, options["lengths"] + 1) / options["lengths"]
  sizes = np.ceil(segments * (low + (high - low) * parts)).astype(int)
  return max(1, int(sizes[np.searchsorted(sizes, int(segments * scale))]))


def draw_scale(
  rng: np.random.Generator, segments: int, streams: int, options: Mapping
) -> dict[str, np.ndarray]:
  """s of an update, uniform; one for all streams if `options.shared`.

  -> scale f32[streams] and an empty scale_grid f32[S] that carries the
  padded length.
  """
  drawn = rng.uniform(options["min"], options["max"], streams)
  scale = (drawn[:1].repeat(streams) if options["shared"] else drawn).astype(
    np.float32
  )
  size = scale_grid_size(segments, float(scale.max()), options)
  return {"scale": scale, "scale_grid": np.zeros(size, np.float32)}


def video_labels(videos: Sequence[Video], num_classes: int) -> np.ndarray:
  """Video-level labels f32[B,C]."""
  labels = np.zeros((len(videos), num_classes), np.float32)
  for row, video in zip(labels, videos):
    row[list(video.labels)] = 1
  return labels


def fixed_length_batch(
  videos: Sequence[Video],
  segments: int,
  *,
  sampling: str,
  rng: np.random.Generator,
) -> dict[str, Any]:
  """Videos at exactly `segments` segments each: features and mask.

  `sampling` is `random` (perturbed) or `uniform`; both streams see the same
  segments.
  """
  if sampling not in ("random", "uniform"):
    raise InputError(
      f"config.ilg.sampling: expected random or uniform, got {sampling!r}"
    )
  indexes = [
    perturbed_indexes(video.num_segments, segments, rng)
    if sampling == "random"
    else uniform_indexes(video.num_segments, segments)
    for video in videos
  ]
  return {
    "features": {
      stream: np.stack(
        [
          np.asarray(video.features[stream][index], np.float32)
          for video, index in zip(videos, indexes)
        ]
      )
      for stream in videos[0].features
    },
    "mask": np.ones((len(videos), segments), bool),
  }


def draw_window(
  length: int, window: int, align: int, rng: np.random.Generator
) -> slice:
  """The whole video, or a random run of `window` segments of a longer one.

  It starts at a multiple of `align`, so that the low-resolution grids of
  Network-RTS lie where they lie on the whole video. `window` 0: always whole.
  """
  if not window or length <= window:
    return slice(0, length)
  starts = (length - window) // align + 1
  start = align * int(rng.integers(starts))
  return slice(start, start + window)


def _pad(array: np.ndarray, size: int) -> np.ndarray:
  return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))


def padded_batch(
  videos: Sequence[Video], windows: Sequence[slice], size: int
) -> dict[str, Any]:
  """Videos at their own resolution, padded to `size`: features and mask."""
  lengths = np.array([w.stop - w.start for w in windows])
  return {
    "features": {
      stream: np.stack(
        [
          _pad(np.asarray(video.features[stream][w], np.float32), size)
          for video, w in zip(videos, windows)
        ]
      )
      for stream in videos[0].features
    },
    "mask": np.arange(size)[None] < lengths[:, None],
  }


def labelled_batch(
  videos: Sequence[Video],
  labels: Sequence[tuple[np.ndarray, np.ndarray]],
  *,
  window: int,
  align: int,
  rng: np.random.Generator,
) -> dict[str, Any]:
  """A padded batch with its pseudo labels: targets and selected."""
  windows = [draw_window(v.num_segments, window, align, rng) for v in videos]
  longest = max(w.stop - w.start for w in windows)
  size = padded_length(longest)
  size = min(size, max(window, longest)) if window else size
  batch = padded_batch(videos, windows, size)
  batch["targets"] = np.stack(
    [
      _pad(target[w], size).astype(np.float32)
      for (target, _), w in zip(labels, windows)
    ]
  )
  batch["selected"] = np.stack(
    [_pad(chosen[w], size) for (_, chosen), w in zip(labels, windows)]
  )
  return batch


def prediction_batches(
  videos: Sequence[Video], batch_size: int, segments: int = 0
) -> Iterator[tuple[list[int], dict[str, Any]]]:
  """(indexes, batch) over all videos, those of like padded length together.

  Every video comes at its own length (`segments` 0) or uniformly sampled at
  `segments`. The last batch of a length repeats a video to stay full, so that
  each length compiles once.
  """
  groups: dict[int, list[int]] = {}
  for i, video in enumerate(videos):
    size = segments or padded_length(video.num_segments)
    groups.setdefault(size, []).append(i)
  for size, members in sorted(groups.items()):
    for start in range(0, len(members), batch_size):
      part = members[start : start + batch_size]
      full = part + part[-1:] * (batch_size - len(part))
      chosen = [videos[i] for i in full]
      if segments:
        rng = np.random.default_rng(0)  # not read: the sampling is uniform
        batch = fixed_length_batch(
          chosen,
          segments,
          1 + max(c for v in videos for c in (0, *v.labels)),
          sampling="uniform",
          rng=rng,
        )
        batch.pop("labels")
      else:
        whole = [slice(0, v.num_segments) for v in chosen]
        batch = padded_batch(chosen, whole, size)
      yield part, batch
