"""The layout `basnet`: ptlr_jax.data.layouts and ptlr_jax.data.reading."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import (
  edit_database,
  edit_entry,
  input_problems,
  one_problem,
  read_root,
  tiny_videos,
  write_basnet,
)

CLASSES = ("Diving", "HighJump")
SHARED = Path(__file__).parents[2] / "shared"
RGB = "features/train/rgb/train0001.npy"


@pytest.fixture
def root(tmp_path):
  train, test = tiny_videos("train", 4), tiny_videos("test", 2, seed=1)
  return write_basnet(tmp_path / "root", train, test, CLASSES)


def _segment(value):
  annotations = [{"segment": value, "label": "HighJump"}]
  return _entry("train0001", annotations=annotations)


def _entry(video_id, **changes):
  return lambda root: edit_entry(root, video_id, **changes)


def _text(name, text):
  return lambda root: (root / name).write_text(text)


IDS = "train0000\ntrain0001\ntrain0002\ntrain0003\n"
LABELLED = {"segment": ["1", "2"], "label": "HighJmup"}
BAD = {
  "split missing": (
    lambda root: (root / "split_test.txt").unlink(),
    ("split_test.txt", "no such file", "--config.data.root"),
  ),
  "split empty": (
    _text("split_test.txt", "\n"),
    ("split_test.txt", "one video id a line", "empty"),
  ),
  "split no text": (
    lambda root: (root / "split_test.txt").write_bytes(b"\xff\xfe\xff"),
    ("split_test.txt", "a text file", "0xff"),
  ),
  "id twice": (
    _text("split_train.txt", IDS + "train0002\n"),
    ("split_train.txt", "once", "train0002 2 times"),
  ),
  "id in both": (
    _text("split_test.txt", "test0000\ntest0001\ntrain0001\n"),
    ("split_test.txt", "split_train.txt does not have", "came train0001"),
  ),
  "id without entry": (
    _text("split_train.txt", IDS + "train0009\n"),
    ("split_train.txt", "gt.json has", "came train0009"),
  ),
  "gt missing": (
    lambda root: (root / "gt.json").unlink(),
    ("gt.json", "no such file", "--config.data.root"),
  ),
  "gt no json": (_text("gt.json", "{'a'"), ("gt.json", "database", "line 1")),
  "gt no database": (
    _text("gt.json", '{"results": {}}'),
    ("gt.json", '"database"', "came ['results']"),
  ),
  "gt list": (_text("gt.json", "[1]"), ("gt.json", "database", "came list")),
  "folder missing": (
    lambda root: (root / "features/test/flow").rename(root / "elsewhere"),
    ("features/test/flow", "flow features of 2 videos", "no such folder"),
  ),
  "label": (
    _entry("test0001", annotations=[LABELLED]),
    ("gt.json", "test0001", "of the 2 classes", "'HighJmup'", "'HighJump'"),
  ),
  "no label": (
    _entry("test0001", annotations=[{"segment": [1, 2]}]),
    ("gt.json", "test0001", "annotation 0", "class name", "came None"),
  ),
  "no annotations": (
    _entry("test0001", annotations=None),
    ("gt.json", "test0001", 'list "annotations"', "came None"),
  ),
  "no entry": (
    lambda root: edit_database(root, lambda db: db.update(test0001=[1])),
    ("gt.json", "test0001", "annotation 0", "class name"),
  ),
  "one number": (_segment([1]), ("gt.json", "two finite numbers", "came [1]")),
  "words": (
    _segment(["1", "two"]),
    ("gt.json", "train0001", "two finite numbers", "came ['1', 'two']"),
  ),
  "no list": (_segment("12"), ("gt.json", "two finite numbers", "came '12'")),
  "booleans": (_segment([False, True]), ("gt.json", "finite", "came [False,")),
  "nan time": (_segment([0, float("nan")]), ("gt.json", "finite", "[0, nan]")),
  "backwards": (
    _segment(["2", "1.5"]),
    ("gt.json", "train0001: annotation 0", "at its start or later", "1.5"),
  ),
  "negative": (_segment([-1, 2]), ("gt.json", "at 0 s or later", "[-1, 2]")),
  "overrun": (
    _segment(["1", "7.13"]),
    (
      *("gt.json", "train0001", "at most 2 s", "8 x 0.64 s = 5.12 s"),
      *("7.13 s", "end_tolerance=3", "--config.data.overrun_ids"),
    ),
  ),
  "no training label": (
    _entry("train0001", annotations=[]),
    ("gt.json", "train0001", "with a label", "no annotation"),
  ),
  "subset": (
    _entry("train0001", subset="test"),
    ("gt.json", "train0001", "train, training, validation", "came 'test'"),
  ),
}


@pytest.mark.parametrize("memory_gb", [8.0, 0.0])
def test_reads_what_was_written(root, memory_gb):
  dataset = read_root(root, width=4, memory_gb=memory_gb)
  assert dataset.classes == CLASSES
  assert dataset.streams == ("rgb", "flow")
  assert dataset.on_disk == (memory_gb == 0)
  assert not dataset.simulated
  for found, written in (
    (dataset.train, tiny_videos("train", 4)),
    (dataset.test, tiny_videos("test", 2, seed=1)),
  ):
    assert len(found) == len(written)
    for a, b in zip(found, written, strict=True):
      assert (a.id, a.labels, a.instances) == (b.id, b.labels, b.instances)
      assert (a.num_segments, list(a.features)) == (8, ["rgb", "flow"])
      assert a.geometry.seconds_per_segment == 0.64
      assert (a.geometry.start, a.duration) == (0, None)
      for stream, x in a.features.items():
        assert isinstance(x, np.memmap) == (memory_gb == 0)
        np.testing.assert_array_equal(x, b.features[stream])


@pytest.mark.parametrize("case", BAD)
def test_names_what_is_wrong(root, case):
  corrupt, parts = BAD[case]
  corrupt(root)
  one_problem(root, *parts)


def test_names_the_root(tmp_path):
  (line,) = input_problems(tmp_path / "none")
  assert "none': expected the folder of a data set" in line
  assert "came no such folder; pass --config.data.root=" in line
  (tmp_path / "file").touch()
  (line,) = input_problems(tmp_path / "file")
  assert "came a file" in line
  (line,) = input_problems("")
  assert line.startswith("'': expected the folder")


def test_collects_all_problems(root):
  (root / RGB).unlink()
  np.save(root / RGB.replace("rgb", "flow"), np.full((8, 4), np.nan))
  _segment([2, 1])(root)
  edit_entry(root, "test0000", subset="train")
  assert len(input_problems(root)) == 4


def test_an_instance_of_no_length_is_kept(root):
  _segment([2, 2])(root)  # ActivityNet's validation set has three
  videos = read_root(root, width=4).train
  assert (2.0, 2.0) in [v.instances[0][:2] for v in videos]


def test_options_let_annotations_overrun(root):
  _segment(["1", "7.13"])(root)
  read_root(root, width=4, end_tolerance=3)
  dataset = read_root(root, width=4, overrun_ids=("train0001", "absent"))
  assert dataset.train[1].instances[0].end == 7.13


def test_given_classes_keep_their_order(root):
  classes = ("HighJump", "Unused", "Diving")
  dataset = read_root(root, width=4, classes=classes)
  assert dataset.classes == classes
  assert [v.labels for v in dataset.train] == [(2,), (0,), (2,), (0,)]


def test_refuses_a_class_twice(root):
  (line,) = input_problems(root, classes=("Diving", "HighJump", "Diving"))
  assert "every class once, came Diving" in line


def test_accepts_what_other_copies_have(root):
  edit_entry(root, "test0000", annotations=[])
  edit_entry(root, "test0001", subset="val")
  edit_entry(root, "train0001", subset="validation")
  np.save(root / RGB, np.asfortranarray(np.ones((8, 4), np.float16)))
  ids = "\ufeff" + IDS.replace("\n", " \r\n") + "\r\n"
  (root / "split_train.txt").write_bytes(ids.encode())
  dataset = read_root(root, width=4)
  assert dataset.test[0].labels == dataset.test[0].instances == ()
  assert [v.id for v in dataset.train] == IDS.split()


def test_one_stream_and_another_geometry(root):
  dataset = read_root(
    root, width=4, streams=("flow",), fps=30.0, stride=8, end_tolerance=9
  )
  assert list(dataset.train[0].features) == ["flow"]
  assert dataset.streams == ("flow",)
  for video in (*dataset.train, *dataset.test):
    assert video.geometry.seconds_per_segment == 8 / 30
    assert video.geometry.window == 8  # which nothing names: as the stride
    assert video.geometry.start == 0


def test_what_the_files_say_needs_no_option(root):
  given, found = read_root(root, width=4, fps=25.0, stride=16), read_root(root)
  assert [v.geometry for v in found.train] == [v.geometry for v in given.train]
  assert found.train[0].features["rgb"].shape == (8, 4)
  assert (
    read_root(root, layout="auto")
    .notes[0]
    .startswith(
      f"{root}: found the layout basnet (features/train, features/test, gt.json"
    )
  )


def test_videos_come_by_id_and_events_by_time(root):
  ids = "train0002\ntrain0000\ntrain0003\ntrain0001\n"
  (root / "split_train.txt").write_text(ids)
  said = [
    {"segment": ["3", "4"], "label": "HighJump"},
    {"segment": ["1", "2"], "label": "HighJump"},
    {"segment": ["1", "1.5"], "label": "Diving"},
  ]
  edit_entry(root, "train0001", annotations=said)
  train = read_root(root).train
  assert [v.id for v in train] == IDS.split()
  assert train[1].instances == ((1, 1.5, 0), (1, 2, 1), (3, 4, 1))
  assert train[1].labels == (0, 1)


def test_a_test_set_without_instances_is_read(root):
  for video_id in ("test0000", "test0001"):
    edit_entry(root, video_id, annotations=[])
  dataset = read_root(root)
  assert [v.instances for v in dataset.test] == [(), ()]
  assert "none of the 2 test videos" in dataset.not_scorable()


def test_a_readme_says_that_features_are_simulated(root):
  readme = root / "README.txt"
  for text, simulated in (("Real ones.", False), ("SIMULATED features", True)):
    readme.write_text(text)
    assert read_root(root).simulated == simulated


def test_thumos14(tmp_path):
  pytest.importorskip("scipy")
  tool = SHARED / "tools/thumos14_sim.py"
  if not tool.exists():
    pytest.skip(f"no real annotations: {tool} is not there")
  arguments = ["--data", SHARED / "data", "--out", tmp_path / "thumos14"]
  arguments += ["--dim", "64", "--videos", "12,12"]
  subprocess.run([sys.executable, tool, *arguments], check=True)
  gt = json.loads((SHARED / "data/thumos14_basnet/gt.json").read_text())
  gt = gt["database"]
  # Twelve training videos do not show all twenty classes.
  classes = sorted({a["label"] for e in gt.values() for a in e["annotations"]})
  # Those that outlast their features are known: facts.OVERRUNS.
  dataset = read_root(tmp_path / "thumos14", classes=tuple(classes), width=64)
  assert dataset.simulated
  assert (len(dataset.train), len(dataset.test)) == (12, 12)
  assert len(dataset.classes) == 20
  for video in (*dataset.train, *dataset.test):
    assert video.features["rgb"].shape == (video.num_segments, 64)
    assert [
      (i.start, i.end, classes[i.label]) for i in video.instances
    ] == sorted(
      (*(float(x) for x in a["segment"]), a["label"])
      for a in gt[video.id]["annotations"]
    )
