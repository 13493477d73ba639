"""Small data sets on disk in every layout, for tests."""

import csv
import dataclasses
import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from basnet_fixture import tiny_videos, write_basnet

from ptlr_jax.data.dataset import Dataset, Video

CLASSES = ("Diving", "HighJump")
Videos = Sequence[Video]


def tiny_splits(**options: Any) -> tuple[Videos, Videos]:
  """Four training and two test videos of 8 segments and width 4."""
  test = tiny_videos("test", 2, seed=1, **options)
  return tiny_videos("train", 4, **options), test


def renamed(videos: Iterable[Video], ids: Iterable[str]) -> tuple[Video, ...]:
  """The same videos under other ids."""
  return tuple(
    dataclasses.replace(video, id=i)
    for video, i in zip(videos, ids, strict=True)
  )


def rename_files(root: Path, change: Callable[[str], str]) -> None:
  """Changes the name of every feature file under `root`."""
  for path in sorted(root.rglob("*.npy")):
    path.rename(path.with_name(change(path.name)))


def joined(video: Video) -> np.ndarray:
  """rgb and flow side by side, or the one stream. f[T,D], f[T,D] -> f[T,2D]."""
  return np.concatenate(list(video.features.values()), axis=1)


def duration_of(video: Video) -> float:
  """Seconds: what the source has, or T segments of 0.64 s."""
  return video.duration or video.num_segments * 16 / 25


def entry(video: Video, classes: Sequence[str], **more: Any) -> dict[str, Any]:
  """A video's entry in a database, segments as numbers."""
  annotations = [
    {"segment": [i.start, i.end], "label": classes[i.label]}
    for i in video.instances
  ]
  return {**more, "duration": duration_of(video), "annotations": annotations}


def database(
  splits: Mapping[str, Videos], classes: Sequence[str], **more: Any
) -> dict[str, Any]:
  """{"database": {VIDEO: {"subset", "duration", "annotations"}}}."""
  entries = {
    video.id: entry(video, classes, subset=subset, **more)
    for subset, videos in splits.items()
    for video in videos
  }
  return {"version": "1.3", "taxonomy": [], "database": entries}


def save(path: Path, x: np.ndarray) -> None:
  """An .npy file, with its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, x)


def write_objects(path: Path, items: Sequence[Any], protocol: int = 4) -> None:
  """An .npy file of objects [N], as np.save of some version writes it."""
  x = np.empty(len(items), object)
  for n, item in enumerate(items):
    x[n] = item
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("wb") as file:
    fields = {"descr": "|O", "fortran_order": False, "shape": x.shape}
    np.lib.format.write_array_header_1_0(file, fields)
    pickle.dump(x, file, protocol)


def write_acmnet(
  root: Path, train: Videos, test: Videos, classes: Sequence[str]
) -> Path:
  """The layout of ACM-Net, with THUMOS14's subsets; returns `root`."""
  for split, videos in {"train": train, "test": test}.items():
    for video in videos:
      save(root / split / f"{video.id}.npy", joined(video))
    ids = "".join(f"{video.id}\n" for video in videos)
    (root / f"split_{split}.txt").write_text(ids)
  said = database({"validation": train, "test": test}, classes, frames=128)
  (root / "gt.json").write_text(json.dumps(said))
  return root


def write_wtalc(
  root: Path,
  train: Videos,
  test: Videos,
  classes: Sequence[str],
  *,
  name: str = "Thumos14reduced",
  subsets: tuple[str, str] = ("validation", "test"),
  protocol: int = 4,
) -> Path:
  """The layout of W-TALC, its object arrays as pickles; returns `root`."""
  folder = root / f"{name}-Annotations"
  videos = [*train, *test]
  splits = [subsets[0]] * len(train) + [subsets[1]] * len(test)
  labels = [[classes[i.label] for i in v.instances] for v in videos]
  durations = [[duration_of(video)] for video in videos]
  plain = {
    "videoname": np.array([v.id.encode() for v in videos]),
    "subset": np.array([s.encode() for s in splits]),
    "classlist": np.array([c.encode() for c in classes]),
    "duration": np.array(durations, float).reshape(-1, 1),
    "extracted_fps": np.full(len(videos), 10),
  }
  for column, x in plain.items():
    save(folder / f"{column}.npy", x)
  objects = {
    "labels": labels,
    "labels_all": [sorted(set(row)) for row in labels],
    "segments": [[[i.start, i.end] for i in v.instances] for v in videos],
  }
  for column, rows in objects.items():
    write_objects(folder / f"{column}.npy", rows, protocol)
  features = [joined(video) for video in videos]
  path = root / f"{name}-I3D-JOINTFeatures.npy"
  write_objects(path, features, protocol)
  return root


