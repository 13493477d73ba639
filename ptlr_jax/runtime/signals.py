"""SIGTERM and SIGINT: a run ends where it can go on from, within seconds.

While a phase trains a signal waits for the end of the step, whose state is
saved, and while a checkpoint is read or written for the end of that; elsewhere
it ends the run at once: whatever is written, is written whole or not at all.
Where that takes longer than `GRACE` seconds, as a compilation may, the process
ends without it, and the checkpoint before is the one to go on from.
"""

import contextlib
import gc
import os
import select
import signal
import threading
import time
import types
from collections.abc import Iterator

from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import Stopped

GRACE = 8.0  # seconds
SIGNALS = (signal.SIGTERM, signal.SIGINT)
KEPT = "what is finished is kept"


class _Watch:
  """What the process knows of signals; one, as there is one process."""

  def __init__(self):
    self.asked: signal.Signals | None = None  # in what is watched now
    self.last: signal.Signals | None = None
    self.waits = 0  # how many `deferred` are entered
    self.lost = False  # it came where what is raised is lost

  def __call__(self, number: int, frame: types.FrameType | None) -> None:
    """The handler, in the main thread between two of its instructions."""
    if self.asked and not self.lost:
      if number == signal.SIGINT:
        _leave(number, "stopped at once")
      return
    self.asked = self.asked or signal.Signals(number)
    self.last = self.asked
    self.lost = not self.waits and _is_collecting(frame)
    if self.lost:  # a moment later it will be elsewhere
      again = os.getpid(), signal.SIGTERM
      threading.Timer(0.01, os.kill, again).start()
    elif not self.waits:
      raise Stopped(KEPT)


_watch = _Watch()


def _is_collecting(frame: types.FrameType | None) -> bool:
  """Whether the garbage collector called what runs: JAX has it call Python."""
  called = [getattr(call, "__code__", None) for call in gc.callbacks]
  while frame is not None:
    if frame.f_code in called or frame.f_code.co_name == "__del__":
      return True
    frame = frame.f_back
  return False


_leaving = threading.RLock()  # never given back


def _leave(number: int, said: str) -> None:
  """Ends the process; of the two threads that may, the first."""
  while not _leaving.acquire(blocking=False):
    time.sleep(1)
  line = f"ptlr_jax: {said}; the same command goes on from what was saved\n"
  os.write(2, line.encode())
  os._exit(128 + number)


def asked() -> bool:
  """Whether a signal has asked what is watched to end."""
  return _watch.asked is not None


def stops() -> bool:
  """Whether all processes of the run stop here, as a signal has asked one of
  them; all come here after every update and phase."""
  stop = processes.stops(asked())
  if stop and not _watch.asked:  # another process got it, or JAX did
    _watch.asked = _watch.last = signal.SIGTERM
  return stop


def name() -> str:
  """The signal that ended what was watched last."""
  return _watch.last.name if _watch.last else ""


def exit_status() -> int:
  """As shells have it for a process that a signal ended."""
  return 128 + (_watch.last or signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """While entered, a signal is only noted, see `asked`; it acts at the end."""
  _watch.waits += 1
  try:
    yield
  finally:
    _watch.waits -= 1
  if _watch.asked and not _watch.waits:
    raise Stopped(KEPT)


def _ends_in_time(reading: int, over: threading.Event) -> None:
  """Ends the process `GRACE` seconds after a signal, or at a second SIGINT,
  even where the main thread is deep in XLA."""
  first, deadline = 0, float("inf")
  while not over.is_set():
    left = max(0.0, min(deadline - time.monotonic(), 3600.0))
    if not select.select([reading], [], [], left)[0]:
      if time.monotonic() >= deadline:
        _leave(first, f"what was under way did not end within {GRACE:g} s")
      continue
    for number in os.read(reading, 64):
      if first and number == signal.SIGINT:
        _leave(number, "stopped at once")
      if not first and number in SIGNALS:
        first, deadline = number, time.monotonic() + GRACE


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Ends what runs inside with `Stopped` when a signal asks for it.

  A signal that was ignored before, as under nohup, still is. In a thread other
  than the main one, which gets no signals, it does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _watch.asked = _watch.last = None
  over = threading.Event()
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  watcher = threading.Thread(
    target=_ends_in_time, args=(reading, over), daemon=True, name="signals"
  )
  watcher.start()
  before = {number: signal.getsignal(number) for number in SIGNALS}
  # None: whoever set it did so in C, and gets it no more.
  ours = [n for n, how in before.items() if how not in (signal.SIG_IGN, None)]
  for number in ours:
    signal.signal(number, _watch)
  wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  try:
    yield
  finally:
    _watch.asked = None
    over.set()
    signal.set_wakeup_fd(wakeup)
    for number in ours:
      signal.signal(number, before[number])
    os.write(writing, b"\0")  # wakes the watcher up
    watcher.join()
    os.close(writing)
    os.close(reading)
