"""Tests of the layouts: what is written in one is read, or named as wrong."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
from basnet_fixture import (
  edit_entry,
  input_problems,
  read_root,
  tiny_videos,
  write_basnet,
)
from layout_fixture import (
  ALL_COLUMNS,
  CLASSES,
  assert_same,
  assert_same_videos,
  has_note,
  joined,
  rename_files,
  renamed,
  save,
  tiny_splits,
  write_acmnet,
  write_actionformer,
  write_objects,
  write_own,
  write_table,
  write_video_features,
  write_wtalc,
)

from ptlr_jax.data.dataset import Instance, Video, frame_truth
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.data.layouts import LAYOUTS
from ptlr_jax.runtime.errors import InputError

BOTH = {"streams": ("rgb", "flow")}
FORMS = {
  "basnet": (write_basnet, "basnet", {}),
  "acmnet": (write_acmnet, "acmnet", {}),
  "wtalc": (write_wtalc, "wtalc", {}),
  "wtalc, Python 2": (
    functools.partial(write_wtalc, protocol=2),
    "wtalc",
    {},
  ),
  "actionformer": (write_actionformer, "actionformer", {}),
  "video_features, csv": (write_video_features, "video_features", {}),
  "video_features, json": (
    functools.partial(write_video_features, table="labels.json"),
    "video_features",
    {},
  ),
  "own, folders, csv": (write_own, "own", {}),
  "own, folders, json": (
    functools.partial(write_own, table="labels.json"),
    "own",
    {},
  ),
  "own, suffix, csv": (
    functools.partial(write_own, form="suffix"),
    "own",
    {},
  ),
  "own, suffix, json": (
    functools.partial(write_own, form="suffix", table="labels.json"),
    "own",
    {},
  ),
  "own, folders in root": (functools.partial(write_own, folder=""), "own", {}),
  "own, joined": (functools.partial(write_own, form="single"), "own", BOTH),
  "own, joined, json": (
    functools.partial(write_own, form="single", table="labels.json"),
    "own",
    BOTH,
  ),
}
PLAIN = ("-Ab_345678c", "_Ab_345678d", "v_3456789ab", "zAb-345678f")
TESTED = ("kAb_345678g", "mAb_345678h")


def _plain_ids():
  train, test = tiny_splits()
  return renamed(train, PLAIN), renamed(test, TESTED)


def _with_v(videos):
  return renamed(videos, (f"v_{video.id}" for video in videos))


# Every layout gives the same videos.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("memory_gb", [8.0, 0.0])
def test_every_layout_gives_the_same_videos(tmp_path, form, memory_gb):
  write, layout, options = FORMS[form]
  train, test = tiny_splits()
  write(tmp_path, train, test, CLASSES)
  found = read_root(tmp_path, layout, memory_gb=memory_gb, **options)
  assert_same(found, train, test)
  assert found.on_disk == (memory_gb == 0)
  assert has_note(found, f"{tmp_path}: layout {layout}")
  assert {v.geometry for v in (*found.train, *found.test)} == {Geometry()}


@pytest.mark.parametrize("form", FORMS)
def test_every_layout_is_found_by_its_files_and_told(tmp_path, form):
  write, layout, options = FORMS[form]
  train, test = tiny_splits()
  write(tmp_path, train, test, CLASSES)
  found = read_root(tmp_path, "auto", **options)
  assert_same(found, train, test)
  assert found.notes[0].startswith(f"{tmp_path}: found the layout {layout} (")


@pytest.mark.parametrize("form", FORMS)
def test_layouts_with_durations_hold_them(tmp_path, form):
  write, layout, options = FORMS[form]
  write(tmp_path, *tiny_splits(), CLASSES)
  found = read_root(tmp_path, layout, **options)
  durations = {v.duration for v in (*found.train, *found.test)}
  assert durations == ({None} if layout == "basnet" else {5.12})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_other_float_types_stay_as_they_are(tmp_path, form, dtype):
  write, layout, options = FORMS[form]
  splits = [
    [
      dataclasses.replace(
        v, features={s: x.astype(dtype) for s, x in v.features.items()}
      )
      for v in videos
    ]
    for videos in tiny_splits()
  ]
  write(tmp_path, *splits, CLASSES)
  assert_same(read_root(tmp_path, layout, **options), *splits)


@pytest.mark.parametrize("form", [f for f in FORMS if "joined" not in f])
def test_one_stream_of_two_can_be_asked_for(tmp_path, form):
  write, layout, _ = FORMS[form]
  train, test = tiny_splits()
  write(tmp_path, train, test, CLASSES)
  found = read_root(tmp_path, layout, streams=("flow",))
  alone = [
    [
      dataclasses.replace(v, features={"flow": v.features["flow"]})
      for v in videos
    ]
    for videos in (train, test)
  ]
  assert_same(found, *alone)


# ActivityNet's v_.


@pytest.mark.parametrize(
  "form", [f for f in FORMS if not f.startswith(("own", "wtalc"))]
)
@pytest.mark.parametrize("v_in_files", [True, False])
@pytest.mark.parametrize("v_in_annotations", [True, False])
def test_ids_of_activitynet_come_without_v(
  tmp_path, form, v_in_files, v_in_annotations
):
  write, layout, options = FORMS[form]
  train, test = _plain_ids()
  written = [_with_v(v) if v_in_annotations else v for v in (train, test)]
  write(tmp_path, *written, CLASSES)
  if v_in_files and not v_in_annotations:
    rename_files(tmp_path, lambda name: f"v_{name}")
  if v_in_annotations and not v_in_files:
    rename_files(tmp_path, lambda name: name[2:])
  found = read_root(tmp_path, layout, **options)
  assert_same(found, train, test)


def test_names_of_wtalc_come_without_v(tmp_path):
  train, test = _plain_ids()
  write_wtalc(tmp_path, _with_v(train), _with_v(test), CLASSES)
  assert_same(read_root(tmp_path, "wtalc"), train, test)


@pytest.mark.parametrize("form", [f for f in FORMS if f.startswith("own")])
def test_own_ids_stay_and_may_have_v_in_files_alone(tmp_path, form):
  write, layout, options = FORMS[form]
  train, test = _plain_ids()
  write(tmp_path / "v", _with_v(train), _with_v(test), CLASSES)
  found = read_root(tmp_path / "v", layout, **options)
  assert_same(found, _with_v(train), _with_v(test))
  write(tmp_path / "plain", train, test, CLASSES)
  rename_files(tmp_path / "plain", lambda name: f"v_{name}")
  found = read_root(tmp_path / "plain", layout, **options)
  assert_same(found, train, test)


@pytest.mark.parametrize("table", ["labels.csv", "labels.json"])
@pytest.mark.parametrize("v_in_files", [True, False])
@pytest.mark.parametrize("v_in_annotations", [True, False])
@pytest.mark.parametrize("layout", ["own", "video_features"])
def test_a_labelled_video_is_no_test_video_under_another_id(
  tmp_path, layout, table, v_in_files, v_in_annotations
):
  """Without subsets every file without a label is tested: none of these."""
  if layout == "own" and v_in_annotations and not v_in_files:
    pytest.skip("own ids stay as they are: there is no such file")
  train, _ = _plain_ids()
  folder = "" if layout == "video_features" else "features"
  listed = _with_v(train) if v_in_annotations else train
  columns = "video,label"
  write_own(
    tmp_path, listed, (), CLASSES, form="suffix", folder=folder, columns=columns
  )
  if table == "labels.json":
    (tmp_path / "labels.csv").unlink()
    labels = {v.id: [CLASSES[c] for c in v.labels] for v in listed}
    (tmp_path / table).write_text(json.dumps(labels))
  if v_in_files != v_in_annotations:
    rename_files(tmp_path, lambda n: f"v_{n}" if v_in_files else n[2:])
  found = read_root(tmp_path, layout)
  assert len(found.train) == 4
  assert found.test == ()
  assert not has_note(found, "are of no video")


# Which layout it is.


def test_files_of_two_layouts_are_named_both(tmp_path):
  write_basnet(tmp_path, *tiny_splits(), CLASSES)
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  (line,) = input_problems(tmp_path, "auto")
  for part in (
    "basnet (features/train, features/test, gt.json",
    "wtalc (Thumos14reduced-Annotations, Thumos14reduced-I3D",
    "--config.data.layout=",
  ):
    assert part in line
  assert_same(read_root(tmp_path, "basnet"), *tiny_splits())
  assert_same(read_root(tmp_path, "wtalc"), *tiny_splits())


@pytest.mark.parametrize("name", ["", "notes.txt"])
def test_a_folder_of_no_layout_gets_their_forms(tmp_path, name):
  if name:
    (tmp_path / name).touch()
  (line,) = input_problems(tmp_path, "auto")
  assert (f"came {name}" if name else "came an empty folder") in line
  for layout, entry in LAYOUTS.items():
    assert f"{layout}: {entry.form}" in line


def test_two_annotation_files_are_named(tmp_path):
  write_actionformer(tmp_path, *tiny_splits(), CLASSES)
  path = tmp_path / "annotations" / "thumos14.json"
  path.with_name("other.json").write_text("{}")
  (line,) = input_problems(tmp_path, "auto")
  assert "expected one .json file, came other.json, thumos14.json" in line
  assert "--config.data.annotations=annotations/NAME.json" in line
  found = read_root(tmp_path, "auto", annotations="annotations/thumos14.json")
  assert_same(found, *tiny_splits())


def test_two_tables_of_labels_are_named(tmp_path):
  write_own(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / "other.json").write_text("{}")
  (line,) = input_problems(tmp_path, "auto")
  assert "came labels.csv, other.json" in line
  found = read_root(tmp_path, "own", annotations="labels.csv")
  assert_same(found, *tiny_splits())


def test_two_sets_of_wtalc_are_named(tmp_path):
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  train, test = _plain_ids()
  write_wtalc(tmp_path, train, test, CLASSES, name="ActivityNet1.3")
  (line,) = input_problems(tmp_path, "auto")
  assert "ActivityNet1.3-Annotations, Thumos14reduced-Annotations" in line
  found = read_root(tmp_path, "wtalc", annotations="ActivityNet1.3-Annotations")
  assert_same(found, train, test)


@pytest.mark.parametrize(
  ("form", "name", "where"),
  [
    ("basnet", "gt.json", "gt.json"),
    ("basnet", "split_train.txt", "split_train.txt"),
    ("acmnet", "gt.json", "gt.json"),
    ("wtalc", "Thumos14reduced-Annotations/labels.npy", "labels.npy"),
    ("wtalc", "Thumos14reduced-Annotations/classlist.npy", "classlist.npy"),
    ("wtalc", "Thumos14reduced-Annotations/videoname.npy", "videoname.npy"),
    ("wtalc", "Thumos14reduced-I3D-JOINTFeatures.npy", "JOINTFeatures.npy"),
    ("actionformer", "annotations/thumos14.json", "annotations"),
    ("actionformer", "i3d_features/train0001.npy", "train0001.npy"),
    ("video_features, csv", "train0001_flow.npy", "train0001_flow.npy"),
    ("video_features, csv", "labels.csv", "one .csv or .json file"),
    ("own, folders, csv", "features/flow/test0000.npy", "flow/test0000.npy"),
    ("own, suffix, json", "labels.json", "one .csv or .json file"),
  ],
)
def test_a_file_that_is_not_there_is_the_one_problem(
  tmp_path, form, name, where
):
  write, layout, options = FORMS[form]
  write(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / name).unlink()
  lines = input_problems(tmp_path, layout, **options)
  assert len(lines) == 1, lines
  assert str(tmp_path) in lines[0]
  assert where in lines[0]


# Subsets.


def test_validation_trains_and_test_is_tested_as_in_thumos14(tmp_path):
  train, test = tiny_splits()
  write_actionformer(tmp_path, train, test, CLASSES)
  assert_same(read_root(tmp_path, "actionformer"), train, test)


@pytest.mark.parametrize("layout", ["actionformer", "wtalc"])
@pytest.mark.parametrize(
  "names", [("training", "validation"), ("train", "val")]
)
def test_training_trains_and_validation_is_tested_as_in_activitynet(
  tmp_path, layout, names
):
  train, test = tiny_splits()
  FORMS[layout][0](tmp_path, train, test, CLASSES, subsets=names)
  assert_same(read_root(tmp_path, layout), train, test)


def _with_hidden(root, layout):
  """Adds two videos of ActivityNet's hidden test set."""
  train, test = tiny_splits()
  hidden = [
    dataclasses.replace(v, instances=(), labels=())
    for v in tiny_videos("hidden", 2)
  ]
  names = ("training", "validation")
  FORMS[layout][0](root, train, [*test, *hidden], CLASSES, subsets=names)
  if layout == "actionformer":
    path = root / "annotations" / "thumos14.json"
    said = json.loads(path.read_text())
    for video in hidden:
      said["database"][video.id]["subset"] = "testing"
    path.write_text(json.dumps(said))
  else:
    subsets = ["training"] * 4 + ["validation"] * 2 + ["testing"] * 2
    save(root / "Thumos14reduced-Annotations/subset.npy", np.array(subsets))
  return train, test, hidden


