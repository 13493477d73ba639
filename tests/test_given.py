"""Tests of ptlr_jax.inference.feature_inputs."""

import json

import numpy as np
import pytest

from ptlr_jax.data.geometry import Geometry
from ptlr_jax.inference import feature_inputs

PAPER = {"fps": 25.0, "stride": 16.0, "window": 16.0, "offset": 0.0}
BOTH = feature_inputs.InputOptions({"rgb": 4, "flow": 4}, PAPER, {})
RGB = feature_inputs.InputOptions({"rgb": 4}, PAPER, {})


def _array(length=5, width=4, seed=0):
  rng = np.random.default_rng([seed, length, width])
  return rng.normal(size=(length, width)).astype(np.float32)


def _save(path, x):
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, x)
  return path


def _find(how, streams=None, features=()):
  """The videos with their features, and the lines of what is wrong."""
  problems = []
  found = feature_inputs.find_inputs(how, streams or {}, features, problems)
  videos = {one.id: feature_inputs.load_input(one, problems) for one in found}
  return videos, problems


def _only(how, streams=None, features=()):
  videos, problems = _find(how, streams, features)
  assert not problems
  (video,) = videos.values()
  assert video is not None
  return video


def _line(how, streams=None, features=()):
  videos, problems = _find(how, streams, features)
  (line,) = problems
  assert "\n" not in line
  assert not [video for video in videos.values() if video is not None]
  return line


# Forms.


@pytest.mark.parametrize(
  "names", [("rgb/V", "flow/V"), ("V_rgb", "V_flow"), ("features/rgb/V",) * 2]
)
def test_a_folder_in_each_form_of_two_files_a_video_is_read(tmp_path, names):
  rgb, flow = _array(seed=1), _array(seed=2)
  first, second = names
  if first == second:
    second = first.replace("rgb", "flow")
  _save(tmp_path / f"{first}.npy", rgb)
  _save(tmp_path / f"{second}.npy", flow)
  video = _only(BOTH, features=[tmp_path])
  assert video.id == "V"
  np.testing.assert_array_equal(video.features["rgb"], rgb)
  np.testing.assert_array_equal(video.features["flow"], flow)


def test_joined_streams_are_split_rgb_first(tmp_path):
  x = _array(width=8)
  _save(tmp_path / "V.npy", x)
  for source in (tmp_path, tmp_path / "V.npy", x):
    video = _only(BOTH, features=[source])
    np.testing.assert_array_equal(video.features["rgb"], x[:, :4])
    np.testing.assert_array_equal(video.features["flow"], x[:, 4:])


def test_a_model_of_one_stream_takes_it_alone_or_out_of_both(tmp_path):
  alone = _save(tmp_path / "alone.npy", _array(width=4))
  both = _save(tmp_path / "both.npy", _array(width=8))
  assert _only(RGB, features=[alone]).features.keys() == {"rgb"}
  flow = RGB._replace(widths={"flow": 4})
  np.testing.assert_array_equal(
    _only(flow, features=[both]).features["flow"], np.load(both)[:, 4:]
  )


def test_one_file_a_stream_is_one_video_whatever_the_names(tmp_path):
  rgb = _save(tmp_path / "clip_rgb.npy", _array())
  flow = _save(tmp_path / "other.npy", _array(seed=3))
  video = _only(BOTH, {"rgb": [rgb], "flow": [flow]})
  assert video.id == "clip"


def test_folders_of_streams_are_matched_by_name(tmp_path):
  for name in ("a", "b"):
    _save(tmp_path / "r" / f"{name}.npy", _array(seed=1))
    _save(tmp_path / "f" / f"{name}_flow.npy", _array(seed=2))
  videos, problems = _find(
    BOTH, {"rgb": [tmp_path / "r"], "flow": [tmp_path / "f"]}
  )
  assert not problems
  assert list(videos) == ["a", "b"]


def test_a_folder_of_both_streams_can_be_given_for_each(tmp_path):
  _save(tmp_path / "a_rgb.npy", _array())
  _save(tmp_path / "a_flow.npy", _array())
  both = {"rgb": [tmp_path], "flow": [tmp_path]}
  assert _only(BOTH, both).id == "a"


