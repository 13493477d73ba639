"""TensorBoard's event files: the lines of metrics.jsonl as curves.

FOLDER/PHASE has those of a phase, a scalar a term; `tensorboard
--logdir=WORKDIR/tensorboard` shows them. A run that goes on after a stop writes
all that the log says once more, in files whose session begins at step 0: there
TensorBoard forgets what earlier files say.

tensorboardX writes them, without the queue and the thread of its SummaryWriter:
those a full disk ends unseen, and the run then waits for ever.
"""

import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.io import disk_space

FOLDER = "tensorboard"  # of a workdir
PACKAGE = "tensorboardX"


def _modules(*names: str) -> list[Any]:
  """Those of tensorboardX, which would import PyTorch where there is one: that
  takes seconds, and puts its CUDA libraries beside JAX's."""
  modules: dict[str, Any] = sys.modules
  absent = modules.setdefault("torch", None) is None
  try:
    return [importlib.import_module(f"{PACKAGE}.{name}") for name in names]
  finally:
    if absent:
      del modules["torch"]


class EventFiles:
  """Those of a run, which follow its log (`metrics_log.Follower`)."""

  def __init__(self, folder: Path):
    self.folder = folder
    self._writers: dict[str, Any] = {}  # of the phases
    self._files, self._proto = _modules("event_file_writer", "proto.event_pb2")

  def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes lines. Raises NoSpace, as the log does."""
    events = [self._event(line) for line in lines]
    size = sum(event.ByteSize() for event in events)
    with disk_space.room_for(self.folder, size):
      writers = [self._writer(line["phase"]) for line in lines]
      for writer, event in zip(writers, events, strict=True):
        writer.write_event(event)
      for writer in set(writers):
        writer.flush()

  def close(self) -> None:
    """Ends the files."""
    writers, self._writers = self._writers, {}
    with disk_space.room_for(self.folder, 0):
      for writer in writers.values():
        writer.close()

  def lost(self, why: str) -> str:
    """What is told where they cannot be written."""
    return (
      f"{self.folder}: cannot be written ({why}); going on without "
      "TensorBoard's files"
    )

  def _writer(self, phase: str) -> Any:
    """A phase's new file, whose name comes after those that are there."""
    if phase not in self._writers:
      folder, Session = self.folder / phase, self._proto.SessionLog
      folder.mkdir(parents=True, exist_ok=True)
      prefix, suffix = str(folder / "events"), f".{time.time_ns()}"
      writer = self._files.EventsWriter(prefix, suffix)
      start = Session(status=Session.START)
      writer.write_event(self._proto.Event(step=0, session_log=start))
      self._writers[phase] = writer
    return self._writers[phase]

  def _event(self, line: Mapping[str, Any]) -> Any:
    event = self._proto.Event(wall_time=time.time(), step=line["step"])
    for name, value in line.items():
      if name not in ("phase", "step"):
        event.summary.value.add(tag=name, simple_value=value)
    return event
