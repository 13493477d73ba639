"""Tests of benchmarks/simulate.py and of features on odd timelines."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import read_root, write_basnet
from layout_fixture import CLASSES, tiny_splits, write_wtalc

from benchmarks import simulate
from ptlr_jax.data.sampling import generator
from ptlr_jax.data.simulated import World, draw_features

ROOT = Path(__file__).absolute().parents[1]
SHARED = ROOT.parent / "shared" / "data"
WTALC = "Thumos14reduced-Annotations"
REAL = {
  "activitynet": (
    "--data_set=activitynet",
    f"--annotations={SHARED / 'activitynet13'}",
  ),
  "thumos14": (
    "--data_set=thumos14",
    f"--annotations={SHARED / 'thumos14_basnet'}",
    f"--durations={SHARED / 'thumos14_wtalc' / WTALC}",
  ),
}


@pytest.fixture(scope="module", params=REAL)
def real(request, tmp_path_factory):
  """(name, flags, root) of a data set with six and four real timelines."""
  flags = REAL[request.param]
  for flag in flags[1:]:
    folder = Path(flag.partition("=")[2])
    if not folder.is_dir():
      pytest.skip(f"published annotations are not at {folder}")
  root = tmp_path_factory.mktemp(request.param) / "set"
  simulate.main([*flags, f"--output={root}", "--videos=6,4", "--width=8"])
  return request.param, flags, root


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
  """Flags for annotations as THUMOS14's: four and two videos of 20 segments."""
  folder = tmp_path_factory.mktemp("made_up")
  train, test = tiny_splits(num_segments=20)
  write_basnet(folder / "basnet", train, test, CLASSES)
  write_wtalc(folder / "wtalc", train, test, CLASSES)
  return (
    "--data_set=thumos14",
    f"--annotations={folder / 'basnet'}",
    f"--durations={folder / 'wtalc' / WTALC}",
  )


def _made(flags, root, *more):
  """{ID: f32[T,16]} of a simulation 8 wide."""
  said = (*flags, f"--output={root}", "--width=8", "--dtype=float32", *more)
  simulate.main(said)
  files = sorted(root.glob("t*/*.npy"))
  return {path.stem: np.load(path) for path in files}


def _database(root):
  return json.loads((root / "gt.json").read_text())["database"]


def _ids(root, split):
  return (root / f"split_{split}.txt").read_text().split()


def _numbers(annotations):
  return [(*map(float, a["segment"]), a["label"]) for a in annotations]


def test_the_layout_holds_the_videos_asked_for(real):
  name, _, root = real
  database = _database(root)
  train, test = _ids(root, "train"), _ids(root, "test")
  assert (len(train), len(test)) == (6, 4)
  assert sorted(train + test) == sorted(database)
  subsets = {
    "activitynet": ("train", "val"),
    "thumos14": ("validation", "test"),
  }
  for split, subset in zip(("train", "test"), subsets[name], strict=True):
    ids = _ids(root, split)
    assert {path.stem for path in (root / split).iterdir()} == set(ids)
    for i in ids:
      assert database[i]["subset"] == subset
      x = np.load(root / split / f"{i}.npy")
      assert x.shape == (int(np.floor(25 * database[i]["duration"] / 16)), 16)
      assert x.dtype == np.float16
      assert np.isfinite(x).all()
  assert f"A RESULT ON {name.upper()}." in (root / "README.txt").read_text()


def _published(name, folder):
  """{split: {ID: annotations}} of the published files."""
  if name == "thumos14":
    database = json.loads((folder / "gt.json").read_text())["database"]
    return {
      split: {i: database[i]["annotations"] for i in _ids(folder, split)}
      for split in ("train", "test")
    }
  everything = json.loads((folder / "anet_anno_action.json").read_text())
  truth = json.loads((folder / "val_gt.json").read_text())["database"]
  test = {f"v_{i}": entry["annotations"] for i, entry in truth.items()}
  train = {i: e["annotations"] for i, e in everything.items() if i not in test}
  return {"train": train, "test": test}


