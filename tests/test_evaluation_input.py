"""Files with faults: a line for each, or left out and counted."""

import copy

import numpy as np
import pytest
from evaluation_cases import (
  detection,
  problems_of,
  run,
  sample_results,
  sample_truth,
)

from ptlr_jax.runtime.errors import InputError


@pytest.mark.parametrize(
  "text", ["", "{", "[]", "3", '{"results": []}', '{"detections": {}}', "\x00"]
)
@pytest.mark.parametrize("which", ["truth", "found"])
def test_a_file_that_is_not_of_the_form_is_one_line(tmp_path, which, text):
  given = {"truth": (text, None), "found": (None, text)}[which]
  (line,) = problems_of(tmp_path, *given)
  assert f"{which}.json: expected" in line
  assert "came" in line
  # Nothing to leave out: lenient does not help.
  (line,) = problems_of(tmp_path, *given, "--lenient")


ENTRIES = {
  "NaN": (("score",), float("nan"), "a score that is a finite number"),
  "infinite": (("score",), float("inf"), "a score"),
  "score as text": (("score",), "0.9", "a score"),
  "score as truth": (("score",), True, "a score"),
  "no score": (("score",), None, "a score"),
  "end first": (
    ("segment",),
    [9, 3],
    "a segment that does not end before",
  ),
  "text in a segment": (("segment",), ["1", 3], "two numbers in seconds"),
  "one number": (("segment",), [1], r"a segment \[start, end\]"),
  "three numbers": (("segment",), [1, 2, 3], r"a segment \[start, end\]"),
  "a nested one": (("segment",), [[1], 2], "two numbers"),
  "a huge one": (("segment",), [0, 10**400], "two numbers"),
  "label of numbers": (("label",), 7, "a class name"),
  "empty label": (("label",), "", "a class name"),
  "label as list": (("label",), ["Jump"], "a class name"),
  "unknown label": (("label",), "Jmp", "a class of .*truth.json"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_bad_entry_is_a_line_with_video_and_number(tmp_path, capsys, name):
  (key,), value, said = ENTRIES[name]
  results = sample_results()
  results["results"]["u"].append(detection("Jump", 90, 99, 0.95))
  results["results"]["u"][2][key] = value
  (line,) = problems_of(tmp_path, None, results)
  with pytest.raises(
    AssertionError, match=f"found.json: u: detection 2: .*{said}"
  ):
    raise AssertionError(line)
  assert "came" in line
  assert "--lenient" in line
  ours = run(tmp_path, None, results, "--lenient")
  assert ours["skipped"] == {str(tmp_path / "found.json"): 1}
  assert "1 detections left out" in capsys.readouterr().out
  without = run(tmp_path)
  assert ours["per_class"] == without["per_class"]


@pytest.mark.parametrize("key", ["label", "segment", "score"])
def test_a_missing_key_is_a_line(tmp_path, key):
  results = sample_results()
  del results["results"]["v"][0][key]
  (line,) = problems_of(tmp_path, None, results)
  assert f"v: detection 0: expected the key {key}" in line


def test_every_problem_is_told_in_one_pass(tmp_path):
  results = sample_results()
  results["results"]["u"] = [{"label": "Jump"}, 7, "x"]
  results["results"]["v"] = {"label": "Jump"}
  lines = problems_of(tmp_path, None, results)
  assert [
    line.split(": expected")[0].split("found.json: ")[1] for line in lines
  ] == [
    "u: detection 0",
    "u: detection 1",
    "u: detection 2",
    "v",
  ]


def test_ground_truth_may_have_numbers_as_text_and_no_more(tmp_path):
  truth = sample_truth()
  annotations = truth["database"]["u"]["annotations"]
  annotations[0]["segment"] = ["0", "10.0"]
  assert run(tmp_path, truth)["mAP"] == run(tmp_path)["mAP"]
  annotations[0]["segment"] = ["0", "ten"]
  annotations[1]["segment"] = [30, 20]
  lines = problems_of(tmp_path, truth)
  assert [line.count("u: annotation") for line in lines] == [1, 1]
  # Run has no instance any more, Jump one.
  found = run(tmp_path, truth, None, "--lenient")
  assert found["counts"]["instances"] == 1
  assert found["ignored"] == {"Run": 1}


def test_ids_with_v_are_the_same_videos(tmp_path):
  truth, results = sample_truth(), sample_results()
  for given, key in ((truth, "database"), (results, "results")):
    given[key] = {f"{n}23456789-_": e for n, e in given[key].items()}
  plain = run(tmp_path, truth, results, protocol="activitynet")
  results["results"] = {f"v_{n}": e for n, e in results["results"].items()}
  found = run(tmp_path, truth, results, protocol="activitynet")
  assert found["mAP"] == plain["mAP"]
  assert any("v_prefix" in note for note in found["notes"])


ODD = (None, True, 7, -1.5, float("nan"), float("inf"), "", "x", [], {}, [1, 2])
ODD += (10**400, "0.5", [None, None], {"label": "Jump"}, "\n", "a" * 300)


def _places(value, path=()):
  yield path
  items = ()
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, list):
    items = enumerate(value)
  for key, inner in items:
    yield from _places(inner, (*path, key))


def _replaced(value, path, odd):
  if not path:
    return odd
  changed = copy.copy(value)
  changed[path[0]] = _replaced(value[path[0]], path[1:], odd)
  return changed


@pytest.mark.parametrize("which", ["truth", "found"])
@pytest.mark.parametrize("lenient", [False, True])
def test_any_odd_value_anywhere_is_a_result_or_lines(tmp_path, which, lenient):
  sound = sample_truth() if which == "truth" else sample_results()
  places = list(_places(sound))
  rng = np.random.default_rng(0)
  refused = 0
  for place in places:
    for n in rng.permutation(len(ODD))[:4]:
      broken = _replaced(sound, place, ODD[n])
      given = (broken, None) if which == "truth" else (None, broken)
      problems = []
      try:
        run(tmp_path, *given, *["--lenient"] * lenient)
      except InputError as error:
        problems = error.problems
      refused += bool(problems)
      for line in problems:
        assert "\n" not in line
        assert "expected" in line
        # Lenient: what is left is about a whole file or its subsets.
        assert not (lenient and ": detection " in line)
  assert refused > 5
