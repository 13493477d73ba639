"""What has to be known of a data set to use a model that learned from it."""

import dataclasses
from typing import Any

from ptlr_jax.data.annotations import Dataset
from ptlr_jax.data.geometry import Geometry


def of(data: Dataset) -> dict[str, Any]:
  """The class list, D of every stream and the geometry, as JSON has them.

  -> {"classes": [name], "widths": {stream: D}, "geometry": {"fps", "stride",
  "window", "offset"}, "simulated"}. What of the geometry differs from video to
  video, as the fps of some layouts does, is left out.
  """
  geometries = {video.geometry for video in data.train}
  geometry = {
    field.name: values.pop()
    for field in dataclasses.fields(Geometry)
    if len(values := {getattr(g, field.name) for g in geometries}) == 1
  }
  features = data.train[0].features
  return {
    "classes": list(data.classes),
    "widths": {stream: int(x.shape[1]) for stream, x in features.items()},
    "geometry": {name: float(value) for name, value in geometry.items()},
    "simulated": data.simulated,
  }