def write_actionformer(
  root: Path,
  train: Videos,
  test: Videos,
  classes: Sequence[str],
  *,
  subsets: tuple[str, str] = ("validation", "test"),
  fps: float | None = None,
) -> Path:
  """The layout of ActionFormer, `fps` in every entry; returns `root`."""
  for video in (*train, *test):
    save(root / "i3d_features" / f"{video.id}.npy", joined(video))
  more = {} if fps is None else {"fps": fps}
  splits = dict(zip(subsets, (train, test), strict=True))
  (root / "annotations").mkdir(parents=True, exist_ok=True)
  path = root / "annotations" / "thumos14.json"
  path.write_text(json.dumps(database(splits, classes, **more)))
  return root


def write_streams(folder: Path, videos: Iterable[Video], form: str) -> None:
  """Features as `form` names them: rgb/V.npy, V_rgb.npy, or V.npy."""
  forms = {"folders": "{1}/{0}.npy", "suffix": "{0}_{1}.npy"}
  for video in videos:
    if form == "single":
      save(folder / f"{video.id}.npy", joined(video))
      continue
    for stream, x in video.features.items():
      save(folder / forms[form].format(video.id, stream), x)


def write_table(
  path: Path, splits: Mapping[str, Videos], classes: Sequence[str], columns: str
) -> None:
  """A CSV file, a line an instance, with those of its columns in `columns`."""
  rows = [
    {
      "video": video.id,
      "label": classes[i.label],
      "subset": subset,
      "start": i.start,
      "end": i.end,
      "duration": duration_of(video),
    }
    for subset, videos in splits.items()
    for video in videos
    for i in video.instances
  ]
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", newline="") as file:
    names = columns.split(",")
    writer = csv.DictWriter(file, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)


ALL_COLUMNS = "video,label,subset,start,end,duration"


def write_video_features(
  root: Path,
  train: Videos,
  test: Videos,
  classes: Sequence[str],
  *,
  table: str = "labels.csv",
) -> Path:
  """video_features' output, and a CSV or JSON file; returns `root`."""
  return write_own(
    root, train, test, classes, form="suffix", folder="", table=table
  )


def write_own(
  root: Path,
  train: Videos,
  test: Videos,
  classes: Sequence[str],
  *,
  form: str = "folders",
  folder: str = "features",
  table: str = "labels.csv",
  columns: str = ALL_COLUMNS,
) -> Path:
  """A user's own features with a CSV or JSON file of labels; returns `root`."""
  write_streams(root / folder, (*train, *test), form)
  splits = {"train": train, "test": test}
  if table.endswith(".csv"):
    write_table(root / table, splits, classes, columns)
  else:
    (root / table).write_text(json.dumps(database(splits, classes)))
  return root


def assert_same_videos(found: Videos, written: Videos) -> None:
  """Ids, labels, instances, T and features, bit for bit."""
  ordered = sorted(written, key=lambda video: video.id)
  assert [v.id for v in found] == [v.id for v in ordered]
  for a, b in zip(found, ordered, strict=True):
    assert (a.labels, a.instances) == (b.labels, b.instances), a.id
    assert a.num_segments == b.num_segments, a.id
    assert list(a.features) == list(b.features), a.id
    for stream, x in b.features.items():
      np.testing.assert_array_equal(a.features[stream], x, strict=True)


def assert_same(found: Dataset, train: Videos, test: Videos) -> None:
  """That a data set holds these videos, each in its split."""
  assert found.classes == CLASSES
  assert_same_videos(found.train, train)
  assert_same_videos(found.test, test)


def has_note(found: Dataset, *parts: str) -> bool:
  """Whether one of the notes holds all `parts`."""
  return any(all(part in note for part in parts) for note in found.notes)


# Each layout in its usual form.
WRITERS = {
  "basnet": write_basnet,
  "acmnet": write_acmnet,
  "wtalc": write_wtalc,
  "actionformer": write_actionformer,
  "video_features": write_video_features,
  "own": write_own,
}
