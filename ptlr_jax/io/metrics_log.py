"""metrics.jsonl: the log of a run, a sealed line an interval."""

import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ptlr_jax.data.files import sealing
from ptlr_jax.io import disk_space, storage
from ptlr_jax.runtime import processes


class Follower(Protocol):
  """What shows a log elsewhere; lines are {"phase", "step", terms...}."""

  def restart(self, lines: Sequence[Mapping[str, Any]]) -> None:
    """These are all lines there are; what else it was told is void."""
    ...

  def add(self, line: Mapping[str, Any]) -> None:
    """There is a new line."""
    ...

  def replace(self, phase: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """These are the lines of a phase that the log does not have."""
    ...

  def close(self) -> None:
    """There will be no more."""
    ...


class MetricsLog:
  """metrics.jsonl: a line an interval, {"phase", "step", terms...}, and its
  version and CRC-32. Of several processes the first writes."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.followers: tuple[Follower, ...] = ()

  def follow(self, followers: Sequence[Follower]) -> None:
    """Has others show what the log says, from its beginning."""
    self.followers = tuple(followers)
    self._restart(self.read() if followers else ())

  def _restart(self, lines: Sequence[Mapping[str, Any]]) -> None:
    for follower in self.followers:
      follower.restart(lines)

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
      self._restart(kept)

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
    for follower in self.followers:
      follower.add(said)

  def tell(self, phase: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Has those that follow show lines that are kept elsewhere."""
    for follower in self.followers if lines else ():
      follower.replace(phase, lines)

  def close(self) -> None:
    """Tells those that follow that this was all."""
    for follower in self.followers:
      follower.close()


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
