"""How fast the evaluator is, against the official algorithm in pandas.

python benchmarks/evaluator.py [--data=../shared/data/detections] [--full]
python benchmarks/evaluator.py --scaling
python benchmarks/evaluator.py --memory
python benchmarks/evaluator.py --write=FOLDER

The first times both in turn in one process, in seconds of the processor, from
the same dicts to the AP of every class: on published detections of three
methods, and on a simulated set of ActivityNet's size (5,000 videos, 200
classes, 200 detections a video).  There the pandas way takes half an hour, so
that it gets the first --classes of it unless --full is given; ours then gets
the same part.  --scaling: ours alone on ever more detections.  --memory: the
command on the simulated set from files, in a process of its own.  --write: that
set as JSON files.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ptlr_jax.evaluation import mean_ap  # noqa: E402
from ptlr_jax.evaluation.protocols import PROTOCOLS  # noqa: E402

_DATA = flags.DEFINE_string(
  "data", str(ROOT / "../shared/data/detections"), "published detections"
)
_CLASSES = flags.DEFINE_integer("classes", 10, "simulated ones for pandas", 1)
_FULL = flags.DEFINE_bool("full", False, "all simulated classes for pandas")
_SCALING = flags.DEFINE_bool("scaling", False, "ours on more and more")
_MEMORY = flags.DEFINE_bool("memory", False, "the command on the large set")
_WRITE = flags.DEFINE_string("write", "", "folder for the simulated set")

PUBLISHED = {
  "thumos14_stpn": "thumos14",
  "thumos14_autoloc": "thumos14",
  "anet13_montes2016": "activitynet",
}


def simulate(
  videos: int, each: int = 200, classes: int = 200, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
  """A database and results of that many detections a video.

  A video has one class and 1.6 instances on average. Of its detections 70 % are
  of its class, the others of any; half lie near an instance, each end off by a
  normal of a tenth of the video, half anywhere; scores are uniform, plus 1
  where it lies near.
  """
  rng = np.random.default_rng(seed)
  names = [f"class {c:03d}" for c in range(classes)]
  database, results = {}, {}
  for v in range(videos):
    duration, label = rng.uniform(30, 240), int(rng.integers(classes))
    number = 1 + rng.poisson(0.6)
    start = rng.uniform(0, 0.8 * duration, number)
    end = np.minimum(
      start + rng.uniform(0.05, 0.6, number) * duration, duration
    )
    near = rng.random(each) < 0.5
    at, off = rng.integers(number, size=each), 0.1 * duration
    low = np.where(near, start[at], rng.uniform(0, duration, each))
    high = np.where(near, end[at], low + rng.uniform(0, duration / 2, each))
    low, high = low + rng.normal(0, off, each), high + rng.normal(0, off, each)
    low, high = np.minimum(low, high), np.maximum(low, high)
    own = rng.random(each) < 0.7
    labels = np.where(own, label, rng.integers(classes, size=each))
    score = rng.random(each) + near
    database[f"video{v:06d}"] = {
      "subset": "validation",
      "duration": duration,
      "annotations": [
        {"label": names[label], "segment": [a, b]}
        for a, b in zip(start.tolist(), end.tolist(), strict=True)
      ],
    }
    columns = (x.tolist() for x in (labels, score, low, high))
    results[f"video{v:06d}"] = [
      {"label": names[c], "score": s, "segment": [a, b]}
      for c, s, a, b in zip(*columns, strict=True)
    ]
  return database, results


def _part(
  database: dict[str, Any], results: dict[str, Any], number: int
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The instances and detections of the first classes."""
  labels = {f"class {c:03d}" for c in range(number)}
  return {
    video: {
      "annotations": [x for x in e["annotations"] if x["label"] in labels]
    }
    for video, e in database.items()
  }, {
    video: [x for x in items if x["label"] in labels]
    for video, items in results.items()
  }


def _sets() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
  """(name, protocol, database, results)."""
  for name, protocol in PUBLISHED.items():
    folder = Path(_DATA.value) / name
    if not folder.is_dir():
      print(f"{folder}: not there, left out")
      continue
    truth = json.loads((folder / "gt.json").read_text())
    found = json.loads((folder / "pred.json").read_text())
    yield name, protocol, truth["database"], found["results"]
  database, results = simulate(5000)
  name = "simulated, all 200 classes"
  if not _FULL.value:
    name = f"simulated, {_CLASSES.value} of 200 classes"
    database, results = _part(database, results, _CLASSES.value)
  yield name, "activitynet", database, results


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
  """Seconds of the processor, which other work on the machine hardly moves."""
  begin = time.process_time()
  found = run()
  return time.process_time() - begin, found