def test_names_in_either_unicode_form_are_the_same(tmp_path):
  _save(tmp_path / "rgb" / "cafe\u0301.npy", _array())
  _save(tmp_path / "flow" / "caf\u00e9.npy", _array())
  assert _only(BOTH, features=[tmp_path]).id == "caf\u00e9"


def test_arrays_of_many_videos_go_by_their_order():
  rgb, flow = [_array(5), _array(6)], [_array(5, seed=7), _array(6, seed=7)]
  videos, problems = _find(BOTH, {"rgb": rgb, "flow": flow})
  assert not problems
  assert list(videos) == ["video_0", "video_1"]
  second = videos["video_1"]
  assert second is not None
  np.testing.assert_array_equal(second.features["flow"], flow[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken_as_they_are(dtype):
  x = _array().astype(dtype)
  assert _only(RGB, {"rgb": [x]}).features["rgb"].dtype == dtype


# What is wrong.


def test_nan_is_told_with_its_segment(tmp_path):
  x = _array()
  x[3, 1] = np.nan
  path = _save(tmp_path / "V.npy", x)
  line = _line(RGB, features=[path])
  assert line.startswith(f"{path}: ")
  assert "1 of 5 segments, first in segment 3" in line


@pytest.mark.parametrize(
  ("x", "what"),
  [
    (_array(width=5), "expected shape (T, 4), rgb"),
    (np.zeros((0, 4), np.float32), "came (0, 4)"),
    (np.zeros(4, np.float32), "came (4,)"),
    (np.zeros((2, 3, 4), np.float32), "came (2, 3, 4)"),
    (np.zeros((5, 4), np.int64), "came int64"),
    (np.array([None, {}]), "pickled Python objects"),
  ],
)
def test_an_array_of_another_kind_is_refused(tmp_path, x, what):
  path = _save(tmp_path / "V.npy", x)
  line = _line(RGB, features=[path])
  assert line.startswith(f"{path}: expected ")
  assert what in line


def test_joined_features_of_another_width_are_refused(tmp_path):
  path = _save(tmp_path / "V.npy", _array(width=6))
  assert "expected shape (T, 8), rgb and flow joined" in _line(
    BOTH, features=[path]
  )


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"not an array"])
def test_a_file_that_is_no_array_is_refused(tmp_path, content):
  path = tmp_path / "V.npy"
  path.write_bytes(content)
  assert f"{path}: expected an .npy file" in _line(RGB, features=[path])


def test_a_file_that_is_not_there_is_refused(tmp_path):
  path = tmp_path / "V.npy"
  assert _line(RGB, {"rgb": [path]}) == (
    f"{path}: expected a feature file, came no such file"
  )


def test_streams_that_differ_are_refused_or_trimmed():
  rgb, flow = _array(6), _array(5)
  streams = {"rgb": [rgb], "flow": [flow]}
  line = _line(BOTH, streams)
  assert "expected 6 segments as rgb has, came 5" in line
  assert "--trim" in line
  video = _only(BOTH._replace(trim=True), streams)
  assert {s: len(x) for s, x in video.features.items()} == {"rgb": 5, "flow": 5}
  far = {"rgb": [_array(9)], "flow": [flow]}
  assert "--trim" not in _line(BOTH._replace(trim=True), far)


def test_a_stream_that_lacks_is_named(tmp_path):
  rgb = _save(tmp_path / "rgb" / "V.npy", _array())
  assert "--flow: expected features of rgb and flow" in _line(
    BOTH, {"rgb": [rgb]}
  )
  line = _line(BOTH, features=[tmp_path])
  assert line.startswith(f"{rgb}: expected a file of flow of the same name")


def test_a_stream_that_the_model_does_not_know_is_refused():
  line = _line(RGB, {"rgb": [_array()], "flow": [_array()]})
  assert "--flow: expected features of rgb, which" in line


