"""What a data set is in memory: videos, their labels and their instances.

Times are in seconds; segment t covers `seconds_per_segment` seconds from
`offset + t * seconds_per_segment` on.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.errors import InputError

# What "subset" may call the videos of a split.
SUBSETS = {
  "train": ("train", "training", "validation"),
  "test": ("test", "testing", "val", "validation"),
}

Event = tuple[float, float, str]  # start, end (seconds), class name


class Instance(NamedTuple):
  """One action of class index `label` from `start` to `end`, in seconds."""

  start: float
  end: float
  label: int


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
  """One video; `features` maps 'rgb', 'flow' to f[T,D] of the same T.

  `labels`: sorted unique class indexes, the video-level labels; `instances`:
  the temporal annotations, which training never sees.
  """

  id: str
  features: Mapping[str, np.ndarray]
  labels: tuple[int, ...]
  instances: tuple[Instance, ...]

  @property
  def num_segments(self) -> int:
    """T."""
    return next(iter(self.features.values())).shape[0]


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Training and test videos, their class names and their geometry in time.

  Segment 0 begins `offset` seconds into the video.
  """

  classes: tuple[str, ...]
  train: tuple[Video, ...]
  test: tuple[Video, ...]
  seconds_per_segment: float
  offset: float = 0.0


def frame_truth(
  video: Video,
  num_classes: int,
  seconds_per_segment: float,
  offset: float = 0.0,
) -> np.ndarray:
  """The true classes of every segment, by the time of its centre.

  -> bool[T,C+1]; a centre in [start, end) is of the instance's class, one in no
  instance is background (column C). Seconds.
  """
  truth = np.zeros((video.num_segments, num_classes + 1), bool)
  centres = offset + (np.arange(video.num_segments) + 0.5) * seconds_per_segment
  for start, end, label in video.instances:
    truth[:, label] |= (start <= centres) & (centres < end)
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


def read_entry(
  where: str, entry: Any, split: str, problems: list[str]
) -> list[Event]:
  """The events of one entry of an annotation file's "database".

  -> [(start, end, class name)], seconds; problems are appended, one line each,
  and begin with `where`.
  """
  entry = entry if isinstance(entry, dict) else {"annotations": entry}
  subset = entry.get("subset", split)
  if subset not in SUBSETS[split]:
    problems.append(
      f"{where}: expected a subset of {', '.join(SUBSETS[split])} for an id of "
      f"split_{split}.txt, came {subset!r:.60}; correct the one or the other"
    )
  annotations = entry.get("annotations")
  if not isinstance(annotations, list):
    problems.append(
      f'{where}: expected a list "annotations", came {annotations!r:.60}; '
      'write "annotations": [{"segment": [start, end], "label": CLASS}]'
    )
    return []
  if split == "train" and not annotations:
    problems.append(
      f"{where}: expected a training video with a label, came no annotation; "
      "add one or take the id out of split_train.txt"
    )
  events = []
  for n, annotation in enumerate(annotations):
    annotation = annotation if isinstance(annotation, dict) else {}
    segment, label = annotation.get("segment"), annotation.get("label")
    start, end = _two_numbers(segment)
    if not isinstance(label, str):
      fault = f"a class name as label, came {label!r:.60}"
    elif not (math.isfinite(start) and math.isfinite(end)):
      fault = f"a segment of two finite numbers, came {segment!r:.60}"
    elif start < 0:
      fault = f"a segment that starts at 0 s or later, came {segment!r:.60}"
    elif end < start:  # ActivityNet's official files hold zero-length ones
      fault = f"a segment that ends at its start or later, came {segment!r:.60}"
    else:
      events.append((start, end, label))
      continue
    problems.append(f"{where}: annotation {n}: expected {fault}; correct it")
  return events


def _two_numbers(segment: Any) -> tuple[float, float]:
  """[start, end] of numbers or strings, in seconds; NaN when it is not that."""
  if not isinstance(segment, list) or bool in map(type, segment):
    return math.nan, math.nan
  try:
    start, end = map(float, segment)
  except (TypeError, ValueError, OverflowError):
    return math.nan, math.nan
  return start, end


def index_labels(
  where: str, events: list[Event], classes: Sequence[str], problems: list[str]
) -> tuple[Instance, ...]:
  """Events with their class names as indexes into `classes`.

  -> [Instance]; names outside `classes` are appended to `problems`.
  """
  index = {name: c for c, name in enumerate(classes)}
  for name in sorted({label for *_, label in events} - index.keys()):
    near = difflib.get_close_matches(name, classes, 1, 0.0)[0]
    problems.append(
      f"{where}: expected a label of the {len(index)} classes, came {name!r} "
      f"(nearest: {near!r}); correct it or pass --config.data.classes with it"
    )
  return tuple(Instance(s, e, index[n]) for s, e, n in events if n in index)


def unique_labels(instances: Iterable[Instance]) -> tuple[int, ...]:
  """The video-level labels: sorted class indexes."""
  return tuple(sorted({i.label for i in instances}))