@pytest.mark.parametrize("layout", ["actionformer", "wtalc"])
def test_the_hidden_test_set_is_left_out_and_told(tmp_path, layout):
  train, test, hidden = _with_hidden(tmp_path, layout)
  found = read_root(tmp_path, layout)
  assert_same(found, train, test)
  assert has_note(found, "2 videos of the subset", "testing", "not used")
  found = read_root(tmp_path, layout, test_subset="Testing")
  assert_same(found, train, hidden)
  assert has_note(found, "2 videos of the subset", "validation", "not used")


@pytest.mark.parametrize("layout", ["actionformer", "wtalc"])
def test_subsets_can_be_named(tmp_path, layout):
  train, test, _ = _with_hidden(tmp_path, layout)
  found = read_root(
    tmp_path, layout, train_subset="validation", test_subset="training"
  )
  assert_same(found, test, train)


@pytest.mark.parametrize("layout", ["actionformer", "wtalc", "own"])
def test_a_subset_that_is_not_there_is_a_problem(tmp_path, layout):
  write = FORMS.get(layout, (write_own,))[0]
  write(tmp_path, *tiny_splits(), CLASSES)
  lines = input_problems(tmp_path, layout, train_subset="learning")
  assert any("learning" in line for line in lines)
  lines = input_problems(tmp_path, layout, test_subset="evaluation")
  assert any("evaluation" in line for line in lines)


