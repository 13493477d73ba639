"""Small data sets on disk in the `basnet` layout, for tests."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptlr_jax.data import reading
from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.data.layouts import read_source
from ptlr_jax.data.layouts.source import read_options
from ptlr_jax.runtime.errors import InputError


def tiny_videos(
  prefix: str,
  count: int,
  *,
  num_classes: int = 2,
  num_segments: int = 8,
  width: int = 4,
  streams: Sequence[str] = ("rgb", "flow"),
  seconds_per_segment: float = 0.64,
  seed: int = 0,
) -> tuple[Video, ...]:
  """`count` videos of random f32[T,width]; video n is of class n % C.

  Its one instance covers the second quarter of its time; the channel of the
  class (modulo width) is larger by 2 there.
  """
  rng = np.random.default_rng(seed)
  first, last = num_segments // 4, max(num_segments // 2, 1)
  videos = []
  for n in range(count):
    label = n % num_classes
    features = {}
    for stream in streams:
      x = rng.normal(size=(num_segments, width)).astype(np.float32)
      x[first:last, label % width] += 2
      features[stream] = x
    start, end = first * seconds_per_segment, last * seconds_per_segment
    instance = Instance(start, end, label)
    videos.append(Video(f"{prefix}{n:04d}", features, (label,), (instance,)))
  return tuple(videos)


def write_basnet(
  root: Path,
  train: Iterable[Video],
  test: Iterable[Video],
  classes: Sequence[str],
) -> Path:
  """Writes the videos under `root` as the real copies are; returns `root`."""
  database = {}
  for split, videos in {"train": train, "test": test}.items():
    videos = tuple(videos)
    for video in videos:
      database[video.id] = {
        "subset": split,
        "annotations": [
          {"segment": [str(i.start), str(i.end)], "label": classes[i.label]}
          for i in video.instances
        ],
      }
      for stream, x in video.features.items():
        folder = root / "features" / split / stream
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{video.id}.npy", x)
    ids = "".join(f"{video.id}\n" for video in videos)
    (root / f"split_{split}.txt").write_text(ids)
  (root / "gt.json").write_text(json.dumps({"database": database}))
  return root


def edit_database(
  root: Path, change: Callable[[dict[str, Any]], object]
) -> None:
  """Applies `change` to the database of gt.json."""
  gt = json.loads((root / "gt.json").read_text())
  change(gt["database"])
  (root / "gt.json").write_text(json.dumps(gt))


def edit_entry(root: Path, video_id: str, **changes: Any) -> None:
  """Overwrites values of one video's entry in gt.json."""
  edit_database(root, lambda database: database[video_id].update(changes))


def read_root(
  root: Path | str, layout: str = "basnet", **options: Any
) -> Dataset:
  """The data set under `root`, as `dataset.load_dataset` reads it."""
  how = read_options(root=str(root), layout=layout, **options)
  problems: list[str] = []
  return reading.read_dataset(read_source(how, problems), how, problems)


def input_problems(
  root: Path | str, layout: str = "basnet", **options: Any
) -> tuple[str, ...]:
  """The problems that reading `root` with features of width 4 reports."""
  with pytest.raises(InputError) as caught:
    read_root(root, layout, **{"width": 4, **options})
  assert str(caught.value) == "\n".join(caught.value.lines)
  return caught.value.problems


def one_problem(root: Path, *parts: str, **options: Any) -> None:
  """Asserts that there is one problem: a line with `root` and all `parts`."""
  problems = input_problems(root, **options)
  assert len(problems) == 1, problems
  missing = [x for x in (str(root), *parts, "; ") if x not in problems[0]]
  assert not missing, problems[0]
  assert len(problems[0].splitlines()) == 1
