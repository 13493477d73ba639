"""Which videos and segments update i sees: functions of (key, i), NumPy."""

import functools
import itertools
import zlib
from collections.abc import Mapping

import numpy as np


def generator(seed: int, name: str, *counters: int) -> np.random.Generator:
  """A generator of its own for (seed, phase name, counters)."""
  return np.random.default_rng([seed, zlib.crc32(name.encode()), *counters])


def part_bounds(num_videos: int, parts: int) -> list[tuple[int, int]]:
  """Where each of `parts` consecutive parts of the videos begins and ends."""
  if parts > num_videos:
    raise ValueError(
      f"parts: expected at most one for each of {num_videos} videos, "
      f"got {parts}"
    )
  edges = [k * num_videos // parts for k in range(parts + 1)]
  return list(itertools.pairwise(edges))


def epoch_order(
  num_videos: int,
  batch_size: int,
  step: int,
  *,
  seed: int,
  name: str,
  parts: int = 1,
) -> np.ndarray:
  """Video indexes i64[batch_size] of update `step`.

  Videos are drawn without replacement, epoch after epoch; a batch may span
  two epochs. With `parts` above 1 a batch takes as many from each of so many
  parts of the videos, part after part, and each part has epochs of its own.
  """
  count = batch_size // parts
  order = []
  for k, (start, stop) in enumerate(part_bounds(num_videos, parts)):
    own = f"{name}/part-{k}" if parts > 1 else name
    for p in range(step * count, (step + 1) * count):
      epoch, i = divmod(p, stop - start)
      order.append(start + _permutation(stop - start, seed, own, epoch)[i])
  return np.array(order, np.int64)


# The current epoch of several seeds, of each part of the videos.
@functools.lru_cache(maxsize=256)
def _permutation(
  num_videos: int, seed: int, name: str, epoch: int
) -> np.ndarray:
  drawn = generator(seed, name, epoch).permutation(num_videos)
  return drawn.astype(np.int32)


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
  """The first segment of each of `count` equal parts. -> i64[count].

  Where parts are shorter than a segment, segments repeat (BaSNet-pytorch).
  """
  return np.arange(count) * length // count


def sampled_indexes(length: int, count: int) -> np.ndarray:
  """`uniform_indexes`, or for a `count` of 0 every segment. -> i64[n]."""
  return uniform_indexes(length, count) if count else np.arange(length)


def padded_length(length: int, smallest: int = 16, parts: int = 2) -> int:
  """The next of a few lengths, to bound compilations.

  They are `parts` even steps from each power of two to the next: 2^k and
  3 x 2^k for two of them.
  """
  length = max(length, smallest)
  power = 1 << (length.bit_length() - 1)
  step = max(1, power // parts)
  return -(-length // step) * step


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


def draw_window(
  length: int, window: int, align: int, rng: np.random.Generator
) -> slice:
  """The whole video, or a random run of `window` segments of a longer one.

  It starts at a multiple of `align`, so that the low-resolution grids of
  Network-RTS lie where they lie on the whole video; the last run may be up to
  `align` - 1 segments short. `window` 0: always whole.
  """
  if not window or length <= window:
    return slice(0, length)
  starts = -(-(length - window) // align) + 1
  start = align * int(rng.integers(starts))
  return slice(start, min(start + window, length))
