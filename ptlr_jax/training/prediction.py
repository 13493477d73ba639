"""What a trained stage says of whole videos."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ptlr_jax.data.batches import prediction_batches
from ptlr_jax.data.dataset import Video
from ptlr_jax.method.stage import Stage
from ptlr_jax.runtime.mesh import Devices


def _at_own_length(values: np.ndarray, length: int) -> np.ndarray:
  """f[S,C] at the starts of S equal parts of a video, read at its own segments
  f[T,C]; the end is held."""
  where = np.arange(length) * len(values) / length
  where = np.minimum(where, len(values) - 1)
  low = np.minimum(where.astype(int), len(values) - 2)
  weight = (where - low)[:, None]
  return (1 - weight) * values[low] + weight * values[low + 1]


def predict_videos(
  stage: Stage, params: Any, videos: Sequence[Video], **how: Any
) -> list[dict[str, Any]]:
  """What `predictions` gives, in the videos' order."""
  return in_order(predictions(stage, params, videos, **how), len(videos))


def in_order(
  found: Iterable[tuple[int, dict[str, Any]]], count: int
) -> list[dict[str, Any]]:
  """`count` predictions by their indexes."""
  by_index = dict(found)
  return [by_index[i] for i in range(count)]


def predictions(
  stage: Stage,
  params: Any,
  videos: Sequence[Video],
  *,
  devices: Devices | None = None,
  batch_size: int = 8,
  segments: int = 0,
  read_back: bool = True,
  leave_out: tuple[str, ...] = (),
) -> Iterator[tuple[int, dict[str, Any]]]:
  """What `stage.predict` says of every video, arrays f[T,..] or f[..], one
  after the other with its index, those of like length together.

  Videos come at their own length, or uniformly sampled at `segments`; then the
  result is read back at the video's own length, or left at `segments`. What
  is to `leave_out` of it is neither computed nor fetched. Each of this
  process's `devices` takes as many of a batch, which is made large enough.
  """
  run = _jitted(stage, leave_out)
  if devices is not None:
    batch_size = -(-batch_size // devices.count) * devices.count
  batches = prediction_batches(videos, batch_size, segments)
  for indexes, batch in batches:
    size = batch["mask"].shape[1]
    if devices is not None:
      batch = devices.put(batch)
    out = jax.device_get(run(params, batch))
    for row, i in enumerate(indexes):
      length = videos[i].num_segments

      def own(x, row=row, length=length, size=size):
        if x.ndim < 3:
          return x[row]
        value = x[row]
        if not segments:
          return value[:length]
        return _at_own_length(value, length) if read_back else value

      yield i, jax.tree.map(own, out)


@functools.cache
def _jitted(stage: Stage, leave_out: tuple[str, ...]):
  def predict(params, batch):
    found = stage.predict(params, batch)
    return {k: v for k, v in found.items() if k not in leave_out}

  return jax.jit(predict)
