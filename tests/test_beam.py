"""Tests of features.beam: a pipeline that writes what extract writes."""

import dataclasses
import os
import sys

import fake_towers
import pytest

from ptlr_jax import extract
from ptlr_jax.features import beam, extraction
from ptlr_jax.features.segments import Settings
from ptlr_jax.runtime.errors import InputError

WEIGHTS = ("--rgb_weights=2.0", "--flow_weights=3.0")


@pytest.fixture
def videos(tmp_path, monkeypatch):
  """Two videos and a bad one; small pictures, and towers that are quick."""
  pytest.importorskip("av", reason="PyAV decodes video: the extra video")
  pytest.importorskip("cv2", reason="OpenCV computes flow: the extra video")
  from video_fixture import moving, write_video

  monkeypatch.setattr(extraction, "load_towers", fake_towers.load_towers)
  small = dataclasses.asdict(Settings(side=32, size=24, flow="tvl1_fast"))
  monkeypatch.setattr(
    extract, "Settings", lambda **given: Settings(**{**small, **given})
  )
  beam._loaded.cache_clear()
  folder = tmp_path / "videos"
  folder.mkdir()
  for name, frames in (("a", 16), ("b", 33)):
    pictures = [moving(n, 32, 40) for n in range(frames)]
    write_video(folder / f"{name}.mkv", pictures)
  (folder / "bad.mp4").write_bytes(b"no video\n" * 50)
  return folder


def _bytes(root):
  return {
    str(path.relative_to(root)): path.read_bytes()
    for path in sorted(root.rglob("*"))
    if path.is_file() and path.name != ".lock"
  }


def _run(videos, out, *flags):
  given = (f"--videos={videos}", f"--output={out}", *WEIGHTS, *flags)
  with pytest.raises(InputError, match=r"1 (of 3 )?videos have no features"):
    beam.run_command(["beam", *given, "--runner=DirectRunner"])


def test_a_pipeline_writes_the_bytes_that_extract_writes(
  videos, tmp_path, capsys
):
  pytest.importorskip(
    "apache_beam", reason="the extra beam, in an environment of its own"
  )
  one, other = tmp_path / "one", tmp_path / "other"
  given = (f"--videos={videos}", f"--output={one}", *WEIGHTS, "--jobs=1")
  with pytest.raises(InputError, match="1 of 3 videos"):
    extract.run_command(["extract", *given])
  _run(videos, other)
  assert (
    "2 videos extracted, 0 done before, 1 failed" in capsys.readouterr().out
  )
  assert _bytes(one) == _bytes(other)
  (other / "features" / "rgb" / "a.npy").write_bytes(b"damaged")
  _run(videos, other)
  assert "1 videos extracted, 1 done before" in capsys.readouterr().out
  features = {k: v for k, v in _bytes(other).items() if k.endswith(".npy")}
  assert features.items() <= _bytes(one).items()
  assert len(features) == 4


def test_videos_and_features_may_be_where_only_beam_can_open_them(
  videos, tmp_path, capsys
):
  pytest.importorskip(
    "apache_beam", reason="the extra beam, in an environment of its own"
  )
  from apache_beam.io.localfilesystem import (  # pyright: ignore
    LocalFileSystem,
  )

  def here(path):
    return path.replace("store://", f"{tmp_path}/")

  class Store(LocalFileSystem):
    """Addresses store://... of a folder."""

    @classmethod
    def scheme(cls):
      return "store"

    def mkdirs(self, path):
      return super().mkdirs(here(path))

    def _list(self, dir_or_prefix):
      for file in super()._list(here(dir_or_prefix)):
        yield type(file)(
          file.path.replace(f"{tmp_path}/", "store://"),
          file.size_in_bytes,
          file.last_updated_in_seconds,
        )

    def _path_open(self, path, *how, **more):
      return super()._path_open(here(path), *how, **more)

    def create(self, path, *how, **more):
      return super().create(here(path), *how, **more)

    def exists(self, path):
      return os.path.exists(here(path))

    def rename(self, sources, targets):
      return super().rename([*map(here, sources)], [*map(here, targets)])

    def delete(self, paths):
      return super().delete([*map(here, paths)])

    def match(self, patterns, limits=None):
      return super().match(patterns, limits)

    def join(self, basepath, *paths):
      return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
      head, _, tail = path.rpartition("/")
      return head, tail

  assert Store.scheme() == "store"
  local = tmp_path / "local"
  _run(videos, local)
  _run("store://videos", "store://far")
  far = _bytes(tmp_path / "far")
  names = [name for name in far if name.endswith(".npy")]
  assert len(names) == 4
  assert {n: far[n] for n in names} == {n: _bytes(local)[n] for n in names}
  assert "2 videos extracted" in capsys.readouterr().out
  _run("store://videos", "store://far")
  assert "0 videos extracted, 2 done before" in capsys.readouterr().out


def test_beams_own_flags_go_to_beam():
  ours, theirs = beam._sorted_flags(
    ["beam", "--videos=v", "--runner=X", "--stride=8", "--flink_master=h:1"]
  )
  assert ours == ["beam", "--videos=v", "--stride=8"]
  assert theirs == ["--runner=X", "--flink_master=h:1"]


@pytest.mark.parametrize(
  ("flag", "said"), [("--jobs=2", "--jobs"), ("word", "'word'")]
)
def test_a_flag_that_is_of_no_use_is_a_line(flag, said):
  given = ["beam", "--videos=v", "--output=o", *WEIGHTS]
  with pytest.raises(InputError, match=said):
    beam.run_command([*given, flag])


def test_without_beam_it_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  given = ["beam", "--videos=v", "--output=o", *WEIGHTS]
  with pytest.raises(InputError, match=r"ptlr-jax\[beam\]"):
    beam.run_command(given)