@pytest.mark.parametrize("layout", ["actionformer", "wtalc"])
def test_one_subset_does_not_both_train_and_get_tested(tmp_path, layout):
  _with_hidden(tmp_path, layout)
  lines = input_problems(tmp_path, layout, train_subset="validation")
  assert any("validation" in line for line in lines)


def test_a_subset_that_some_lack_is_a_problem(tmp_path):
  write_own(tmp_path, *tiny_splits(), CLASSES, table="labels.json")
  said = json.loads((tmp_path / "labels.json").read_text())
  del said["database"]["test0001"]["subset"]
  (tmp_path / "labels.json").write_text(json.dumps(said))
  lines = input_problems(tmp_path, "own")
  assert len(lines) == 1
  assert "test0001: expected a subset" in lines[0]


# Where segments lie in time.

ACTIVITYNET = Geometry(25.0, 16.0, 16.0)
THUMOS14 = Geometry(30.0, 4.0, 16.0)


def _extracted(geometry, duration, start, end):
  """A video whose features are 1 where the window's middle is in the action.

  Windows as an extractor counts them: all that fit into the video.
  """
  frames = int(duration * geometry.fps)
  firsts = range(0, frames - int(geometry.window) + 1, int(geometry.stride))
  middles = (np.array(firsts) + geometry.window / 2) / geometry.fps
  x = ((start <= middles) & (middles < end)).astype(np.float32)
  features = {s: np.stack([x, x + 1], 1) for s in ("rgb", "flow")}
  instances = (Instance(start, end, 0),)
  return Video("", features, (0,), instances, duration=duration)


