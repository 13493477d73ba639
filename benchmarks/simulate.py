"""Simulated features on the real timelines of ActivityNet v1.3 or THUMOS14.

python benchmarks/simulate.py --data_set=activitynet --annotations=DIR \
  --output=ROOT [--width=64] [--videos=N_TRAIN,N_TEST] [--seed=0] \
  [--dtype=float16] [--gain=1] [--noise=1] [--context=1] [--overlap=0.8]
python benchmarks/simulate.py --data_set=thumos14 --annotations=BASNET_DIR \
  --durations=WTALC_ANNOTATIONS_DIR --output=ROOT

Videos, durations, annotations and splits are the real ones. ActivityNet's DIR
holds anet_anno_action.json and val_gt.json. THUMOS14's are the files that
BaSNet-pytorch publishes (gt.json, split_train.txt, split_test.txt), its
durations those of W-TALC's Thumos14reduced-Annotations. Features come from
`ptlr_jax.data.simulated.draw_features`: no number on them is a result on either
data set.

A claim about a method should hold on variants of the simulation: --noise
multiplies the noise of both streams, --context the scene context that shows
beside actions as well, and --overlap is how much two classes of a pair share.
The same is drawn for each variant, so videos differ in nothing else.

With --gain=10 features are ten times larger, so that on ActivityNet networks
128 wide leave the first plateau of the loss within some hundred updates, as
2048 wide ones do.

A subset is balanced over classes and holds the very features of the full set.
Writes, in the layout `acmnet`, ROOT/gt.json, ROOT/split_{train,test}.txt and
ROOT/{train,test}/ID.npy, each f[T, 2 width], rgb before flow,
T = floor(25 duration / 16).
"""

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timelines import (
  DATA_SETS,
  Database,
  balanced,
  num_segments,
  read_splits,
)
from ptlr_jax.data.sampling import generator
from ptlr_jax.data.simulated import (
  SECONDS_PER_SEGMENT,
  World,
  draw_features,
)
from ptlr_jax.runtime.errors import InputError

GUEST = 0.25  # share of videos that show another class's context
README = """\
THESE FEATURES ARE SIMULATED.
NO NUMBER OBTAINED ON THEM IS A RESULT ON {name}.

Real: the videos' names and durations, the annotations, the split.
Simulated: every feature, drawn from the generative model of
ptlr_jax/data/simulated.py. Which classes look alike is random as well.

Written by benchmarks/simulate.py, seed {seed}: {train} training and {test}
test videos, {segments} segments of 0.64 s, {width} rgb channels followed by
{width} flow channels, {dtype}, times {gain:g}.

Variant: noise {noise:g}, context {context:g}, overlap {overlap:g}.
It is the usual one where they are 1, 1 and 0.8.
"""


def own_world(
  rng: np.random.Generator, world: World, classes: list[int], own_look: float
) -> World:
  """The world as one video shows it: its classes look their own way."""

  def turned(directions):
    own = rng.normal(size=(len(classes), world.width))
    own *= own_look / np.linalg.norm(own, axis=1, keepdims=True)
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
  world: World,
  name: str,
  entry: dict,
  classes: list[str],
  options: argparse.Namespace,
) -> np.ndarray:
  """The features of a video, a function of these alone. -> f32[T, 2 width]."""
  rng = generator(options.seed, name)
  instances = [
    (
      float(a["segment"][0]) / SECONDS_PER_SEGMENT,
      float(a["segment"][1]) / SECONDS_PER_SEGMENT,
      classes.index(a["label"]),
      bool(rng.random() < 0.5),
    )
    for a in entry["annotations"]
  ]
  shown = {c for _, _, c, _ in instances}
  if rng.random() < GUEST:
    shown.add(int(rng.integers(len(classes))))
  shown = sorted(shown)
  drawn = draw_features(
    rng,
    own_world(rng, world, shown, DATA_SETS[options.data_set].own_look),
    num_segments(entry),
    shown,
    instances,
    noise=options.noise,
    context=options.context,
  )
  return np.concatenate([drawn["rgb"], drawn["flow"]], axis=1)


def choose(
  splits: dict[str, Database], options: argparse.Namespace
) -> tuple[dict[str, Database], list[str]]:
  """The videos that are written, and the classes of all training videos."""
  shown = {
    split: {a["label"] for e in database.values() for a in e["annotations"]}
    for split, database in splits.items()
  }
  classes = sorted(shown["train"])
  for split, labels in shown.items():
    if not labels or not labels <= set(classes):
      came = ", ".join(sorted(labels - set(classes))) or "no video"
      raise InputError(
        f"{options.annotations}: expected {split} videos of known duration "
        f"with classes of training videos, came {came}; pass other annotations"
      )
  if not options.videos:
    return splits, classes
  for split, count in options.videos.items():
    if count > len(splits[split]):
      raise InputError(
        f"--videos: expected at most {len(splits[split])} {split} videos, "
        f"got {count}"
      )
  return {
    split: balanced(splits[split], count, classes, options.seed)
    for split, count in options.videos.items()
  }, classes


