"""Simulated features on ActivityNet v1.3's real timelines, layout `acmnet`.

python benchmarks/activitynet_sim.py \
  --annotations=../shared/data/activitynet13 --output=ROOT [--width=64] \
  [--videos=N_TRAIN,N_VAL] [--seed=0] [--dtype=float16] [--gain=1]

Videos, durations and annotations are the real ones; features come from
`ptlr_jax.data.simulated.draw_features` and no number on them is a result on
ActivityNet. It shows that the program copes with the set: 14,377 videos, 200
classes, instances from no length to the whole video.

With --gain=10 features are ten times larger, so that networks 128 wide leave
the first plateau of the loss within some hundred updates, as 2048 wide ones do.

A subset is balanced over classes and holds the very features of the full set.
Writes ROOT/gt.json, ROOT/split_{train,test}.txt, ROOT/{train,test}/v_ID.npy,
each f[T, 2 width], rgb before flow, T = floor(25 duration / 16).
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np

from ptlr_jax.data.sampling import generator
from ptlr_jax.data.simulated import SECONDS_PER_SEGMENT, World, draw_features

SUBSETS = {"train": "train", "test": "val"}  # folder: "subset" in gt.json
GUEST = 0.25  # share of videos that show another class's context
OWN_LOOK = 1.6  # length of a video's own part in its classes' directions
README = """\
THESE FEATURES ARE SIMULATED. NO NUMBER OBTAINED ON THEM IS AN ACTIVITYNET \
RESULT.

Real: the videos' names and durations, the annotations, the split.
Simulated: every feature, drawn from the generative model of
ptlr_jax/data/simulated.py. Which classes look alike is random as well.

Written by benchmarks/activitynet_sim.py, seed {seed}: {train} training and
{test} validation videos, {segments} segments of 0.64 s, {width} rgb channels
followed by {width} flow channels, {dtype}, times {gain:g}.
"""

Database = dict[str, dict]  # {v_ID: entry of gt.json}


def read_annotations(folder: Path) -> tuple[dict[str, Database], int]:
  """({folder: database}, validation videos without a known duration).

  Training videos are those with annotations that are not validation videos.
  """
  everything = json.loads((folder / "anet_anno_action.json").read_text())
  truth = json.loads((folder / "val_gt.json").read_text())["database"]
  truth = {f"v_{name}": entry for name, entry in truth.items()}
  found: dict[str, Database] = {"train": {}, "test": {}}
  for name, entry in everything.items():
    if name not in truth and entry["annotations"]:
      found["train"][name] = _entry("train", entry, entry["annotations"])
  for name, entry in truth.items():
    known = everything.get(name)
    if known:
      found["test"][name] = _entry("test", known, entry["annotations"])
  return found, len(truth) - len(found["test"])


def _entry(split: str, known: dict, annotations: list[dict]) -> dict:
  return {
    "duration": known["duration_second"],
    "frames": known["duration_frame"],
    "subset": SUBSETS[split],
    "annotations": annotations,
  }


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


def own_world(
  rng: np.random.Generator, world: World, classes: list[int]
) -> World:
  """The world as one video shows it: its classes look their own way."""

  def turned(directions):
    own = rng.normal(size=(len(classes), world.width))
    own *= OWN_LOOK / np.linalg.norm(own, axis=1, keepdims=True)
    own += directions[classes]
    directions = directions.copy()
    directions[classes] = own / np.linalg.norm(own, axis=1, keepdims=True)
    return directions

  world = copy.copy(world)
  world.core = {s: turned(x) for s, x in world.core.items()}
  world.flank = {s: turned(x) for s, x in world.flank.items()}
  world.context = turned(world.context)
  return world


def features(
  world: World, seed: int, name: str, entry: dict, classes: list[str]
) -> np.ndarray:
  """The features of a video, a function of these alone. -> f32[T, 2 width]."""
  rng = generator(seed, name)
  instances = [
    (
      a["segment"][0] / SECONDS_PER_SEGMENT,
      a["segment"][1] / SECONDS_PER_SEGMENT,
      classes.index(a["label"]),
      bool(rng.random() < 0.5),
    )
    for a in entry["annotations"]
  ]
  shown = {c for _, _, c, _ in instances}
  if rng.random() < GUEST:
    shown.add(int(rng.integers(len(classes))))
  own = own_world(rng, world, sorted(shown))
  drawn = draw_features(rng, own, num_segments(entry), sorted(shown), instances)
  return np.concatenate([drawn["rgb"], drawn["flow"]], axis=1)


def write(
  root: Path, splits: dict[str, Database], classes: list[str], options
) -> int:
  """Writes the data set, the annotations last. -> number of segments."""
  seed, width = options.seed, options.width
  world = World(generator(seed, "world"), len(classes), width)
  segments = 0
  for split, database in splits.items():
    (root / split).mkdir(parents=True)
    for name, entry in database.items():
      x = features(world, seed, name, entry, classes)
      x = (options.gain * x).astype(options.dtype)
      np.save(root / split / f"{name}.npy", x)
      segments += len(x)
  for split, database in splits.items():
    (root / f"split_{split}.txt").write_text(
      "".join(f"{v}\n" for v in database)
    )
  note = README.format(
    **{split: len(database) for split, database in splits.items()},
    **{"seed": seed, "width": width, "segments": segments},
    gain=options.gain,
    dtype=options.dtype,
  )
  (root / "README.txt").write_text(note)
  merged = {v: e for database in splits.values() for v, e in database.items()}
  version = "VERSION 1.3 simulated features"
  text = json.dumps({"taxonomy": [], "version": version, "database": merged})
  (root / "gt.json").write_text(text)
  return segments


def _counts(text: str) -> dict[str, int]:
  train, test = (int(part) for part in text.split(","))
  if min(train, test) < 1:
    raise ValueError(text)
  return {"train": train, "test": test}


def main() -> None:
  """Command line entry."""
  parser = argparse.ArgumentParser(
    description=str(__doc__).split("\n")[0], allow_abbrev=False
  )
  parser.add_argument("--annotations", type=Path, required=True)
  parser.add_argument("--output", type=Path, required=True)
  parser.add_argument("--width", type=int, default=64, help="of one stream")
  parser.add_argument("--videos", type=_counts, metavar="N_TRAIN,N_VAL")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--dtype", choices=("float16", "float32"), default="float16"
  )
  parser.add_argument("--gain", type=float, default=1.0)
  options = parser.parse_args()
  root = options.output
  if root.exists() and any(root.iterdir()):
    parser.error(f"--output: expected no or an empty folder, got {root}")
  began = time.monotonic()
  splits, unknown = read_annotations(options.annotations)
  print(f"left out: {unknown} validation videos without a known duration")
  classes = sorted(
    {a["label"] for e in splits["train"].values() for a in e["annotations"]}
  )
  for split, database in splits.items():
    usable = {v: e for v, e in database.items() if num_segments(e) >= 2}
    print(f"left out: {len(database) - len(usable)} {split} videos of T < 2")
    if options.videos:
      usable = balanced(usable, options.videos[split], classes, options.seed)
    splits[split] = usable
  segments = write(root, splits, classes, options)
  print(
    f"{root}: {len(splits['train'])} + {len(splits['test'])} videos, "
    f"{segments} segments, {time.monotonic() - began:.0f} s"
  )


if __name__ == "__main__":
  main()
