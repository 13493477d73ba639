"""Features that stay on the device: a batch only says which it wants.

A batch then holds rows i32[B,T] in place of features, and the jitted step
gathers them, so that nothing but indexes travels to a GPU in the loop. What
the network sees is the same to the bit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from ptlr_jax.data.dataset import Video
from ptlr_jax.runtime.mesh import Devices

SHARE = 0.5  # of the device's memory that features may take


class Store(NamedTuple):
  """All videos one after the other.

  features {stream: f[N,D]} on every device; first i64[V], the first
  row of each.
  """

  features: dict[str, jax.Array]
  first: np.ndarray


def store_of(videos: Sequence[Video], devices: Devices) -> Store:
  """Puts the features of the videos on all devices, as precise as they are."""
  lengths = [video.num_segments for video in videos]
  first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
  loaded = [video.load() for video in videos]
  features = {
    stream: devices.copied(np.concatenate([x[stream] for x in loaded]))
    for stream in loaded[0]
  }
  return Store(features, first)


def fits(videos: Sequence[Video]) -> bool:
  """Whether the features take up to `SHARE` of the device's memory."""
  stats = jax.local_devices()[0].memory_stats() or {}
  size = sum(
    x.shape[0] * x.shape[1] * x.dtype.itemsize
    for video in videos
    for x in video.features.values()
  )
  return size <= SHARE * stats.get("bytes_limit", 0)


def wanted(setting: str, videos: Sequence[Video], on_disk: bool) -> bool:
  """What `config.data.resident` comes to: always; never; auto, which is on an
  accelerator where the features fit."""
  if setting != "auto":
    return setting == "always"
  return jax.default_backend() != "cpu" and not on_disk and fits(videos)
