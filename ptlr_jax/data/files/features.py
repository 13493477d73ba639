"""Features on disk: where each video's streams lie, checked before use.

Functions append to `problems` what a user has to put right, one line each, and
go on without it.
"""

import dataclasses
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ptlr_jax.data.files.arrays import StoredArray, stored_npy

STREAMS = ("rgb", "flow")
FLOATS = (np.dtype("f2"), np.dtype("f4"), np.dtype("f8"))
MAX_TRIM = 2  # segments; two extractors differ by rounding, not by more
AGAIN = "extract this video again or take it out of the annotations"


@dataclasses.dataclass(frozen=True)
class Part:
  """One stream of a video: f[T,D], all of an array or `half` 0 or 1 of one.

  `where` names the file, and the video where a file holds several.
  """

  where: str
  array: StoredArray | np.ndarray
  half: int | None = None

  @property
  def width(self) -> int:
    """D."""
    return self.array.shape[1] // (1 if self.half is None else 2)

  @property
  def nbytes(self) -> int:
    """Bytes of this stream."""
    return self.array.nbytes // (1 if self.half is None else 2)

  def map(self) -> np.ndarray:
    """The array, on disk where it lies there."""
    x = self.array
    x = x if isinstance(x, np.ndarray) else x.map()
    if self.half is None:
      return x
    return x[:, self.half * self.width : (self.half + 1) * self.width]


class DiskFeatures(Mapping[str, np.ndarray]):
  """Features left on disk: stream -> np.memmap f[T,D], mapped on access.

  A map keeps its file open; mapping every file of a large data set at once
  would exceed the number of files that a process may open.
  """

  def __init__(self, parts: Mapping[str, Part], num_segments: int):
    self._parts = dict(parts)
    self.num_segments = num_segments

  def __getitem__(self, stream: str) -> np.ndarray:
    return self._parts[stream].map()[: self.num_segments]

  def __iter__(self) -> Iterator[str]:
    return iter(self._parts)

  def __len__(self) -> int:
    return len(self._parts)


class Folder:
  """The feature files of a folder by name, whatever Unicode form it has."""

  def __init__(self, path: Path):
    self.path = path
    try:
      with os.scandir(path) as files:
        names = [file.name for file in files if file.name.endswith(".npy")]
    except OSError:
      names = []
    self._names = {unicodedata.normalize("NFC", name): name for name in names}
    self.used: set[str] = set()

  def __contains__(self, name: str) -> bool:
    return unicodedata.normalize("NFC", f"{name}.npy") in self._names

  def file(self, *names: str) -> Path:
    """The file of the first of some names that is there, or would be there."""
    there = next((name for name in names if name in self), names[0])
    key = unicodedata.normalize("NFC", f"{there}.npy")
    self.used.add(key)
    return self.path / self._names.get(key, key)

  def unused(self) -> list[str]:
    """The files that nothing asked for."""
    return sorted(self._names[key] for key in self._names.keys() - self.used)


def measure(path: Path, problems: list[str]) -> StoredArray | None:
  """A feature file's array of f[T,D], from its header."""
  try:
    array = stored_npy(path)
  except FileNotFoundError:
    problems.append(
      f"{path}: expected a feature file, came no such file; {AGAIN}, or pass "
      "--config.data.skip_missing=True to leave out all that have none"
    )
    return None
  except (ValueError, OSError) as error:
    problems.append(
      f"{path}: expected an .npy file of floats, came: {error}; {AGAIN}"
    )
    return None
  if array is None:
    problems.append(
      f"{path}: expected an array of floats, came pickled Python objects, "
      "which are never loaded: they can run code; save it again with np.save "
      "as float32"
    )
    return None
  return array if is_sound(str(path), array, problems) else None


def is_sound(
  where: str, array: StoredArray | np.ndarray, problems: list[str]
) -> bool:
  """Whether an array is f[T,D] with T, D > 0, else a problem."""
  shape, dtype = array.shape, array.dtype
  if len(shape) != 2:
    fault = f"shape (T, D), came {shape}; save one row for each segment"
  elif dtype not in FLOATS:
    fault = (
      f"float16, float32 or float64, came {dtype}; save it again as float32"
    )
  elif shape[0] < 1 or shape[1] < 1:
    fault = f"at least one segment, came shape {shape}; {AGAIN}"
  else:
    return True
  problems.append(f"{where}: expected {fault}")
  return False


def halves(
  where: str,
  array: StoredArray | np.ndarray,
  streams: Sequence[str],
  problems: list[str],
) -> dict[str, Part]:
  """The streams of rgb and flow joined, rgb first. f[T,2D] -> f[T,D] each."""
  if array.shape[1] % 2:
    problems.append(
      f"{where}: expected rgb and flow joined, an even width, came shape "
      f"{array.shape}; {AGAIN}"
    )
    return {}
  return {s: Part(where, array, STREAMS.index(s)) for s in streams}


def common_length(
  parts: Mapping[str, Part], trim: bool, problems: list[str]
) -> int:
  """Segments that all streams have; 0 when they differ and may not be cut."""
  rows = {stream: part.array.shape[0] for stream, part in parts.items()}
  (first, expected), *rest = rows.items()
  for stream, came in rest:
    small = abs(came - expected) <= MAX_TRIM
    if came == expected or (trim and small):
      continue
    way_out = " or pass --config.data.trim=True" if small else ""
    problems.append(
      f"{parts[stream].where}: expected {expected} segments as {first} has, "
      f"came {came}; re-extract both from the same frames{way_out}"
    )
    return 0
  return min(rows.values())


def check_finite(where: str, x: np.ndarray, problems: list[str]) -> None:
  """A problem where a segment of f[T,D] holds NaN or infinity."""
  bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
  if bad.size:
    problems.append(
      f"{where}: expected finite numbers, came NaN or infinity in {bad.size} "
      f"of {len(x)} segments, first in segment {bad[0]}; {AGAIN}"
    )


def is_constant(x: np.ndarray) -> bool:
  """Whether the segments of f[T,D], T > 1, are all alike."""
  if len(x) < 2 or (x[1] != x[0]).any():  # which spares most videos the rest
    return False
  return bool((x == x[0]).all())


def common_widths(
  found: Mapping[str, Mapping[str, Part]], width: int, problems: list[str]
) -> None:
  """Holds every stream to one width: `width`, or with 0 what most have."""
  for stream in dict.fromkeys(s for p in found.values() for s in p):
    parts = [p[stream] for p in found.values() if stream in p]
    widths = [part.width for part in parts]
    usual = width or max(set(widths), key=lambda w: (widths.count(w), w))
    for part in parts:
      if part.width == usual:
        continue
      shape = part.array.shape
      expected = f"(T, {usual if part.half is None else 2 * usual})"
      problems.append(
        f"{part.where}: expected shape {expected}, came {shape}; "
        + (
          f"pass --config.data.width={part.width} or extract the features of "
          f"{width} channels"
          if width
          else "as most videos have; extract this video again"
        )
      )
