"""metrics.jsonl: the log of a run, a sealed line an interval."""

import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ptlr_jax.data.files import sealing
from ptlr_jax.io import disk_space, storage
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import NoSpace
from ptlr_jax.runtime.progress import show


class Follower(Protocol):
  """What shows a log elsewhere; lines are {"phase", "step", terms...}."""

  def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """There are new lines. The first call, and the first after `close`, has
    all that the log says: what was shown before is void."""
    ...

  def close(self) -> None:
    """There will be no more, or all of them anew."""
    ...

  def lost(self, why: str) -> str:
    """What is told where it fails, and the run goes on without."""
    ...


class MetricsLog:
  """metrics.jsonl: a line an interval, {"phase", "step", terms...}, and its
  version and CRC-32. Of several processes the first writes."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.followers: list[Follower] = []
    self._untold: list[Mapping[str, Any]] = []

  def follow(self, followers: Sequence[Follower]) -> None:
    """Has others show what the log says, once there is a new line."""
    self.followers = list(followers)
    self._untold = [*self.read()] if followers else []

  def _lines(self) -> list[tuple[str, dict[str, Any] | None]]:
    """Each line with its values, or None where it is not as written."""
    if not self.path.exists():
      return []
    text = storage.read_bytes(self.path).decode(errors="replace")
    *whole, cut = text.split("\n")
    lines = [(line, _unsealed_line(self.path, line)) for line in whole]
    return [*lines, (cut, None)] if cut else lines

  def read(self) -> list[dict[str, Any]]:
    """All sound lines; one cut off by a kill is left out."""
    return [values for _, values in self._lines() if values is not None]

  def mend(self) -> int:
    """Drops what is not as it was written; how many lines besides one that was
    cut off at the end."""
    lines = self._lines()
    bad = sum(values is None for _, values in lines)
    if bad:
      cut = not self.path.read_bytes().endswith(b"\n")
      self._rewrite([values for _, values in lines if values is not None])
      bad -= cut
    return bad

  def rewind(self, phase: str, step: int) -> None:
    """Forgets what `phase` wrote after `step`, before it goes on from there."""
    if not processes.is_first():
      return
    lines = self._lines()
    kept = [
      values
      for _, values in lines
      if values and (values["phase"] != phase or values["step"] <= step)
    ]
    if len(kept) < len(lines):
      self._rewrite(kept)
      self.close()
      self._untold = [*kept]

  def _rewrite(self, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(_sealed_line(values) for values in lines)
    storage.write_bytes(self.path, text.encode())

  def append(self, phase: str, step: int, values: Mapping[str, float]) -> None:
    """Adds a line."""
    if not processes.is_first():
      return
    said = {"phase": phase, "step": step, **values}
    line = _sealed_line(said)
    with disk_space.room_for(self.path, len(line)), self.path.open("a") as file:
      file.write(line)
    self.tell([said])

  def tell(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """Has those that follow show lines, also such as are kept elsewhere."""
    if lines:
      lines, self._untold = [*self._untold, *lines], []
    for follower in list(self.followers if lines else ()):
      self._try(follower, follower.add, lines)

  def close(self) -> None:
    """Tells those that follow that this was all."""
    for follower in list(self.followers):
      self._try(follower, follower.close)

  def _try(
    self, follower: Follower, act: Callable[..., None], *what: Any
  ) -> None:
    """Goes on without one that fails, unless the disk is full."""
    try:
      act(*what)
    except NoSpace:
      raise
    except Exception as error:  # those of wandb have no common class
      self.followers.remove(follower)
      why = " ".join(str(error).split())[:200] or type(error).__name__
      show(follower.lost(why))


def _sealed_line(values: Mapping[str, Any]) -> str:
  whole = {**values, sealing.VERSION_KEY: sealing.VERSION}
  text = json.dumps(whole)
  return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def _unsealed_line(path: pathlib.Path, line: str) -> dict[str, Any] | None:
  """The values of a line; None where it is not as written."""
  body, _, crc = line.rpartition(', "crc32": "')
  sound = crc == f'{zlib.crc32(f"{body}}}".encode()):08x}"}}'
  try:
    values = json.loads(line)
    version = values.pop(sealing.VERSION_KEY, None)
    old = not sound and "crc32" not in values and "phase" in values
  except (ValueError, AttributeError, TypeError):
    return None
  if (sound or old) and version != sealing.VERSION:
    raise storage.other_version(path, version)
  if not sound:
    return None
  del values["crc32"]
  return values
