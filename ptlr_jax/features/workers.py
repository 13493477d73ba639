"""Processes that decode videos and compute flow; segments come back by pipes.

A worker has one video at a time and waits where its segments are not taken, so
that what is in memory is a few segments a worker, however long the videos. One
that crashes in a decoder costs its video, not the others; all end with the
process that started them, however that ends.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

from ptlr_jax.features import optical_flow
from ptlr_jax.features.segments import Segment, Segments, Settings
from ptlr_jax.runtime.errors import InputError


class Made(NamedTuple):
  """A segment of a video, and about how many it will have."""

  path: Path
  segment: Segment
  expected: int


class Ended(NamedTuple):
  """A video of so many seconds is through; what of it did not decode."""

  path: Path
  duration: float
  faults: tuple[str, ...]


class Failed(NamedTuple):
  """A video cannot be used; why, in one line."""

  path: Path
  line: str


Event = Made | Ended | Failed


def events_of(
  path: Path, streams: tuple[str, ...], settings: Settings
) -> Generator[Event]:
  """What becomes of one video, in this process."""
  segments = Segments(path, streams, settings)
  try:
    for segment in segments:
      yield Made(path, segment, segments.expected)
  except InputError as error:
    yield Failed(path, str(error))
  except Exception as error:  # of a decoder: the other videos are to go on
    said = " ".join(str(error).split())
    yield Failed(
      path,
      f"{path}: expected a video that decodes, came {type(error).__name__}: "
      f"{said}; leave it out",
    )
  else:
    yield Ended(path, segments.duration, tuple(segments.faults))


def _work(
  pipe: connection.Connection,
  streams: tuple[str, ...],
  settings: Settings,
  threads: int,
) -> None:
  """A worker: paths in, events out, until the pipe is closed."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for who started us
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  if "flow" in streams:
    optical_flow.use_threads(threads)
  with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
    while True:
      path = Path(pipe.recv())
      for event in events_of(path, streams, settings):
        pipe.send(event)


class _Worker:
  """A process, our end of its pipe, and the video that it has."""

  def __init__(self, *how: Any):
    context = multiprocessing.get_context("spawn")
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(
      target=_work, args=(theirs, *how), daemon=True, name="segments"
    )
    self.process.start()
    theirs.close()
    self.path: Path | None = None

  def give(self, path: Path) -> None:
    """Another video."""
    self.path = path
    self.pipe.send(os.fspath(path))

  def end(self) -> None:
    """Ends the process, whatever it does."""
    self.pipe.close()
    self.process.terminate()
    self.process.join()


def events(
  paths: Sequence[Path],
  streams: tuple[str, ...],
  settings: Settings,
  jobs: int = 1,
) -> Generator[Event]:
  """What becomes of videos, in `jobs` processes; those of one come in order.

  Where there are fewer videos than jobs, the threads of flow take the rest.
  """
  how = (streams, settings, max(1, jobs // max(1, len(paths))))
  left = list(reversed(paths))
  busy: dict[connection.Connection, _Worker] = {}

  def start(worker: _Worker) -> None:
    worker.give(left.pop())
    busy[worker.pipe] = worker

  try:
    for _ in range(min(jobs, len(paths))):
      start(_Worker(*how))
    while busy:
      for pipe in connection.wait(list(busy)):
        worker = busy[pipe]  # pyright: ignore[reportArgumentType]
        event = _received(worker)
        if event is None:
          event = _crashed(worker)
          del busy[worker.pipe]
          if left:
            start(_Worker(*how))
        elif not isinstance(event, Made):
          del busy[worker.pipe]
          if left:
            start(worker)
          else:
            worker.end()
        yield event
  finally:
    for worker in busy.values():
      worker.end()


def _received(worker: _Worker) -> Event | None:
  """The next event of a worker; None where its process is gone."""
  try:
    return worker.pipe.recv()
  except (EOFError, OSError):  # OSError: it ended while it sent
    return None


def _crashed(worker: _Worker) -> Failed:
  worker.process.join()
  code = worker.process.exitcode or 0
  came = f"its end with status {code}"
  if code < 0:
    came = f"its end by {signal.Signals(-code).name}"
  worker.end()
  path = worker.path or Path()
  return Failed(
    path,
    f"{path}: expected the process that decodes it to last, came {came}; leave "
    "it out, or give it more memory (fewer --jobs)",
  )
