"""Features of videos: segments through the I3D towers, batched over videos.

  towers = extraction.load_towers(rgb="i3d_rgb.st", flow="i3d_flow.st")
  found = extraction.features_of("video.mp4", towers)
  found.streams["rgb"]   # f32[T, 1024], a row for each 0.64 s

All batches have the same shape, `Settings.batch` views, the last one filled up
with zeros: one program is compiled, and a video has the same features whatever
is extracted beside it.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.features import workers
from ptlr_jax.features.segments import (
  CROPS,
  STREAMS,
  Segment,
  Settings,
  check_settings,
  views,
)
from ptlr_jax.features.workers import Ended, Event, Failed, Made
from ptlr_jax.runtime.errors import InputError

Network = Callable[[Any, np.ndarray], Any]  # variables, [N,L,S,S,c] -> [N,D]


class Features(NamedTuple):
  """Of one video: {stream: f32[T, D]}, or f32[T, 10, D] with `ten_apart`.

  Row t sees the `window` frames from frame t stride on, at `fps`. `duration`
  is in seconds; `faults` says what of a damaged video did not decode.
  """

  streams: dict[str, np.ndarray]
  fps: float
  stride: int
  window: int
  duration: float
  faults: tuple[str, ...] = ()


class Towers:
  """One or both networks, loaded: {stream: variables}.

  `network` maps variables and clips f32[N,L,S,S,c] in [-1, 1] to f32[N,D];
  I3D's where none is given.
  """

  def __init__(
    self, variables: Mapping[str, Any], network: Network | None = None
  ):
    self.streams = tuple(s for s in STREAMS if s in variables)
    if not self.streams or len(self.streams) < len(variables):
      raise InputError(
        "expected the weights of rgb, of flow, or of both, came "
        f"{', '.join(sorted(variables)) or 'none'}"
      )
    self._variables, self._network = dict(variables), network

  def features(self, stream: str, clips: np.ndarray) -> Any:
    """f32[N,L,S,S,c] -> f32[N,D], on the device."""
    if self._network is None:
      from ptlr_jax.features import i3d

      self._network = i3d.features
    return self._network(self._variables[stream], clips)

  def digests(self) -> dict[str, str]:
    """{stream: SHA-256 of its variables}, whatever file they came in."""
    return {s: _digest(self._variables[s]) for s in self.streams}


def _digest(variables: Any) -> str:
  import jax

  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    x = np.ascontiguousarray(leaf)
    found.update(f"{jax.tree_util.keystr(path)} {x.shape} {x.dtype}".encode())
    found.update(x.tobytes())
  return found.hexdigest()


def load_towers(rgb: str = "", flow: str = "") -> Towers:
  """The networks of one or two files of weights.

  Raises:
    InputError: there is none, or it is not what the stream needs.
  """
  from ptlr_jax.features import weights

  given = {"rgb": rgb, "flow": flow}
  return Towers({s: weights.load_weights(p, s) for s, p in given.items() if p})


class _Rows:
  """The features of one video as they come, {stream: [f32[D], ...]}."""

  def __init__(self, streams: Sequence[str]):
    self.rows: dict[str, list[np.ndarray]] = {s: [] for s in streams}
    self.segments = 0
    self.ended: Ended | None = None

  def is_whole(self, settings: Settings) -> bool:
    """Whether the video is through, and the networks with it."""
    wanted = self.segments * CROPS[settings.crops]
    return bool(self.ended) and all(
      len(rows) == wanted for rows in self.rows.values()
    )

  def features(self, settings: Settings) -> Features:
    """What the rows are together."""
    assert self.ended is not None
    found = {}
    for stream, rows in self.rows.items():
      x = np.stack(rows).reshape(self.segments, CROPS[settings.crops], -1)
      found[stream] = x if settings.crops == "ten_apart" else x.mean(axis=1)
    return Features(
      found,
      settings.fps,
      settings.stride,
      settings.window,
      self.ended.duration,
      self.ended.faults,
    )


class _Batches:
  """Views of segments on their way through a network, `batch` at once.

  While the device computes one batch the next is filled.
  """

  def __init__(self, towers: Towers, settings: Settings):
    self._towers, self._settings = towers, settings
    self._waiting: dict[str, list[tuple[_Rows, np.ndarray]]] = {
      s: [] for s in towers.streams
    }
    self._flying: list[tuple[str, list[_Rows], Any]] = []

  def add(self, rows: _Rows, segment: Segment) -> None:
    """Another segment of a video."""
    rows.segments += 1
    for stream, waiting in self._waiting.items():
      x = getattr(segment, stream)
      seen = views(x, self._settings.size, self._settings.crops)
      waiting += [(rows, view) for view in seen]
      while len(waiting) >= self._settings.batch:
        self._start(stream)

  def flush(self) -> None:
    """All that waits, though it fills no batch."""
    for stream, waiting in self._waiting.items():
      while waiting:
        self._start(stream)
    self._land(0)

  def forget(self, rows: _Rows) -> None:
    """A video that came to nothing in its middle."""
    for stream, waiting in self._waiting.items():
      self._waiting[stream] = [w for w in waiting if w[0] is not rows]

  def _start(self, stream: str) -> None:
    size, waiting = self._settings.batch, self._waiting[stream]
    now, waiting[:] = waiting[:size], waiting[size:]
    clips = np.zeros((size, *now[0][1].shape), np.float32)
    for i, (_, view) in enumerate(now):
      clips[i] = view
    out = self._towers.features(stream, clips)
    self._flying.append((stream, [rows for rows, _ in now], out))
    self._land(1)

  def _land(self, keep: int) -> None:
    while len(self._flying) > keep:
      stream, owners, out = self._flying.pop(0)
      found = np.asarray(out, np.float32)
      for rows, row in zip(owners, found, strict=False):  # the rest is filling
        rows.rows[stream].append(row)


def _from_events(
  events: Generator[Event],
  towers: Towers,
  settings: Settings,
  on_segment: Callable[[Path, int, int], object],
) -> Generator[tuple[Path, Features | InputError]]:
  """Features of every video of a stream of events, as they are whole."""
  batches = _Batches(towers, settings)
  open_: dict[Path, _Rows] = {}

  def whole() -> Iterator[tuple[Path, Features]]:
    for path in [p for p, r in open_.items() if r.is_whole(settings)]:
      yield path, open_.pop(path).features(settings)

  with contextlib.closing(events):
    for event in events:
      rows = open_.setdefault(event.path, _Rows(towers.streams))
      if isinstance(event, Made):
        batches.add(rows, event.segment)
        on_segment(event.path, rows.segments, event.expected)
      elif isinstance(event, Failed):
        batches.forget(open_.pop(event.path))
        yield event.path, InputError(event.line)
      else:
        rows.ended = event
      yield from whole()
  batches.flush()
  yield from whole()


def features_of(
  path: str | os.PathLike[str],
  towers: Towers,
  settings: Settings | None = None,
  progress: Callable[[int, int], object] | None = None,
) -> Features:
  """The features of one video file, in this process.

  `progress(done, expected)` hears of every segment.

  Raises:
    InputError: in one line, why the file cannot be used.
  """
  settings, path = settings or Settings(), Path(path)
  check_settings(settings)
  heard = progress or (lambda done, expected: None)
  (result,) = _from_events(
    workers.events_of(path, towers.streams, settings),
    towers,
    settings,
    lambda _, done, expected: heard(done, expected),
  )
  if isinstance(result[1], InputError):
    raise result[1]
  return result[1]


def features_of_many(
  paths: Sequence[Path],
  towers: Towers,
  settings: Settings,
  jobs: int = 1,
  on_segment: Callable[[Path, int, int], object] = lambda *_: None,
) -> Generator[tuple[Path, Features | InputError]]:
  """(path, features, or why there are none) of each video as it is finished.

  `jobs` processes decode and compute flow; this one runs the networks on
  segments of all of them together. `on_segment(path, done, expected)`.
  """
  check_settings(settings)
  yield from _from_events(
    workers.events(paths, towers.streams, settings, jobs),
    towers,
    settings,
    on_segment,
  )