def _extracted_splits(geometry):
  ids = [f"video_validation_000000{n}" for n in range(3)]
  train = [_extracted(geometry, 40.0 + n, 12.3, 21.9) for n in range(3)]
  test = [_extracted(geometry, 73.4, 50.05, 50.95)]
  return renamed(train, ids), renamed(test, ["video_test_0000001"])


@pytest.mark.parametrize("geometry", [ACTIVITYNET, THUMOS14])
def test_an_action_is_found_at_its_second(tmp_path, geometry):
  """The geometry that fits T is taken; centres meet the features."""
  splits = _extracted_splits(geometry)
  write_actionformer(tmp_path, *splits, CLASSES, fps=30.0)
  found = read_root(tmp_path, "auto", classes=CLASSES)
  assert has_note(found, "geometry: fps", "stride", "the one that fits T")
  for video, written in zip(
    (*found.train, *found.test), (*splits[0], *splits[1]), strict=True
  ):
    assert video.geometry == geometry
    assert video.num_segments == geometry.segments(video.duration)
    planted = written.features["rgb"][:, 0] == 1
    assert planted.any()
    truth = frame_truth(video, len(CLASSES))
    np.testing.assert_array_equal(truth[:, 0], planted)


def test_frames_a_second_are_each_videos_own(tmp_path):
  slow = dataclasses.replace(THUMOS14, fps=24.0)
  train, test = _extracted_splits(THUMOS14)[0], _extracted_splits(slow)[1]
  write_actionformer(tmp_path, train, test, CLASSES, fps=30.0)
  path = tmp_path / "annotations/thumos14.json"
  said = json.loads(path.read_text())
  said["database"]["video_test_0000001"]["fps"] = 24.0
  path.write_text(json.dumps(said))
  found = read_root(tmp_path, "actionformer", classes=CLASSES)
  assert [v.geometry for v in found.train] == [THUMOS14] * 3
  assert found.test[0].geometry == slow
  assert has_note(found, "fps 24 to 30, stride 4, window 16")
  truth = frame_truth(found.test[0], 2)[:, 0]
  np.testing.assert_array_equal(truth, test[0].features["rgb"][:, 0] == 1)


@pytest.mark.parametrize("by", ["file", "options", "both"])
def test_a_given_geometry_places_the_action(tmp_path, by):
  given = Geometry(24.0, 6.0, 24.0)
  splits = _extracted_splits(given)
  write_actionformer(tmp_path, *splits, CLASSES, fps=30.0)
  said = {"fps": 24, "stride": 6, "window": 24}
  if by != "options":
    (tmp_path / "geometry.json").write_text(json.dumps(said))
  options = {} if by == "file" else {k: float(v) for k, v in said.items()}
  found = read_root(tmp_path, "actionformer", classes=CLASSES, **options)
  assert has_note(found, "fps 24, stride 6, window 24", "as given")
  for video, written in zip(
    (*found.train, *found.test), (*splits[0], *splits[1]), strict=True
  ):
    assert video.geometry == given
    truth = frame_truth(video, 2)[:, 0]
    np.testing.assert_array_equal(truth, written.features["rgb"][:, 0] == 1)


@pytest.mark.parametrize("form", FORMS)
def test_geometry_json_counts_in_every_layout(tmp_path, form):
  write, layout, options = FORMS[form]
  write(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / "geometry.json").write_text('{"fps": 12.5, "stride": 8}')
  found = read_root(tmp_path, "auto", **options)
  (geometry,) = {v.geometry for v in (*found.train, *found.test)}
  assert (geometry.fps, geometry.stride) == (12.5, 8.0)
  assert geometry.seconds_per_segment == 0.64
  if layout != "actionformer":  # its window may also be the usual 16 frames
    assert geometry.start == 0


