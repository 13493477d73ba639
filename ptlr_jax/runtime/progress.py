"""What a run says on the terminal: a bar where there is one, else lines.

There are no colours: nothing is told by them that words do not tell.
"""

import sys
import time

import tqdm

from ptlr_jax.runtime import processes

_quiet = False


def be_quiet(wanted: bool) -> None:
  """Whether only what is `show`n is printed from here on."""
  global _quiet
  _quiet = wanted


def show(line: str = "") -> None:
  """Prints a result or a problem at once; of several processes the first
  does."""
  if not processes.is_first():
    return
  tqdm.tqdm.write(line)
  sys.stdout.flush()


def say(line: str = "") -> None:
  """Prints how it goes, unless that is not wanted (`be_quiet`)."""
  if not _quiet:
    show(line)


class Progress:
  """Progress of one phase: loss, steps a second, time left.

  A bar on a terminal; otherwise a line at most every `seconds` seconds, and
  one at the end.
  """

  def __init__(
    self,
    phase: str,
    total: int,
    start: int = 0,
    *,
    unit: str = "step",
    seconds: float = 10.0,
  ):
    self._phase, self._total, self._first = phase, total, start
    self._unit = unit
    self._every, self._begun = seconds, time.monotonic()
    self._said = self._begun
    self._bar = (
      tqdm.tqdm(
        total=total,
        initial=start,
        desc=f"{phase:<14}",
        unit=unit,
        leave=True,
        dynamic_ncols=True,
      )
      if sys.stderr.isatty() and processes.is_first() and not _quiet
      else None
    )

  def at(self, step: int, loss: float | None = None) -> None:
    """Reports that `step` of `total` is done."""
    said = "" if loss is None else f"loss {loss:.4f}"
    if self._bar is not None:
      self._bar.set_postfix_str(said, refresh=False)
      self._bar.update(step - self._bar.n)
      return
    now = time.monotonic()
    if step < self._total and now - self._said < self._every:
      return
    self._said = now
    rate = (step - self._first) / max(now - self._begun, 1e-9)
    left = (self._total - step) / max(rate, 1e-9)
    parts = [
      f"{self._phase:<14} {step}/{self._total}",
      said,
      f"{rate:.1f} {self._unit}s/s",
      f"{left:.0f} s left",
    ]
    say("  ".join(part for part in parts if part))

  def close(self) -> None:
    """Ends the bar."""
    if self._bar is not None:
      self._bar.close()
