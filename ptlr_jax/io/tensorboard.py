"""TensorBoard's event files: the lines of metrics.jsonl as curves.

FOLDER/PHASE/events.out.tfevents.N.ptlr_jax has every line of a phase, a scalar
a term; `tensorboard --logdir=WORKDIR/tensorboard` shows them. The log is what
counts: whenever it is cut, and at each start, files that say something else are
made anew from it.

Records are framed here, on tensorboardX's messages and checksums: its own
writer has a queue and a thread, which a full disk would hang.
"""

import importlib
import re
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.io import disk_space
from ptlr_jax.runtime.errors import NoSpace
from ptlr_jax.runtime.progress import show

FOLDER = "tensorboard"  # of a workdir
PACKAGE = "tensorboardX"
_NAME = "events.out.tfevents.{}.ptlr_jax"
_NUMBER = re.compile(r"events\.out\.tfevents\.(\d+)\.ptlr_jax")
_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")


def _import(name: str) -> Any:
  """A module of tensorboardX, which would import PyTorch where there is one:
  that takes seconds, and puts its CUDA libraries beside JAX's."""
  modules: dict[str, Any] = sys.modules
  absent = "torch" not in modules
  if absent:
    modules["torch"] = None
  try:
    return importlib.import_module(f"{PACKAGE}.{name}")
  finally:
    if absent:
      del modules["torch"]


class EventFiles:
  """Those of a run, which follow its log (`metrics_log.Follower`).

  Where they cannot be written that is told once, and the run goes on without;
  a full disk is a NoSpace, as for the log itself. Phases in `apart` have no
  lines in the log, see `replace`.
  """

  def __init__(self, folder: Path, apart: Sequence[str] = ()):
    self.folder, self.apart = folder, apart
    self._paths: dict[str, Path] = {}  # of the phases that are written
    self._off = False
    self._messages = _import("proto.event_pb2")
    self._crc_of = _import("record_writer").masked_crc32c

  def restart(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """Has the files say what the log says, and no more."""
    self._try(self._restart, lines)

  def add(self, line: Mapping[str, Any]) -> None:
    """Adds what the log has got."""
    self._try(self._add, line)

  def replace(self, phase: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Has the file of a phase say these lines."""
    self._try(self._replace, phase, lines)

  def close(self) -> None:
    """Nothing is left to do: every line is written at once."""

  def _try(self, act: Callable[..., None], *what: Any) -> None:
    if self._off:
      return
    try:
      act(*what)
    except NoSpace:
      raise
    except OSError as error:
      if disk_space.is_full(error):
        raise
      self._off = True
      show(
        f"{error.filename or self.folder}: cannot be written "
        f"({error.strerror or error}); going on without TensorBoard's files"
      )

  def _restart(self, lines: Sequence[Mapping[str, Any]]) -> None:
    by_phase: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
      by_phase.setdefault(line["phase"], []).append(line)
    for folder in self.folder.iterdir() if self.folder.is_dir() else ():
      if folder.name not in (*by_phase, *self.apart):
        _void(_files(folder))  # others' may lie beside ours
    self._paths.clear()
    for phase, own in by_phase.items():
      self._replace(phase, own)

  def _add(self, line: Mapping[str, Any]) -> None:
    path = self._paths.get(line["phase"])
    if path is None:
      self._replace(line["phase"], [line])
      return
    data = self._record(self._event(line, time.time()))
    with disk_space.room_for(path, len(data)), path.open("ab") as file:
      file.write(data)

  def _replace(self, phase: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Leaves a file that says these lines; with the times of those before."""
    folder = self.folder / phase
    old = _files(folder)
    found = list(self._read(old[-1])) if old else []
    whole = sum(map(len, map(self._record, found)))
    times = {event.step: event.wall_time for event in found}
    now = time.time()
    events = [self._event(x, times.get(x["step"], now)) for x in lines]
    sizes = [path.stat().st_size for path in old]
    sound = any(sizes) and not any(sizes[:-1]) and sizes[-1] == whole
    if sound and found == [*self._opening(found), *events]:
      self._paths[phase] = old[-1]
      return
    # A TensorBoard that is open reads on in the file whose name comes next, and
    # forgets what it has where a session starts at step 0. It would read a file
    # under a temporary name, too: none has one.
    last = int(old[-1].name.split(".")[3]) if old else 0
    path = folder / _NAME.format(max(int(now), last + 1))
    data = b"".join(map(self._record, [*self._opening([]), *events]))
    folder.mkdir(parents=True, exist_ok=True)
    with disk_space.room_for(path, len(data)):
      path.write_bytes(data)
    _void(old)
    self._paths[phase] = path

  def _opening(self, found: Sequence[Any]) -> list[Any]:
    """The first two events of a file; with the times of one that is there."""
    Event, Session = self._messages.Event, self._messages.SessionLog
    times = [event.wall_time for event in found[:2]]
    first, second = times if len(times) == 2 else [time.time()] * 2
    start = Session(status=Session.START)
    return [
      Event(wall_time=first, file_version="brain.Event:2"),
      Event(wall_time=second, step=0, session_log=start),
    ]

  def _event(self, line: Mapping[str, Any], when: float) -> Any:
    event = self._messages.Event(wall_time=when, step=line["step"])
    for name, value in line.items():
      if name not in ("phase", "step"):
        event.summary.value.add(tag=name, simple_value=value)
    return event

  def _record(self, event: Any) -> bytes:
    return self._framed(event.SerializeToString())

  def _framed(self, data: bytes) -> bytes:
    length = _LENGTH.pack(len(data))
    crcs = [_CRC.pack(self._crc_of(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]

  def _read(self, path: Path) -> Iterator[Any]:
    """The events of a file up to the first that is not as it was written."""
    data = path.read_bytes()
    at, head, tail = 0, _LENGTH.size + _CRC.size, _CRC.size
    while at < len(data) - head:
      (length,) = _LENGTH.unpack_from(data, at)
      end = at + head + length + tail
      body = data[at + head : end - tail]
      if data[at:end] != self._framed(body):
        return
      yield self._messages.Event.FromString(body)
      at = end


def _void(paths: Sequence[Path]) -> None:
  """Leaves nothing in files, and removes those that had nothing before: where
  the one that it reads is gone, TensorBoard does not look for the next."""
  for path in paths:
    if path.stat().st_size:
      path.write_bytes(b"")
    else:
      path.unlink()


def _files(folder: Path) -> list[Path]:
  """Those of a phase that are ours, the newest last."""
  paths = folder.iterdir() if folder.is_dir() else ()
  return sorted(path for path in paths if _NUMBER.fullmatch(path.name))