def test_geometry_json_must_not_contradict_the_options(tmp_path):
  write_own(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / "geometry.json").write_text('{"fps": 12.5, "stride": 8}')
  lines = input_problems(tmp_path, "own", fps=25.0)
  assert any(
    "geometry.json: expected what --config.data.fps=25 says, came 12.5" in line
    for line in lines
  )
  assert read_root(tmp_path, "own", fps=12.5).train


@pytest.mark.parametrize(
  ("text", "part"),
  [
    ("{", "geometry.json"),
    ("[25]", "came list"),
    ('{"frames": 25}', "frames"),
    ('{"fps": "25"}', "came '25'"),
    ('{"fps": NaN}', "came nan"),
    ('{"fps": Infinity}', "came inf"),
    ('{"fps": true}', "came True"),
    ('{"fps": 0}', "came 0"),
    ('{"stride": -4}', "came -4"),
    ('{"offset": -1}', "came -1"),
    ('{"fps": 1' + "0" * 400 + "}", "geometry.json"),
    ('{"fps": 25, "fps": 30}', "twice"),
    ("\xff", "geometry.json"),
  ],
)
@pytest.mark.parametrize("layout", ["own", "actionformer"])
def test_a_malformed_geometry_json_is_one_problem(tmp_path, layout, text, part):
  write = write_own if layout == "own" else write_actionformer
  write(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / "geometry.json").write_bytes(text.encode("latin-1"))
  (line,) = input_problems(tmp_path, layout)
  assert f"{tmp_path / 'geometry.json'}: expected" in line
  assert part in line


def test_a_geometry_json_with_a_byte_order_mark_is_read(tmp_path):
  write_own(tmp_path, *tiny_splits(), CLASSES)
  text = '\ufeff{"fps": 25,\r\n"stride": 16}'
  (tmp_path / "geometry.json").write_bytes(text.encode())
  assert_same(read_root(tmp_path, "own"), *tiny_splits())


