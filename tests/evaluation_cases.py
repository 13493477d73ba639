"""Small and random cases of ground truth and detections for tests."""

import json

import numpy as np
import pytest

from ptlr_jax import evaluate
from ptlr_jax.evaluation import average_precision
from ptlr_jax.evaluation.instances import detections_of, truth_of
from ptlr_jax.evaluation.protocols import PROTOCOLS
from ptlr_jax.runtime.errors import InputError


def instance(label, start, end):
  return {"label": label, "segment": [start, end]}


def detection(label, start, end, score):
  return {"label": label, "segment": [start, end], "score": score}


def database(videos, duration=100.0):
  """{video: [instances]} as a database."""
  return {
    video: {"duration": duration, "annotations": items}
    for video, items in videos.items()
  }


def scored(truth, results, protocol="thumos14", ambiguous=None):
  """What `average_precision.score` makes of {video: [..]} twice."""
  chosen, problems = PROTOCOLS[protocol], []
  instances = truth_of(database(truth), chosen, "truth", problems)
  found = detections_of(results, instances, chosen, "results", problems)
  assert problems == []
  return average_precision.score(instances, found, chosen, ambiguous)


def random_case(seed, whole=False, videos=6, classes=3, separate=False):
  """(truth, results) by seed; whole seconds and tenths of scores give ties.

  `separate` instances of a class do not overlap.
  """
  rng = np.random.default_rng(seed)
  truth, results = {}, {}
  for v in range(videos):
    instances, found = [], []
    for n in range(int(rng.integers(0, 5))):
      start = rng.uniform(0, 40) if not separate else 20 * n + rng.uniform(0, 5)
      end = start + rng.uniform(1, 12)
      instances.append([int(rng.integers(classes)), start, end])
    for label, start, end in instances:
      for _ in range(int(rng.integers(0, 4))):
        jitter = rng.normal(0, 2, 2)
        low, high = sorted((start + jitter[0], end + jitter[1]))
        found.append([label, low, high, rng.uniform()])
    for _ in range(int(rng.integers(0, 6))):
      start = rng.uniform(0, 60)
      label = int(rng.integers(classes))
      found.append([label, start, start + rng.uniform(1, 9), rng.uniform()])
    if whole:
      instances = [[c, round(a), round(b)] for c, a, b in instances]
      found = [[c, round(a), round(b), round(s, 1)] for c, a, b, s in found]
    truth[f"video{v}"] = [instance(f"c{c}", a, b) for c, a, b in instances]
    results[f"video{v}"] = [detection(f"c{c}", a, b, s) for c, a, b, s in found]
  if not any(truth.values()):
    truth["video0"] = [instance("c0", 1, 9)]
  return truth, results


def sample_truth():
  """A ground truth file of three videos in two subsets."""
  return {
    "database": {
      "u": {
        "subset": "test",
        "duration": 100.0,
        "annotations": [instance("Jump", 0, 10), instance("Run", 20, 30)],
      },
      "v": {"subset": "test", "annotations": [instance("Jump", 5, 15)]},
      "w": {"subset": "validation", "annotations": [instance("Swim", 0, 9)]},
    }
  }


def sample_results():
  """Detections of two of them."""
  return {
    "version": "VERSION 1.3",
    "results": {
      "u": [detection("Jump", 0, 9, 0.9), detection("Run", 50, 60, 0.8)],
      "v": [detection("Jump", 5, 14, 0.7)],
    },
    "external_data": {},
  }


def run(folder, truth=None, results=None, *more, protocol="thumos14"):
  """The result as JSON of files with these values; texts as they are."""
  given = {
    "truth": sample_truth() if truth is None else truth,
    "found": sample_results() if results is None else results,
  }
  for name, value in given.items():
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / f"{name}.json").write_text(text)
  evaluate.run_command(
    [
      "evaluate",
      f"--ground_truth={folder / 'truth.json'}",
      f"--detections={folder / 'found.json'}",
      f"--protocol={protocol}",
      f"--output={folder / 'metrics.json'}",
      "--nodiagnosis",
      "--bootstrap=0",
      *more,
    ]
  )
  return json.loads((folder / "metrics.json").read_text())


def problems_of(folder, *args, **options):
  """The lines that a run of the same arguments is refused with."""
  with pytest.raises(InputError) as caught:
    run(folder, *args, **options)
  assert all("\n" not in line for line in caught.value.problems)
  return caught.value.problems


def one_problem(folder, *args, **options):
  """The only line of `problems_of`."""
  (line,) = problems_of(folder, *args, **options)
  return line


def random_files(seed=0, **options):
  """Random files; those of one subset, all with a duration."""
  truth, results = random_case(seed, **options)
  entries = {
    video: {"subset": "test", "duration": 60.0, "annotations": items}
    for video, items in truth.items()
  }
  return {"database": entries}, {"results": results}


def complete_json(path):
  """Its value; refuses NaN and Infinity, which are no JSON."""

  def refuse(name):
    raise AssertionError(name)

  return json.loads(path.read_text(), parse_constant=refuse)