def write(
  root: Path,
  splits: dict[str, Database],
  classes: list[str],
  options: argparse.Namespace,
) -> int:
  """Writes the data set, the annotations last. -> number of segments."""
  rng = generator(options.seed, "world")
  world = World(rng, len(classes), options.width, options.overlap)
  segments = 0
  for split, database in splits.items():
    (root / split).mkdir(parents=True)
    for name, entry in database.items():
      x = features(world, name, entry, classes, options)
      with np.errstate(over="ignore"):
        x = (options.gain * x).astype(options.dtype)
      if not np.isfinite(x).all():
        raise InputError(
          f"--gain, --noise, --context: expected features that {options.dtype} "
          "holds, got larger ones; lower them"
        )
      np.save(root / split / f"{name}.npy", x)
      segments += len(x)
  for split, database in splits.items():
    (root / f"split_{split}.txt").write_text(
      "".join(f"{v}\n" for v in database)
    )
  counts = {split: len(database) for split, database in splits.items()}
  said = {**vars(options), **counts, "segments": segments}
  note = README.format(name=options.data_set.upper(), **said)
  (root / "README.txt").write_text(note)
  merged = {v: e for database in splits.values() for v, e in database.items()}
  version = DATA_SETS[options.data_set].version
  text = json.dumps({"taxonomy": [], "version": version, "database": merged})
  (root / "gt.json").write_text(text)
  return segments


def _counts(text: str) -> dict[str, int]:
  try:
    train, test = (int(part) for part in text.split(","))
  except ValueError:
    train = test = 0
  if min(train, test) < 1:
    raise argparse.ArgumentTypeError(
      f"expected N_TRAIN,N_TEST of 1 or more each, got {text}"
    )
  return {"train": train, "test": test}


def _number(kind: type, low: int) -> Callable[[str], Any]:
  """A parser of finite numbers of a kind, from `low`."""

  def parsed(text: str):
    try:
      value = kind(text)
    except ValueError:
      value = math.nan
    if not low <= value < math.inf:
      raise argparse.ArgumentTypeError(
        f"expected {kind.__name__} from {low}, got {text}"
      )
    return value

  return parsed


def parse_flags(arguments: Sequence[str] | None) -> argparse.Namespace:
  """The flags; a wrong one ends the process with a line."""
  parser = argparse.ArgumentParser(
    description=str(__doc__).split("\n")[0], allow_abbrev=False
  )
  share, count = _number(float, 0), _number(int, 1)
  parser.add_argument("--data_set", choices=sorted(DATA_SETS), required=True)
  parser.add_argument("--annotations", type=Path, required=True, metavar="DIR")
  parser.add_argument(
    "--durations", type=Path, metavar="DIR", help="of W-TALC, for thumos14"
  )
  parser.add_argument("--output", type=Path, required=True, metavar="ROOT")
  parser.add_argument("--width", type=count, default=64, help="of one stream")
  parser.add_argument("--videos", type=_counts, metavar="N_TRAIN,N_TEST")
  parser.add_argument("--seed", type=_number(int, 0), default=0)
  parser.add_argument(
    "--dtype", choices=("float16", "float32"), default="float16"
  )
  parser.add_argument("--gain", type=share, default=1.0)
  parser.add_argument("--noise", type=share, default=1.0)
  parser.add_argument("--context", type=share, default=1.0)
  parser.add_argument("--overlap", type=share, default=0.8)
  options = parser.parse_args(arguments)
  if (options.durations is None) == (options.data_set == "thumos14"):
    parser.error(
      "--durations: expected with --data_set=thumos14, and only there"
    )
  return options


def simulate(options: argparse.Namespace) -> None:
  """Reads the annotations, writes the data set, prints what it holds."""
  root = options.output
  if root.exists() and not (root.is_dir() and not any(root.iterdir())):
    raise InputError(f"--output: expected no or an empty folder, got {root}")
  began = time.monotonic()
  splits, classes = choose(read_splits(options), options)
  segments = write(root, splits, classes, options)
  print(
    f"{root}: {len(splits['train'])} + {len(splits['test'])} videos, "
    f"{segments} segments, {time.monotonic() - began:.0f} s"
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Command line entry."""
  options = parse_flags(arguments)
  try:
    simulate(options)
  except InputError as error:
    print(error, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
  main()
