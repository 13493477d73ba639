"""Tests of benchmarks/activitynet_sim.py and of features on odd timelines."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptlr_jax.data.sampling import generator
from ptlr_jax.data.simulated import World, draw_features

ROOT = Path(__file__).absolute().parents[1]
REAL = ROOT.parent / "shared" / "data" / "activitynet13"

needs_annotations = pytest.mark.skipif(
  not REAL.is_dir(), reason=f"ActivityNet's annotations are not at {REAL}"
)


def _run(output: Path, videos: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [
      *(sys.executable, "-W", "error", "benchmarks/activitynet_sim.py"),
      *(f"--annotations={REAL}", f"--output={output}"),
      *(f"--videos={videos}", "--width=8"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("activitynet") / "set"
  done = _run(root, "6,4")
  assert done.returncode == 0, done.stderr
  assert "left out: 198 validation videos" in done.stdout
  return root


def _database(root):
  return json.loads((root / "gt.json").read_text())["database"]


def _ids(root, split):
  return (root / f"split_{split}.txt").read_text().split()


@needs_annotations
def test_the_layout_holds_the_videos_asked_for(root):
  database = _database(root)
  train, test = _ids(root, "train"), _ids(root, "test")
  assert (len(train), len(test)) == (6, 4)
  assert sorted(train + test) == sorted(database)
  for split, subset, ids in (("train", "train", train), ("test", "val", test)):
    files = {path.stem for path in (root / split).iterdir()}
    assert files == set(ids)
    for name in ids:
      assert database[name]["subset"] == subset
      x = np.load(root / split / f"{name}.npy")
      length = int(np.floor(25 * database[name]["duration"] / 16))
      assert x.shape == (length, 16)
      assert x.dtype == np.float16
      assert np.isfinite(x).all()
  assert "NO NUMBER" in (root / "README.txt").read_text()


@needs_annotations
def test_timelines_are_the_real_ones_and_splits_apart(root):
  everything = json.loads((REAL / "anet_anno_action.json").read_text())
  truth = json.loads((REAL / "val_gt.json").read_text())["database"]
  database = _database(root)
  for name in _ids(root, "train"):
    assert name[2:] not in truth
    assert database[name]["annotations"] == everything[name]["annotations"]
  for name in _ids(root, "test"):
    real = truth[name.removeprefix("v_")]
    assert database[name]["annotations"] == real["annotations"]
    assert database[name]["duration"] == pytest.approx(real["duration"])


@needs_annotations
def test_a_subset_is_balanced_and_part_of_a_larger_one(root, tmp_path):
  def first_labels(split):
    return [
      _database(root)[name]["annotations"][0]["label"]
      for name in _ids(root, split)
    ]

  assert len(set(first_labels("train"))) == 6
  assert set(first_labels("test")) < set(first_labels("train"))
  done = _run(tmp_path / "larger", "9,5")
  assert done.returncode == 0, done.stderr
  for split in ("train", "test"):
    for name in _ids(root, split):
      small = root / split / f"{name}.npy"
      large = tmp_path / "larger" / split / f"{name}.npy"
      assert small.read_bytes() == large.read_bytes()


@needs_annotations
def test_a_folder_in_use_is_left_alone(root):
  before = (root / "gt.json").read_bytes()
  done = _run(root, "1,1")
  assert done.returncode == 2
  assert "expected no or an empty folder" in done.stderr
  assert (root / "gt.json").read_bytes() == before


def _draw(length, instances, width=32):
  world = World(generator(0, "world"), 200, width)
  classes = sorted({c for _, _, c, _ in instances})
  rng = generator(0, "video")
  return draw_features(rng, world, length, classes, instances), world


@pytest.mark.parametrize(
  "instances",
  [
    [(5.0, 5.0, 3, True)],  # of no length
    [(12.0, 90.0, 3, False)],  # past the end
    [(-4.0, 7.0, 199, True)],  # before the start
    [(60.0, 70.0, 3, True)],  # outside
    [(0.0, 40.0, 0, False)],  # the whole video
    [(2.0, 20.0, 4, True), (10.0, 30.0, 4, False), (15.0, 39.0, 5, True)],
    [],
  ],
)
@pytest.mark.parametrize("length", [1, 40])
def test_odd_timelines_give_features_of_the_usual_size(length, instances):
  drawn, _ = _draw(length, instances)
  for x in drawn.values():
    assert x.shape == (length, 32)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert np.abs(x).max() < 20


def test_an_instance_past_the_end_is_one_up_to_the_end():
  long, _ = _draw(40, [(12.0, 90.0, 3, False)])
  clipped, _ = _draw(40, [(12.0, 40.0, 3, False)])
  np.testing.assert_array_equal(long["rgb"], clipped["rgb"])
  np.testing.assert_array_equal(long["flow"], clipped["flow"])


@pytest.mark.parametrize("width", [32, 1024])
def test_a_long_instance_shows_its_core_again_and_again(width):
  drawn, world = _draw(1000, [(100.0, 900.0, 7, True)], width)
  evidence = drawn["flow"] @ world.core["flow"][7]
  parts = evidence[100:900].reshape(-1, 40)  # 800 segments: 20 parts of 40
  assert (parts.max(1) > evidence[:100].mean() + 1).all()
  assert np.median(parts[:, 16:24]) > np.median(parts[:, [0, 1, -2, -1]]) + 0.5