@pytest.mark.parametrize("name", ["fps", "stride", "window", "offset"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_an_impossible_geometry_is_refused(tmp_path, name, value):
  write_own(tmp_path, *tiny_splits(), CLASSES)
  lines = input_problems(tmp_path, "own", **{name: value})
  assert any(f"--config.data.{name}" in line for line in lines)


@pytest.mark.parametrize(
  "said",
  [{"fps": 1e308}, {"stride": 1e-308}, {"window": 1e308}, {"offset": 1e308}],
)
def test_an_absurd_geometry_is_a_problem(tmp_path, said):
  write_own(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / "geometry.json").write_text(json.dumps(said))
  assert input_problems(tmp_path, "own")


def _durations(root, change):
  """Changes what an `own` JSON file says of durations, {id: seconds}."""
  write_own(root, *tiny_splits(), CLASSES, table="labels.json")
  said = json.loads((root / "labels.json").read_text())
  for n, video in enumerate(said["database"].values()):
    video["duration"] = change(n)
  (root / "labels.json").write_text(json.dumps(said))


@pytest.mark.parametrize("seconds", [5.12, 5.75, 7.0, 3.3])
def test_a_duration_within_the_tolerance_is_silent(tmp_path, seconds):
  _durations(tmp_path, lambda n: seconds)
  found = read_root(tmp_path, "own")
  assert not has_note(found, "before or after")
  assert has_note(found, "held against 6 durations")


def test_single_videos_off_are_told(tmp_path):
  _durations(tmp_path, lambda n: 9.0 if n in (1, 4) else 5.12)
  found = read_root(tmp_path, "own")
  assert_same(found, *tiny_splits())
  assert has_note(
    found,
    "2 of 6 videos have features that end more than 2 s before or after",
    "train0001 (T 8, expected 14 from 9 s)",
    "test0000",
  )


@pytest.mark.parametrize(
  ("seconds", "stride"), [(20.48, "64"), (1.28, "4"), (10.24, "32")]
)
def test_most_videos_off_are_a_problem_that_names_the_stride(
  tmp_path, seconds, stride
):
  _durations(tmp_path, lambda n: seconds)
  lines = input_problems(tmp_path, "own", end_tolerance=99.0)
  (line,) = [line for line in lines if "(median)" in line]
  assert f"as with a stride of {stride}: pass" in line
  assert "(5.12 s" not in line
  assert f"({seconds:g} s at fps 25, stride 16, window 16), came 8" in line


def test_the_tolerance_is_the_users(tmp_path):
  _durations(tmp_path, lambda n: 8.0)
  assert input_problems(tmp_path, "own")
  found = read_root(tmp_path, "own", length_tolerance=3.0)
  assert not has_note(found, "before or after")


def test_a_duration_beyond_all_numbers_is_a_problem(tmp_path):
  _durations(tmp_path, lambda n: 1e308)
  assert input_problems(tmp_path, "own")


# Videos without features, labels apart from instances, known facts.


@pytest.mark.parametrize("form", FORMS)
def test_videos_without_features_are_left_out_when_asked(tmp_path, form):
  write, layout, options = FORMS[form]
  train, test = tiny_splits()
  write(tmp_path, train, test, CLASSES)
  if layout == "wtalc":
    rows = [joined(v) for v in (*train, *test)]
    rows[1] = rows[1][:0]
    write_objects(tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy", rows)
  else:
    for path in tmp_path.rglob("*train0001*.npy"):
      path.unlink()
  assert any("train0001" in p for p in input_problems(tmp_path, layout))
  found = read_root(tmp_path, layout, skip_missing=True, **options)
  assert_same(found, [v for v in train if v.id != "train0001"], test)
  assert has_note(
    found, "rule lost: 1 train videos with 1 instances", "train0001"
  )


def test_a_missing_stream_is_a_missing_video(tmp_path):
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES)
  (tmp_path / "features/flow/test0000.npy").unlink()
  found = read_root(tmp_path, "own", skip_missing=True)
  assert_same(found, train, test[1:])


@pytest.mark.parametrize("layout", ["wtalc", "own"])
def test_listed_labels_are_told_and_used_when_asked(tmp_path, layout):
  train, test = tiny_splits()
  if layout == "wtalc":
    write_wtalc(tmp_path, train, test, CLASSES)
    path = tmp_path / "Thumos14reduced-Annotations/labels_all.npy"
    rows = [[CLASSES[c] for c in v.labels] for v in (*train, *test)]
    rows[0] = list(CLASSES)
    write_objects(path, rows)
  else:
    write_own(tmp_path, train, test, CLASSES, table="labels.json")
    path = tmp_path / "labels.json"
    said = json.loads(path.read_text())
    said["database"]["train0000"]["labels"] = CLASSES
    path.write_text(json.dumps(said))
  found = read_root(tmp_path, layout)
  assert_same(found, train, test)
  assert has_note(found, "rule listed_labels: 1 videos")
  found = read_root(tmp_path, layout, video_labels="listed")
  assert [v.labels for v in found.train] == [(0, 1), (1,), (0,), (1,)]
  assert [v.instances for v in found.train] == [v.instances for v in train]


@pytest.mark.parametrize("row", [[b"Diving", b"HighJump"], [1, 2], [None]])
def test_listed_labels_that_are_no_text_are_not_lost_in_silence(tmp_path, row):
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  path = tmp_path / "Thumos14reduced-Annotations/labels_all.npy"
  write_objects(path, [row] * 6)
  try:
    found = read_root(tmp_path, "wtalc", video_labels="listed")
  except InputError as error:
    assert "label" in error.problems[0]  # noqa: PT017
  else:
    assert [v.labels for v in found.train] == [(0, 1)] * 4


def test_an_unknown_choice_of_labels_is_refused(tmp_path):
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  assert input_problems(tmp_path, "wtalc", video_labels="labels_all")


def test_rule_double_label(tmp_path):
  write_basnet(tmp_path, *tiny_splits(), CLASSES)
  segment = ["1.28", "2.56"]
  both = [{"segment": segment, "label": name} for name in CLASSES]
  edit_entry(tmp_path, "train0000", annotations=both)
  found = read_root(tmp_path, "basnet")
  assert has_note(
    found, "rule double_label: 1 segments are Diving and HighJump"
  )
  assert found.train[0].labels == (0, 1)
  assert [i.label for i in found.train[0].instances] == [0, 1]


def test_rule_zero_length(tmp_path):
  write_basnet(tmp_path, *tiny_splits(), CLASSES)
  instant = [{"segment": ["2", "2"], "label": "Diving"}]
  edit_entry(tmp_path, "test0000", annotations=instant)
  found = read_root(tmp_path, "basnet")
  assert has_note(found, "rule zero_length: 1 instances")
  assert found.test[0].instances == (Instance(2.0, 2.0, 0),)


def test_rule_overrun_of_the_known_video(tmp_path):
  train, test = tiny_splits()
  known = renamed(test, ("video_test_0000270", "video_test_0000004"))
  late = (Instance(1.28, 2.56, 0), Instance(500.0, 537.0, 0))
  known = (dataclasses.replace(known[0], instances=late), known[1])
  write_wtalc(tmp_path, train, known, CLASSES)
  found = read_root(tmp_path, "wtalc")
  assert_same(found, train, known)
  assert has_note(
    found, "rule overrun: video_test_0000270", "1 of 2 instances lie outside"
  )
  other = renamed(known, ("video_test_0000271", "video_test_0000004"))
  write_wtalc(tmp_path, train, other, CLASSES)
  (line,) = input_problems(tmp_path, "wtalc")
  assert "video_test_0000271" in line
  assert "537" in line


def test_rule_ambiguous(tmp_path):
  train, test = tiny_splits()
  write_wtalc(tmp_path, train, test, CLASSES)
  path = tmp_path / "Thumos14reduced-Annotations/Ambiguous_test.txt"
  path.write_bytes(
    b"test0000  3.0 4.5\r\ntest0000  0.0 1.4\r\n\r\nelsewhere  1.0 2.0\r\n"
  )
  found = read_root(tmp_path, "wtalc")
  assert_same(found, train, test)
  assert found.test[0].ambiguous == ((0.0, 1.4), (3.0, 4.5))
  assert has_note(found, "rule ambiguous: 2 ambiguous stretches of 1 videos")
  assert has_note(found, "Ambiguous_test.txt: 1 videos are not in")


def test_rule_v_prefix(tmp_path):
  train, test = _plain_ids()
  write_actionformer(tmp_path, _with_v(train), _with_v(test), CLASSES)
  found = read_root(tmp_path, "actionformer")
  assert_same(found, train, test)
  assert has_note(found, "rule v_prefix")


@pytest.mark.parametrize("form", ["basnet", "acmnet", "wtalc"])
def test_rule_v_prefix_of_annotations_alone(tmp_path, form):
  """Ids that change are told wherever the v_ was."""
  write, layout, options = FORMS[form]
  train, test = _plain_ids()
  write(tmp_path, _with_v(train), _with_v(test), CLASSES)
  if layout != "wtalc":
    rename_files(tmp_path, lambda name: name[2:])
  found = read_root(tmp_path, layout, **options)
  assert_same(found, train, test)
  assert has_note(found, "rule v_prefix")


@pytest.mark.parametrize("name", ["ActivityNet1.2", "ActivityNet1.3"])
def test_wtalc_has_the_name_of_the_data_set_before_its_files(tmp_path, name):
  train, test = tiny_splits()
  write_wtalc(tmp_path, train, test, CLASSES)
  for path in sorted(tmp_path.glob("Thumos14reduced*")):
    path.rename(tmp_path / path.name.replace("Thumos14reduced", name))
  assert_same(read_root(tmp_path, "auto"), train, test)


def test_a_class_list_has_every_class_once(tmp_path):
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  path = tmp_path / "Thumos14reduced-Annotations/classlist.npy"
  np.save(path, np.array([b"Diving", b"HighJump", b"Diving"]))
  (line,) = input_problems(tmp_path, "wtalc")
  assert "classlist.npy" in line
  assert "Diving" in line


def test_data_that_touch_no_rule_have_no_note_of_one(tmp_path):
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  assert not has_note(read_root(tmp_path, "wtalc"), "rule ")


# A user's own folder.


def _single(videos):
  """The videos with their joined features as one stream, rgb."""
  return [dataclasses.replace(v, features={"rgb": joined(v)}) for v in videos]


@pytest.mark.parametrize("form", ["folders", "suffix", "single"])
@pytest.mark.parametrize("table", ["csv", "json"])
def test_labels_alone_are_enough_to_train(tmp_path, form, table):
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES, form=form, columns="video,label")
  if table == "json":
    (tmp_path / "labels.csv").unlink()
    labels = {v.id: CLASSES[v.labels[0]] for v in (*train, *test)}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
  found = read_root(tmp_path, "auto")
  videos = sorted((*train, *test), key=lambda v: v.id)
  videos = _single(videos) if form == "single" else videos
  assert_same_videos(
    found.train, [dataclasses.replace(v, instances=()) for v in videos]
  )
  assert found.test == ()
  assert "no test video" in found.not_scorable()
  assert has_note(found, "names no subsets: the 6 videos with labels train")


@pytest.mark.parametrize("form", ["folders", "suffix", "single"])
@pytest.mark.parametrize("columns", ["video,label", "video,label,start,end"])
def test_files_without_a_label_are_predicted(tmp_path, form, columns):
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES, form=form)
  splits = {"": train}
  write_table(tmp_path / "labels.csv", splits, CLASSES, columns)
  found = read_root(tmp_path, "own")
  bare = [dataclasses.replace(v, labels=(), instances=()) for v in test]
  if columns == "video,label":
    train = [dataclasses.replace(v, instances=()) for v in train]
  single = form == "single"
  assert_same_videos(found.train, _single(train) if single else train)
  assert_same_videos(found.test, _single(bare) if single else bare)
  assert "temporal annotation" in found.not_scorable()
  assert has_note(found, "the 4 videos with labels train, the 2 others are")


