"""Readers of the layouts in which users hold I3D features and annotations.

A reader checks everything it reads and reports all problems together; its
helpers append to `problems` and go on without what they could not read.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from ptlr_jax.data.annotations import (
  SUBSETS,
  Dataset,
  Event,
  Video,
  index_labels,
  read_entry,
  unique_labels,
)
from ptlr_jax.data.feature_files import read_features
from ptlr_jax.errors import InputError


def read_basnet(
  root: str | Path,
  *,
  classes: Sequence[str] = (),
  width: int = 1024,
  fps: float = 25.0,
  stride: int = 16,
  streams: Sequence[str] = ("rgb", "flow"),
  trim: bool = False,
  min_segments: int = 2,
  end_tolerance: float = 2.0,
  overrun_ids: Collection[str] = (),
  memory_gb: float = 8.0,
  check_finite: bool = True,
) -> Dataset:
  """The data set under `root` in the layout of BaSNet-pytorch.

  ROOT/{gt.json,split_train.txt,split_test.txt} and
  ROOT/features/{train,test}/STREAM/VIDEO.npy, each f[T,width]; a segment lasts
  `stride / fps` seconds. Without `classes`: the sorted labels of the training
  videos. Features of more than `memory_gb` (1e9 bytes) in all stay on disk.
  Annotations of `overrun_ids` may end any time after the features.
  """
  _check_options(classes, fps, stride, streams)
  root = _existing_root(root)
  problems: list[str] = []
  seconds = stride / fps
  gt = root / "gt.json"
  splits = _read_splits(root, problems)
  events = _read_events(gt, splits, problems)
  if not classes and not problems:
    known = {label for i in splits["train"] for *_, label in events[i]}
    classes = sorted(known)
  instances = {}
  if classes:
    for i, found in events.items():
      instances[i] = index_labels(f"{gt}: {i}", found, classes, problems)

  features, lengths = read_features(
    _feature_paths(root, splits, streams, problems),
    problems,
    width=width,
    trim=trim,
    min_segments=min_segments,
    memory_gb=memory_gb,
    check_finite=check_finite,
  )
  for i, length in lengths.items():
    features_end = length * seconds
    end = max((end for _, end, _ in events.get(i, ())), default=0.0)
    if end - features_end > end_tolerance and i not in overrun_ids:
      problems.append(
        f"{gt}: {i}: expected segments that end at most {end_tolerance:g} s "
        f"after the features ({length} x {seconds:g} s = {features_end:g} "
        f"s), came one that ends at {end:g} s; re-extract the video or pass "
        f"--config.data.end_tolerance={math.ceil(end - features_end)} or "
        "--config.data.overrun_ids with its id"
      )
  if problems:
    raise InputError(*problems)

  def videos(split: str) -> tuple[Video, ...]:
    return tuple(
      Video(i, features[i], unique_labels(instances[i]), instances[i])
      for i in splits[split]
    )

  return Dataset(tuple(classes), videos("train"), videos("test"), seconds)


LAYOUTS: dict[str, Callable[..., Dataset]] = {"basnet": read_basnet}


def _check_options(
  classes: Sequence[str], fps: float, stride: int, streams: Sequence[str]
) -> None:
  if not (fps > 0 and stride > 0):
    raise InputError(
      "expected --config.data.fps and --config.data.stride above 0, came "
      f"{fps} and {stride}; pass 25 and 16 for features of the basnet layout"
    )
  if isinstance(streams, str) or not streams:
    raise InputError(
      f"expected a list of streams, came {streams!r}; pass "
      "streams=('rgb', 'flow')"
    )
  twice = sorted({name for name in classes if list(classes).count(name) > 1})
  if twice:
    raise InputError(
      f"expected every class once, came {', '.join(twice)} more than once; "
      "correct --config.data.classes"
    )


def _existing_root(root: str | Path) -> Path:
  path = Path(root).expanduser()
  if str(root) and path.is_dir():
    return path
  came = "a file" if path.is_file() else "no such folder"
  raise InputError(
    f"{str(root)!r}: expected the folder of gt.json, split_train.txt, "
    f"split_test.txt and features, came {came}; pass --config.data.root=FOLDER"
  )


def _read_text(path: Path, problems: list[str]) -> str | None:
  try:
    return path.read_text("utf-8-sig")
  except FileNotFoundError:
    came = "no such file"
  except (OSError, UnicodeDecodeError) as error:
    came = str(error)
  problems.append(
    f"{path}: expected a text file, came: {came}; put it there or pass "
    "another --config.data.root="
  )


def _read_splits(root: Path, problems: list[str]) -> dict[str, list[str]]:
  """The ids of each split, each once; an id of both is left in neither."""
  splits = {}
  for split in SUBSETS:
    path = root / f"split_{split}.txt"
    text = _read_text(path, problems)
    ids = [line.strip() for line in (text or "").splitlines() if line.strip()]
    splits[split] = list(dict.fromkeys(ids))
    if text is not None and not ids:
      problems.append(
        f"{path}: expected one video id a line, came an empty file; write the "
        f"{split} ids into it"
      )
    problems += [
      f"{path}: expected every id once, came {i} {ids.count(i)} times; leave "
      "one of them"
      for i in splits[split]
      if ids.count(i) > 1
    ]
  both = set(splits["train"]) & set(splits["test"])
  problems += [
    f"{root / 'split_test.txt'}: expected ids that split_train.txt does not "
    f"have, came {i}; take it out of one of the two files"
    for i in sorted(both)
  ]
  return {s: [i for i in ids if i not in both] for s, ids in splits.items()}


def _read_events(
  gt: Path, splits: dict[str, list[str]], problems: list[str]
) -> dict[str, list[Event]]:
  """The annotations of every id; an id without an entry leaves its split."""
  text = _read_text(gt, problems)
  if text is None:
    return {}
  expected = 'expected {"database": {VIDEO: {"subset", "annotations"}}}'
  try:
    parsed = json.loads(text)
  except (ValueError, RecursionError) as error:
    problems.append(
      f"{gt}: {expected}, came no JSON ({error}); repair it or copy it again"
    )
    return {}
  database = parsed.get("database") if isinstance(parsed, dict) else None
  if not isinstance(database, dict):
    came = (
      list(parsed)[:5] if isinstance(parsed, dict) else type(parsed).__name__
    )
    problems.append(f"{gt}: {expected}, came {came}; write it in this form")
    return {}
  events = {}
  for split, ids in splits.items():
    problems += [
      f"{gt.parent / f'split_{split}.txt'}: expected ids that gt.json has, "
      f"came {i}; annotate it in {gt} or take it out of this file"
      for i in ids
      if i not in database
    ]
    ids[:] = [i for i in ids if i in database]
    for i in ids:
      events[i] = read_entry(f"{gt}: {i}", database[i], split, problems)
  return events


def _feature_paths(
  root: Path,
  splits: Mapping[str, Sequence[str]],
  streams: Sequence[str],
  problems: list[str],
) -> dict[str, dict[str, Path]]:
  """id -> stream -> its file; a missing folder is one problem, not hundreds."""
  paths: dict[str, dict[str, Path]] = {}
  for split, ids in splits.items():
    for stream in streams:
      folder = root / "features" / split / stream
      if ids and not folder.is_dir():
        problems.append(
          f"{folder}: expected the {stream} features of {len(ids)} videos, "
          "came no such folder; extract them into it or pass another "
          "--config.data.root="
        )
        continue
      for i in ids:
        paths.setdefault(i, {})[stream] = folder / f"{i}.npy"
  return paths
