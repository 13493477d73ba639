"""A video as an example of a TFDS data set, and as a line of its index."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.data.files.features import check_finite
from ptlr_jax.data.geometry import as_dict


@dataclasses.dataclass(frozen=True)
class Shape:
  """What all examples have alike."""

  classes: tuple[str, ...]
  widths: tuple[tuple[str, int], ...]  # (stream, D)
  dtype: str

  def features(self) -> tfds.features.FeaturesDict:
    """The tfds description of an example."""
    number = tfds.features.Scalar(np.float64)
    label = tfds.features.ClassLabel(names=list(self.classes))
    span = {"start": number, "end": number}
    streams = {
      name: tfds.features.Tensor(
        shape=(None, width),
        dtype=np.dtype(self.dtype).type,
        encoding=tfds.features.Encoding.BYTES,
      )
      for name, width in self.widths
    }
    return tfds.features.FeaturesDict(
      {
        "id": tfds.features.Text(),
        **streams,
        "labels": tfds.features.Sequence(label),
        "instances": tfds.features.Sequence({**span, "label": label}),
        "ambiguous": tfds.features.Sequence(span),
        **dict.fromkeys(("duration", "fps", "stride", "window"), number),
        "offset": number,
      }
    )


def shape_of(data: Dataset) -> Shape:
  """Half precision where all features have it, else single: the type in which
  batches are made."""
  videos = [*data.train, *data.test]
  # One array at a time: all at once would be many open files.
  half = all(x.dtype == np.float16 for v in videos for x in v.features.values())
  widths = {s: x.shape[1] for s, x in videos[0].features.items()}
  kind = "float16" if half else "float32"
  return Shape(data.classes, tuple(widths.items()), kind)


def _spans(rows: Sequence[Sequence[Any]], *names: str) -> list[dict[str, Any]]:
  return [dict(zip(names, row, strict=True)) for row in rows]


def example_of(video: Video, shape: Shape, problems: list[str]) -> dict:
  """A video as its example; a problem for each stream that is not finite."""
  streams = {
    name: np.array(x, shape.dtype, order="C")
    for name, x in video.load().items()
  }
  for name, x in streams.items():
    check_finite(f"{video.id}: {name}", x, problems)
  return {
    "id": video.id,
    **streams,
    "labels": list(video.labels),
    "instances": _spans(video.instances, "start", "end", "label"),
    "ambiguous": _spans(video.ambiguous, "start", "end"),
    "duration": video.duration or 0.0,
    **as_dict(video.geometry),
  }


def index_of(video: Video) -> dict[str, Any]:
  """What `prepared` knows of a video without reading its features."""
  return {
    "id": video.id,
    "segments": video.num_segments,
    "labels": list(video.labels),
    "instances": [list(i) for i in video.instances],
    "ambiguous": [list(span) for span in video.ambiguous],
    "duration": video.duration,
    "geometry": list(as_dict(video.geometry).values()),
  }
