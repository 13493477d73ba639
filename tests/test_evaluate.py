"""python -m ptlr_jax.evaluate: what it reads, refuses, names and writes."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import detection, instance

from ptlr_jax import evaluate
from ptlr_jax.errors import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"
WTALC = SHARED / "thumos14_wtalc" / "Thumos14reduced-Annotations"
BAD = ("video_test_0000270", "video_test_0001496")


def _truth():
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


def _results():
  return {
    "version": "VERSION 1.3",
    "results": {
      "u": [detection("Jump", 0, 9, 0.9), detection("Run", 50, 60, 0.8)],
      "v": [detection("Jump", 5, 14, 0.7)],
    },
    "external_data": {},
  }


def _run(folder, truth=None, results=None, *more, protocol="thumos14"):
  """The result as JSON; files are written as given, texts as they are."""
  for name, value in (("truth", truth), ("found", results)):
    value = (
      value
      if value is not None
      else {"truth": _truth, "found": _results}[name]()
    )
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / f"{name}.json").write_text(text)
  evaluate.run(
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


def _lines(folder, *args, **options):
  with pytest.raises(InputError) as caught:
    _run(folder, *args, **options)
  assert all("\n" not in line for line in caught.value.problems)
  return caught.value.problems


def test_scores_and_says_what_is_odd(tmp_path, capsys):
  results = _results()
  results["results"]["x"] = [detection("Jump", 0, 9, 0.1)]
  results["results"]["u"].append(detection("Swim", 0, 9, 0.1))
  results["results"]["v"].append(detection("Run", 3, 3, 0.05))
  del results["results"]["u"][1]
  found = _run(tmp_path, None, results)
  printed = capsys.readouterr().out
  # Both instances of Jump at 0.9; Run has one false positive.
  assert found["mAP"]["0.90"] == 0.5
  assert found["averages"]["0.1:0.7"] == 0.5
  assert found["subset"] == "test"
  assert found["counts"]["videos"] == 2
  assert found["unknown_videos"] == {"x": 1}
  assert found["ignored"] == {"Swim": 1}
  assert found["zero_length"] == {"instances": 0, "detections": 1}
  assert "in 1 videos that are not scored" in printed
  assert "in no figure: Swim" in printed
  assert "1 detections have no length" in printed
  assert "50.0" in printed


def test_classes_and_videos_without_detections_are_named(tmp_path, capsys):
  results = _results()
  results["results"] = {"u": [detection("Jump", 0, 9, 0.9)]}
  found = _run(tmp_path, None, results)
  printed = capsys.readouterr().out
  assert found["without_detections"] == {"classes": ["Run"], "videos": ["v"]}
  assert found["per_class"]["Run"]["0.10"] == 0.0
  assert "1 classes have no detection, AP 0: Run" in printed
  assert "1 videos have no detection: v" in printed


def test_everything_at_once_is_printed_and_written(tmp_path, capsys):
  found = _run(
    tmp_path, None, None, "--diagnosis", "--bootstrap=100", "--per_class"
  )
  printed = capsys.readouterr().out
  for said in (
    "95 % of 100 resamples",
    "What the detections are at tIoU 0.5",
    "double detection",
    "Which instances are found",
    "coverage not known",
    "Recall (%) of proposals of the right class",
    "perfect detections on a grid of 0.64 s",
    "AP (%)",
  ):
    assert said in printed
  assert found["false_positives"]["counts"]["true positive"] == 2
  assert found["oracles"]["grid"] == 0.64
  assert found["settings"]["bootstrap"] == 100
  low, high = found["intervals"]["0.1:0.7"]
  assert low <= found["averages"]["0.1:0.7"] <= high


def test_the_same_seed_gives_the_same_bytes(tmp_path):
  wanted = ("--bootstrap=100", "--diagnosis")
  written = []
  for seed in (0, 0, 1):
    _run(tmp_path, None, None, *wanted, f"--seed={seed}")
    written.append((tmp_path / "metrics.json").read_bytes())
  assert written[0] == written[1] != written[2]


def test_two_files_are_compared(tmp_path, capsys):
  other = tmp_path / "other.json"
  other.write_text(json.dumps({"results": {"u": []}}))
  found = _run(tmp_path, None, None, f"--against={other}", "--bootstrap=100")
  compared = found["against"]["other"]["0.50"]
  assert compared["difference"] == found["mAP"]["0.50"] == 0.5
  assert found["others"]["other"]["mAP"]["0.50"] == 0.0
  assert "found - other" in capsys.readouterr().out
  same = _run(
    tmp_path,
    None,
    None,
    f"--against={tmp_path / 'found.json'}",
    "--bootstrap=100",
  )
  (compared,) = same["against"].values()
  assert compared["0.50"]["interval"] == [0.0, 0.0]


def test_files_of_one_name_are_told_apart(tmp_path, capsys):
  for name in ("ours", "theirs"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "pred.json").write_text(json.dumps(_results()))
  _run(
    tmp_path,
    None,
    None,
    f"--detections={tmp_path}/ours/pred.json",
    f"--against={tmp_path}/theirs/pred.json",
  )
  printed = capsys.readouterr().out
  assert "\nours/pred  " in printed
  assert "\ntheirs/pred  " in printed


def test_the_list_explains_every_protocol_without_files(capsys):
  evaluate.run(["evaluate", "--protocol=list"])
  printed = capsys.readouterr().out
  for said in ("thumos14-212", "thumos14-snippet", "activitynet", "W-TALC"):
    assert said in printed
  assert printed.count("used by") == 4
  assert "kit" in printed


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--protocol=thumos", "expected one of thumos14, .* or list"),
    ("--tiou=0.55", "--tiou: expected a threshold of thumos14"),
    ("--bootstrap=5", "--bootstrap: expected 100"),
    ("--bootstrap=-1", "bootstrap"),
    ("--grid=0", "--grid: expected seconds above 0"),
    ("--subset=train", r"expected a subset among 'test', 'validation'"),
    ("--against=nowhere.json", "nowhere.json: .*no such file.*--against="),
    ("--ambiguous=nowhere.txt", "nowhere.txt: .*no such file.*--ambiguous="),
    ("--ambiguous=ground_truth", "expected ambiguous stretches"),
    ("--ambiguous_rule=mine", "expected one of kit, wtalc"),
    ("--detection=x", "usage"),
    ("x.json", "expected flags only"),
    ("--lenient=perhaps", "usage"),
    ("--output=/proc/nothing/metrics.json", "/proc/nothing"),
  ],
)
def test_a_wrong_flag_is_one_line(tmp_path, flag, said):
  more = ["--diagnosis", flag] if "tiou" in flag else [flag]
  (line,) = _lines(tmp_path, None, None, *more)
  with pytest.raises(AssertionError, match=said):
    raise AssertionError(line)


def test_files_have_to_be_named():
  with pytest.raises(InputError) as caught:
    evaluate.run(["evaluate", "--protocol=thumos14"])
  assert [p.split(":")[0] for p in caught.value.problems] == [
    "--ground_truth",
    "--detections",
  ]


@pytest.mark.parametrize(
  "text", ["", "{", "[]", "3", '{"results": []}', '{"detections": {}}', "\x00"]
)
@pytest.mark.parametrize("which", ["truth", "found"])
def test_a_file_that_is_not_of_the_form_is_one_line(tmp_path, which, text):
  given = {"truth": (text, None), "found": (None, text)}[which]
  (line,) = _lines(tmp_path, *given)
  assert f"{which}.json: expected" in line
  assert "came" in line
  # Nothing to leave out: lenient does not help.
  (line,) = _lines(tmp_path, *given, "--lenient")


ENTRIES = {
  "NaN": (("score",), float("nan"), "a score that is a finite number"),
  "infinite": (("score",), float("inf"), "a score"),
  "score as text": (("score",), "0.9", "a score"),
  "score as truth": (("score",), True, "a score"),
  "no score": (("score",), None, "a score"),
  "end first": (("segment",), [9, 3], "a segment that ends after its start"),
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
  results = _results()
  results["results"]["u"].append(detection("Jump", 90, 99, 0.95))
  results["results"]["u"][2][key] = value
  (line,) = _lines(tmp_path, None, results)
  with pytest.raises(
    AssertionError, match=f"found.json: u: detection 2: .*{said}"
  ):
    raise AssertionError(line)
  assert "came" in line
  assert "--lenient" in line
  ours = _run(tmp_path, None, results, "--lenient")
  assert ours["skipped"] == {str(tmp_path / "found.json"): 1}
  assert "1 detections left out" in capsys.readouterr().out
  without = _run(tmp_path)
  assert ours["per_class"] == without["per_class"]


@pytest.mark.parametrize("key", ["label", "segment", "score"])
def test_a_missing_key_is_a_line(tmp_path, key):
  results = _results()
  del results["results"]["v"][0][key]
  (line,) = _lines(tmp_path, None, results)
  assert f"v: detection 0: expected the key {key}" in line


def test_every_problem_is_told_in_one_pass(tmp_path):
  results = _results()
  results["results"]["u"] = [{"label": "Jump"}, 7, "x"]
  results["results"]["v"] = {"label": "Jump"}
  lines = _lines(tmp_path, None, results)
  assert [
    line.split(": expected")[0].split("found.json: ")[1] for line in lines
  ] == [
    "u: detection 0",
    "u: detection 1",
    "u: detection 2",
    "v",
  ]


def test_ground_truth_may_have_numbers_as_text_and_no_more(tmp_path):
  truth = _truth()
  annotations = truth["database"]["u"]["annotations"]
  annotations[0]["segment"] = ["0", "10.0"]
  assert _run(tmp_path, truth)["mAP"] == _run(tmp_path)["mAP"]
  annotations[0]["segment"] = ["0", "ten"]
  annotations[1]["segment"] = [30, 20]
  lines = _lines(tmp_path, truth)
  assert [line.count("u: annotation") for line in lines] == [1, 1]
  # Run has no instance any more, Jump one.
  found = _run(tmp_path, truth, None, "--lenient")
  assert found["counts"]["instances"] == 1
  assert found["ignored"] == {"Run": 1}


def test_ids_with_v_are_the_same_videos(tmp_path):
  truth, results = _truth(), _results()
  for given, key in ((truth, "database"), (results, "results")):
    given[key] = {f"{n}23456789-_": e for n, e in given[key].items()}
  plain = _run(tmp_path, truth, results, protocol="activitynet")
  results["results"] = {f"v_{n}": e for n, e in results["results"].items()}
  found = _run(tmp_path, truth, results, protocol="activitynet")
  assert found["mAP"] == plain["mAP"]
  assert any("v_prefix" in note for note in found["notes"])


def test_the_subset_is_the_given_one_the_only_one_or_the_protocols(tmp_path):
  assert _run(tmp_path)["subset"] == "test"
  assert (
    _run(tmp_path, protocol="activitynet", results={"results": {}})["subset"]
    == "validation"
  )
  assert _run(tmp_path, None, None, "--subset=TEST")["subset"] == "test"
  truth = _truth()
  for entry in truth["database"].values():
    entry["subset"] = "Held out"
  assert _run(tmp_path, truth)["subset"] == "held out"
  truth["database"]["u"]["subset"] = "mine"
  (line,) = _lines(tmp_path, truth)
  assert "'mine', 'held out'; pass --subset=" in line
  for entry in truth["database"].values():
    del entry["subset"]
  assert _run(tmp_path, truth)["counts"]["videos"] == 3


def test_a_subset_without_instances_is_refused(tmp_path):
  truth = _truth()
  for name in "uv":
    truth["database"][name]["annotations"] = []
  (line,) = _lines(tmp_path, truth)
  assert "expected instances in the subset 'test'" in line


def test_ambiguous_stretches_by_both_rules(tmp_path):
  listed = tmp_path / "Ambiguous_test.txt"
  listed.write_text("u  8.0 12.0\nv  40 50\r\n\nother 0 1\n")
  results = _results()
  # Over the stretch: a hit (0 to 9) and before it a miss.
  results["results"]["u"].append(detection("Jump", 10, 14, 0.95))
  results["results"]["v"].append(detection("Jump", 30, 40, 0.94))  # touches
  ap = {}
  for rule in ("none", "kit", "wtalc"):
    more = [f"--ambiguous={listed}", f"--ambiguous_rule={rule}"]
    more = more if rule != "none" else []
    ap[rule] = _run(tmp_path, None, results, *more)["per_class"]["Jump"]["0.50"]
  # Miss, miss, hit, hit; then without the first; then without the first hit.
  assert ap["none"] == pytest.approx((2 / 4 + 2 / 4) / 2)
  assert ap["kit"] == pytest.approx((2 / 3 + 2 / 3) / 2)
  assert ap["wtalc"] == pytest.approx((1 / 2) / 2)


def test_annotations_called_ambiguous_are_stretches(tmp_path):
  truth = _truth()
  truth["database"]["u"]["annotations"].append(instance("Ambiguous", 8, 12))
  found = _run(tmp_path, truth)
  assert found["counts"]["classes"] == 2
  assert any("called Ambiguous" in note for note in found["notes"])
  results = _results()
  results["results"]["u"].append(detection("Jump", 10, 14, 0.95))
  more = _run(tmp_path, truth, results, "--ambiguous=ground_truth")
  assert more["per_class"] == found["per_class"]


def test_the_disputed_videos_are_in_their_protocols_alone(tmp_path):
  truth = _truth()
  for video in BAD:
    truth["database"][video] = copy.deepcopy(truth["database"]["v"])
  counts = {
    name: _run(tmp_path, truth, protocol=name)["counts"]["videos"]
    for name in ("thumos14", "thumos14-212", "thumos14-snippet")
  }
  assert counts == {
    "thumos14": 2,
    "thumos14-212": 4,
    "thumos14-snippet": 4,
  }
  notes = _run(tmp_path, protocol="thumos14-212")["notes"]
  assert any(f"expects {BAD[0]}, {BAD[1]}" in note for note in notes)


@pytest.mark.skipif(not WTALC.is_dir(), reason=f"{WTALC} is not there")
def test_wtalcs_annotations_are_a_ground_truth(tmp_path):
  found = _run(
    tmp_path,
    None,
    {"results": {"video_test_0000004": []}},
    f"--ground_truth={WTALC}",
    "--ambiguous=ground_truth",
    protocol="thumos14-212",
  )
  assert found["counts"]["videos"] == 212
  assert found["counts"]["instances"] == 3358
  other = _run(tmp_path, None, {"results": {}}, f"--ground_truth={WTALC}")
  assert other["counts"]["videos"] == 210
  assert other["counts"]["instances"] == 3311


def test_another_folder_is_no_ground_truth(tmp_path):
  (line,) = _lines(tmp_path, None, None, f"--ground_truth={tmp_path}")
  assert "JSON file of the ActivityNet form or a folder" in line


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
  sound = _truth() if which == "truth" else _results()
  places = list(_places(sound))
  rng = np.random.default_rng(0)
  refused = 0
  for place in places:
    for n in rng.permutation(len(ODD))[:4]:
      broken = _replaced(sound, place, ODD[n])
      given = (broken, None) if which == "truth" else (None, broken)
      problems = []
      try:
        _run(tmp_path, *given, *["--lenient"] * lenient)
      except InputError as error:
        problems = error.problems
      refused += bool(problems)
      for line in problems:
        assert "\n" not in line
        assert "expected" in line
        # Lenient: what is left is about a whole file or its subsets.
        assert not (lenient and ": detection " in line)
  assert refused > 5


def test_the_command_ends_with_2_and_without_a_traceback(tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "ptlr_jax.evaluate",
      "--ground_truth=x.json",
      "--detections=y.json",
      "--protocol=thumos14",
    ],
    capture_output=True,
    text=True,
    cwd=Path(__file__).parents[1],
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.startswith("ptlr_jax: x.json: expected a text file")
  assert "Traceback" not in done.stderr
