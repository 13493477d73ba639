"""Tests of the layouts on the real annotations of ../shared/data."""

import functools
import json
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import read_root
from layout_fixture import has_note, save, write_objects

from ptlr_jax.data.files.annotations import parse_entry
from ptlr_jax.data.files.text import read_database

DATA = Path(__file__).parents[2] / "shared" / "data"
BASNET = DATA / "thumos14_basnet"
WTALC = DATA / "thumos14_wtalc" / "Thumos14reduced-Annotations"
ACTIVITYNET = DATA / "activitynet13"
ONLY_WTALC = {"video_test_0000270", "video_test_0001496"}

pytestmark = pytest.mark.skipif(
  not DATA.is_dir(), reason=f"no real annotations: {DATA} is not there"
)


def _objects(path: Path) -> list:
  """An object array of these trusted files as pickle itself loads it."""
  with path.open("rb") as file:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return pickle.load(file, encoding="latin-1").tolist()


@functools.cache
def _durations():
  """{id: seconds} of THUMOS14."""
  names = np.load(WTALC / "videoname.npy")
  seconds = np.load(WTALC / "duration.npy")
  return {
    name.decode(): float(duration)
    for name, (duration,) in zip(names, seconds, strict=True)
  }


def _features(video_id: str, duration: float, width: int = 2) -> np.ndarray:
  """f32[T,width] of a video, always the same, T as at 25 fps."""
  length = max(2, int(25 * duration // 16))
  steps = np.arange(length * width, dtype=np.uint32)
  noise = (steps + zlib.crc32(video_id.encode())) * np.uint32(2654435761)
  return (noise >> 8).astype(np.float32).reshape(length, width)


def _basnet(root: Path) -> Path:
  """The real copy, writable, with tiny features."""
  shutil.copytree(BASNET, root, copy_function=shutil.copyfile)
  root.chmod(0o755)
  for split in ("train", "test"):
    for stream in ("rgb", "flow"):
      (root / "features" / split / stream).mkdir(parents=True)
    for i in (root / f"split_{split}.txt").read_text().split():
      x = _features(i, _durations()[i])
      for n, stream in enumerate(("rgb", "flow")):
        np.save(
          root / "features" / split / stream / f"{i}.npy", x[:, n : n + 1]
        )
  return root


def _wtalc(root: Path) -> Path:
  root.mkdir()
  (root / WTALC.name).symlink_to(WTALC)
  rows = [_features(i, duration) for i, duration in _durations().items()]
  write_objects(root / "Thumos14reduced-I3D-JOINTFeatures.npy", rows)
  return root


def _database(subsets: tuple[str, str]) -> dict:
  """The `basnet` annotations as other layouts have them, with durations."""
  said = json.loads((BASNET / "gt.json").read_text())["database"]
  names = dict(zip(("train", "test"), subsets, strict=True))
  return {
    i: {
      "subset": names[entry["subset"]],
      "duration": _durations()[i],
      "annotations": [
        {"segment": [float(x) for x in a["segment"]], "label": a["label"]}
        for a in entry["annotations"]
      ],
    }
    for i, entry in said.items()
  }


def _acmnet(root: Path) -> Path:
  root.mkdir()
  for split in ("train", "test"):
    name = f"split_{split}.txt"
    shutil.copyfile(BASNET / name, root / name)
    for i in (root / name).read_text().split():
      save(root / split / f"{i}.npy", _features(i, _durations()[i]))
  said = {"database": _database(("validation", "test"))}
  (root / "gt.json").write_text(json.dumps(said))
  return root


def _actionformer(root: Path) -> Path:
  said = {"database": _database(("Validation", "Test"))}
  for i, entry in said["database"].items():
    entry["fps"] = 30.0
    save(root / "i3d_features" / f"{i}.npy", _features(i, entry["duration"]))
  (root / "annotations").mkdir()
  (root / "annotations/thumos14.json").write_text(json.dumps(said))
  return root


LAYOUTS = {
  "basnet": _basnet,
  "wtalc": _wtalc,
  "acmnet": _acmnet,
  "actionformer": _actionformer,
}


@pytest.fixture(scope="module")
def thumos14(tmp_path_factory):
  """{layout: THUMOS14 as it is read from it}, each found by its files."""
  if not WTALC.is_dir() or not BASNET.is_dir():
    pytest.skip(f"no THUMOS14 annotations in {DATA}")
  root = tmp_path_factory.mktemp("thumos14")
  return {
    name: read_root(write(root / name), "auto")
    for name, write in LAYOUTS.items()
  }


def _counts(videos):
  return len(videos), sum(len(video.instances) for video in videos)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_thumos14_has_its_videos_and_instances(thumos14, layout):
  found = thumos14[layout]
  assert has_note(found, f"found the layout {layout}")
  assert len(found.classes) == 20
  assert _counts(found.train) == (200, 3007)
  expected = (212, 3358) if layout == "wtalc" else (210, 3311)
  assert _counts(found.test) == expected


def _record(video, classes):
  """All that a layout says of a video, the classes by name."""
  instances = [(i.start, i.end, classes[i.label]) for i in video.instances]
  labels = [classes[c] for c in video.labels]
  features = {s: x.tobytes() for s, x in video.features.items()}
  return labels, instances, video.num_segments, features, video.geometry


@pytest.mark.parametrize(
  "layout", [name for name in LAYOUTS if name != "basnet"]
)
def test_thumos14_is_the_same_in_every_layout(thumos14, layout):
  ours, theirs = thumos14["basnet"], thumos14[layout]
  for split in ("train", "test"):
    records = [
      {v.id: _record(v, data.classes) for v in getattr(data, split)}
      for data in (ours, theirs)
    ]
    only = ONLY_WTALC if (layout, split) == ("wtalc", "test") else set()
    assert records[1].keys() - records[0].keys() == only
    assert records[0].keys() <= records[1].keys()
    differ = [i for i, said in records[0].items() if records[1][i] != said]
    assert differ == []


def test_thumos14s_facts_are_told_by_their_rules(thumos14):
  notes = {name: "\n".join(data.notes) for name, data in thumos14.items()}
  for name in LAYOUTS:
    assert "CliffDiving and Diving at once" in notes[name]
  assert "rule overrun: video_test_0000270" in notes["wtalc"]
  assert "rule listed_labels: 27 videos" in notes["wtalc"]
  assert "rule ambiguous" in notes["wtalc"]
  assert "held against 412 durations" in notes["wtalc"]
  assert "before or after" not in notes["wtalc"]
  assert "fps 25, stride 16, window 16" in notes["actionformer"]


def test_ambiguous_stretches_are_those_of_the_file(thumos14):
  lines = (WTALC / "Ambiguous_test.txt").read_text().splitlines()
  said = {}
  for line in lines:
    if line.strip():
      i, start, end = line.split()
      said.setdefault(i, []).append((float(start), float(end)))
  found = {v.id: v.ambiguous for v in thumos14["wtalc"].test if v.ambiguous}
  here = {v.id for v in thumos14["wtalc"].test}
  expected = {i: tuple(sorted(s)) for i, s in said.items() if i in here}
  assert found == expected
  assert found
  assert not any(v.ambiguous for v in thumos14["wtalc"].train)


def test_listed_labels_of_wtalc_are_those_of_its_file(tmp_path):
  _wtalc(tmp_path / "root")
  found = read_root(tmp_path / "root", "wtalc", video_labels="listed")
  names = [name.decode() for name in np.load(WTALC / "videoname.npy")]
  listed = dict(zip(names, _objects(WTALC / "labels_all.npy"), strict=True))
  without = []
  for video in (*found.train, *found.test):
    labels = [found.classes[c] for c in video.labels]
    if listed[video.id]:
      assert labels == sorted(set(listed[video.id])), video.id
    else:
      without.append(video.id)
  assert len(without) <= 1  # as the rule listed_labels says


# ActivityNet.


def _seconds(entry: dict) -> float:
  """The duration, or where there is none the end of the last instance."""
  ends = [a["segment"][1] for a in entry["annotations"]]
  return entry["duration"] or max(ends)


def test_activitynet_in_the_layout_of_wtalc(tmp_path):
  source = ACTIVITYNET / "wtalc_annotations"
  if not source.is_dir():
    pytest.skip(f"{source} is not there")
  (tmp_path / "ActivityNet1.3-Annotations").symlink_to(source)
  names = np.load(source / "videoname.npy")
  durations = np.ravel(np.load(source / "duration.npy"))
  rows = [
    _features(i, d)
    for i, d in zip(names.tolist(), durations.tolist(), strict=True)
  ]
  path = tmp_path / "ActivityNet1.3-I3D-JOINTFeatures.npy"
  write_objects(path, rows)
  found = read_root(tmp_path, "auto")
  assert has_note(found, "rule zero_length: 11 instances")
  assert has_note(found, "found the layout wtalc")
  assert len(found.classes) == 200
  assert (len(found.train), len(found.test)) == (9337, 4575)
  videos = {v.id: v for v in (*found.train, *found.test)}
  assert videos.keys() == set(names.tolist())
  segments = _objects(source / "segments.npy")
  labels = _objects(source / "labels.npy")
  for n, name in enumerate(names.tolist()):
    video = videos[name]
    said = [
      (float(s), float(e), label)
      for (s, e), label in zip(segments[n], labels[n], strict=True)
    ]
    came = [(i.start, i.end, found.classes[i.label]) for i in video.instances]
    assert came == sorted(said), name
    assert video.features["flow"].tobytes() == rows[n][:, 1:].tobytes(), name


@pytest.fixture(scope="module")
def val_gt():
  path = ACTIVITYNET / "val_gt.json"
  if not path.is_file():
    pytest.skip(f"{path} is not there")
  return path


def test_activitynets_official_annotations_are_sound(val_gt):
  problems = []
  database = read_database(val_gt, problems)
  entries = [parse_entry(i, i, raw, problems) for i, raw in database.items()]
  assert problems == []
  assert len(entries) == 4926
  assert {entry.subset for entry in entries} == {"validation"}
  assert sum(len(entry.events) for entry in entries) == 7654
  assert sum(entry.duration is None for entry in entries) == 198
  labels = {label for entry in entries for *_, label in entry.events}
  assert len(labels) == 200


@pytest.mark.parametrize("layout", ["actionformer", "video_features", "own"])
def test_a_part_of_activitynet_with_features(tmp_path, val_gt, layout):
  """300 of the validation videos have features; half of them train."""
  said = json.loads(val_gt.read_text())
  ids = sorted(said["database"])[::16][:300]
  for i in ids[::2]:
    said["database"][i]["subset"] = "training"
  names = {
    "actionformer": "i3d_features/v_{}.npy",
    "video_features": "v_{}_{}.npy",
    "own": "features/{1}/v_{0}.npy",
  }
  for i in ids:
    x = _features(i, _seconds(said["database"][i]))
    if layout == "actionformer":
      save(tmp_path / names[layout].format(i), x)
      continue
    for n, stream in enumerate(("rgb", "flow")):
      path = tmp_path / names[layout].format(i, stream)
      save(path, x[:, n : n + 1])
  where = tmp_path / "annotations" if layout == "actionformer" else tmp_path
  where.mkdir(exist_ok=True)
  (where / "activity_net.v1-3.json").write_text(json.dumps(said))
  entries = said["database"].values()
  classes = tuple(
    sorted({a["label"] for e in entries for a in e["annotations"]})
  )
  found = read_root(tmp_path, "auto", classes=classes, skip_missing=True)
  assert has_note(found, f"found the layout {layout}")
  assert has_note(found, "rule lost: 4626 test videos")
  assert [v.id for v in found.train] == sorted(ids[::2])
  assert [v.id for v in found.test] == sorted(ids[1::2])
  for video in (*found.train, *found.test):
    entry = said["database"][video.id]
    x = _features(video.id, _seconds(entry))
    assert video.features["rgb"].tobytes() == x[:, :1].tobytes()
    assert video.duration == entry["duration"]
    assert len(video.instances) == len(entry["annotations"])
    assert video.geometry.seconds_per_segment == 0.64
