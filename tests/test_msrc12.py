"""Tests of benchmarks/msrc12.py: the published recordings, and a made-up one.

The made-up people stand in the room, head half a metre above the hip centre,
and glide along x by `speed` times half a metre, one torso length, a second.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import msrc12
from ptlr_jax import prepare

REAL = Path(__file__).absolute().parents[2] / "shared" / "data" / "msrc12"
SECOND = 49_875_000  # ticks; half a microsecond more on the frames' clock
EMPTY = 30  # frames before the skeleton appears

needs_recordings = pytest.mark.skipif(
  not REAL.is_dir(), reason=f"MSRC-12 is not at {REAL}"
)


def _convert(source, output, *flags):
  msrc12.main([f"--recordings={source}", f"--output={output}", *flags])


def _labels(root):
  with (root / "labels.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def _write_frames(path, frames=150, gap=(), speed=1):
  """Frames at 30 Hz after `EMPTY` ones, no skeleton in those of `gap`."""
  table = np.zeros((EMPTY + frames + EMPTY, 81))
  table[:, 0] = np.ceil(np.arange(len(table)) * 1e6 / 30)
  joints = np.zeros((frames, 20, 4))
  joints[..., 0] = 1 + speed * np.arange(frames)[:, None] / 60
  joints[:, :, 1] = 0.1
  joints[:, 3, 1] = 0.6
  joints[..., 3] = 1.0
  joints[list(gap)] = 0.0
  table[EMPTY:-EMPTY, 1:] = joints.reshape(frames, 80)
  path.write_text(
    "".join(" ".join(f"{x:.6f}" for x in row) + "\r\n" for row in table)
  )


def _write_recording(folder, name, seconds=(0.5, 2.0, 3.0), **options):
  """`seconds`: of the tags, from the first frame with a skeleton."""
  _write_frames(folder / f"{name}.csv", **options)
  tags = "".join(f"{round((1 + t) * SECOND)};G2  Duck\r\n" for t in seconds)
  (folder / f"{name}.tagstream").write_text(f"XQPCTick;Tag\r\n{tags}")


@pytest.fixture
def folder(tmp_path):
  """Two gestures of three people, the second twice as fast, and so on."""
  folder = tmp_path / "recordings"
  folder.mkdir()
  for person in (1, 2, 3):
    for gesture in ("2", "12A"):
      _write_recording(folder, f"P1_1_{gesture}_p0{person}", speed=person)
  return folder


@needs_recordings
def test_published_recordings_give_the_rows_of_the_full_set(tmp_path):
  root = tmp_path / "set"
  _convert(REAL / "raw", root, f"--statistics={REAL / 'statistics.npz'}")
  labels = _labels(root)
  names = {row["video"] for row in labels}
  assert names == {path.stem for path in (REAL / "raw").glob("*.csv")}
  assert labels == [row for row in _labels(REAL) if row["video"] in names]
  for stream, folder in (("pose", "rgb"), ("motion", "flow")):
    for name in names:
      known = np.load(REAL / "features" / folder / f"{name}.npy")
      came = np.load(root / "features" / stream / f"{name}.npy")
      assert (came.shape, came.dtype) == (known.shape, known.dtype)
      assert np.abs(came.astype(float) - known).max() <= 1 / 32
      assert (came == known).mean() > 0.999


def test_a_tick_is_so_many_microseconds(tmp_path):
  path = tmp_path / "x.tagstream"
  path.write_text(f"XQPCTick;Tag\r\n{2 * SECOND};G2  Duck\r\n{SECOND};G2\r\n")
  np.testing.assert_array_equal(
    msrc12.read_tags(path), [1_000_000.5, 2_000_000.5]
  )


def test_segments_end_at_the_middle_between_points_and_at_the_ends():
  found = msrc12.segments(np.array([0.5, 2.25, 3.0, 4.75]), duration=5.0)
  # 2.25 and 3.0 meet at 2.625; 0.5 - 0.75 and 4.75 + 0.75 are outside.
  wanted = [[0, 1.25], [1.5, 2.625], [2.625, 3.75], [4.0, 5.0]]
  np.testing.assert_array_equal(found, wanted)


def test_a_gap_is_filled_linearly(tmp_path):
  path = tmp_path / "x.csv"
  rows = {}
  for gap in ((), range(60, 80)):
    _write_frames(path, gap=gap)
    times, joints = msrc12.read_frames(path)
    assert (times[0], len(times)) == (1e6, 150)
    rows[len(gap)] = msrc12.features(msrc12.resampled(times, joints))
  for stream, whole in rows[0].items():
    assert whole.shape == (17, 120)  # (150 - 16) // 8 + 1
    np.testing.assert_allclose(rows[20][stream], whole, atol=1e-4)
  # x, y and z of the hip centre: velocity, and 60 columns on its absolute
  # value; the first row feels that the average repeats the first frame.
  speed = rows[20]["motion"][1:-1, [0, 1, 2, 60, 61, 62]]
  np.testing.assert_allclose(speed, [[1, 0, 0, 1, 0, 0]] * 15, atol=1e-3)
  # The head is one torso length above the hip centre, as in the median pose.
  pose = rows[20]["pose"][:, [9, 10, 11, 69, 70, 71]]
  np.testing.assert_allclose(pose, [[0, 1, 0, 0, 0, 0]] * 17, atol=1e-9)


def test_the_made_up_set_is_split_by_person_and_sound(folder, tmp_path, capsys):
  root = tmp_path / "set"
  _convert(folder, root)
  out = capsys.readouterr().out
  assert out.startswith(
    "train: 4 recordings, 12 points\ntest: 2 recordings, 6 "
  )
  labels = _labels(root)
  subsets = {row["video"][-3:]: row["subset"] for row in labels}
  assert subsets == {"p01": "train", "p02": "train", "p03": "test"}
  classes = {row["video"]: row["label"] for row in labels}
  assert classes["P1_1_2_p03"] == "duck"
  assert classes["P1_1_12A_p03"] == "kick"
  first = [row for row in labels if row["video"] == "P1_1_2_p01"]
  times = [float(row[key]) for row in first for key in ("start", "end")]
  assert times == [0, 1.25, 1.25, 2.5, 2.5, 3.75]  # points .5, 2 and 3
  assert {row["duration"] for row in labels} == {"5.000"}
  geometry = json.loads((root / "geometry.json").read_text())
  assert geometry == {"fps": 30, "stride": 8, "window": 16}
  streams = "--streams=pose,motion"
  prepare.run_command(["prepare", "--check", f"--source={root}", streams])
  assert "no problem" in capsys.readouterr().out


def test_a_row_is_scaled_clipped_and_rounded_to_a_step():
  x = np.array([[1.0, 2.0, 1.11, -9.0]])
  z = msrc12.standardised(x, np.full(4, 1.0), np.full(4, 0.5), "float16")
  assert z.dtype == np.float16
  np.testing.assert_array_equal(z, [[0, 2, 7 / 32, -6]])  # 0.22 * 32 = 7.04


def test_statistics_are_those_of_training_people_and_can_be_given(
  folder, tmp_path
):
  own, given = tmp_path / "own", tmp_path / "given"
  _convert(folder, own, "--dtype=float32")
  file = own / "statistics.npz"
  with np.load(file) as found:  # the hip centre's speeds are 1 and 2
    assert found["motion_mean"][0] == pytest.approx(1.5, abs=0.02)
    assert found["pose_std"][0] == np.float32(1e-3)
  _convert(folder, given, "--dtype=float32", f"--statistics={file}")
  for path in own.rglob("*.npy"):
    x = np.load(path)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(np.load(given / path.relative_to(own)), x)


def test_what_cannot_be_used_is_left_out_with_its_line(
  folder, tmp_path, capsys
):
  for name in ("P2_1_1_p01", "P2_1_2_p01", "P2_1_3_p01", "P2_1_4_p01", "notes"):
    _write_recording(folder, name)
  (folder / "P2_1_1_p01.tagstream").unlink()
  (folder / "P2_1_2_p01.csv").unlink()
  (folder / "P2_1_3_p01.csv").write_text(" ".join(["0"] * 81) + "\n")
  (folder / "P2_1_4_p01.csv").write_text("1 2 3\n")
  _write_recording(folder, "P2_1_5_p01", seconds=(-0.5, 60.0))
  _convert(folder, tmp_path / "set")
  assert capsys.readouterr().out.splitlines()[:6] == [
    f"left out: no {folder}/P2_1_1_p01.tagstream",
    f"left out: no {folder}/P2_1_2_p01.csv",
    f"left out: {folder}/P2_1_3_p01.csv: no skeleton",
    f"left out: {folder}/P2_1_4_p01.csv: expected 81 numbers, got 3 in line 1",
    f"left out: {folder}/P2_1_5_p01.tagstream: no tag within the recording",
    f"left out: {folder}/notes: expected a name as P2_1_11A_p06",
  ]
  assert len({row["video"] for row in _labels(tmp_path / "set")}) == 6


def test_a_mistake_is_one_line_and_nothing_is_written(folder, tmp_path, capsys):
  empty, wrong = tmp_path / "empty", tmp_path / "x.npz"
  empty.mkdir()
  np.savez(wrong, pose_mean=np.zeros(3))
  new = tmp_path / "new"
  for source, output, flags, said in (
    (folder, folder, (), "--output: expected no or an empty folder, got"),
    (tmp_path / "none", new, (), "--recordings: expected a folder, got"),
    (empty, new, (), "--recordings: expected NAME.csv"),
    (folder, new, (f"--statistics={wrong}",), "--statistics: expected"),
  ):
    with pytest.raises(SystemExit):
      _convert(source, output, *flags)
    assert said in capsys.readouterr().err.splitlines()[-1]
  assert not new.exists()