def _compare() -> None:
  from benchmarks import pandas_map

  print(
    f"{'set':28}{'detections':>11}{'pandas s':>10}{'ours s':>9}{'median':>9}"
    f"{'ratio':>7}{'max |dAP|':>11}{'> 1e-9':>7}{'on ties':>8}"
  )
  for name, protocol, database, results in _sets():
    ours = [
      _timed(lambda d=database, r=results, p=protocol: _ours(d, r, p))
      for _ in range(5)
    ]
    seconds = [s for s, _ in ours]
    result = ours[0][1]
    theirs, (classes, expected) = _timed(
      lambda d=database, r=results, p=protocol: pandas_map.detection_map(
        d, r, PROTOCOLS[p].tious
      )
    )
    keys = list(result["mAP"])
    ap = np.array([[result["per_class"][c][k] for c in classes] for k in keys])
    error = np.abs(ap - expected)
    off = {(classes[c], keys[k]) for k, c in np.argwhere(error > 1e-9).tolist()}
    named = {(x["label"], x["tiou"]) for x in result["ties"]["pairs"]}
    count = sum(map(len, results.values()))
    print(
      f"{name:28}{count:11,}{theirs:10.2f}{min(seconds):9.4f}"
      f"{statistics.median(seconds):9.4f}{theirs / min(seconds):7.0f}"
      f"{error.max():11.1e}{len(off):7}{len(off & named):8}",
      flush=True,
    )


def _ours(database: Any, results: Any, protocol: str) -> dict[str, Any]:
  return mean_ap.detection_map(database, results, protocol)


def _scaling() -> None:
  print(f"{'detections':>11}{'seconds':>9}{'a million':>11}")
  for videos in (313, 625, 1250, 2500, 5000, 10000):
    database, results = simulate(videos)
    seconds = min(
      _timed(lambda d=database, r=results: _ours(d, r, "activitynet"))[0]
      for _ in range(3)
    )
    count = 200 * videos
    print(f"{count:11,}{seconds:9.3f}{1e6 * seconds / count:11.2f}", flush=True)


def _write(folder: Path) -> tuple[Path, Path]:
  """The simulated set as files of ground truth and detections."""
  folder.mkdir(parents=True, exist_ok=True)
  truth, found = folder / "truth.json", folder / "found.json"
  database, results = simulate(5000)
  truth.write_text(json.dumps({"database": database}))
  found.write_text(json.dumps({"results": results}))
  return truth, found


def _memory() -> None:
  with tempfile.TemporaryDirectory() as folder:
    # Written by a process of its own: ru_maxrss outlives an exec, so that a
    # child would report this one's peak where that is higher.
    command = [sys.executable, __file__, f"--write={folder}"]
    subprocess.run(command, check=True)
    truth, found = Path(folder) / "truth.json", Path(folder) / "found.json"
    command = [sys.executable, "-m", "ptlr_jax.evaluate"]
    command += [f"--ground_truth={truth}", f"--detections={found}"]
    command += ["--protocol=activitynet", f"--output={folder}/metrics.json"]
    for more in (["--bootstrap=0", "--nodiagnosis"], ["--bootstrap=0"], []):
      begin = time.perf_counter()
      process = subprocess.Popen(
        [*command, *more], stdout=subprocess.DEVNULL, cwd=ROOT
      )
      _, status, usage = os.wait4(process.pid, 0)
      seconds = time.perf_counter() - begin
      print(
        f"{' '.join(more) or 'everything':30} status {status}, "
        f"{seconds:5.1f} s, {usage.ru_maxrss / 1024:.0f} MiB",
        flush=True,
      )


def main(argv: list[str]) -> None:
  """Command line entry."""
  del argv
  if _WRITE.value:
    _write(Path(_WRITE.value))
  elif _SCALING.value:
    _scaling()
  elif _MEMORY.value:
    _memory()
  else:
    _compare()


if __name__ == "__main__":
  app.run(main)
