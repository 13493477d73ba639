"""Feature files: `.npy` of f[T,D] a stream, checked before they are used.

Every function appends to `problems` what a user has to put right, one line
each, and goes on without it.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

FLOATS = (np.dtype("f2"), np.dtype("f4"), np.dtype("f8"))
MAX_TRIM = 2  # segments; two extractors differ by rounding, not by more


class MappedFeatures(Mapping[str, np.ndarray]):
  """Features left on disk: stream -> np.memmap f[T,D], mapped on access.

  A map keeps its file open; mapping every file of a large data set at once
  would exceed the number of files that a process may open.
  """

  def __init__(self, paths: Mapping[str, Path], num_segments: int):
    self._paths = dict(paths)
    self._num_segments = num_segments

  def __getitem__(self, stream: str) -> np.ndarray:
    x = np.load(self._paths[stream], mmap_mode="r", allow_pickle=False)
    return x[: self._num_segments]

  def __iter__(self) -> Iterator[str]:
    return iter(self._paths)

  def __len__(self) -> int:
    return len(self._paths)


def read_features(
  files: Mapping[str, Mapping[str, Path]],
  problems: list[str],
  *,
  width: int,
  trim: bool,
  min_segments: int,
  memory_gb: float,
  check_finite: bool,
) -> tuple[dict[str, Mapping[str, np.ndarray]], dict[str, int]]:
  """The features of every video, and the T of those without a problem.

  {id: {stream: path}} -> {id: {stream: f[T,width]}}, {id: T}; in memory, or
  np.memmap when they exceed `memory_gb` (1e9 bytes) together.
  """
  sound: dict[str, dict[str, Path]] = {}
  lengths: dict[str, int] = {}
  total = 0
  for video_id, paths in files.items():
    rows = {}
    for stream, path in paths.items():
      measured = _measure(path, width, problems)
      if measured:
        rows[stream], size = measured
        total += size
    sound[video_id] = {s: paths[s] for s in rows}
    if len(rows) == len(paths):
      length = _common_length(paths, rows, trim, problems)
      if length:
        lengths[video_id] = length
      if 0 < length < min_segments:
        problems.append(
          f"{next(iter(paths.values()))}: expected at least {min_segments} "
          f"segments, came {length}; take {video_id} out of its split file or "
          f"pass --config.data.min_segments={length}"
        )

  mapped = total > memory_gb * 1e9
  features: dict[str, Mapping[str, np.ndarray]] = {}
  for video_id, paths in sound.items():
    loaded = {}
    for stream, path in paths.items():
      x = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
      x = x[: lengths.get(video_id)]
      if check_finite:
        _check_finite(path, x, problems)
      if not mapped and not problems:
        loaded[stream] = x
    if mapped:
      loaded = MappedFeatures(paths, lengths.get(video_id, 0))
    features[video_id] = loaded
  return features, lengths


def _measure(
  path: Path, width: int, problems: list[str]
) -> tuple[int, int] | None:
  """(segments, bytes) of a sound feature file, from its header."""
  again = "extract this video again or take it out of its split file"
  try:
    with path.open("rb") as file:
      major, _ = np.lib.format.read_magic(file)
      read = np.lib.format.read_array_header_1_0
      if major > 1:
        read = np.lib.format.read_array_header_2_0
      shape, _, dtype = read(file)
      size = file.tell() + math.prod(shape) * dtype.itemsize
      came = path.stat().st_size
  except FileNotFoundError:
    fault = f"a feature file, came no such file; {again}"
  except Exception as error:  # a damaged header fails in many ways
    fault = f"an .npy file of floats, came: {error}; {again}"
  else:
    if dtype.hasobject:
      fault = (
        "an array of floats, came pickled Python objects, which are never "
        "loaded: they can run code; save it again with np.save as float32"
      )
    elif len(shape) != 2:
      fault = f"shape (T, {width}), came {shape}; save one row for each segment"
    elif dtype not in FLOATS:
      fault = (
        f"float16, float32 or float64, came {dtype}; save it again as float32"
      )
    elif shape[0] < 1:
      fault = f"at least one segment, came shape {shape}; {again}"
    elif shape[1] != width:
      fault = (
        f"shape (T, {width}), came {shape}; pass --config.data.width="
        f"{shape[1]} or extract the features of {width} channels"
      )
    elif came < size:
      fault = f"{size} bytes, came {came}, the file is cut off; {again}"
    else:
      return shape[0], size
  problems.append(f"{path}: expected {fault}")
  return None


def _common_length(
  paths: Mapping[str, Path],
  rows: Mapping[str, int],
  trim: bool,
  problems: list[str],
) -> int:
  """Segments that all streams have; 0 when they differ and may not be cut."""
  (first, expected), *rest = rows.items()
  for stream, came in rest:
    small = abs(came - expected) <= MAX_TRIM
    if came == expected or (trim and small):
      continue
    way_out = " or pass --config.data.trim=True" if small else ""
    problems.append(
      f"{paths[stream]}: expected {expected} segments as {first} has, came "
      f"{came}; re-extract both from the same frames{way_out}"
    )
    return 0
  return min(rows.values())


def _check_finite(path: Path, x: np.ndarray, problems: list[str]) -> None:
  bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
  if bad.size:
    problems.append(
      f"{path}: expected finite numbers, came NaN or infinity in {bad.size} of "
      f"{len(x)} segments, first in segment {bad[0]}; extract this video again "
      "or take it out of its split file"
    )
