"""How time and memory grow with videos, segments, classes and batches.

python benchmarks/growth.py [--only=AXIS[:WORK]] [--quick] [--json=FILE] \\
  [--from=FILE,FILE] [--plot=FILE.svg]

Everything is simulated in memory. Each point has a process of its own, so that
its peak is its own. Milliseconds are the processor's, the least of several
runs, which other work on the machine hardly moves; `--json` has the wall's too.
MB are the highest resident memory of the process less what was resident after
the imports, inputs and compiling included; the peak itself stands behind it,
and the buffers that a compiled step works in below it. The exponent is the
slope of log time against log size over the upper half of the sizes.

Widths are small, 16 channels a stream and 32 within, so that what does not
multiply matrices is seen. Predictions are smooth noise, of 100 videos in turn,
with three classes each. `--from` shows what older runs' --json say.
"""

import argparse
import functools
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import growth_report  # noqa: E402
from benchmarks.evaluator import simulate  # noqa: E402
from configs import base  # noqa: E402
from ptlr_jax.data import batches  # noqa: E402
from ptlr_jax.data.dataset import (  # noqa: E402
  PAPER,
  Dataset,
  Instance,
  Video,
)
from ptlr_jax.evaluation.mean_ap import detection_map  # noqa: E402
from ptlr_jax.localization import detection  # noqa: E402
from ptlr_jax.method import (  # noqa: E402
  label_quality,
  pseudo_labels,
)
from ptlr_jax.method.cas_space import softmax  # noqa: E402
from ptlr_jax.runs import label_phases  # noqa: E402

WIDTH, INNER = 16, 32  # channels of a stream, and of the networks
POOL, SHOWN = 100, 3  # predictions drawn, classes of a video
EACH = 100  # detections of a video in evaluation

Point = growth_report.Point
Run = Callable[[], Any]
More = dict[str, float]  # figures besides time and memory


class Shape(NamedTuple):
  """The sizes of a point."""

  videos: int = 1
  segments: int = 300
  classes: int = 20
  batch: int = 2


STEPS = ("ILG step", "OTS step", "RTS step")
VIDEOS = ("ILG batch", "OTS batch", "labels", "detection", "evaluation")
VIDEO = (*STEPS, "prediction", "labels", "detection")
CLASSES = ("ILG step", "labels", "detection", "evaluation")
JAX = (*STEPS, "prediction")  # the works that need it
# What grows: through which sizes, from which shape, and what is measured.
AXES: dict[str, tuple[tuple[int, ...], Shape, tuple[str, ...]]] = {
  "videos": ((100, 300, 1000, 3000, 10_000), Shape(1, 100, 20, 16), VIDEOS),
  "segments": ((100, 300, 1000, 3000, 5000), Shape(), VIDEO),
  "classes": ((20, 50, 100, 200), Shape(), CLASSES),
  "batch": ((1, 2, 4, 8, 16, 32), Shape(), STEPS),
}


def _smooth(rng: np.random.Generator, length: int, width: int) -> np.ndarray:
  """Steps of a walk over 15 segments, of about unit variance. -> f32[T,D]."""
  walk = rng.normal(size=(length + 15, width)).cumsum(0)
  noise = 0.1 * rng.normal(size=(length, width))
  return ((walk[15:] - walk[:-15]) / 15**0.5 + noise).astype(np.float32)


def _shown(n: int, classes: int) -> list[int]:
  return sorted({(n + 7 * i) % classes for i in range(SHOWN)})


