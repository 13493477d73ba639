"""Detections on disk, in the ActivityNet results form.

Each process writes those of its own videos as it finds them, a line a video;
process 0 makes one sealed file of the lines, without holding them.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from typing import Any

from ptlr_jax.data.files import sealing
from ptlr_jax.io import disk_space, storage
from ptlr_jax.runtime import processes

_BEGIN = b'{"version": "VERSION 1.3", "results": {'
Found = Mapping[str, list[dict[str, Any]]]  # {video: detections}


def write_detections(path: pathlib.Path, results: Found) -> None:
  """Writes detections that are at hand."""
  storage.write_chunks(path, _form(map(_line, results, results.values())))


def _line(video: str, found: list[dict[str, Any]]) -> bytes:
  text = f"{json.dumps(video)}: {json.dumps(found, allow_nan=False)}"
  return text.encode()


def _form(lines: Iterator[bytes]) -> Iterator[bytes]:
  """The bytes of a whole file before it is sealed, in pieces."""
  yield _BEGIN
  for i, line in enumerate(lines):
    yield b", " * bool(i) + line.rstrip(b"\n")
  end = sealing.unsealed_json({"external_data": {}}, indent=None)
  yield b"}, " + end.removeprefix(b"{")


def _piece(path: pathlib.Path, process: int) -> pathlib.Path:
  """Where a process writes its lines; its name is that of a leftover."""
  return storage.temporary_of(path, f"{process:05d}")


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[Callable[[Found], None]]:
  """Gives the function that adds detections of this process's videos to the
  file at a path. That is made at the end, when all processes are there.

  Raises:
    NoSpace: the disk is full; nothing is left of what was added.
  """
  own = _piece(path, processes.index())
  with disk_space.room_for(path.parent, 0):
    path.parent.mkdir(parents=True, exist_ok=True)
  try:
    file = own.open("wb", buffering=0)  # nothing is left to be flushed
    with file:
      yield functools.partial(_add, path, file)
    storage.sync(own)
    processes.exchange()
    if processes.is_first():
      pieces = [_piece(path, i) for i in range(processes.count())]
      total = sum(piece.stat().st_size for piece in pieces)
      storage.write_chunks(path, _form(_lines(pieces)), total)
    processes.exchange()
  finally:
    own.unlink(missing_ok=True)


def _add(path: pathlib.Path, file: FileIO, results: Found) -> None:
  lines = b"".join(_line(*item) + b"\n" for item in results.items())
  left = memoryview(lines)
  with disk_space.room_for(path, len(lines)):
    while left:
      left = left[file.write(left) :]


def _lines(pieces: list[pathlib.Path]) -> Iterator[bytes]:
  for piece in pieces:
    with piece.open("rb") as file:
      yield from file
