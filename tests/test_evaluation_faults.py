"""Random faults, and those that once were wrong, are lines or results."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from evaluation_cases import (
  complete_json,
  detection,
  instance,
  one_problem,
  problems_of,
  run,
  sample_results,
  sample_truth,
)

from ptlr_jax.runtime.errors import InputError

ODD = (None, True, False, 0, -1, 7, 2**64, 10**300, 0.5, -0.0, 1e-9, 1e9, 1e300)
ODD += (float("nan"), float("inf"), "", "x", "0.5", "nan", "\n", "a" * 300)
ODD += ([], {}, [1, 2], [2, 1], [3, 3], [[1], 2], [None, None], ["1", "2"])
ODD += ("Jump", "Ambiguous", "test", "validation", [{}], [7])
ODD += (instance("Jump", 0, 9), [detection("Jump", 0, 9, 0.5)] * 2)
FLAG_SETS = (
  ("--diagnosis",),
  ("--bootstrap=100",),
  ("--ambiguous=ground_truth",),
  ("--ambiguous=ground_truth", "--ambiguous_rule=wtalc"),
  ("--per_class",),
)


def _leaves(value, path=()):
  inner = value.items() if isinstance(value, dict) else ()
  inner = enumerate(value) if isinstance(value, list) else inner
  below = [leaf for key, x in inner for leaf in _leaves(x, (*path, key))]
  return [path, *below] if path else below


@pytest.mark.parametrize("lenient", [False, True])
def test_random_faults_are_a_result_or_lines(tmp_path, lenient):
  rng, refused = np.random.default_rng(lenient), 0
  for _ in range(150):
    given = (sample_truth(), sample_results())
    given[0]["database"]["u"]["annotations"].append(
      instance("Ambiguous", 40, 50)
    )
    for _ in range(int(rng.integers(1, 3))):
      value: Any = given[int(rng.integers(2))]
      leaves = _leaves(value)
      *path, last = leaves[int(rng.integers(len(leaves)))]
      for key in path:
        value = value[key]
      value[last] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    flags = [f for flags in FLAG_SETS if rng.random() < 0.15 for f in flags]
    flags += ["--lenient"] * lenient
    protocol = ("thumos14", "thumos14-snippet")[int(rng.integers(2))]
    try:
      run(tmp_path, *given, *flags, protocol=protocol)
      complete_json(tmp_path / "metrics.json")
    except InputError as error:
      refused += 1
      for line in error.problems:
        assert line.isprintable()
        assert "expected" in line
        assert "came" in line
        assert len(line) < 700
        assert not (lenient and (": detection " in line or ": u: " in line))
  assert 5 < refused < 145


# Once wrong.


def _huge_duration(truth):
  truth["database"]["u"]["duration"] = 10**400


def _huge_stretch(truth):
  items = truth["database"]["u"]["annotations"]
  items.append(instance("Ambiguous", 0, 10**400))


@pytest.mark.parametrize("change", [_huge_duration, _huge_stretch])
def test_huge_numbers_are_a_result_or_a_line(tmp_path, change):
  truth = sample_truth()
  change(truth)
  lines = ()
  try:
    run(tmp_path, truth)
  except InputError as error:
    lines = error.problems
  assert len(lines) < 2


FAILING = [
  "--tiou=nan",
  "--grid=inf",
  "--detections=/",
  "--against=/",
  "--detections=~nobody-of-this-name/x",
  "--ground_truth=~nobody-of-this-name/x",
  "--output=~nobody-of-this-name/x",
  f"--ground_truth={'x' * 300}",
]


@pytest.mark.parametrize("flag", FAILING)
def test_these_flags_are_a_line_too(tmp_path, flag):
  one_problem(tmp_path, None, None, flag)


def test_an_output_never_replaces_what_is_read(tmp_path):
  given = json.dumps(sample_results())
  with pytest.raises(InputError):
    run(tmp_path, None, given, f"--output={tmp_path / 'found.json'}")
  assert (tmp_path / "found.json").read_text() == given


@pytest.mark.parametrize("entry", [None, 3, [], {"subset": 7}])
def test_an_entry_of_ground_truth_that_is_none_is_a_line(tmp_path, entry):
  truth = sample_truth()
  truth["database"]["v"] = entry
  assert "truth.json: v: expected" in one_problem(tmp_path, truth)


def test_an_entry_with_two_faults_is_one_entry(tmp_path):
  results = sample_results()
  nan = float("nan")
  results["results"]["u"] += [
    detection("Nope", 0, 1, nan),
    detection("Nope", 0, 1, 0.5),
  ]
  found = run(tmp_path, None, results, "--lenient")
  assert found["skipped"] == {str(tmp_path / "found.json"): 2}
  assert found["ignored"] == {}


def test_problems_of_all_files_are_told_in_one_pass(tmp_path):
  truth, results = sample_truth(), sample_results()
  truth["database"]["u"]["annotations"][0]["segment"] = [3, 1]
  results["results"]["u"][0]["score"] = None
  assert len(problems_of(tmp_path, truth, results)) == 2
