"""From a video file to segments: the frames and the flow that I3D sees.

Segment t has the `window` frames from frame t stride on, and as many pictures
of flow: that from each of its frames to the next, so the last one reaches into
the frame after the window. At the end of a video there is none, and the flow
before comes again: both streams have floor((frames - window) / stride) + 1
segments.

This module and what it imports know no JAX: decoding and flow run in processes
of their own.
"""

import dataclasses
import math
import os
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ptlr_jax.features.optical_flow import KINDS, TvL1
from ptlr_jax.features.video import DAMAGED, Video
from ptlr_jax.runtime.errors import InputError

STREAMS = ("rgb", "flow")
CROPS = {"center": 1, "ten": 10, "ten_apart": 10}  # views of a segment
AT_LEAST = {"fps": 0.1, "window": 1, "stride": 1, "batch": 1, "size": 1}


@dataclasses.dataclass(frozen=True)
class Settings:
  """How features are extracted.

  crops: `center`, or `ten`: the corners and the centre, each also mirrored,
  averaged; `ten_apart` keeps them apart, [T, 10, D]. flow: `tvl1`, or
  `tvl1_fast`, which iterates less. batch: how many views go
  through the network at once. damaged: `refuse`, or `use` what decodes. The
  shorter `side` and the crop's `size` are in pixels.
  """

  fps: float = 25.0
  window: int = 16
  stride: int = 16
  crops: str = "center"
  flow: str = "tvl1"
  batch: int = 4
  damaged: str = "refuse"
  side: int = 256
  size: int = 224


def check_settings(settings: Settings) -> None:
  """Refuses settings that could only fail later. Raises InputError."""
  problems = [
    f"{name}: expected a number of at least {low}, got {value}"
    for name, low in AT_LEAST.items()
    if not low <= (value := getattr(settings, name)) < math.inf
  ]
  problems += [
    f"{name}: expected one of {', '.join(known)}, got {value!r}"
    for name, known in (
      ("crops", CROPS),
      ("flow", KINDS),
      ("damaged", DAMAGED),
    )
    if (value := getattr(settings, name)) not in known
  ]
  if settings.size > settings.side:
    problems.append(
      f"size: expected at most the side, {settings.side}, got {settings.size}"
    )
  if problems:
    raise InputError(*problems)


class Segment(NamedTuple):
  """rgb u8[L,h,w,3], flow f32[L,h,w,2] in [-1, 1]; None for a stream that is
  not asked for."""

  rgb: np.ndarray | None
  flow: np.ndarray | None


class Segments:
  """The segments of a video file: iterate it, once.

  `expected` is about how many will come, after the first of them; `duration`
  in seconds and `faults` are the video's, after the last.

  Raises, while it is iterated:
    InputError: in one line, why the file cannot be used.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    streams: tuple[str, ...] = STREAMS,
    settings: Settings | None = None,
  ):
    self.settings = settings or Settings()
    self.streams = streams
    self.video = Video(
      path, self.settings.fps, self.settings.side, self.settings.damaged
    )

  @property
  def duration(self) -> float:
    """Seconds, after the last segment."""
    return self.video.duration

  @property
  def faults(self) -> list[str]:
    """What did not decode, after the last segment."""
    return self.video.faults

  @property
  def expected(self) -> int:
    """About how many segments there are, by the file's header."""
    return count_segments(self.video.expected, self.settings)

  def __iter__(self) -> Iterator[Segment]:
    window, stride = self.settings.window, self.settings.stride
    frames: deque[np.ndarray] = deque(maxlen=window)
    flows: deque[np.ndarray] = deque(maxlen=window)
    solver = TvL1(self.settings.flow) if "flow" in self.streams else None
    before: np.ndarray | None = None
    n = made = 0  # frames that came, segments that went
    for frame in self.video:
      if solver and before is not None and (n - 1) >= made * stride:
        flows.append(self._cropped(solver.between(before, frame)))
      # Of frames between windows (stride > window) nothing is wanted.
      if n >= made * stride + window:
        yield self._segment(frames, flows)
        made += 1
      if n >= made * stride or stride < window:
        frames.append(self._cropped(frame))
      before, n = frame, n + 1
    if n >= made * stride + window:
      if solver and before is not None:
        still = np.zeros((*before.shape[:2], 2), np.float32)
        flows.append(flows[-1] if flows else self._cropped(still))
      yield self._segment(frames, flows)
      made += 1
    if not made:
      raise InputError(
        f"{self.video.path}: expected at least {window} frames at "
        f"{self.settings.fps:g} a second ({window / self.settings.fps:g} s), "
        f"came {n}; too short for a segment: leave it out"
      )

  def _segment(self, frames: deque, flows: deque) -> Segment:
    return Segment(
      np.stack(frames) if "rgb" in self.streams else None,
      np.stack(flows) if "flow" in self.streams else None,
    )

  def _cropped(self, x: np.ndarray) -> np.ndarray:
    """What the views need of a picture [H,W,c]."""
    if CROPS[self.settings.crops] > 1:
      return x
    return crop(x, self.settings.size)


def count_segments(duration: float, settings: Settings) -> int:
  """How many segments a video of so many seconds has."""
  frames = math.floor(duration * settings.fps + 1e-6)
  return max(0, (frames - settings.window) // settings.stride + 1)


def crop(x: np.ndarray, size: int) -> np.ndarray:
  """The centre of pictures [...,H,W,c] -> [...,size,size,c]."""
  top, left = (x.shape[-3] - size) // 2, (x.shape[-2] - size) // 2
  return x[..., top : top + size, left : left + size, :]


def views(x: np.ndarray, size: int, crops: str) -> np.ndarray:
  """What the network sees of a stream of a segment, in [-1, 1].

  u8[L,H,W,3] or f32[L,H,W,2] -> f32[K,L,size,size,c]; K = 1 is the centre, 10
  the corners (top left, top right, bottom left, bottom right) and the centre,
  then their mirror images, whose horizontal motion has the other sign (as in
  temporal segment networks).
  """
  high, wide = x.shape[1] - size, x.shape[2] - size
  corners = [(0, 0), (0, wide), (high, 0), (high, wide)]
  middle = (high // 2, wide // 2)
  places = [*corners, middle] if CROPS[crops] > 1 else [middle]
  found = np.stack([x[:, t : t + size, w : w + size] for t, w in places])
  if found.dtype == np.uint8:
    found = found.astype(np.float32) / np.float32(127.5) - np.float32(1)
  if CROPS[crops] == 1:
    return found
  mirrored = found[..., ::-1, :]
  if found.shape[-1] == 2:
    mirrored = mirrored * np.array([-1, 1], np.float32)
  return np.concatenate([found, mirrored])