def test_timelines_are_the_real_ones_and_splits_apart(real):
  name, flags, root = real
  published = _published(name, Path(flags[1].partition("=")[2]))
  for split, known in published.items():
    for i in _ids(root, split):
      ours = _database(root)[i]["annotations"]
      if name == "activitynet":
        assert ours == known[i]
      else:  # theirs are text
        assert _numbers(ours) == sorted(_numbers(known[i]))


def test_a_subset_is_balanced_and_part_of_a_larger_one(real, tmp_path):
  _, flags, root = real

  def first_labels(split):
    return [
      _database(root)[i]["annotations"][0]["label"] for i in _ids(root, split)
    ]

  assert len(set(first_labels("train"))) == 6
  assert set(first_labels("test")) < set(first_labels("train"))
  larger = tmp_path / "larger"
  simulate.main([*flags, f"--output={larger}", "--videos=9,5", "--width=8"])
  for split in ("train", "test"):
    for i in _ids(root, split):
      small = root / split / f"{i}.npy"
      large = larger / split / f"{i}.npy"
      assert small.read_bytes() == large.read_bytes()


def test_a_made_up_set_is_read_without_a_problem(made_up, tmp_path):
  features = _made(made_up, tmp_path / "set", "--seed=3")
  data = read_root(tmp_path / "set", "acmnet", classes=CLASSES, width=8)
  assert data.simulated
  train, test = tiny_splits(num_segments=20)
  for ours, theirs in ((data.train, train), (data.test, test)):
    assert [v.id for v in ours] == [v.id for v in theirs]
    assert [v.instances for v in ours] == [v.instances for v in theirs]
    for video in ours:
      joined = features[video.id]
      assert joined.shape == (20, 16)
      np.testing.assert_array_equal(video.features["rgb"], joined[:, :8])
      np.testing.assert_array_equal(video.features["flow"], joined[:, 8:])
  note = (tmp_path / "set" / "README.txt").read_text()
  assert "seed 3: 4 training and 2" in note
  assert "Variant: noise 1, context 1, overlap 0.8." in note


def test_activitynet_s_files_are_read_by_their_own_rules(tmp_path, capsys):
  def entry(start, **more):
    annotations = [{"segment": [start, 6.0], "label": "Diving"}]
    return {**more, "annotations": annotations}

  seconds = {"duration_second": 6.5, "duration_frame": 160}
  everything = {
    "v_a": entry(1.0, **seconds),
    "v_b": entry(2.0, **seconds),
    "v_none": {**seconds, "annotations": []},
  }
  truth = {"b": entry(3.0), "of_unknown_duration": entry(1.0)}
  (tmp_path / "anet_anno_action.json").write_text(json.dumps(everything))
  (tmp_path / "val_gt.json").write_text(json.dumps({"database": truth}))
  root = tmp_path / "set"
  _made(("--data_set=activitynet", f"--annotations={tmp_path}"), root)
  assert _database(root) == {
    "v_a": {**entry(1.0), "duration": 6.5, "frames": 160, "subset": "train"},
    "v_b": {**entry(3.0), "duration": 6.5, "frames": 160, "subset": "val"},
  }
  said = capsys.readouterr().out
  assert "left out: 1 of 2 train videos" in said
  assert "left out: 1 of 2 test videos" in said


