"""python -m ptlr_jax.evaluate: what it reads, refuses, names and writes."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_cases import (
  detection,
  instance,
  problems_of,
  run,
  sample_results,
  sample_truth,
)

from ptlr_jax import evaluate
from ptlr_jax.runtime.errors import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"
WTALC = SHARED / "thumos14_wtalc" / "Thumos14reduced-Annotations"
BAD = ("video_test_0000270", "video_test_0001496")


def test_scores_and_says_what_is_odd(tmp_path, capsys):
  results = sample_results()
  results["results"]["x"] = [detection("Jump", 0, 9, 0.1)]
  results["results"]["u"].append(detection("Swim", 0, 9, 0.1))
  results["results"]["v"].append(detection("Run", 3, 3, 0.05))
  del results["results"]["u"][1]
  found = run(tmp_path, None, results)
  printed = capsys.readouterr().out
  # Both instances of Jump at 0.9; Run has one false positive.
  assert found["mAP"]["0.90"] == 0.5
  assert found["averages"]["0.1:0.7"] == 0.5
  assert found["subset"] == "test"
  assert found["counts"]["videos"] == 2
  assert found["unknown_videos"] == {"x": 1}
  assert found["ignored"] == {"Swim": 1}
  assert found["zero_length"] == {"instances": {}, "detections": {"v": 1}}
  assert "in 1 videos that are not scored" in printed
  assert "in no figure: Swim" in printed
  assert "1 detections have no length, in v" in printed
  assert "50.0" in printed


def test_classes_and_videos_without_detections_are_named(tmp_path, capsys):
  results = sample_results()
  results["results"] = {"u": [detection("Jump", 0, 9, 0.9)]}
  found = run(tmp_path, None, results)
  printed = capsys.readouterr().out
  assert found["without_detections"] == {"classes": ["Run"], "videos": ["v"]}
  assert found["per_class"]["Run"]["0.10"] == 0.0
  assert "1 classes have no detection, AP 0: Run" in printed
  assert "1 videos have no detection: v" in printed


def test_everything_at_once_is_printed_and_written(tmp_path, capsys):
  found = run(
    tmp_path, None, None, "--diagnosis", "--bootstrap=100", "--per_class"
  )
  printed = capsys.readouterr().out
  for said in (
    "95 % interval, from 100 resamples",
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
    run(tmp_path, None, None, *wanted, f"--seed={seed}")
    written.append((tmp_path / "metrics.json").read_bytes())
  assert written[0] == written[1] != written[2]


def test_two_files_are_compared(tmp_path, capsys):
  other = tmp_path / "other.json"
  other.write_text(json.dumps({"results": {"u": []}}))
  found = run(tmp_path, None, None, f"--against={other}", "--bootstrap=100")
  compared = found["against"]["other"]["0.50"]
  assert compared["difference"] == found["mAP"]["0.50"] == 0.5
  assert found["others"]["other"]["mAP"]["0.50"] == 0.0
  assert "found - other" in capsys.readouterr().out
  same = run(
    tmp_path,
    None,
    None,
    f"--against={tmp_path / 'found.json'}",
    "--bootstrap=100",
  )
  (compared,) = same["against"].values()
  assert compared["0.50"]["interval"] == [0.0, 0.0]


def test_two_files_are_compared_without_resamples_too(tmp_path, capsys):
  other = tmp_path / "other.json"
  other.write_text(json.dumps({"results": {"u": []}}))
  found = run(tmp_path, None, None, f"--against={other}")
  assert found["against"]["other"]["0.50"] == {"difference": 0.5}
  assert "+50.0" in capsys.readouterr().out


def test_files_of_one_name_are_told_apart(tmp_path, capsys):
  for name in ("ours", "theirs"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "pred.json").write_text(json.dumps(sample_results()))
  run(
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
  evaluate.run_command(["evaluate", "--protocol=list"])
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
  (line,) = problems_of(tmp_path, None, None, *more)
  with pytest.raises(AssertionError, match=said):
    raise AssertionError(line)


def test_files_have_to_be_named():
  with pytest.raises(InputError) as caught:
    evaluate.run_command(["evaluate", "--protocol=thumos14"])
  assert [p.split(":")[0] for p in caught.value.problems] == [
    "--ground_truth",
    "--detections",
  ]


def test_the_subset_is_the_given_one_the_only_one_or_the_protocols(tmp_path):
  assert run(tmp_path)["subset"] == "test"
  assert (
    run(tmp_path, protocol="activitynet", results={"results": {}})["subset"]
    == "validation"
  )
  assert run(tmp_path, None, None, "--subset=TEST")["subset"] == "test"
  truth = sample_truth()
  for entry in truth["database"].values():
    entry["subset"] = "Held out"
  assert run(tmp_path, truth)["subset"] == "held out"
  truth["database"]["u"]["subset"] = "mine"
  (line,) = problems_of(tmp_path, truth)
  assert "'mine', 'held out'; pass --subset=" in line
  for entry in truth["database"].values():
    del entry["subset"]
  assert run(tmp_path, truth)["counts"]["videos"] == 3


def test_a_subset_without_instances_is_refused(tmp_path):
  truth = sample_truth()
  for name in "uv":
    truth["database"][name]["annotations"] = []
  (line,) = problems_of(tmp_path, truth)
  assert "expected instances in the subset 'test'" in line


def test_ambiguous_stretches_by_both_rules(tmp_path):
  listed = tmp_path / "Ambiguous_test.txt"
  listed.write_text("u  8.0 12.0\nv  40 50\r\n\nother 0 1\n")
  results = sample_results()
  # Over the stretch: a hit (0 to 9) and before it a miss.
  results["results"]["u"].append(detection("Jump", 10, 14, 0.95))
  results["results"]["v"].append(detection("Jump", 30, 40, 0.94))  # touches
  ap = {}
  for rule in ("none", "kit", "wtalc"):
    more = [f"--ambiguous={listed}", f"--ambiguous_rule={rule}"]
    more = more if rule != "none" else []
    ap[rule] = run(tmp_path, None, results, *more)["per_class"]["Jump"]["0.50"]
  # Miss, miss, hit, hit; then without the first; then without the first hit.
  assert ap["none"] == pytest.approx((2 / 4 + 2 / 4) / 2)
  assert ap["kit"] == pytest.approx((2 / 3 + 2 / 3) / 2)
  assert ap["wtalc"] == pytest.approx((1 / 2) / 2)


def test_annotations_called_ambiguous_are_stretches(tmp_path):
  truth = sample_truth()
  truth["database"]["u"]["annotations"].append(instance("Ambiguous", 8, 12))
  found = run(tmp_path, truth)
  assert found["counts"]["classes"] == 2
  assert any("called Ambiguous" in note for note in found["notes"])
  results = sample_results()
  results["results"]["u"].append(detection("Jump", 10, 14, 0.95))
  more = run(tmp_path, truth, results, "--ambiguous=ground_truth")
  assert more["per_class"] == found["per_class"]


def test_the_disputed_videos_are_in_their_protocols_alone(tmp_path):
  truth = sample_truth()
  for video in BAD:
    truth["database"][video] = copy.deepcopy(truth["database"]["v"])
  counts = {
    name: run(tmp_path, truth, protocol=name)["counts"]["videos"]
    for name in ("thumos14", "thumos14-212", "thumos14-snippet")
  }
  assert counts == {
    "thumos14": 2,
    "thumos14-212": 4,
    "thumos14-snippet": 4,
  }
  notes = run(tmp_path, protocol="thumos14-212")["notes"]
  assert any(f"expects {BAD[0]}, {BAD[1]}" in note for note in notes)


@pytest.mark.skipif(not WTALC.is_dir(), reason=f"{WTALC} is not there")
def test_wtalcs_annotations_are_a_ground_truth(tmp_path):
  found = run(
    tmp_path,
    None,
    {"results": {"video_test_0000004": []}},
    f"--ground_truth={WTALC}",
    "--ambiguous=ground_truth",
    protocol="thumos14-212",
  )
  assert found["counts"]["videos"] == 212
  assert found["counts"]["instances"] == 3358
  other = run(tmp_path, None, {"results": {}}, f"--ground_truth={WTALC}")
  assert other["counts"]["videos"] == 210
  assert other["counts"]["instances"] == 3311


def test_another_folder_is_no_ground_truth(tmp_path):
  (line,) = problems_of(tmp_path, None, None, f"--ground_truth={tmp_path}")
  assert "JSON file of the ActivityNet form or a folder" in line


def test_a_reader_that_has_enough_is_no_error():
  done = subprocess.run(
    f"{sys.executable} -m ptlr_jax.evaluate --protocol=list | true",
    shell=True,
    capture_output=True,
    text=True,
    cwd=Path(__file__).parents[1],
    check=False,
  )
  assert done.stderr == ""


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
