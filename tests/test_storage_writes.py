"""Writes of ptlr_jax.io.storage that fail: the old stays, the disk is named."""

import contextlib
import errno
import os
from pathlib import Path
from stat import S_ISREG

import pytest

from ptlr_jax.io import disk_space, metrics_log, storage
from ptlr_jax.runtime.errors import NoSpace
from tests.damage import names

FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


def _raising(error):
  def fail(*args, **kwargs):
    raise error

  return fail


def test_a_file_is_written_with_its_folders_and_over_an_older_one(tmp_path):
  path = tmp_path / "deep" / "er" / "x"
  for data in (b"one", b"", b"two" * 1000):
    storage.write_bytes(path, data)
    assert path.read_bytes() == data
    assert names(path.parent) == ["x"]


@pytest.mark.parametrize("before", [b"old", None])
@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize(
  ("error", "seen"),
  [
    *((OSError(code, os.strerror(code)), NoSpace) for code in FULL),
    (OSError(errno.EIO, "Input/output error"), OSError),
    (KeyboardInterrupt(), KeyboardInterrupt),
  ],
)
def test_a_write_that_fails_leaves_what_was_there(
  tmp_path, monkeypatch, before, where, error, seen
):
  path = tmp_path / "x"
  if before:
    path.write_bytes(before)
  monkeypatch.setattr(where, _raising(error))
  with pytest.raises(seen) as caught:
    storage.write_bytes(path, b"new")
  assert type(caught.value) is seen
  assert names(tmp_path) == (["x"] if before else [])
  assert not before or path.read_bytes() == before


def test_a_file_is_new_only_once_all_of_it_is_on_the_disk(
  tmp_path, monkeypatch
):
  """Write, then fsync, then the name and its folder: after a power cut it is
  whole, and there."""
  path, order = tmp_path / "x", []
  replace, fsync = Path.replace, os.fsync

  def synced(file):
    what = os.fstat(file)
    order.append(("fsync", what.st_size if S_ISREG(what.st_mode) else "names"))
    fsync(file)

  def replaced(self, target):
    order.append(("replace", self.stat().st_size))
    return replace(self, target)

  monkeypatch.setattr(os, "fsync", synced)
  monkeypatch.setattr(Path, "replace", replaced)
  storage.write_bytes(path, b"x" * 100_000)
  whole = 100_000
  assert order == [("fsync", whole), ("replace", whole), ("fsync", "names")]


def test_too_little_room_is_said_before_anything_is_written(
  tmp_path, monkeypatch
):
  path = tmp_path / "deep" / "x"
  monkeypatch.setattr(disk_space, "free_space", lambda path: 1500)
  storage.write_bytes(path, b"x" * 1500)
  with pytest.raises(NoSpace) as caught:
    storage.write_bytes(path, b"y" * 1501)
  assert str(caught.value) == (
    f"{path}: no space left on the disk: 1.5 kB are to be written, 1.5 kB are "
    "free; make room and give the same command again, all that was written "
    "before is kept"
  )
  assert path.read_bytes() == b"x" * 1500


@pytest.mark.parametrize(
  ("size", "said"),
  [
    (0, "0.0 kB"),
    (49, "0.0 kB"),
    (1500, "1.5 kB"),
    (1e6, "1.0 MB"),
    (2.5e9, "2.5 GB"),
    (7e12, "7000.0 GB"),
  ],
)
def test_sizes_in_words(size, said):
  assert disk_space.size_in_words(size) == said


def test_free_space_is_known_of_what_is_not_there_yet(tmp_path, monkeypatch):
  asked = []

  class Usage:
    total, free = 100, 42

  monkeypatch.setattr(
    storage.shutil, "disk_usage", lambda path: asked.append(path) or Usage
  )
  assert disk_space.free_space(tmp_path / "a" / "b") == 42
  monkeypatch.chdir(tmp_path)
  assert disk_space.free_space(Path("c/d")) == 42
  assert [path.resolve() for path in asked] == [tmp_path.resolve()] * 2


def _led_to(first: Exception, second: Exception, explicit: bool) -> Exception:
  """The second error, which the first has led to."""
  try:
    try:
      raise first
    except Exception:
      if explicit:
        raise second from first
      raise second  # noqa: B904
  except Exception as error:
    return error


@pytest.mark.parametrize(
  ("error", "full"),
  [
    *((OSError(code, "x"), True) for code in FULL),
    (OSError(errno.EIO, "x"), False),
    (OSError("x"), False),
    (ValueError("RESOURCE_EXHAUSTED: No space left on device"), True),
    (RuntimeError("Disk quota exceeded"), True),
    (ValueError("no such array"), False),
    (_led_to(OSError(errno.ENOSPC, "x"), ValueError("y"), True), True),
    (_led_to(OSError(errno.ENOSPC, "x"), ValueError("y"), False), True),
    (_led_to(OSError(errno.EIO, "x"), ValueError("y"), True), False),
  ],
)
def test_a_full_disk_is_known_by_the_error_or_what_led_to_it(
  tmp_path, error, full
):
  assert disk_space.is_full(error) is full
  where = disk_space.room_for(tmp_path / "x", 7)
  with pytest.raises((OSError, ValueError, RuntimeError)) as caught, where:
    raise error
  if full:
    assert type(caught.value) is NoSpace
    assert caught.value.__cause__ is error
    assert str(tmp_path / "x") in str(caught.value)
  else:
    assert caught.value is error


def test_no_room_inside_is_told_of_the_file_that_had_none(tmp_path):
  inner = disk_space.no_space(tmp_path / "inner", 3)
  with pytest.raises(NoSpace) as caught, disk_space.room_for(tmp_path, 7):
    raise inner
  assert caught.value is inner


def test_a_line_of_the_log_that_has_no_room_says_so(tmp_path, monkeypatch):
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  log.append("ilg", 2, {"loss": 1.0})
  error = OSError(errno.ENOSPC, "No space left on device")
  with monkeypatch.context() as patched:
    patched.setattr(Path, "open", _raising(error))
    with pytest.raises(NoSpace, match=r"metrics\.jsonl"):
      log.append("ilg", 4, {"loss": 1.0})
  assert [line["step"] for line in log.read()] == [2]


def test_a_probe_for_a_writable_folder_leaves_nothing(tmp_path, monkeypatch):
  disk_space.make_writable(tmp_path / "a" / "b")
  assert names(tmp_path / "a" / "b") == []
  (tmp_path / "file").write_bytes(b"")
  with pytest.raises(OSError, match="file"):
    disk_space.make_writable(tmp_path / "file" / "x")
  with contextlib.suppress(OSError):
    disk_space.make_writable(tmp_path / "file")
  assert (tmp_path / "file").read_bytes() == b""