def test_a_variant_changes_what_it_says_and_nothing_else(made_up, tmp_path):
  usual = _made(made_up, tmp_path / "usual")
  said = ("--noise=1", "--context=1", "--overlap=0.8")
  for i, x in _made(made_up, tmp_path / "said", *said).items():
    np.testing.assert_array_equal(x, usual[i])
  none = _made(made_up, tmp_path / "none", "--noise=0")
  noisy = _made(made_up, tmp_path / "noisy", "--noise=1.5")
  context = _made(made_up, tmp_path / "context", "--context=2")
  alike = _made(made_up, tmp_path / "alike", "--overlap=1.2")
  assert "context 2," in (tmp_path / "context" / "README.txt").read_text()
  for i, x in usual.items():
    noise = x - none[i]
    np.testing.assert_allclose(noisy[i] - x, 0.5 * noise, atol=1e-5)
    assert 0.2 < noise[:, :8].std() < 0.36  # 0.28
    assert 0.24 < noise[:, 8:].std() < 0.4  # 0.32
    np.testing.assert_array_equal(context[i][:, 8:], x[:, 8:])
    more = context[i][:, :8] - x[:, :8]
    assert np.linalg.norm(more, axis=1).max() > 1.5
    for half in (slice(0, 8), slice(8, 16)):
      assert (alike[i] != x)[:, half].any()


def test_classes_of_a_pair_share_more_with_a_larger_overlap():
  def likeness(overlap):
    world = World(generator(0, "world"), 20, 256, **overlap)
    return [
      np.mean([(x @ x.T)[c, c + 1] for c in range(0, 20, 2)])
      for x in world.core.values()
    ]

  np.testing.assert_array_equal(likeness({}), likeness({"overlap": 0.8}))
  for overlap in (0.0, 0.8, 1.2):
    expected = overlap**2 / (1 + overlap**2)
    np.testing.assert_allclose(
      likeness({"overlap": overlap}), expected, atol=0.06
    )


def test_the_script_starts_and_leaves_a_folder_in_use_alone(made_up, tmp_path):
  (tmp_path / "mine.txt").write_text("mine")
  done = subprocess.run(
    [
      *(sys.executable, "-W", "error", "benchmarks/simulate.py"),
      *(*made_up, f"--output={tmp_path}"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  said = f"--output: expected no or an empty folder, got {tmp_path}\n"
  assert done.stderr == said
  assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--noise=-1", "--noise: expected float from 0, got -1"),
    ("--overlap=inf", "--overlap: expected float from 0, got inf"),
    ("--width=0", "--width: expected int from 1, got 0"),
    ("--videos=3", "--videos: expected N_TRAIN,N_TEST of 1 or more each"),
    ("--videos=5,1", "--videos: expected at most 4 train videos, got 5"),
    ("--gain=1e9", "expected features that float16 holds"),
    ("--data_set=thumos", "--data_set: invalid choice"),
    ("--data_set=activitynet", "--durations: expected with"),
    ("--durations=none", "expected a folder with videoname.npy"),
    ("--annotations=none", "came none without gt.json"),
  ],
)
def test_a_wrong_flag_ends_in_a_line(flag, said, made_up, tmp_path, capsys):
  with pytest.raises(SystemExit) as ended:
    simulate.main([*made_up, f"--output={tmp_path / 'set'}", flag])
  assert ended.value.code == 2
  lines = capsys.readouterr().err.splitlines()
  assert said in lines[-1]
  assert len(lines) == 1 or lines[0].startswith("usage:")


@pytest.mark.parametrize(
  ("file", "text", "said"),
  [
    ("gt.json", "{", "gt.json: expected"),
    ("gt.json", '{"database": []}', "gt.json: expected"),
    ("gt.json", '{"database": {}}', 'train0000: expected a list "annotations"'),
    ("split_test.txt", "none\n", 'none: expected a list "annotations"'),
    ("split_test.txt", "\n", "split_test.txt: expected one video id a line"),
  ],
)
def test_a_damaged_file_ends_in_lines(
  file, text, said, made_up, tmp_path, capsys
):
  write_basnet(tmp_path, *tiny_splits(num_segments=20), CLASSES)
  (tmp_path / file).write_text(text)
  flags = (
    *made_up,
    f"--annotations={tmp_path}",
    f"--output={tmp_path / 'set'}",
  )
  with pytest.raises(SystemExit) as ended:
    simulate.main(flags)
  assert ended.value.code == 2
  assert said in capsys.readouterr().err.splitlines()[0]
  assert not (tmp_path / "set").exists()


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
