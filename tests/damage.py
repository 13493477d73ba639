"""What can befall a file on a disk, for the tests of what notices it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import Damaged, OtherVersion


def flipped(data: bytes, bit: int) -> bytes:
  """The bytes with one bit turned."""
  found = bytearray(data)
  found[bit // 8] ^= 1 << bit % 8
  return bytes(found)


def flip_bits(data: bytes, count: int = 200, seed: int = 0) -> list[int]:
  """Some bits to turn, anywhere, and one of each of the last 110 bytes, where
  versions and digests are."""
  draw = random.Random(seed)
  tail = range(max(len(data) - 110, 0), len(data))
  return [
    *random_bits(data, count, seed),
    *(8 * i + draw.randrange(8) for i in tail),
  ]


def random_bits(data: bytes, count: int, seed: int = 0) -> list[int]:
  """Some bits to turn."""
  draw = random.Random(seed)
  return [draw.randrange(8 * len(data)) for _ in range(count)]


def _file(path: Path) -> Path:
  """A file, or of a checkpoint the one to damage."""
  return largest(path) if path.is_dir() else path


def flip(path: Path, seed: int = 1) -> None:
  """Turns a random bit of a file or checkpoint."""
  data = _file(path).read_bytes()
  _file(path).write_bytes(flipped(data, *random_bits(data, 1, seed)))


def cut(path: Path, length: int = 0) -> None:
  """Leaves the first bytes of a file or checkpoint."""
  _file(path).write_bytes(_file(path).read_bytes()[:length])


def lose(path: Path) -> None:
  """Removes a file, or one of a checkpoint."""
  _file(path).unlink()


def flip_list(path: Path) -> None:
  """Turns a random bit of the digests of a checkpoint."""
  flip(path / storage.MANIFEST)


def files(folder: Path) -> list[Path]:
  """The files of a folder, at any depth."""
  return sorted(path for path in folder.rglob("*") if path.is_file())


def largest(folder: Path) -> Path:
  """The file of a checkpoint that holds most of its arrays."""
  found = [p for p in files(folder) if p.parent.name == "d"]
  return max(found, key=lambda path: path.stat().st_size)


def names(folder: Path) -> list[str]:
  """What lies in a folder, hidden or not."""
  return sorted(path.name for path in folder.iterdir())


def assert_damaged(path: Path, read: Callable[..., Any], *args: Any) -> None:
  """That reading raises Damaged, which says where in one line."""
  with pytest.raises(Damaged) as caught:
    read(*args or (path,))
  assert type(caught.value) is Damaged
  (line,) = caught.value.problems
  assert line.startswith(f"{path}: expected it as it was written, ")


def assert_other(
  path: Path, came: str, read: Callable[..., Any], *args: Any
) -> None:
  """That reading raises OtherVersion, which says what came, and the way out."""
  with pytest.raises(OtherVersion) as caught:
    read(*args or (path,))
  (line,) = caught.value.problems
  assert line.startswith(f"{path}: expected an artefact of version 1, came ")
  assert came in line
  assert "use the ptlr_jax that wrote it, or give a new --workdir" in line
