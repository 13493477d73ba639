"""python -m ptlr_jax.evaluate on whole files: faults, notes, figures, JSON."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_cases import (
  detection,
  instance,
  one_problem,
  problems_of,
  random_files,
  run,
  sample_results,
  sample_truth,
)
from layout_fixture import CLASSES, tiny_splits, write_wtalc

BAD = ("video_test_0000270", "video_test_0001496")


# Files that are no files of the form.

FORMS = {"truth": ("database", "subset"), "found": ("results", "score")}
FLAGS = {"truth": "ground_truth", "found": "detections"}
FILES = {
  "cut off": ('{"database": {"u": {"annota', "came no JSON"),
  "empty": ("", "came no JSON"),
  "a list": ("[]", "write it in this form"),
  "a number": ("3", "write it in this form"),
  "null": ("null", "write it in this form"),
  "another object": ('{"version": "1.3"}', "came ['version']"),
  "of null": ('{"database": null, "results": null}', "came ['database'"),
  "of a list": ('{"database": [], "results": [1]}', "came ['database'"),
  "deep": ("[" * 9999 + "]" * 9999, "maximum recursion depth"),
  "a key twice": ('{"results": {}, "results": {}}', "'results' twice"),
  "an entry twice": ('{"x": {"u": [], "u": [1]}}', "'u' twice; leave one"),
}


@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_form_is_a_line(tmp_path, which, name):
  text, said = FILES[name]
  given = {which: text, **dict.fromkeys(set(FORMS) - {which})}
  for more in ((), ("--lenient",)):
    line = one_problem(tmp_path, given["truth"], given["found"], *more)
    path, key = tmp_path / f"{which}.json", FORMS[which][0]
    assert line.startswith(f'{path}: expected {{"{key}": {{VIDEO')
    assert said in line


@pytest.mark.parametrize("flag", [*FLAGS.values(), "against", "ambiguous"])
def test_what_cannot_be_read_names_the_file_and_its_flag(tmp_path, flag):
  (tmp_path / "binary").write_bytes(b"\x80\x04\xff\x00")
  folder = "another folder" if flag == "ground_truth" else "Is a directory"
  for name, said in {
    "binary": "'utf-8' codec can't decode",
    "nowhere": "no such file",
    "": folder,
  }.items():
    path = tmp_path / name
    line = one_problem(tmp_path, None, None, f"--{flag}={path}")
    assert line.startswith(f"{path}: expected a ")
    assert f"--{flag}=" in line
    assert said in line


@pytest.mark.parametrize("which", FORMS)
def test_a_video_with_and_without_v_is_a_line(tmp_path, which):
  truth, results = sample_truth(), sample_results()
  inner = (truth["database"], results["results"])[which == "found"]
  inner["abcdefgh-_1"] = inner["u"]
  inner["v_abcdefgh-_1"] = inner["u"]
  line = one_problem(tmp_path, truth, results)
  assert f"{which}.json: expected every video once, came abcdefgh-_1" in line
  assert "leave one of them" in line


@pytest.mark.parametrize("video", ["", "a/b", "a\nb", "..", "a" * 300])
def test_an_id_that_no_video_has_is_a_line(tmp_path, video):
  results = sample_results()
  results["results"][video] = []
  line = one_problem(tmp_path, None, results)
  assert "found.json: expected an id that can be a file's name" in line


def test_annotations_that_are_missing_are_a_line(tmp_path):
  truth = sample_truth()
  del truth["database"]["v"]["annotations"]
  assert "v: expected a list of annotations, came None" in one_problem(
    tmp_path, truth
  )


def test_a_line_of_ambiguous_stretches_that_is_none_has_its_number(tmp_path):
  path = tmp_path / "stretches.txt"
  bad = ("u 1", "u 1 2 3", "u x 2", "u 2 1", "u nan 1", "u 0 inf")
  path.write_text("u 1 2\n" + "\n".join(bad))
  lines = problems_of(tmp_path, None, None, f"--ambiguous={path}")
  for n, (line, text) in enumerate(zip(lines, bad, strict=True)):
    assert line.startswith(f"{path}: line {n + 2}: expected VIDEO START END")
    assert f"came {text!r}" in line


# Many faults at once.


def _with_faults():
  """Random files with faults, the same without, and how many there are."""
  truth, results = random_files(3)
  broken_truth, broken = copy.deepcopy(truth), copy.deepcopy(results)
  for entry in broken_truth["database"].values():
    entry["annotations"].insert(0, instance("c0", 9, 3))
    entry["annotations"].append({"label": "c0"})
  for items in broken["results"].values():
    items.insert(0, detection("c0", 1, 9, float("nan")))
    items.insert(1, detection("Unknown", 1, 9, 0.99))
    items += [7, None, detection(["c1"], 1, 9, 0.98)]
  broken["results"]["another"] = "no list"
  videos = len(results["results"])
  return broken_truth, broken, truth, results, 2 * videos, 5 * videos + 1


@pytest.mark.parametrize("more", [(), ("--diagnosis", "--bootstrap=100")])
def test_lenient_gives_the_figures_of_the_file_without(tmp_path, capsys, more):
  broken_truth, broken, truth, results, bad_truth, bad = _with_faults()
  expected = run(tmp_path, truth, results, *more)
  capsys.readouterr()
  found = run(tmp_path, broken_truth, broken, "--lenient", *more)
  printed = capsys.readouterr().out
  assert found["skipped"] == {
    str(tmp_path / "truth.json"): bad_truth,
    str(tmp_path / "found.json"): bad,
  }
  assert f"truth.json: {bad_truth} annotations left out" in printed
  assert f"found.json: {bad} detections left out" in printed
  apart = {"skipped", "notes", "settings", "ignored", "sha256"}
  assert {k: x for k, x in found.items() if k not in apart} == {
    k: x for k, x in expected.items() if k not in apart
  }
  assert expected["skipped"] == {}


def test_lenient_counts_by_file_of_a_comparison_too(tmp_path):
  results = sample_results()
  results["results"]["u"] += [3, 4]
  other = tmp_path / "other.json"
  other.write_text(json.dumps(results))
  found = run(tmp_path, None, None, f"--against={other}", "--lenient")
  assert found["skipped"] == {str(other): 2}
  assert found["others"]["other"]["mAP"] == found["mAP"]


def test_many_problems_are_twenty_lines_and_a_count_and_status_2(tmp_path):
  (tmp_path / "truth.json").write_text(json.dumps(sample_truth()))
  items = [detection("Jump", 1, 0, 0.5)] * 33
  (tmp_path / "found.json").write_text(json.dumps({"results": {"u": items}}))
  done = subprocess.run(
    [
      *(sys.executable, "-m", "ptlr_jax.evaluate", "--protocol=thumos14"),
      f"--ground_truth={tmp_path / 'truth.json'}",
      f"--detections={tmp_path / 'found.json'}",
    ],
    cwd=Path(__file__).parents[1],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stdout == ""
  lines = done.stderr.splitlines()
  assert len(lines) == 21
  start = f"ptlr_jax: {tmp_path / 'found.json'}: u: detection "
  for n, line in enumerate(lines[:20]):
    assert line.startswith(f"{start}{n}: expected a segment that does not end")
  assert lines[20] == "ptlr_jax: and 13 more"


# Figures by hand.


def test_unknown_videos_and_classes_score_as_in_the_official_code(tmp_path):
  truth, results = sample_truth(), sample_results()
  plain = run(tmp_path, truth, results)
  # Swim is in another subset alone: no figure moves.
  results["results"]["u"].append(detection("Swim", 0, 9, 5.0))
  found = run(tmp_path, truth, results)
  assert found["per_class"] == plain["per_class"]
  # A false positive before both instances of Jump: 1/2, 2/3; the best from
  # there on is 2/3.
  results["results"]["unknown"] = [detection("Jump", 0, 9, 5.0)]
  found = run(tmp_path, truth, results)
  assert found["per_class"]["Jump"]["0.50"] == pytest.approx(2 / 3)
  assert found["unknown_videos"] == {"unknown": 1}
  # Those of the validation subset are no part of the test subset.
  results["results"]["w"] = [detection("Jump", 0, 9, 4.0)] * 2
  found = run(tmp_path, truth, results)
  assert found["unknown_videos"] == {"unknown": 1, "w": 2}
  assert found["per_class"]["Jump"]["0.50"] == pytest.approx(2 / 5)


def test_no_length_and_twice_are_named(tmp_path, capsys):
  truth = sample_truth()
  truth["database"]["v"]["annotations"] += [
    instance("Run", 7, 7),
    instance("Jump", 5, 15),
  ]
  found = run(tmp_path, truth)
  printed = capsys.readouterr().out
  assert found["zero_length"]["instances"] == {"v": 1}
  assert found["written_twice"] == 1
  assert "1 instances have no length, in v" in printed
  assert "1 instances are written twice, and count twice" in printed


def test_snippets_round_the_ground_truth_and_not_the_detections(tmp_path):
  # In segments: 0.47 to 1.56, rounded 0 to 2; the detection is 0 to 2.
  items = [instance("Jump", 0.3, 1.0)]
  truth = {"database": {"u": {"annotations": items}}}
  results = {"results": {"u": [detection("Jump", 0, 1.28, 1)]}}
  snippet = run(tmp_path, truth, results, protocol="thumos14-snippet")["mAP"]
  assert set(snippet.values()) == {1.0}
  # In seconds 0.7 / 1.28 = 0.547.
  seconds = run(tmp_path, truth, results, protocol="thumos14-212")["mAP"]
  assert [key for key, x in seconds.items() if x] == [
    *("0.10", "0.20", "0.30", "0.40", "0.50")
  ]
  # The other way round the detection stays at 0.547 of 0 to 2.
  results["results"]["u"] = [detection("Jump", 0.3, 1.0, 1)]
  again = run(tmp_path, truth, results, protocol="thumos14-snippet")["mAP"]
  assert again == seconds


def test_a_video_that_the_protocol_lacks_is_noted(tmp_path):
  truth = sample_truth()
  truth["database"][BAD[1]] = truth["database"]["u"]
  for name in ("thumos14-212", "thumos14-snippet"):
    found = run(tmp_path, truth, protocol=name)
    (note,) = found["notes"]
    assert f"{name} expects {BAD[0]}, which are not there" in note
  found = run(
    tmp_path, truth, {"results": {BAD[1]: [detection("Run", 20, 30, 1)]}}
  )
  assert found["unknown_videos"] == {BAD[1]: 1}


def test_a_folder_of_wtalc_is_the_same_as_its_json(tmp_path):
  train, test = tiny_splits()
  root = write_wtalc(tmp_path / "root", train, test, CLASSES)
  folder = root / "Thumos14reduced-Annotations"
  first = test[0].instances[0]
  span = f"{first.end} {first.end + 1}"
  (folder / "Ambiguous_test.txt").write_text(f"{test[0].id} {span}\n")
  results = {
    video.id: [
      detection(CLASSES[i.label], i.start, i.end + 0.1 * n, 0.5 + 0.1 * n)
      for n, i in enumerate(video.instances)
    ]
    for video in test
  }
  results[test[0].id].append(
    detection(CLASSES[first.label], first.end, first.end + 2, 0.99)
  )
  entries = {
    video.id: {
      "subset": split,
      "annotations": [
        instance(CLASSES[i.label], i.start, i.end) for i in video.instances
      ],
    }
    for split, videos in {"validation": train, "test": test}.items()
    for video in videos
  }
  given = ({"database": entries}, {"results": results})
  flag = f"--ground_truth={folder}"
  plain = run(tmp_path, *given)
  assert run(tmp_path, *given, flag)["per_class"] == plain["per_class"]
  kit = run(tmp_path, *given, flag, "--ambiguous=ground_truth")
  assert kit["averages"]["0.1:0.9"] > plain["averages"]["0.1:0.9"]
  assert any("1 detections lie over" in note for note in kit["notes"])
