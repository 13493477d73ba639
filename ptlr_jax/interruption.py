"""SIGTERM and SIGINT: a run ends where it can go on from, within seconds.

While a phase trains a signal waits for the end of the step, whose state is
saved; elsewhere it ends the run at once: whatever is written, is written whole
or not at all. Where a step or a compilation takes longer than `GRACE` seconds
the process ends without that, and the checkpoint before is the one to go on
from.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from ptlr_jax.errors import Stopped

GRACE = 8.0  # seconds
SIGNALS = (signal.SIGTERM, signal.SIGINT)
KEPT = "what is finished is kept"


class _Watch:
  """What the process knows of signals; one, as there is one process."""

  def __init__(self):
    self.asked: signal.Signals | None = None
    self.waits = 0  # how many `deferred` are entered

  def __call__(self, number: int, _) -> None:
    """The handler, in the main thread between two of its instructions."""
    again, self.asked = self.asked, signal.Signals(number)
    if again and number == signal.SIGINT:
      _leave(number, "stopped at once")
    if not again and not self.waits:
      raise Stopped(KEPT)


_watch = _Watch()


def _leave(number: int, said: str) -> None:
  os.write(
    2,
    f"ptlr_jax: {said}; the same command goes on from what was "
    "saved before\n".encode(),
  )
  os._exit(128 + number)


def asked() -> bool:
  """Whether a signal has asked the run to end."""
  return _watch.asked is not None


def name() -> str:
  """The signal's name."""
  return _watch.asked.name if _watch.asked else ""


def exit_status() -> int:
  """As shells have it for a process that a signal ended."""
  return 128 + (_watch.asked or signal.SIGTERM)


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


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Ends what runs inside with `Stopped` when a signal asks for it.

  In a thread other than the main one, which gets no signals, it does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _watch.asked = None
  over = threading.Event()
  reading, writing = os.pipe()
  os.set_blocking(writing, False)

  def watch() -> None:
    """Sees a signal even where the main thread is deep in XLA."""
    while byte := os.read(reading, 1):
      if byte[0] in SIGNALS:
        if not over.wait(GRACE):
          _leave(byte[0], f"no step ended within {GRACE:g} s of the signal")
        return

  watcher = threading.Thread(target=watch, daemon=True, name="signals")
  watcher.start()
  before = {number: signal.signal(number, _watch) for number in SIGNALS}
  wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  try:
    yield
  finally:
    over.set()
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(writing)
    watcher.join()
    os.close(reading)