def test_an_empty_folder_is_refused(tmp_path):
  assert f"{tmp_path}: expected feature files" in _line(
    BOTH, features=[tmp_path]
  )
  (tmp_path / "rgb").mkdir()
  assert "came none" in _line(BOTH, features=[tmp_path])


def test_two_videos_of_a_name_are_refused(tmp_path):
  paths = [_save(tmp_path / x / "V.npy", _array()) for x in ("a", "b")]
  videos, problems = _find(RGB, features=paths)
  assert list(videos) == ["V"]
  assert problems == [
    f"{paths[1]}: expected every video once, came another V; rename one of "
    "them or leave it out"
  ]


def test_two_files_of_a_name_in_a_stream_are_refused(tmp_path):
  for folder in ("a", "b"):
    _save(tmp_path / folder / "V.npy", _array())
  _save(tmp_path / "f" / "V.npy", _array())
  streams = {
    "rgb": [tmp_path / "a", tmp_path / "b"],
    "flow": [tmp_path / "f"],
  }
  videos, (line,) = _find(BOTH, streams)
  assert list(videos) == ["V"]
  assert line.startswith(
    f"{tmp_path / 'b' / 'V.npy'}: expected every video once"
  )


def test_a_bad_file_among_good_ones_is_left_out_alone(tmp_path):
  _save(tmp_path / "a.npy", _array())
  bad = _save(tmp_path / "b.npy", _array(width=3))
  _save(tmp_path / "c.npy", _array())
  videos, problems = _find(RGB, features=[tmp_path])
  assert list(videos) == ["a", "c"]
  (line,) = problems
  assert line.startswith(str(bad))


# Where a segment lies in time.


def _geometry(how, tmp_path, said=None):
  path = _save(tmp_path / "features" / "rgb" / "V.npy", _array())
  if said is not None:
    (tmp_path / "geometry.json").write_text(json.dumps(said))
  return _only(how, {"rgb": [path]}).geometry


def test_geometry_is_that_of_the_model_where_nothing_says_another(tmp_path):
  how = RGB._replace(geometry={**PAPER, "stride": 4.0})
  assert _geometry(how, tmp_path) == Geometry(25.0, 4.0, 16.0, 0.0)


def test_geometry_json_above_the_streams_is_read(tmp_path):
  found = _geometry(RGB, tmp_path, {"fps": 30, "stride": 4, "window": 16})
  assert found == Geometry(30.0, 4.0, 16.0, 0.0)


def test_the_user_says_last_but_may_not_contradict_the_file(tmp_path):
  how = RGB._replace(said={"fps": 30.0, "stride": 0.0, "window": 0.0})
  assert _geometry(how, tmp_path).fps == 30.0
  (tmp_path / "geometry.json").write_text('{"fps": 25}')
  path = tmp_path / "features" / "rgb" / "V.npy"
  line = _line(how, {"rgb": [path]})
  assert "expected what --fps=30 says, came 25" in line


def test_a_damaged_geometry_json_is_told_once(tmp_path):
  for name in ("a", "b"):
    _save(tmp_path / f"{name}.npy", _array())
  (tmp_path / "geometry.json").write_text('{"fps": -1}')
  assert "geometry.json: expected" in _line(RGB, features=[tmp_path])


def test_fps_that_differed_between_videos_has_to_be_said(tmp_path):
  own = {name: x for name, x in PAPER.items() if name != "fps"}
  how = RGB._replace(geometry=own)
  assert "pass --fps" in _line(how, {"rgb": [_array()]})
  how = how._replace(said={"fps": 30.0})
  assert _only(how, {"rgb": [_array()]}).geometry.fps == 30.0


def test_a_file_that_goes_while_others_are_computed_is_told(tmp_path):
  path = _save(tmp_path / "V.npy", _array())
  problems: list[str] = []
  (one,) = feature_inputs.find_inputs(RGB, {}, [path], problems)
  path.unlink()
  assert feature_inputs.load_input(one, problems) is None
  assert problems == [f"{path}: cannot be read (No such file or directory)"]
