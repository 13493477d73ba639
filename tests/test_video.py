"""Tests of features.video: frames by the second, upright; bad files."""

import gc
from typing import Any

import numpy as np
import pytest

from ptlr_jax.features.video import Video
from ptlr_jax.runtime.errors import InputError

pytest.importorskip("av", reason="PyAV decodes video: the extra video")

from video_fixture import moving, pattern, turn, write_sound, write_video

H264: dict[str, Any] = {"codec": "libx264", "pix_fmt": "yuv420p"}


def _numbers(path, **how):
  """Which of `pattern`s each frame is."""
  frames = Video(path, side=48, **how)
  return [round(int(x[24, 24, 0]) / 7) for x in frames]


def _refused(path, **how):
  """The one line that says why a file cannot be used."""
  with pytest.raises(InputError) as caught:
    list(Video(path, **how))
  (line,) = caught.value.lines
  assert str(path) in line
  assert "expected" in line
  assert "came" in line
  return line


def _damage(path, share, bytes_=40):
  data = bytearray(path.read_bytes())
  for i in range(bytes_):
    data[int(len(data) * share) + 7 * i] ^= 0xFF
  path.write_bytes(bytes(data))
  return path


def _cut(path, share):
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  return path


@pytest.mark.parametrize(
  ("rate", "count", "first"),
  [
    (25, 20, [0, 1, 2, 3, 4, 5, 6, 7]),
    (50, 10, [0, 2, 4, 6, 8, 10, 12, 14]),
    # 0, 100, 200 ms: the frame at 80 ms is that of 0.
    (10, 50, [0, 0, 0, 1, 1, 2, 2, 2]),
    (30, 16, [0, 1, 2, 3, 4, 6, 7, 8]),
  ],
)
def test_a_frame_is_the_one_that_is_shown_at_its_time(
  tmp_path, rate, count, first
):
  path = write_video(
    tmp_path / "v.mkv", [pattern(n) for n in range(20)], rate=rate
  )
  video = Video(path, side=48)
  found = [round(int(x[24, 24, 0]) / 7) for x in video]
  assert found[:8] == first
  assert len(found) == count == int(25 * 20 / rate)
  assert video.duration == pytest.approx(20 / rate, abs=2e-3)


def test_seconds_stay_seconds_where_the_frame_rate_varies(tmp_path):
  times = [0, 40, 300, 310, 900, 1000]
  pictures = [pattern(n) for n in range(6)]
  found = _numbers(write_video(tmp_path / "v.mkv", pictures, times=times))
  expected = [
    max(i for i, t in enumerate(times) if t <= 40 * n)
    for n in range(len(found))
  ]
  assert found == expected
  assert len(found) == 26


def test_what_is_decoded_is_freed_at_once(tmp_path):
  """Frames that wait for the garbage collector are gigabytes, of 4K."""
  path = write_video(tmp_path / "v.mkv", [pattern(n) for n in range(60)])
  gc.collect()
  gc.disable()
  try:
    assert sum(1 for _ in Video(path, side=48)) == 60
    assert gc.collect() < 30
  finally:
    gc.enable()


def test_a_frame_hours_after_the_one_before_is_damage(tmp_path):
  pictures = [pattern(n) for n in range(4)]
  times = [0, 40, 80, 40_000_000]
  path = write_video(tmp_path / "v.mkv", pictures, times=times)
  assert "40000 s after 0.08 s" in _refused(path)
  assert _numbers(path, damaged="use") == [0, 1, 2]


def test_a_frame_that_is_shown_for_longer_is_the_same_object(tmp_path):
  pictures = [pattern(n) for n in range(3)]
  path = write_video(tmp_path / "v.mkv", pictures, rate=10)
  first, second, third, fourth, *_ = Video(path, side=48)
  assert first is second is third
  assert fourth is not third


def test_pictures_get_a_short_side_of_256_and_keep_their_proportions(tmp_path):
  for (high, wide), shape in {
    (37, 53): (256, 367),
    (53, 37): (367, 256),
    (2160, 3840): (256, 455),
  }.items():
    pictures = [pattern(n, high, wide) for n in range(1)]
    path = write_video(tmp_path / f"{high}.mkv", pictures)
    (frame,) = Video(path)
    assert frame.shape == (*shape, 3)
    assert frame.dtype == np.uint8


def _bilinear(size, target):
  """f64[target,size]: bilinear weights, as wide as a target pixel."""
  scale = size / target
  middles = (np.arange(target) + 0.5) * scale - 0.5
  far = abs(np.arange(size) - middles[:, None]) / max(scale, 1)
  weights = np.maximum(0, 1 - far)
  return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("high", "wide"), [(90, 120), (24, 40)])
def test_resizing_is_bilinear(tmp_path, high, wide):
  picture = np.random.default_rng(0).integers(0, 256, (high, wide, 3))
  path = write_video(tmp_path / "v.mkv", [picture.astype(np.uint8)])
  (found,) = Video(path, side=48)
  rows, columns = _bilinear(high, 48), _bilinear(wide, found.shape[1])
  expected = np.einsum("ih,hwc,jw->ijc", rows, picture, columns)
  # At the border FFmpeg repeats the last pixels.
  assert abs(found - expected)[3:-3, 3:-3].max() < 0.75


