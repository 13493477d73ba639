"""Processes that decode videos and compute flow; segments come back by pipes.

A video has a process of its own, which waits where its segments are not taken:
in memory are a few segments a job, however long the videos. One that crashes in
a decoder, or is killed, costs its video alone; all end with the process that
started them, however that ends.

A pool (concurrent.futures, loky) is no substitute: where a worker is killed
while it sends, the pool waits forever for the rest of that result.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

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
  path: Path,
  streams: tuple[str, ...],
  settings: Settings,
  threads: int,
) -> None:
  """What a process does: a video in, its events out."""
  if "flow" in streams:
    optical_flow.use_threads(threads)
  with contextlib.suppress(BrokenPipeError, ConnectionResetError):
    for event in events_of(path, streams, settings):
      pipe.send(event)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
  """A process that is started inside gets no SIGINT: that is for this one."""
  resource_tracker.ensure_running()  # at its start it would unblock SIGINT
  before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
  context = multiprocessing.get_context("spawn")
  left = list(reversed(paths))
  running: dict[connection.Connection, tuple[Path, SpawnProcess]] = {}
  try:
    while left or running:
      while left and len(running) < jobs:
        path = left.pop()
        pipe, theirs = context.Pipe(duplex=False)
        process = context.Process(
          target=_work, args=(theirs, path, *how), daemon=True
        )
        with _no_interrupts():
          process.start()
        theirs.close()
        running[pipe] = path, process
      for pipe in connection.wait(list(running)):
        assert isinstance(pipe, connection.Connection)
        path, process = running[pipe]
        try:
          event = pipe.recv()
        except (EOFError, OSError):  # OSError: it ended while it sent
          process.join()
          event = _crashed(path, process.exitcode or 0)
        if not isinstance(event, Made):
          del running[pipe]
          _end(pipe, process)
        yield event
  finally:
    for pipe, (_, process) in running.items():
      _end(pipe, process)


def _end(pipe: connection.Connection, process: SpawnProcess) -> None:
  """Ends a process, whatever it does."""
  pipe.close()
  process.kill()
  process.join()


def _crashed(path: Path, code: int) -> Failed:
  came = f"status {code}" if code >= 0 else signal.Signals(-code).name
  return Failed(
    path,
    f"{path}: expected the process that decodes it to last, came its end by "
    f"{came}; leave it out, or give it more memory (fewer --jobs)",
  )
