"""Tests of features.segments, features.workers and features.extraction: what a
segment sees, crops, batches over videos, processes."""

import dataclasses
import functools
import itertools
import multiprocessing
import multiprocessing.reduction
import os
import signal
import struct
from typing import Any

import fake_towers
import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV decodes video: the extra video")
pytest.importorskip("cv2", reason="OpenCV computes flow: the extra video")

from video_fixture import moving, pattern, write_video

from ptlr_jax.features import extraction, segments, workers
from ptlr_jax.features.optical_flow import TvL1
from ptlr_jax.features.segments import Segments, Settings
from ptlr_jax.runtime.errors import InputError

SMALL = Settings(side=32, size=24, flow="tvl1_fast")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """Three videos of 2, 3 and 1 segments."""
  folder = tmp_path_factory.mktemp("videos")
  for name, frames, first in (("a", 40, 0), ("b", 50, 5), ("c", 16, 9)):
    pictures = [moving(first + n, 32, 40) for n in range(frames)]
    write_video(folder / f"{name}.mkv", pictures)
  return folder


# Segments.


def _frames(count):
  return [pattern(n, 32, 40) for n in range(count)]


@pytest.mark.parametrize(
  ("count", "window", "stride", "starts"),
  [
    (16, 16, 16, [0]),
    (31, 16, 16, [0]),
    (33, 16, 16, [0, 16]),
    (20, 8, 4, [0, 4, 8, 12]),
    (20, 4, 7, [0, 7, 14]),
    (18, 4, 7, [0, 7, 14]),
  ],
)
def test_segment_t_has_the_frames_from_t_stride_on(
  tmp_path, count, window, stride, starts
):
  path = write_video(tmp_path / "v.mkv", _frames(count))
  settings = dataclasses.replace(SMALL, window=window, stride=stride)
  made = Segments(path, ("rgb",), settings)
  rgb: list = [segment.rgb for segment in made]
  found = [[round(int(x[0, 0, 0]) / 7) for x in frames] for frames in rgb]
  assert found == [list(range(s, s + window)) for s in starts]
  assert made.duration == pytest.approx(count / 25)
  assert made.expected == len(starts)
  assert segments.count_segments(count / 25, settings) == len(starts)


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (4, 2), (3, 5)])
def test_flow_t_is_from_frame_t_to_the_next_and_the_last_comes_again(
  tmp_path, window, stride
):
  pictures = [moving(n, 32, 40) for n in range(12)]
  path = write_video(tmp_path / "v.mkv", pictures)
  settings = dataclasses.replace(SMALL, window=window, stride=stride)
  found = [s.flow for s in Segments(path, ("flow",), settings)]
  solver = TvL1("tvl1_fast")
  flows = [
    segments.crop(solver.between(a, b), 24)
    for a, b in itertools.pairwise(pictures)
  ]
  flows.append(flows[-1])
  starts = range(0, 12 - window + 1, stride)
  assert len(found) == len(starts)
  for x, start in zip(found, starts, strict=True):
    np.testing.assert_array_equal(x, flows[start : start + window])


def test_a_video_too_short_for_a_segment_is_a_line(tmp_path):
  for frames in (1, 15):
    path = write_video(tmp_path / "v.mkv", _frames(frames))
    with pytest.raises(InputError, match=f"at least 16 frames.* came {frames}"):
      list(Segments(path, ("rgb",), SMALL))


def test_ten_crops_are_corners_and_centre_and_their_mirror_images():
  x = np.arange(1 * 6 * 8 * 2, dtype=np.float32).reshape(1, 6, 8, 2)
  found = segments.views(x, 4, "ten")
  assert found.shape == (10, 1, 4, 4, 2)
  corners = [(0, 0), (0, 4), (2, 0), (2, 4), (1, 2)]
  for view, (top, left) in zip(found[:5], corners, strict=True):
    np.testing.assert_array_equal(view, x[:, top : top + 4, left : left + 4])
  np.testing.assert_array_equal(found[5:, ..., 0], -found[:5, ..., ::-1, 0])
  np.testing.assert_array_equal(found[5:, ..., 1], found[:5, ..., ::-1, 1])
  (centre,) = segments.views(x, 4, "center")
  np.testing.assert_array_equal(centre, found[4])


def test_pixels_go_from_minus_1_to_1():
  x = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3)
  found = segments.views(x, 1, "ten")
  np.testing.assert_allclose(found[0].ravel(), [-1, 1, -0.6], atol=1e-6)
  assert found.dtype == np.float32


# Features.


@pytest.fixture(scope="module")
def plain(videos):
  """The features of video b, of each crop, without batches:
  {stream: f32[T,10,D]}."""
  ten = dataclasses.replace(SMALL, crops="ten")
  made = list(Segments(videos / "b.mkv", segments.STREAMS, ten))
  found = {}
  for stream in segments.STREAMS:
    seen = [segments.views(getattr(s, stream), 24, "ten") for s in made]
    weight = {"weight": np.float32(1)}
    found[stream] = np.stack([fake_towers.network(weight, x) for x in seen])
  return found


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_features_do_not_hang_on_the_batches(videos, plain, batch):
  heard = []
  found = extraction.features_of(
    videos / "b.mkv",
    fake_towers.towers("rgb", "flow"),
    dataclasses.replace(SMALL, batch=batch),
    lambda done, expected: heard.append((done, expected)),
  )
  assert heard == [(1, 3), (2, 3), (3, 3)]
  assert found[1:] == (25.0, 16, 16, 2.0, ())
  for stream, x in plain.items():
    assert found.streams[stream].dtype == np.float32
    assert found.streams[stream].shape == (3, 9 if stream == "rgb" else 6)
    np.testing.assert_allclose(found.streams[stream], x[:, 4], atol=1e-6)


