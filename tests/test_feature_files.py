"""Tests of ptlr_jax.data.files.features, through the reader of `basnet`."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import (
  edit_entry,
  input_problems,
  one_problem,
  read_root,
  tiny_videos,
  write_basnet,
)

from ptlr_jax.data.files import features as features_module

CLASSES = ("Diving", "HighJump")
RGB = "features/train/rgb/train0001.npy"
FLOW = "features/train/flow/train0001.npy"


@pytest.fixture
def root(tmp_path):
  train, test = tiny_videos("train", 4), tiny_videos("test", 2, seed=1)
  return write_basnet(tmp_path / "root", train, test, CLASSES)


def _save(root, x, *names):
  for name in names:
    np.save(root / name, x)


def _write(content):
  return lambda root: (root / RGB).write_bytes(content)


def _reshape(path, old, new):
  path.write_bytes(path.read_bytes().replace(old, new))


def _spoiled(value, rows):
  x = np.ones((8, 4), np.float32)
  x[rows] = value
  return x


def _array(x, *names):
  return lambda root: _save(root, x, *names)


BAD = {
  "file missing": (
    lambda root: (root / RGB).unlink(),
    (RGB, "a feature file", "no such file", "skip_missing=True"),
  ),
  "file no npy": (_write(b"hello, world"), (RGB, ".npy", "hello")),
  "file empty": (_write(b""), (RGB, ".npy", "0")),
  "file truncated": (
    lambda root: os.truncate(root / RGB, 246),
    (RGB, "expected 256 bytes", "came 246"),
  ),
  "objects": (
    _array(np.full((8, 4), None), RGB),
    (RGB, "array of floats", "pickled", "np.save"),
  ),
  "three axes": (
    _array(np.ones((1, 8, 4), np.float32), RGB),
    (RGB, "shape (T, D)", "came (1, 8, 4)"),
  ),
  "negative shape": (
    lambda root: _reshape(root / RGB, b"(8, 4), ", b"(-8,-4),"),
    (RGB, "lengths of 0 or more", "came shape (-8, -4)"),
  ),
  "header cut off": (
    lambda root: os.truncate(root / RGB, 40),
    (RGB, ".npy", "came: EOF"),
  ),
  "lengths differ": (
    _array(np.ones((7, 4), np.float32), FLOW),
    (FLOW, "8 segments as rgb has", "came 7", "--config.data.trim=True"),
  ),
  "width": (
    _array(np.ones((8, 5), np.float32), RGB),
    (RGB, "shape (T, 4)", "came (8, 5)", "--config.data.width=5"),
  ),
  "integers": (_array(np.ones((8, 4), int), RGB), (RGB, "float32", "int64")),
  "complex": (_array(np.ones((8, 4), "c8"), RGB), (RGB, "float", "complex64")),
  "big-endian": (_array(np.ones((8, 4), ">f4"), RGB), (RGB, "float32", ">f4")),
  "nan": (
    _array(_spoiled(np.nan, [3, 6]), RGB),
    (RGB, "finite", "2 of 8 segments", "first in segment 3"),
  ),
  "infinity": (
    _array(_spoiled(-np.inf, [5]), FLOW),
    (FLOW, "finite", "1 of 8 segments", "first in segment 5"),
  ),
  "no segments": (
    _array(np.ones((0, 4), np.float32), RGB),
    (RGB, "at least one segment", "came shape (0, 4)"),
  ),
}


@pytest.mark.parametrize("case", BAD)
def test_names_what_is_wrong(root, case):
  corrupt, parts = BAD[case]
  corrupt(root)
  one_problem(root, *parts)


def test_the_width_of_most_videos_is_that_of_all(root):
  _save(root, np.ones((8, 5), np.float32), RGB)
  (line,) = input_problems(root, width=0)
  assert f"{root / RGB}: expected shape (T, 4), came (8, 5)" in line
  assert "as most videos have" in line
  assert "--config.data.width" not in line


def test_a_pickle_is_never_loaded(root, tmp_path):
  class Evil:
    def __reduce__(self):
      return (Path.touch, (tmp_path / "ran",))

  _save(root, np.array([[Evil()]], object), RGB)
  assert "pickled" in input_problems(root)[0]
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("memory_gb", [8.0, 0.0])
def test_trim_cuts_to_the_shorter(root, memory_gb):
  _save(root, np.ones((6, 4), np.float32), FLOW)
  dataset = read_root(root, width=4, trim=True, memory_gb=memory_gb)
  assert dataset.on_disk == (memory_gb == 0)
  shapes = {x.shape for x in dataset.train[1].features.values()}
  assert shapes == {(6, 4)}
  assert dataset.train[1].num_segments == 6


def test_trim_refuses_a_large_difference(root):
  _save(root, np.ones((11, 4), np.float32), FLOW)
  for trim in (False, True):
    (line,) = input_problems(root, trim=trim)
    assert "8 segments as rgb has, came 11" in line
    assert "trim=True" not in line


def test_short_videos(root):
  annotation = {"segment": [0, 1], "label": "Diving"}
  edit_entry(root, "train0001", annotations=[annotation])
  _save(root, np.ones((1, 4), np.float32), RGB, FLOW)
  (line,) = input_problems(root)
  assert RGB in line
  assert "at least 2 segments, came 1" in line
  assert "--config.data.min_segments=1" in line
  dataset = read_root(root, width=4, min_segments=1)
  assert dataset.train[1].num_segments == 1


@pytest.mark.parametrize("memory_gb", [8.0, 0.0])
def test_finite_check_may_be_left_out(root, memory_gb):
  _save(root, np.full((8, 4), np.nan, np.float32), RGB)
  dataset = read_root(root, memory_gb=memory_gb, check_finite=False)
  assert np.isnan(dataset.train[1].features["rgb"]).all()
  (line,) = input_problems(root, memory_gb=memory_gb)
  assert "8 of 8 segments" in line


def test_features_on_disk_keep_no_file_open(root):
  dataset = read_root(root, width=4, memory_gb=0)
  features = dataset.train[0].features
  assert len(features) == 2
  assert isinstance(features["rgb"], np.memmap)
  assert features["rgb"] is not features["rgb"]
  again = pickle.loads(pickle.dumps(features))
  np.testing.assert_array_equal(again["flow"], features["flow"])
  with pytest.raises(KeyError):
    features["depth"]


def test_two_streams_in_one_array_are_its_halves(tmp_path):
  x = np.arange(24, dtype=np.float32).reshape(3, 8)
  np.save(tmp_path / "both.npy", x)
  problems = []
  array = features_module.measure(tmp_path / "both.npy", problems)
  assert array is not None
  parts = features_module.halves("both", array, ("rgb", "flow"), problems)
  assert not problems
  features = features_module.DiskFeatures(parts, 2)
  np.testing.assert_array_equal(features["rgb"], x[:2, :4])
  np.testing.assert_array_equal(features["flow"], x[:2, 4:])
  flow = parts["flow"]
  assert (flow.width, flow.nbytes, features.num_segments) == (4, 48, 2)


def test_an_odd_width_has_no_halves():
  problems = []
  x = np.ones((3, 5), np.float32)
  assert not features_module.halves("both", x, ("rgb", "flow"), problems)
  (line,) = problems
  assert line.startswith("both: expected rgb and flow joined, an even width")
