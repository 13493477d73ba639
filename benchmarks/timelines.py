"""The published timelines of ActivityNet v1.3 and THUMOS14, for `simulate`.

Videos, durations, annotations and splits; no features.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ptlr_jax.data.files.annotations import parse_entry
from ptlr_jax.data.files.text import by_id, read_database, read_ids, read_json
from ptlr_jax.data.layouts import wtalc
from ptlr_jax.data.sampling import generator
from ptlr_jax.runtime.errors import InputError

Database = dict[str, Any]  # {ID: entry}
# {ID: {"duration": s, ...}}, and of each split the file and what it says.
Published = tuple[Database, dict[str, tuple[Path, Database]]]


def find_files(folder: Path, flag: str, *names: str) -> list[Path]:
  """The files of a folder. Raises InputError where one is missing."""
  missing = [name for name in names if not (folder / name).is_file()]
  if missing:
    raise InputError(
      f"--{flag}: expected a folder with {', '.join(names)}, came {folder} "
      f"without {', '.join(missing)}"
    )
  return [folder / name for name in names]


def read_activitynet(
  options: argparse.Namespace, problems: list[str]
) -> Published:
  """Training videos are those that are no validation videos."""
  names = "anet_anno_action.json", "val_gt.json"
  path, truth_path = find_files(options.annotations, "annotations", *names)
  everything = read_json(path, '{VIDEO: {"duration_second", ...}}', problems)
  everything = everything if isinstance(everything, dict) else {}
  everything = by_id(path, everything, problems, str)
  truth = read_database(truth_path, problems, "v_{}".format)
  durations = {}
  for name, entry in everything.items():
    if seconds := parse_entry(name, name, entry, []).duration:
      frames = entry.get("duration_frame")
      durations[name] = {"duration": seconds, "frames": frames}
  train = {name: e for name, e in everything.items() if name not in truth}
  return durations, {"train": (path, train), "test": (truth_path, truth)}


def read_thumos14(
  options: argparse.Namespace, problems: list[str]
) -> Published:
  """Annotations and splits of BaSNet-pytorch, durations of W-TALC."""
  names = "gt.json", "split_train.txt", "split_test.txt"
  path, train, test = find_files(options.annotations, "annotations", *names)
  find_files(options.durations, "durations", "videoname.npy", "duration.npy")
  said = wtalc.read_annotations(options.durations, [], problems)
  durations = {e.id: {"duration": e.duration} for e in said if e.duration}
  database = read_database(path, problems)
  splits = {}
  for split, ids in (("train", train), ("test", test)):
    listed = read_ids(ids, split, problems)
    splits[split] = path, {name: database.get(name) for name in listed}
  return durations, splits


class DataSet(NamedTuple):
  """What is particular to a data set."""

  read: Callable[[argparse.Namespace, list[str]], Published]
  subsets: dict[str, str]  # split: "subset" in gt.json
  version: str  # in gt.json
  as_published: bool  # annotations; else sorted ones, in numbers
  own_look: float  # length of a video's own part in its classes' directions


DATA_SETS = {
  "activitynet": DataSet(
    read_activitynet,
    {"train": "train", "test": "val"},
    "VERSION 1.3 simulated features",
    as_published=True,
    own_look=1.6,
  ),
  "thumos14": DataSet(
    read_thumos14,
    {"train": "validation", "test": "test"},
    "THUMOS14 simulated features",
    as_published=False,
    # For an ILG of mAP 0.1:0.7 in 20 to 35 on held-out training videos.
    own_look=0.5,
  ),
}


def read_splits(options: argparse.Namespace) -> dict[str, Database]:
  """{split: entries of gt.json} of all videos that can be simulated."""
  kind, problems = DATA_SETS[options.data_set], []
  durations, published = kind.read(options, problems)
  if problems:
    raise InputError(*problems)
  splits: dict[str, Database] = {}
  for split, (path, database) in published.items():
    made = splits[split] = {}
    for name, raw in database.items():
      events = parse_entry(name, f"{path}: {name}", raw, problems).events
      known = durations.get(name)
      if not events or not known or num_segments(known) < 2:
        continue
      annotations = [{"segment": [s, e], "label": x} for s, e, x in events]
      if kind.as_published and isinstance(raw, dict):
        annotations = raw["annotations"]
      made[name] = {
        **known,
        "subset": kind.subsets[split],
        "annotations": annotations,
      }
    print(
      f"left out: {len(database) - len(made)} of {len(database)} {split} "
      "videos, without annotations, a known duration or a second segment"
    )
  if problems:
    raise InputError(*problems)
  return splits


def num_segments(entry: dict) -> int:
  """T of a video, 16 frames of 25 a second each."""
  return int(25 * entry["duration"] // 16)


def balanced(
  database: Database, count: int, classes: list[str], seed: int
) -> Database:
  """`count` videos, as many of each class as can be, in the old order.

  A smaller subset is part of a larger one, and its last round takes the same
  classes in both splits.
  """
  turn = generator(seed, "classes").permutation(len(classes))
  names = list(database)
  seen = dict.fromkeys(classes, 0)
  rank = {}
  for i in generator(seed, "videos").permutation(len(names)):
    label = database[names[i]]["annotations"][0]["label"]
    rank[names[i]] = (seen[label], turn[classes.index(label)])
    seen[label] += 1
  kept = set(sorted(names, key=rank.__getitem__)[:count])
  return {name: entry for name, entry in database.items() if name in kept}
