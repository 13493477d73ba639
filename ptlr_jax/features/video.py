"""Frames of a video file: decoded as a stream, 25 a second, upright, resized.

As I3D's authors prepare Kinetics (google-deepmind/kinetics-i3d, README):
frames at 25 a second, the shorter side resized to 256 bilinearly. The frame at
t is the one that a player shows at t: the last that begins at or before it,
whatever the frame rate of the file, constant or not. Second 0 is where the file
begins, its sound included, as it is for players and for who annotates.

A video is never held whole: two decoded frames are.
"""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.runtime.errors import InputError

SUFFIXES = (
  *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
  *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
DAMAGED = ("refuse", "use")  # what is done with a video that decodes in part
EXTRA = "pip install 'ptlr-jax[video]'"
ANOTHER = "give another file or take it out of the list"
_SLACK = Fraction(1, 1000)  # s: containers round times to it
_LOST = Fraction(1, 2)  # s that may lack at the end, or a hundredth
_PAUSE = 3600  # s between frames, beyond which their times are wrong
_FLATTEST = 64  # long side to short side


def pyav() -> Any:
  """PyAV, or what to install."""
  try:
    import av
  except ImportError as error:
    raise InputError(
      f"decoding video: expected the package av (PyAV), came: {error}; {EXTRA}"
    ) from None
  return av


class Video:
  """The frames of a file: iterate it, once, for u8[H,W,3].

  A frame that is shown for longer than 1 / fps comes again as the same object.
  `expected` is the length in seconds that the file claims, 0 if none; after
  the last frame `duration` is what there was. With `damaged="use"` whatever
  decodes is used, and `faults` says what did not.

  Raises, while it is iterated:
    InputError: in one line, why the file cannot be used.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    fps: float = 25.0,
    side: int = 256,
    damaged: str = "refuse",
  ):
    self.path = Path(path)
    self.fps = Fraction(fps).limit_denominator(100_000)
    self.duration = self.expected = 0.0
    self.faults: list[str] = []
    self._side, self._damaged = side, damaged
    self._end = Fraction(0)  # of all packets, sound too
    self._size: tuple[int, int] | None = None
    self._matrix: np.ndarray | None = None

  def __iter__(self) -> Iterator[np.ndarray]:
    with self._opened() as (container, stream):
      yield from self._at_rate(self._timed(container, stream))
      self._check_end(container, stream)

  def look(self) -> float:
    """`expected`, from the header alone; 0 where the file cannot be opened."""
    with contextlib.suppress(InputError), self._opened():
      pass
    return self.expected

  def _refuse(self, expected: str, came: str, way_out: str = ANOTHER):
    return InputError(
      f"{self.path}: expected {expected}, came {came}; {way_out}"
    )

  def _fault(self, came: str) -> None:
    """What is damaged ends a video, or is noted where it is to be used."""
    if self._damaged == "refuse":
      raise self._refuse(
        "a video that decodes from its beginning to its end",
        came,
        "copy it again, or pass --damaged=use to take what decodes",
      )
    if came not in self.faults and len(self.faults) < 8:
      self.faults.append(came)

  # The file.

  @contextlib.contextmanager
  def _opened(self) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream."""
    av, path = pyav(), self.path
    try:
      if path.is_dir():
        raise self._refuse("a video", "a folder")
      if not path.stat().st_size:
        raise self._refuse("a video", "an empty file", "copy it again")
      # Of a playlist, which may name any address, only files are opened.
      container = av.open(
        str(path.absolute()),
        options={"protocol_whitelist": "file"},
        metadata_errors="replace",
      )
    except av.error.InvalidDataError:
      raise self._refuse(
        "a video",
        "what FFmpeg does not know as one",
        f"copy it, {ANOTHER}",
      ) from None
    except OSError as error:
      came = error.strerror or type(error).__name__
      raise self._refuse("a video", f"{came!r}") from None
    with container:
      stream = self._stream(av, container)
      self.expected = float(_claimed(container, stream) or 0)
      yield container, stream

  def _stream(self, av: Any, container: Any) -> Any:
    pictures = [
      s
      for s in container.streams.video
      if not s.disposition & av.stream.Disposition.attached_pic
    ]
    if not pictures:
      kinds = sorted({s.type for s in container.streams} - {"video"})
      said = " and ".join(kinds) or "nothing"
      raise self._refuse("a video stream", f"{said} alone")
    stream = pictures[0]
    if stream.codec_context is None:
      raise self._refuse(
        "a codec that this FFmpeg decodes",
        "one that it does not know",
        "convert the video, as with ffmpeg -i IN -c:v libx264 OUT.mp4",
      )
    # Processes are what runs in parallel; threads hold a frame each.
    stream.codec_context.thread_count = 1
    return stream

  # Frames and their times.

  def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
    """All frames that can be decoded, in the order in which they are shown."""
    av = pyav()
    packets = container.demux()
    while True:
      try:
        packet = next(packets)
      except StopIteration:
        return
      except av.error.FFmpegError as error:
        self._fault(f"{_words(error)} after {float(self._end):.2f} s")
        return
      if packet.pts is not None:
        last = (packet.pts + (packet.duration or 0)) * packet.time_base
        self._end = max(self._end, last)
      if packet.stream is not stream:
        continue
      try:
        yield from packet.decode()
      except av.error.FFmpegError as error:
        self._fault(f"{_words(error)} at about {float(self._end):.2f} s")

  def _timed(
    self, container: Any, stream: Any
  ) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """(begin, end, frame) of every frame, in seconds; begins only grow."""
    zero = Fraction(container.start_time or 0, 1_000_000)
    rate = stream.average_rate or stream.guessed_rate
    usual = 1 / rate if rate else 1 / self.fps
    last, end = Fraction(-1), Fraction(0)
    for frame in self._decoded(container, stream):
      ticks = frame.dts if frame.pts is None else frame.pts
      base = frame.time_base or stream.time_base
      begin = end if ticks is None else ticks * base - zero
      if last >= 0 and begin - last > _PAUSE:
        self._fault(
          f"a frame at {float(begin):.0f} s after {float(last):.2f} s"
        )
        continue
      if begin <= last:  # its times are wrong: it follows the frame before
        begin = end
      if frame.is_corrupt:
        self._fault(f"a damaged frame at {float(begin):.2f} s")
      last, end = begin, begin + ((frame.duration or 0) * base or usual)
      yield begin, end, frame

  def _at_rate(
    self, timed: Iterator[tuple[Fraction, Fraction, Any]]
  ) -> Iterator[np.ndarray]:
    """Frame n is what is shown at n / fps; there are floor(duration fps)."""
    step, n = 1 / self.fps, 0
    shown, picture, end = None, None, Fraction(0)
    for begin, ends, frame in timed:
      while shown is not None and n * step + _SLACK < begin:
        picture = self._picture(shown) if picture is None else picture
        yield picture
        n += 1
      shown, picture, end = frame, None, ends
    if shown is None:
      raise self._refuse("a video", "no frame that can be decoded")
    while (n + 1) * step <= end + _SLACK:
      picture = self._picture(shown) if picture is None else picture
      yield picture
      n += 1
    self.duration = float(end)

  def _check_end(self, container: Any, stream: Any) -> None:
    """A fault where the file ends before its own header says."""
    zero = Fraction(container.start_time or 0, 1_000_000)
    claimed = _claimed(container, stream)
    if claimed is None:
      return
    # The container's length is that of its longest stream.
    came = self._end - zero
    if stream.duration:
      came = Fraction(self.duration)
    if claimed - came > max(_LOST, claimed / 100):
      self._fault(f"{float(came):.2f} s of {float(claimed):.2f} s")

  # Pictures.

  def _picture(self, frame: Any) -> np.ndarray:
    """Upright, the shorter side `side` pixels, RGB: u8[H,W,3].

    All frames get the size of the first, and are turned as it is.
    """
    from av.video.reformatter import Interpolation

    if self._size is None:
      wide, high = frame.width, frame.height
      if max(wide, high) > _FLATTEST * min(wide, high):
        raise self._refuse(
          f"a picture of at most {_FLATTEST} to 1", f"{wide} x {high} pixels"
        )
      self._size = _resized(wide, high, self._side)
      # Only here: what asks a frame for side data is freed long after it.
      self._matrix = _matrix(frame)
    wide, high = self._size
    x = frame.reformat(
      width=wide,
      height=high,
      format="rgb24",
      interpolation=Interpolation.BILINEAR
      | Interpolation.ACCURATE_RND
      | Interpolation.FULL_CHR_H_INT
      | Interpolation.BITEXACT,
      threads=1,
    ).to_ndarray()
    return x if self._matrix is None else _upright(x, self._matrix)


def _words(error: Exception) -> str:
  return str(getattr(error, "strerror", "") or type(error).__name__)


def _claimed(container: Any, stream: Any) -> Fraction | None:
  """Seconds that a file's header says it lasts."""
  if stream.duration:
    return stream.duration * stream.time_base
  if container.duration and container.duration > 0:
    return Fraction(container.duration, 1_000_000)
  return None


def _resized(wide: int, high: int, side: int) -> tuple[int, int]:
  """The size with a shorter side of `side`, in the same proportions."""
  short = min(wide, high)
  return (wide * side + short // 2) // short, (
    high * side + short // 2
  ) // short


def _matrix(frame: Any) -> np.ndarray | None:
  """How a frame is to be turned: f64[2,2] of 0, 1 and -1, or None.

  (x, y) of the picture is shown at (x, y) @ matrix.
  """
  found = frame.side_data.get("DISPLAYMATRIX")
  if found is None:
    return None
  a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5] / 65536
  m = np.array([[a, b], [c, d]])
  # A quarter turn is what a picture can take without loss.
  keep = np.abs(m) == np.abs(m).max(axis=1, keepdims=True)
  m = np.where(keep, np.sign(m), 0)
  if sorted(np.abs(m).sum(axis=0)) != [1, 1] or (m == np.eye(2)).all():
    return None
  return m


def _upright(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """A picture u8[H,W,3] as it is shown."""
  if not matrix[0, 0]:
    x = x.transpose(1, 0, 2)
  if matrix[:, 0].sum() < 0:
    x = x[:, ::-1]
  if matrix[:, 1].sum() < 0:
    x = x[::-1]
  return np.ascontiguousarray(x)