@pytest.mark.parametrize("table", ["csv", "json"])
def test_a_video_that_is_listed_without_labels_is_predicted(tmp_path, table):
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES)
  (tmp_path / "labels.csv").unlink()
  labels = {v.id: [CLASSES[c] for c in v.labels] for v in train}
  labels |= {v.id: [] for v in test}
  text = "video,labels\n" + "".join(
    f"{i},{'|'.join(names)}\n" for i, names in labels.items()
  )
  text = text if table == "csv" else json.dumps(labels)
  (tmp_path / f"labels.{table}").write_text(text)
  found = read_root(tmp_path, "own")
  assert [v.id for v in found.train] == [v.id for v in train]
  assert [v.id for v in found.test] == [v.id for v in test]


def test_files_of_no_video_are_told_where_there_are_subsets(tmp_path):
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES)
  save(tmp_path / "features/rgb/other.npy", np.ones((8, 4)))
  found = read_root(tmp_path, "own")
  assert_same(found, train, test)
  assert has_note(
    found, "features/rgb: 1 feature files are of no video", "other"
  )


@pytest.mark.parametrize("form", ["folders", "suffix"])
@pytest.mark.parametrize("width", [1, 3, 2048])
def test_rgb_alone_of_another_width(tmp_path, form, width):
  splits = tiny_splits(streams=("rgb",), width=width)
  write_own(tmp_path, *splits, CLASSES, form=form)
  found = read_root(tmp_path, "auto")
  assert_same(found, *splits)
  assert found.streams == ("rgb",)


