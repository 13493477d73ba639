"""What a data set is in memory: videos, their labels and their instances.

Times are in seconds; segment t of a video covers `seconds_per_segment` seconds
from `geometry.start + t * seconds_per_segment` on.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.geometry import Geometry
from ptlr_jax.runtime.errors import InputError

PAPER = Geometry()  # 16 frames of 25 a second, one after the other


class Instance(NamedTuple):
  """One action of class index `label` from `start` to `end`, in seconds."""

  start: float
  end: float
  label: int


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
  """One video; `features` maps the names of its streams, usually rgb and flow,
  to f[T,D] of the same T.

  `labels`: sorted unique class indexes, the video-level labels; `instances`:
  the temporal annotations, which training never sees. `duration` in seconds
  and `ambiguous`, stretches (start, end) that show an action only in part, are
  there where the source has them.
  """

  id: str
  features: Mapping[str, np.ndarray]
  labels: tuple[int, ...]
  instances: tuple[Instance, ...]
  geometry: Geometry = PAPER
  duration: float | None = None
  ambiguous: tuple[tuple[float, float], ...] = ()

  @property
  def num_segments(self) -> int:
    """T."""
    known = getattr(self.features, "num_segments", 0)
    return known or next(iter(self.features.values())).shape[0]

  def load(self) -> Mapping[str, np.ndarray]:
    """The features as arrays, from wherever they are, in one go."""
    load = getattr(self.features, "load", None)
    return load() if load else self.features


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Training and test videos and their class names.

  `notes` are what a reader has to say of the data, a line each; `on_disk` is
  whether features are read when they are needed, `simulated` whether they are
  no real ones; `features_digest` (`digest`) is there where reading them came
  upon it.
  """

  classes: tuple[str, ...]
  train: tuple[Video, ...]
  test: tuple[Video, ...]
  notes: tuple[str, ...] = ()
  on_disk: bool = False
  simulated: bool = False
  features_digest: str = ""

  @property
  def streams(self) -> tuple[str, ...]:
    """The names of the streams."""
    return tuple(self.train[0].features) if self.train else ()

  def not_scorable(self) -> str:
    """Why there can be no mAP, or nothing where there can."""
    if not self.test:
      return "there is no test video"
    if not any(video.instances for video in self.test):
      return (
        f"none of the {len(self.test)} test videos has a temporal annotation "
        "(start, end, label) to hold detections against"
      )
    return ""


def stream_order(names: Iterable[str]) -> list[str]:
  """Streams as they are joined: rgb, flow, then others by their names."""
  first = ("rgb", "flow")
  return sorted(
    names, key=lambda name: (name not in first, name == "flow", name)
  )


def frame_truth(video: Video, num_classes: int) -> np.ndarray:
  """The true classes of every segment, by the time of its centre.

  -> bool[T,C+1]; a centre in [start, end) is of the instance's class, one in no
  instance is background (column C).
  """
  truth = np.zeros((video.num_segments, num_classes + 1), bool)
  step = video.geometry.seconds_per_segment
  offset = video.geometry.start
  centres = offset + (np.arange(video.num_segments) + 0.5) * step
  for start, end, label in video.instances:
    first, last = np.searchsorted(centres, (start, end))
    truth[first:last, label] = True
  truth[:, num_classes] = ~truth.any(axis=1)
  return truth


def ground_truth_database(
  videos: Iterable[Video], classes: Sequence[str], subset: str
) -> dict[str, dict[str, Any]]:
  """The value of "database" in an ActivityNet ground truth file.

  -> {id: {"subset", "annotations": [{"segment": [s, e], "label"}]}}, seconds.
  """
  return {
    video.id: {
      "subset": subset,
      "annotations": [
        {"segment": [float(i.start), float(i.end)], "label": classes[i.label]}
        for i in video.instances
      ],
    }
    for video in videos
  }


def holdout(dataset: Dataset, fraction: float, seed: int) -> Dataset:
  """The training videos alone, split into new training and test videos.

  `fraction` of them become the test videos, of each (first) class as nearly as
  whole videos allow. The split depends on the ids, first labels and seed only,
  never on the order in the list; both parts come sorted by id.
  """
  if not 0 <= fraction < 1:
    raise InputError(
      f"expected 0 <= --config.data.holdout < 1, came {fraction}; pass the "
      "fraction of the training videos to choose on, as 0.2, or 0 for none"
    )
  if fraction == 0:
    return dataset
  total = len(dataset.train)
  num_test = round(fraction * total)
  if not 0 < num_test < total:
    raise InputError(
      f"expected --config.data.holdout={fraction} to leave videos to train and "
      f"to test on, came {total - num_test} and {num_test} of the {total} "
      "training videos; pass another fraction, or 0 for none"
    )
  strata: dict[tuple[int, ...], list[Video]] = {}
  for video in sorted(dataset.train, key=lambda v: v.id):
    strata.setdefault(video.labels[:1], []).append(video)
  rng = np.random.default_rng(seed)
  # Each class lays its videos, shuffled, evenly over (0, 1); any interval then
  # holds the same share of every class, to within one video.
  places = []
  for key in sorted(strata):
    members = strata[key]
    for rank, member in enumerate(rng.permutation(len(members))):
      place = (rank + 0.5) / len(members)
      places.append((place, rng.random(), members[member].id))
  chosen = {video_id for *_, video_id in sorted(places)[:num_test]}
  ordered = sorted(dataset.train, key=lambda v: v.id)
  return dataclasses.replace(
    dataset,
    train=tuple(v for v in ordered if v.id not in chosen),
    test=tuple(v for v in ordered if v.id in chosen),
  )


def describe_dataset(data: Dataset) -> dict[str, Any]:
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