def _videos(shape: Shape, count: int) -> tuple:
  """With an instance of 8 segments every 20."""
  rng, found = np.random.default_rng(0), []
  for n in range(count):
    shown, size = _shown(n, shape.classes), (shape.segments, WIDTH)
    features = {s: rng.random(size, np.float32) for s in ("rgb", "flow")}
    instances = tuple(
      Instance(0.64 * t, 0.64 * (t + 8), shown[t // 20 % len(shown)])
      for t in range(0, shape.segments - 8, 20)
    )
    found.append(Video(f"video_{n:06d}", features, tuple(shown), instances))
  return tuple(found)


def _predictions(shape: Shape, count: int) -> list[dict[str, Any]]:
  """What the three networks say of each video."""
  pool = []
  for n in range(min(POOL, count)):
    rng, shown = np.random.default_rng(n), _shown(n, shape.classes)
    level, scores = np.zeros((2, shape.classes + 1), np.float32)
    level[:-1] = -8
    level[shown], scores[shown] = 0, 1 / len(shown)
    rgb, flow, ots, rts = (
      2 * _smooth(rng, shape.segments, shape.classes + 1) + level
      for _ in range(4)
    )
    logits = {"rgb": rgb, "flow": flow}
    out = {"logits": logits, "scores": dict.fromkeys(logits, scores)}
    pool.append({**out, "ots": softmax(ots), "rts": softmax(rts)})
  return [pool[n % len(pool)] for n in range(count)]


def _config(shape: Shape) -> Any:
  """configs/base.py at these sizes; one padded length of ST(., s)."""
  config = base.get_config()
  config.ilg.update({"segments": shape.segments, "scale": {"lengths": 1}})
  config.ilg.model.update({"filter_width": INNER, "cas_width": INNER})
  for name in ("ilg", "ots", "rts"):
    config[name].batch_size = shape.batch
    if name != "ilg":
      config[name].model.width = INNER
  return config


def _stage(name: str, shape: Shape) -> tuple[Any, Any]:
  """A stage and random parameters of the shapes that init gives."""
  import jax

  from ptlr_jax.method.registry import STAGES

  stage = STAGES[name](shape.classes, _config(shape)[name].to_dict())
  widths = dict.fromkeys(("rgb", "flow"), WIDTH)
  made = jax.eval_shape(lambda: stage.init(jax.random.key(0), widths))
  rng = np.random.default_rng(1)
  return stage, jax.tree.map(
    lambda x: jax.numpy.asarray(rng.uniform(-0.2, 0.2, x.shape), x.dtype), made
  )


def _batch_at(name: str, shape: Shape) -> Callable[[int], Any]:
  """Batches of the ILG, or without padding of the others."""
  config, drawn = _config(shape), {"seed": 0, "name": name}
  videos = _videos(shape, max(shape.videos, shape.batch))
  if name == "ilg":
    return batches.ilg_batches(videos, shape.classes, config.ilg, **drawn)
  outputs = _predictions(shape, len(videos))
  allowed = pseudo_labels.allowed_classes(videos, shape.classes, True)
  found = label_phases.initial_labels(
    outputs, allowed, config.labels, config.fusion
  )
  drawn |= {"window": shape.segments, "align": 8}
  return batches.labelled_batches(videos, found, shape.batch, **drawn)


def _batch(name: str, shape: Shape) -> tuple[Run, More]:
  numbers, batch_at = itertools.count(), _batch_at(name, shape)
  return lambda: batch_at(next(numbers)), {}


def _step(name: str, shape: Shape) -> tuple[Run, More]:
  """A compiled training step, what compiling took, and its buffers."""
  import jax

  from ptlr_jax.training import train_step

  stage, params = _stage(name, shape)
  config, batch = _config(shape), _batch_at(name, shape)(0)
  tx = train_step.adam(config[name].learning_rate, **config.optimizer)
  states, key = [train_step.create_state(params, tx)], jax.random.key(1)
  begin = time.process_time()
  step = (
    train_step.make_step(stage.loss, tx).lower(states[0], batch, key).compile()
  )
  more = {"compile_s": time.process_time() - begin}
  if memory := step.memory_analysis():
    more["buffers_mb"] = memory.temp_size_in_bytes / 1e6

  def run() -> None:  # which donates the state
    state, _ = step(states.pop(), batch, key)
    states.append(jax.block_until_ready(state))

  return run, more


def _predict(shape: Shape) -> tuple[Run, More]:
  """All three networks on a video, padded as ever."""
  from ptlr_jax.training import prediction

  stages = [_stage(name, shape) for name in ("ilg", "ots", "rts")]
  videos = _videos(shape, 1)

  def run() -> None:
    for stage, params in stages:
      prediction.predict_videos(stage, params, videos, batch_size=1)

  run()  # compiles
  return run, {}


def _label(shape: Shape) -> tuple[Run, More]:
  """The ILG's labels of all videos, those of Network-OTS, their quality."""
  config, outputs = _config(shape), _predictions(shape, shape.videos)
  how, videos = (config.labels, config.fusion), _videos(shape, shape.videos)
  data = Dataset(("",) * shape.classes, videos, ())

  def run() -> None:
    allowed = pseudo_labels.allowed_classes(videos, shape.classes, True)
    old, _ = label_phases.label_videos(
      enumerate(outputs), None, allowed, 0.0, *how
    )
    network = ((i, {"cas": out["ots"]}) for i, out in enumerate(outputs))
    new, _ = label_phases.label_videos(network, old, allowed, 0.5, *how)
    label_quality.label_quality(
      label_quality.tally_labels(new, data.train, len(data.classes))
    )

  return run, {}


def _detect(shape: Shape) -> tuple[Run, More]:
  """Detections of all videos from Network-OTS and Network-RTS."""
  config, outputs = _config(shape), _predictions(shape, shape.videos)
  names = [f"class {c:03d}" for c in range(shape.classes)]
  how = {"options": config.detect, "fusion": config.fusion, "topk_ratio": 8}
  more: More = {}

  def run() -> None:
    found = []
    for out in outputs:
      networks = {name: out[name] for name in ("ots", "rts")}
      found.append(detection.detect(out, networks, names, PAPER, **how))
    more["detections"] = sum(map(len, found)) / shape.videos

  return run, more


def _evaluate(shape: Shape) -> tuple[Run, More]:
  """mAP of all videos, or of 1,000."""
  videos = shape.videos if shape.videos > 1 else 1000
  database, results = simulate(videos, EACH, shape.classes)
  return lambda: detection_map(database, results, "activitynet"), {}


# What makes the inputs, and gives what is timed.
WORKS: dict[str, Callable[[Shape], tuple[Run, More]]] = {
  **{x: functools.partial(_step, x[:3].lower()) for x in STEPS},
  "ILG batch": functools.partial(_batch, "ilg"),
  "OTS batch": functools.partial(_batch, "ots"),
  "prediction": _predict,
  "labels": _label,
  "detection": _detect,
  "evaluation": _evaluate,
}


def timed(run: Run, budget: float) -> More:
  """The least seconds of as many runs as fill the budget, at least three;
  one is enough of a run of 5 seconds."""
  found, spent, repeats = [], 0.0, 1
  while spent < budget or (len(found) < 3 and spent < 5):
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
      run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    found.append((cpu / repeats, wall / repeats))
    spent, repeats = spent + cpu, 20 if found[0][0] < 0.01 else 1
  return dict(zip(("seconds", "wall_s"), map(min, *found), strict=True))


def _status(name: str) -> float:
  """A figure of /proc/self/status, MB; getrusage's outlives an exec."""
  status = Path("/proc/self/status").read_text()
  return int(status.partition(f"{name}:")[2].split()[0]) / 1e3


def measure(work: str, shape: Shape, budget: float) -> More:
  """The figures of a point, of this process."""
  if work in JAX:
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
  imports = _status("VmRSS")
  run, more = WORKS[work](shape)
  found = timed(run, budget)
  peak = _status("VmHWM")
  return {**found, "mb": peak - imports, "peak_mb": peak, **more}


def points(axis: str, works: Sequence[str], quick: bool) -> list[Point]:
  """All points of an axis."""
  sizes, shape, _ = AXES[axis]
  if quick:
    sizes, shape = (16, 32), shape._replace(segments=32)
  found = []
  for work, size in itertools.product(works, sizes):
    own = [work, 0.0 if quick else 0.5, *shape._replace(**{axis: size})]
    command = [sys.executable, __file__, f"--point={json.dumps(own)}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found.append({"axis": axis, "work": work, "size": size, **json.loads(said)})
  return found


def main() -> None:
  """Command line entry."""
  parser = argparse.ArgumentParser(description="Growth, measured")
  parser.add_argument("--only", default="", metavar="AXIS[:WORK]")
  parser.add_argument("--quick", action="store_true", help="tiny sizes")
  parser.add_argument("--json", default="", metavar="FILE")
  parser.add_argument("--from", default="", metavar="FILE,FILE", dest="old")
  parser.add_argument("--plot", default="", metavar="FILE.svg")
  parser.add_argument("--point", default="", help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.point:
    work, budget, *shape = json.loads(options.point)
    print(json.dumps(measure(work, Shape(*shape), budget)))
    return
  only, _, one = options.only.partition(":")
  if only and (only not in AXES or (one and one not in AXES[only][2])):
    parser.error(f"--only: expected one of {', '.join(AXES)}, and a work of it")
  old = options.old.split(",") if options.old else []
  found = [x for file in old for x in json.loads(Path(file).read_text())]
  for axis in [only] if only else AXES:
    if not old:
      works = [one] if one else AXES[axis][2]
      found += points(axis, works, options.quick)
    print(f"{growth_report.table(found, axis)}\n", flush=True)
  if options.json:
    Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
  if options.plot:
    growth_report.plot(found, options.plot)


if __name__ == "__main__":
  main()