@pytest.mark.parametrize("width", [3, 4])
def test_one_file_a_video_is_one_stream_unless_it_is_said(tmp_path, width):
  splits = tiny_splits(streams=("rgb",), width=width)
  write_own(tmp_path, *splits, CLASSES, form="single")
  found = read_root(tmp_path, "own")
  assert_same(found, *splits)
  assert has_note(found, "one file a video is read as rgb", "joined, rgb first")
  if width % 2:
    lines = input_problems(tmp_path, "own", width=0, **BOTH)
    assert len(lines) == 6
    assert all("an even width" in line for line in lines)


def test_a_csv_may_have_several_lines_a_video(tmp_path):
  train, test = tiny_splits()
  more = (Instance(0.5, 1.0, 1), Instance(1.28, 2.56, 0), Instance(4.0, 5.0, 0))
  train = (
    dataclasses.replace(train[0], instances=more, labels=(0, 1)),
    *train[1:],
  )
  write_own(tmp_path, train, test, CLASSES)
  assert_same(read_root(tmp_path, "own"), train, test)


def test_a_csv_of_a_spreadsheet_is_read(tmp_path):
  """A mark, CRLF, blank lines and cells, quotes, capitals in the header."""
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES)
  path = tmp_path / "labels.csv"
  header, *lines = path.read_text().splitlines()
  lines = [f'"{line.replace(",", chr(34) + "," + chr(34))}"' for line in lines]
  text = "\r\n".join(["\ufeff" + header.title(), *lines, "", ",,,,,", ""])
  path.write_bytes(text.encode())
  assert_same(read_root(tmp_path, "own"), train, test)


def test_a_csv_with_several_labels_in_a_cell(tmp_path):
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES)
  text = "video,labels\n" + "".join(
    f"{v.id},HighJump | Diving\n" for v in train
  )
  (tmp_path / "labels.csv").write_text(text)
  found = read_root(tmp_path, "own")
  assert [v.labels for v in found.train] == [(0, 1)] * 4


@pytest.mark.parametrize(
  ("text", "part"),
  [
    ("", "columns video and label"),
    ("train0000,Diving\n", "columns video and label"),
    ("video,label,end,finish\n", "came 'video,label,end,finish'"),
    ("video,label,label\ntrain0000,Diving,HighJump\n", "label"),
    ("video,label\ntrain0000\n", "line 2: expected 2 columns, came 1"),
    ("video,label\na/b,Diving\n", "line 2: expected an id"),
    ('video,label\n"train0000,Diving\n', "comma-separated"),
    ("video,label,start,end\ntrain0000,,1,2\n", "line 2: expected a label"),
    ("video,label,start,end\ntrain0000,Diving,1,\n", "two finite numbers"),
    ("video,label,start,end\ntrain0000,Diving,2,1\n", "ends at its start"),
    ("video,label,fps\ntrain0000,Diving,x\n", "expected a fps above 0"),
    (
      "video,label,subset\ntrain0000,Diving,train\ntrain0000,Diving,test\n",
      "line 3: expected the subset train as in a line before, came test",
    ),
  ],
)
def test_a_malformed_csv_is_named(tmp_path, text, part):
  write_own(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / "labels.csv").write_text(text)
  lines = input_problems(tmp_path, "own")
  assert any(
    line.startswith(str(tmp_path / "labels.csv")) and part in line
    for line in lines
  ), lines


def test_columns_of_a_csv_come_in_any_order(tmp_path):
  train, test = tiny_splits()
  columns = ",".join(ALL_COLUMNS.split(",")[::-1])
  write_own(tmp_path, train, test, CLASSES, columns=columns)
  assert_same(read_root(tmp_path, "own"), train, test)


def test_a_json_of_something_else_is_no_list_of_videos(tmp_path):
  write_own(tmp_path, *tiny_splits(), CLASSES)
  (tmp_path / "labels.csv").unlink()
  said = {"version": "1.3", "database": [{"video": "train0000"}]}
  (tmp_path / "labels.json").write_text(json.dumps(said))
  lines = input_problems(tmp_path, "own", skip_missing=True)
  assert any('"database"' in line for line in lines), lines


def test_the_copied_files_of_one_layout_read_as_another(tmp_path):
  """basnet's gt.json is an annotation file of `own`, but for its subsets."""
  train, test = tiny_splits()
  write_basnet(tmp_path / "basnet", train, test, CLASSES)
  write_own(tmp_path / "own", train, test, CLASSES)
  (tmp_path / "own/labels.csv").unlink()
  shutil.copy(tmp_path / "basnet/gt.json", tmp_path / "own/gt.json")
  assert_same(read_root(tmp_path / "own", "own"), train, test)