def test_ten_crops_are_averaged_or_kept_apart(videos, plain):
  towers = fake_towers.towers("rgb", "flow")
  for crops, expected in {
    "ten_apart": plain,
    "ten": {stream: x.mean(axis=1) for stream, x in plain.items()},
  }.items():
    settings = dataclasses.replace(SMALL, crops=crops)
    found = extraction.features_of(videos / "b.mkv", towers, settings)
    for stream, x in expected.items():
      np.testing.assert_allclose(found.streams[stream], x, atol=1e-6)


def test_batches_hold_segments_of_several_videos_and_have_one_shape(videos):
  shapes, filled = set(), []

  def network(variables, clips):
    shapes.add(clips.shape)
    filled.append(sum(bool(x.any()) for x in clips))
    return fake_towers.network(variables, clips)

  towers = extraction.Towers({"rgb": {"weight": np.float32(1)}}, network)
  paths = sorted(videos.iterdir())
  found = dict(
    extraction.features_of_many(
      paths, towers, dataclasses.replace(SMALL, batch=4), jobs=2
    )
  )
  assert shapes == {(4, 16, 24, 24, 3)}
  assert filled == [4, 2]  # of 2 + 3 + 1 segments
  for path in paths:
    alone = extraction.features_of(path, fake_towers.towers("rgb"), SMALL)
    features = found[path]
    assert isinstance(features, extraction.Features)
    np.testing.assert_array_equal(features.streams["rgb"], alone.streams["rgb"])


class _Dying:
  """A worker's pipe, at whose event number `at` its process is killed, before
  it or in its middle."""

  def __init__(self, pipe, at, halved):
    self.pipe, self.left, self.halved = pipe, at, halved

  def send(self, event):
    if not self.left:
      if self.halved:
        whole = bytes(multiprocessing.reduction.ForkingPickler.dumps(event))
        header = struct.pack("!i", len(whole))
        os.write(self.pipe.fileno(), header + whole[: len(whole) // 2])
      os.kill(os.getpid(), signal.SIGKILL)
    self.left -= 1
    self.pipe.send(event)


def _dying_work(at, halved, pipe, path, *how):
  """In place of `workers._work`, which is itself in the process."""
  if path.stem != "a":
    workers._work(pipe, path, *how)
    return
  dying: Any = _Dying(pipe, at, halved)
  workers._work(dying, path, *how)
  os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
  ("at", "halved"), [(0, False), (0, True), (1, True), (2, False), (2, True)]
)
def test_a_worker_that_is_killed_costs_its_video_alone(
  videos, monkeypatch, at, halved
):
  found = _with_a_killed(videos, monkeypatch, at, halved)
  *made, failed = found.pop("a")
  assert [type(event) for event in made] == [workers.Made] * at
  assert isinstance(failed, workers.Failed)
  assert "came its end by SIGKILL; leave it out" in failed.line
  assert {v: type(events[-1]) for v, events in found.items()} == dict.fromkeys(
    "bc", workers.Ended
  )
  assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_after_its_video_costs_nothing(
  videos, monkeypatch
):
  found = _with_a_killed(videos, monkeypatch, 3, False)
  assert {v: len(events) for v, events in found.items()} == dict(a=3, b=4, c=2)
  assert all(type(x[-1]) is workers.Ended for x in found.values())


def _with_a_killed(videos, monkeypatch, *moment):
  """{video: its events} where the process of video a is killed."""
  dying = functools.partial(_dying_work, *moment)
  monkeypatch.setattr(workers, "_work", dying)
  found = {}
  for event in workers.events(sorted(videos.iterdir()), ("rgb",), SMALL, 2):
    found.setdefault(event.path.stem, []).append(event)
  return found


def _interrupted_work(*how):
  os.kill(os.getpid(), signal.SIGINT)
  workers._work(*how)


def test_a_worker_gets_no_sigint(videos, monkeypatch):
  monkeypatch.setattr(workers, "_work", _interrupted_work)
  events = list(workers.events([videos / "c.mkv"], ("rgb",), SMALL))
  assert [type(event) for event in events] == [workers.Made, workers.Ended]


def test_no_process_is_left_when_no_more_is_asked(videos):
  events = workers.events(sorted(videos.iterdir()), ("rgb",), SMALL, jobs=2)
  next(events)
  events.close()
  assert not multiprocessing.active_children()


def test_the_network_is_i3d_with_the_weights_of_the_stream(videos):
  """Small pictures and a few frames: what I3D computes is tested elsewhere."""
  from flax.traverse_util import unflatten_dict

  from ptlr_jax.features import i3d

  rng = np.random.default_rng(0)
  flat = {
    name: np.abs(rng.normal(size=shape, scale=0.03)).astype(np.float32)
    for name, shape in i3d.shapes("rgb").items()
  }
  variables = unflatten_dict(flat, sep="/")
  settings = dataclasses.replace(SMALL, window=8, stride=8, batch=2, size=32)
  towers = extraction.Towers({"rgb": variables})
  found = extraction.features_of(videos / "c.mkv", towers, settings)
  made = Segments(videos / "c.mkv", ("rgb",), settings)
  rgb: list = [segment.rgb for segment in made]
  clips = np.concatenate([segments.views(x, 32, "center") for x in rgb])
  expected = np.asarray(i3d.features(variables, clips))
  assert expected.shape == (2, 1024)
  assert expected.std() > 0
  np.testing.assert_array_equal(found.streams["rgb"], expected)
