"""Digests of a data set: whether two runs, or two starts, saw the same."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ptlr_jax.data.dataset import Dataset, Video


def features_digest(features: Mapping[str, np.ndarray]) -> bytes:
  """SHA-256 of the features of one video, {stream: f[T,D]}."""
  found = hashlib.sha256()
  for stream in sorted(features):
    x = np.ascontiguousarray(features[stream])
    found.update(f"{stream} {x.dtype.str} {x.shape}".encode())
    found.update(x.data)
  return found.digest()


def combined(digests: Mapping[str, bytes]) -> str:
  """One digest of {video id: digest}, whatever their order."""
  found = hashlib.sha256()
  for name in sorted(digests):
    found.update(f"{name}\0".encode() + digests[name])
  return found.hexdigest()


def _said_of(video: Video) -> list[Any]:
  """What training or testing takes from a video besides its features."""
  times = [
    [float(i.start), float(i.end), int(i.label)] for i in video.instances
  ]
  geometry = [float(x) for x in vars(video.geometry).values()]
  ambiguous = [[float(x) for x in stretch] for stretch in video.ambiguous]
  labels = [int(label) for label in video.labels]
  return [video.id, video.num_segments, labels, times, geometry, ambiguous]


def _annotations(classes: Iterable[str], *splits: Iterable[Video]) -> str:
  said = [list(classes), *([_said_of(v) for v in split] for split in splits)]
  return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@functools.lru_cache(maxsize=1)  # several runs are on one data set
def data_digest(data: Dataset) -> dict[str, str | None]:
  """{"annotations": hex, "features": hex or None where nothing read them all}.

  Annotations are classes, splits, lengths, labels, instances and geometry, in
  the order in which training sees them.
  """
  features = data.features_digest
  if not features and not data.on_disk:
    videos = (*data.train, *data.test)
    features = combined({v.id: features_digest(v.load()) for v in videos})
  annotations = _annotations(data.classes, data.train, data.test)
  return {"annotations": annotations, "features": features or None}


def contradict(
  one: Mapping[str, str | None], other: Mapping[str, str | None]
) -> list[str]:
  """Which of annotations, features and another method's CASs are known of
  both, and differ.

  Digests of another kind (of shards, see `prepared`) cannot be compared.
  """
  found = []
  for name in ("annotations", "features", "cas"):
    ours, theirs = one.get(name) or "", other.get(name) or ""
    alike = ours.rpartition(":")[0] == theirs.rpartition(":")[0]
    if ours and theirs and alike and ours != theirs:
      found.append(name)
  return found