CORNERS = {  # (green, blue) at the top left, top right, bottom left
  "upright": ([[1, 0], [0, 1]], [(0, 0), (1, 0), (0, 1)]),
  "clockwise": ([[0, 1], [-1, 0]], [(0, 1), (0, 0), (1, 1)]),
  "counterclockwise": ([[0, -1], [1, 0]], [(1, 0), (1, 1), (0, 0)]),
  "upside down": ([[-1, 0], [0, -1]], [(1, 1), (0, 1), (1, 0)]),
  "mirrored": ([[-1, 0], [0, 1]], [(1, 0), (0, 0), (1, 1)]),
}


@pytest.mark.parametrize("name", CORNERS)
def test_a_turned_video_comes_upright(tmp_path, name):
  matrix, expected = CORNERS[name]
  path = write_video(tmp_path / "v.mp4", [pattern(0)] * 2, **H264)
  frame, _ = Video(turn(path, matrix), side=48)
  assert frame.shape == ((64, 48, 3) if matrix[0][0] == 0 else (48, 64, 3))
  corners = [frame[2, 2], frame[2, -3], frame[-3, 2]]
  found = [tuple((x[1:] > 127).astype(int)) for x in corners]
  assert found == expected


def test_second_0_is_where_the_sound_begins(tmp_path):
  """The first frame stands for what is before it."""
  pictures = [pattern(n) for n in range(10)]
  path = write_video(
    tmp_path / "v.mkv",
    pictures,
    times=[200 + 40 * n for n in range(10)],
    sound=0.5,
  )
  assert _numbers(path) == [0] * 6 + [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
  ("name", "data", "said"),
  [
    ("v.mp4", b"", "an empty file"),
    ("v.mp4", b"hello\n" * 50, "does not know"),
    ("v.avi", np.random.default_rng(0).bytes(4000), "does not know"),
    ("v.mkv", None, "No such file"),
  ],
)
def test_what_is_no_video_is_a_line(tmp_path, name, data, said):
  path = tmp_path / name
  if data is not None:
    path.write_bytes(data)
  assert said in _refused(path)


def test_a_folder_is_no_video(tmp_path):
  assert "a folder" in _refused(tmp_path)


def test_sound_alone_is_a_line(tmp_path):
  assert "audio alone" in _refused(write_sound(tmp_path / "v.mp4"))


def test_a_codec_that_is_missing_is_a_line_with_a_way_out(tmp_path):
  path = write_video(tmp_path / "v.mp4", [pattern(0)] * 4, **H264)
  path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
  assert "libx264" in _refused(path)


def test_a_playlist_that_names_an_address_is_not_followed(tmp_path):
  path = tmp_path / "v.mp4"
  path.write_text("#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/v.ts\n")
  _refused(path)


def test_a_flat_picture_is_refused_before_it_fills_the_memory(tmp_path):
  path = write_video(tmp_path / "v.mkv", [pattern(0, 2, 400)])
  assert "400 x 2" in _refused(path)


def _long_enough(path, **how):
  """A video in whose middle there are pictures, not only a first one."""
  pictures = [
    np.random.default_rng(n).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    for n in range(50)
  ]
  return write_video(path, pictures, **how)


@pytest.mark.parametrize(
  ("name", "how"),
  [
    ("v.mkv", {}),
    ("v.avi", {"codec": "mpeg4", "pix_fmt": "yuv420p"}),
    ("v.mp4", {**H264, "options": {"movflags": "faststart"}}),
  ],
)
def test_a_video_cut_off_in_its_middle_is_bad_unless_it_is_to_be_used(
  tmp_path, name, how
):
  path = _cut(_long_enough(tmp_path / name, **how), 0.6)
  assert "--damaged=use" in _refused(path, side=48)
  video = Video(path, side=48, damaged="use")
  count = len(list(video))
  assert 10 < count < 45
  assert video.duration == pytest.approx(count / 25, abs=0.041)
  assert video.faults


def test_an_mp4_without_its_index_cannot_be_used_at_all(tmp_path):
  path = _cut(_long_enough(tmp_path / "v.mp4", **H264), 0.6)
  assert "does not know" in _refused(path, damaged="use")


def test_damage_that_the_decoder_sees_is_told_with_its_second(tmp_path):
  seconds = []
  for share in (0.3, 0.8):
    path = tmp_path / f"{share}.avi"
    _damage(_long_enough(path, codec="mpeg4", pix_fmt="yuv420p"), share)
    line = _refused(path, side=48)
    seconds.append(float(line.split(" s;")[0].split()[-1]))
    video = Video(path, side=48, damaged="use")
    assert len(list(video)) > 40
    assert video.faults
  assert 0 < seconds[0] < seconds[1] < 2


def test_the_length_that_a_header_claims_is_known_before_decoding(tmp_path):
  pictures = [moving(n) for n in range(30)]
  path = write_video(tmp_path / "v.mkv", pictures)
  assert Video(path).look() == pytest.approx(1.2)
  assert Video(tmp_path / "none.mkv").look() == 0
