"""Where segments lie in time: fps, stride, window and offset of features.

Geometry is data: it travels with the features of every video, so that features
of different extractors localise to the right second.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.data.files.text import read_json

FILE = "geometry.json"  # beside the features, {"fps", "stride", ...}
LEAST, MOST = 1e-3, 1e6  # frames, or frames a second
OFF = 0.1  # T off by more than this share, in most videos: another geometry


@dataclasses.dataclass(frozen=True)
class Geometry:
  """Segment t sees `window` frames from frame `offset + t * stride` on.

  It stands for the `stride` frames around the middle of its window, so that
  segments tile the time without gaps: [start + t * s, start + (t + 1) * s) with
  s = `seconds_per_segment` and `start` in seconds. Frames are at `fps`.
  """

  fps: float = 25.0
  stride: float = 16.0
  window: float = 16.0
  offset: float = 0.0

  @property
  def seconds_per_segment(self) -> float:
    """Seconds from one segment to the next."""
    return self.stride / self.fps

  @property
  def start(self) -> float:
    """The second where segment 0's share of the time begins."""
    return (self.offset + (self.window - self.stride) / 2) / self.fps

  def end(self, num_segments: int) -> float:
    """The second where the last of `num_segments` windows ends."""
    frames = self.offset + (num_segments - 1) * self.stride + self.window
    return frames / self.fps

  def segments(self, duration: float) -> int:
    """T of a video of `duration` seconds: the windows that fit into it."""
    # An ulp must not cost a segment: 0.64 s x 25 fps is 16 frames.
    frames = math.floor(duration * self.fps + 1e-6) - self.offset - self.window
    return max(0, math.floor(frames / self.stride) + 1)


def _is_possible(name: str, value: Any) -> bool:
  if type(value) not in (int, float):
    return False
  return (0 if name == "offset" else LEAST) <= value <= MOST


def from_file(folder: Path, problems: list[str]) -> dict[str, float]:
  """The settings of FOLDER/geometry.json, or none where there is no file."""
  path = folder / FILE
  if not path.is_file():
    return {}
  form = '{"fps": 25, "stride": 16, "window": 16, "offset": 0}'
  before = len(problems)
  said = read_json(path, form, problems)
  if len(problems) > before:
    return {}
  names = [field.name for field in dataclasses.fields(Geometry)]
  if not isinstance(said, dict):
    fault = f"came {type(said).__name__}"
  else:
    fault = next(
      (
        f"{name}: came {value!r:.40}"
        for name, value in said.items()
        if name not in names or not _is_possible(name, value)
      ),
      "",
    )
  if fault:
    problems.append(
      f"{path}: expected {form}, frames above 0, {fault}; correct it or remove "
      "it"
    )
    return {}
  return {name: float(value) for name, value in said.items()}


def settle(
  usual: Geometry,
  given: Mapping[str, float],
  folder: Path,
  problems: list[str],
) -> tuple[Geometry, set[str]]:
  """The geometry of a set, and the names of what was said about it.

  `given` are the user's settings, 0 where left open; geometry.json comes next,
  then what is `usual`. A window that nothing names is the usual one, or the
  stride where that is given alone.
  """
  file = from_file(folder, problems)
  said = {name: float(value) for name, value in given.items() if value}
  problems += [
    f"{folder / FILE}: expected what --config.data.{name}={said[name]:g} says, "
    f"came {file[name]:g}; leave out the one or correct the other"
    for name in sorted(said.keys() & file.keys())
    if said[name] != file[name]
  ]
  said = file | said
  if "stride" in said and "window" not in said and usual.window == usual.stride:
    said["window"] = said["stride"]
  return dataclasses.replace(usual, **said), set(said)


def _ratio(geometries: Sequence[Geometry], lengths, durations) -> float:
  """The median over videos of T to the T that the geometry expects."""
  return statistics.median(
    length / max(1, geometry.segments(duration))
    for geometry, length, duration in zip(
      geometries, lengths, durations, strict=True
    )
  )


def choose(
  candidates: Sequence[Sequence[Geometry]],
  lengths: Sequence[int],
  durations: Sequence[float],
) -> int:
  """Which candidate's T fits best. Each has a geometry for every video."""
  off = [
    abs(math.log(max(_ratio(c, lengths, durations), 1e-9))) for c in candidates
  ]
  return off.index(min(off))


def check_lengths(
  ids: Sequence[str],
  geometries: Sequence[Geometry],
  lengths: Sequence[int],
  durations: Sequence[float],
  tolerance: float,
  where: str,
) -> tuple[list[str], list[str]]:
  """T against durations: problems where most are off, else notes.

  `tolerance`: seconds that the features may end before or after the video.
  """
  if not ids:
    return [], []
  expected = [g.segments(d) for g, d in zip(geometries, durations, strict=True)]
  ratio = _ratio(geometries, lengths, durations)
  off = [
    (abs(t - e) * g.seconds_per_segment, i, t, e, d)
    for i, g, t, e, d in zip(
      ids, geometries, lengths, expected, durations, strict=True
    )
  ]
  beyond = sorted(row for row in off if row[0] > tolerance)[::-1]
  late = sum(t > e for _, _, t, e, _ in beyond)
  one_way = max(late, len(beyond) - late) > 0.9 * len(ids)
  if (abs(ratio - 1) > OFF and len(beyond) > len(ids) / 2) or one_way:
    some, frames = geometries[0], geometries[0].stride / ratio
    return [
      f"{where}: expected about {expected[0]} segments of {ids[0]} "
      f"({durations[0]:g} s at fps {some.fps:g}, stride {some.stride:g}, "
      f"window {some.window:g}), came {lengths[0]}; over {len(ids)} videos T "
      f"is {ratio:.2f} times (median) what this geometry gives, as with a "
      f"stride of {frames:.3g}: pass --config.data.stride, "
      "--config.data.window and --config.data.fps of the extraction, or write "
      f"them into {FILE}"
    ], []
  if not beyond:
    return [], []
  worst = ", ".join(
    f"{i} (T {t}, expected {e} from {d:g} s)" for _, i, t, e, d in beyond[:3]
  )
  return [], [
    f"{len(beyond)} of {len(ids)} videos have features that end more than "
    f"{tolerance:g} s before or after the video: {worst}"
    + (" and others" if len(beyond) > 3 else "")
  ]


def as_dict(geometry: Geometry) -> dict[str, Any]:
  """As geometry.json has it."""
  return dataclasses.asdict(geometry)
