"""Tests of ptlr_jax.extract, features.output and features.listing: files that
are written, what is refused, going on after a stop."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import fake_towers
import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV decodes video: the extra video")
pytest.importorskip("cv2", reason="OpenCV computes flow: the extra video")

from video_fixture import moving, pattern, write_video

from ptlr_jax import extract, prepare
from ptlr_jax.features import extraction, listing, options, output, workers
from ptlr_jax.features.segments import Settings
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import InputError, Stopped

SMALL = Settings(side=32, size=24, flow="tvl1_fast")


def _video(path, frames=40, first=0, **how):
  """A video in which a square moves."""
  pictures = [moving(first + n, 32, 40) for n in range(frames)]
  return write_video(path, pictures, **how)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """Three videos of 2, 3 and 1 segments."""
  folder = tmp_path_factory.mktemp("videos")
  for name, frames, first in (("a", 40, 0), ("b", 50, 5), ("c", 16, 9)):
    _video(folder / f"{name}.mkv", frames, first)
  return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  """The command with fake towers and small pictures."""
  monkeypatch.setattr(extraction, "load_towers", fake_towers.load_towers)
  defaults = dataclasses.asdict(SMALL)
  monkeypatch.setattr(
    options, "Settings", lambda **given: Settings(**{**defaults, **given})
  )


def _extract(videos, out, *flags, streams=("rgb",), jobs=1):
  weights = [f"--{stream}_weights=2.0" for stream in streams]
  extract.run_command(
    [
      *("extract", f"--videos={videos}", f"--output={out}", f"--jobs={jobs}"),
      *weights,
      *flags,
    ]
  )


def _bytes(root):
  """Everything but what a run says of itself."""
  return {
    str(path.relative_to(root)): path.read_bytes()
    for path in sorted(root.rglob("*"))
    if path.is_file() and path.name != "report.json"
  }


def _report(out):
  path = out / "extraction" / "report.json"
  return storage.parsed_json(path, path.read_bytes())


def test_features_are_where_training_finds_them(videos, tmp_path, capsys):
  out = tmp_path / "out"
  (out / "extraction").mkdir(parents=True)
  (out / "split_train.txt").write_text("a\nb\n")
  (out / "split_test.txt").write_text("c\n")
  _extract(videos, out, streams=("rgb", "flow"))
  assert (
    "3 videos extracted, 0 done before, 0 failed" in capsys.readouterr().out
  )
  segment = {"segment": ["0.1", "0.5"], "label": "Sliding"}
  entries = {
    name: {"subset": subset, "annotations": [segment]}
    for name, subset in (("a", "train"), ("b", "train"), ("c", "test"))
  }
  (out / "gt.json").write_text(json.dumps({"database": entries}))
  found = np.load(out / "features" / "train" / "flow" / "b.npy")
  assert found.shape == (3, 6)
  assert np.load(out / "features" / "test" / "rgb" / "c.npy").shape == (1, 9)
  prepare.run_command(
    ["prepare", "--check", f"--source={out}", "--min_segments=1"]
  )
  said = capsys.readouterr().out
  assert "found the layout basnet" in said
  assert "no problem" in said


@pytest.mark.parametrize(
  ("layout", "streams"),
  [
    ("own", ("rgb", "flow")),
    ("own", ("rgb",)),
    ("basnet", ("rgb", "flow")),
    ("video_features", ("rgb", "flow")),
  ],
)
def test_other_layouts_are_read_with_their_geometry(
  videos, tmp_path, capsys, layout, streams
):
  flags = (f"--layout={layout}", "--window=8", "--stride=4")
  _extract(videos, tmp_path, *flags, streams=streams)
  (tmp_path / "labels.csv").write_text("video,label\na,Sliding\nb,Sliding\n")
  capsys.readouterr()
  asked = [f"--streams={','.join(streams)}"]
  prepare.run_command(["prepare", "--check", f"--source={tmp_path}", *asked])
  said = capsys.readouterr().out
  known = "video_features" if layout == "video_features" else "own"
  assert f"found the layout {known}" in said
  assert "no problem" in said
  geometry = json.loads((tmp_path / "geometry.json").read_text())
  assert geometry == {"fps": 25.0, "stride": 4, "window": 8, "offset": 0.0}


def test_what_is_done_is_skipped_and_what_is_damaged_made_again(
  videos, tmp_path, capsys
):
  _extract(videos, tmp_path)
  before = _bytes(tmp_path)
  rgb = tmp_path / "features" / "rgb"
  data = bytearray((rgb / "a.npy").read_bytes())
  data[-1] ^= 1
  (rgb / "a.npy").write_bytes(data)
  record = tmp_path / "extraction" / "videos" / "b.json"
  record.write_text(record.read_text()[:-20])
  capsys.readouterr()
  _extract(videos, tmp_path)
  assert "2 videos extracted, 1 done before" in capsys.readouterr().out
  assert _bytes(tmp_path) == before
  _extract(videos, tmp_path)
  assert "0 videos extracted, 3 done before" in capsys.readouterr().out


def test_a_stream_can_come_later_and_a_changed_video_is_made_again(
  videos, tmp_path, capsys
):
  mine = tmp_path / "videos"
  mine.mkdir()
  for path in videos.iterdir():
    (mine / path.name).write_bytes(path.read_bytes())
  out = tmp_path / "out"
  _extract(mine, out)
  before = (out / "features" / "rgb" / "a.npy").read_bytes()
  _extract(mine, out, streams=("flow",))
  _extract(mine, out, streams=("rgb", "flow"))
  assert "3 done before" in capsys.readouterr().out
  assert (out / "features" / "rgb" / "a.npy").read_bytes() == before
  _video(mine / "a.mkv", 60, 3)
  _extract(mine, out, streams=("rgb", "flow"))
  assert "1 videos extracted, 2 done before" in capsys.readouterr().out
  assert np.load(out / "features" / "flow" / "a.npy").shape == (3, 6)


def test_split_files_that_come_later_move_features_and_make_none_again(
  videos, tmp_path, capsys
):
  _extract(videos, tmp_path)
  assert "layout own" in capsys.readouterr().out
  before = (tmp_path / "features" / "rgb" / "a.npy").read_bytes()
  (tmp_path / "split_train.txt").write_text("a\n")
  (tmp_path / "split_test.txt").write_text("b\nc\n")
  _extract(videos, tmp_path)
  assert "0 videos extracted, 3 done before" in capsys.readouterr().out
  assert not list((tmp_path / "features" / "rgb").iterdir())
  folder = tmp_path / "features" / "train" / "rgb"
  assert (folder / "a.npy").read_bytes() == before
  assert (tmp_path / "features" / "test" / "rgb" / "c.npy").exists()


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (("--stride=8",), "stride 16 (now 8)"),
    (("--crops=ten",), "crops 'center' (now 'ten')"),
    (("--layout=own",), "layout 'basnet' (now 'own')"),
    (("--rgb_weights=3.0",), "other weights of rgb"),
  ],
)
def test_other_settings_than_before_are_refused(videos, tmp_path, flags, said):
  one = videos / "c.mkv"
  _extract(one, tmp_path)
  before = _bytes(tmp_path)
  with pytest.raises(InputError) as caught:
    _extract(one, tmp_path, *flags)
  (line,) = caught.value.lines
  assert said in line
  assert "--output" in line
  assert _bytes(tmp_path) == before


def test_a_batch_of_another_size_goes_on(videos, tmp_path, capsys):
  _extract(videos / "c.mkv", tmp_path)
  _extract(videos / "c.mkv", tmp_path, "--batch=2", "--damaged=use")
  assert "1 done before" in capsys.readouterr().out


def test_features_of_another_program_are_never_replaced(videos, tmp_path):
  path = tmp_path / "features" / "rgb" / "a.npy"
  path.parent.mkdir(parents=True)
  path.write_bytes(b"theirs")
  with pytest.raises(InputError, match="1 of 3 videos"):
    _extract(videos, tmp_path)
  assert path.read_bytes() == b"theirs"
  assert (path.parent / "b.npy").exists()
  assert "move it away" in _report(tmp_path)["failed"][str(videos / "a.mkv")]


def test_another_geometry_beside_the_features_is_refused(videos, tmp_path):
  (tmp_path / "geometry.json").write_text('{"fps": 30}')
  with pytest.raises(InputError, match=r"geometry\.json: expected"):
    _extract(videos, tmp_path)


def test_a_bad_video_is_a_line_and_the_others_are_done(
  videos, tmp_path, capsys
):
  listed = [*sorted(videos.iterdir()), tmp_path / "none.mp4"]
  for name, data in (("empty.mp4", b""), ("text.avi", b"no video\n" * 99)):
    (tmp_path / name).write_bytes(data)
    listed.append(tmp_path / name)
  pictures = [pattern(n, 32, 40) for n in range(3)]
  write_video(tmp_path / "short.mkv", pictures)
  listed.append(tmp_path / "short.mkv")
  (tmp_path / "list.txt").write_text(
    "# mine\n" + "\n".join(os.path.relpath(p, tmp_path) for p in listed)
  )
  out = tmp_path / "out"
  with pytest.raises(InputError, match="4 of 7 videos have no features"):
    _extract(tmp_path / "list.txt", out, jobs=2)
  said = [x for x in capsys.readouterr().out.splitlines() if "bad video" in x]
  assert len(said) == 4
  found = _report(out)
  assert found["extracted"] == 3
  assert len(found["failed"]) == 4
  assert len(list((out / "features" / "rgb").iterdir())) == 3


def test_a_damaged_video_is_used_when_asked_and_its_record_says_so(
  tmp_path, capsys
):
  path = _video(tmp_path / "v.mkv", 50)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  out = tmp_path / "out"
  with pytest.raises(InputError):
    _extract(path, out)
  assert "--damaged=use" in capsys.readouterr().out
  _extract(path, out, "--damaged=use")
  assert "used as far as it decodes" in capsys.readouterr().out
  record = out / "extraction" / "videos" / "v.json"
  assert storage.parsed_json(record, record.read_bytes())["faults"]


def test_a_signal_ends_it_and_the_same_command_goes_on(
  videos, tmp_path, capsys, monkeypatch
):
  out, whole = tmp_path / "out", tmp_path / "whole"
  _extract(videos, whole)
  write = output.Output.write

  def write_and_stop(self, name, size, found):
    write(self, name, size, found)
    os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patched:
    patched.setattr(output.Output, "write", write_and_stop)
    # For a command that does not mind the signal.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    with pytest.raises(Stopped):
      _extract(videos, out, "--batch=1", jobs=2)
    signal.signal(signal.SIGTERM, before)
  assert not workers.multiprocessing.active_children()
  assert len(list(out.rglob("*.npy"))) == 1
  assert _report(out)["failed"] == {}
  left = out / "features" / "rgb" / ".b.npy.tmp-123"
  left.write_bytes(b"half")
  capsys.readouterr()
  _extract(videos, out)
  assert not left.exists()
  assert "2 videos extracted, 1 done before" in capsys.readouterr().out
  assert _bytes(out) == _bytes(whole)


def test_a_second_extraction_into_the_same_folder_is_refused(videos, tmp_path):
  (tmp_path / "extraction").mkdir()
  with (
    extract.lock.hold_lock(tmp_path / "extraction"),
    pytest.raises(InputError, match=r"no other extraction.*--output"),
  ):
    _extract(videos, tmp_path)


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (("--layout=other",), "--layout: expected one of basnet"),
    (("--crops=five",), "--crops: expected one of center"),
    (("--flow=raft",), "--flow: expected one of tvl1"),
    (("--window=0",), "--window: expected a number of at least 1"),
    (("--split=train", "--layout=own"), "--split: expected none"),
    (("--what=1",), "what"),
  ],
)
def test_a_wrong_flag_is_a_line(videos, tmp_path, flags, said):
  with pytest.raises(InputError) as caught:
    _extract(videos, tmp_path, *flags)
  (line,) = caught.value.lines
  assert said in line
  assert not (tmp_path / "extraction").exists()


@pytest.mark.parametrize("name", ["av", "cv2"])
def test_a_package_that_is_missing_is_told_at_once(
  videos, tmp_path, monkeypatch, name
):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(InputError, match=r"ptlr-jax\[video\]"):
    _extract(videos, tmp_path, streams=("rgb", "flow"))
  assert not list(tmp_path.iterdir())


def test_what_is_missing_is_told_at_once():
  with pytest.raises(InputError) as caught:
    extract.run_command(["extract"])
  said = [line.partition(":")[0] for line in caught.value.lines]
  assert said == ["--videos", "--output", "--rgb_weights, --flow_weights"]


def test_names_of_videos_are_unique_and_of_one_split(tmp_path):
  for name in ("a.mkv", "a.mp4", ".hidden.mp4", "notes.pdf"):
    (tmp_path / name).write_bytes(b"x")
  with pytest.raises(InputError, match=r"a\.npy"):
    listing.videos_of(str(tmp_path))
  (tmp_path / "a.mp4").unlink()
  assert listing.videos_of(str(tmp_path)) == [tmp_path / "a.mkv"]
  with pytest.raises(InputError, match="came none"):
    listing.videos_of("")
  (tmp_path / "notes.pdf").write_bytes(b"\xff\xfe\xff")
  with pytest.raises(InputError, match="cannot be read as text"):
    listing.videos_of(str(tmp_path / "notes.pdf"))


def test_the_split_is_that_of_the_files_of_the_flag_or_of_thumos14(tmp_path):
  (tmp_path / "split_test.txt").write_text("one\nabcdefghijk\n")
  out = output.Output(str(tmp_path))
  assert out.split_of("one") == out.split_of("v_abcdefghijk") == "test"
  assert out.split_of("video_validation_0000051") == "train"
  assert out.split_of("video_test_0000004") == "test"
  assert out.split_of("other") == ""
  assert (
    output.Output(str(tmp_path), split="train").split_of("other") == "train"
  )
  assert Path(out.path("other", "rgb")) == tmp_path / "features/rgb/other.npy"
