"""Videos written for tests: what each frame shows is known."""

from fractions import Fraction
from typing import Any

import numpy as np


def pattern(n, high=48, wide=64):
  """A picture whose red says which one it is: u8[H,W,3]."""
  x = np.zeros((high, wide, 3), np.uint8)
  x[..., 0] = n * 7 % 256
  x[..., 1] = np.linspace(0, 255, wide).astype(np.uint8)
  x[..., 2] = np.linspace(0, 255, high).astype(np.uint8)[:, None]
  return x


def moving(n, high=48, wide=64, speed=2):
  """A bright square on grey noise that moves `speed` pixels a frame."""
  x = np.random.default_rng(0).integers(90, 110, (high, wide)).astype(np.uint8)
  left = 6 + speed * n % max(1, wide - 24)
  x[high // 3 : high // 3 + 12, left : left + 12] = 220
  return np.repeat(x[..., None], 3, axis=2)


def write_video(
  path,
  pictures,
  *,
  rate=25,
  times=None,
  codec="ffv1",
  pix_fmt="bgr0",
  sound=0.0,
  options=None,
):
  """Writes pictures u8[H,W,3] as a video, at `times` in ms or at a rate.

  ffv1 loses nothing. `sound` seconds of silence are laid beside it.
  """
  import av

  high, wide = pictures[0].shape[:2]
  container: Any
  with av.open(str(path), "w", options=options or {}) as container:
    stream: Any = container.add_stream(codec, rate=rate)
    stream.width, stream.height, stream.pix_fmt = wide, high, pix_fmt
    if times is not None:
      stream.codec_context.time_base = Fraction(1, 1000)
    audio = container.add_stream("aac", rate=8000) if sound else None
    if audio:
      write_silence(container, audio, sound)
    for i, picture in enumerate(pictures):
      frame = av.VideoFrame.from_ndarray(picture, "rgb24")
      if times is not None:
        frame.pts, frame.time_base = times[i], stream.codec_context.time_base
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


def write_silence(container, stream, seconds):
  """Silence into a stream of sound."""
  import av

  for i in range(int(seconds * 8000 / 1024)):
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), "fltp", "mono"
    )
    frame.sample_rate, frame.pts = 8000, i * 1024
    container.mux(stream.encode(frame))
  container.mux(stream.encode(None))


def write_sound(path, seconds=2.0):
  """A file of sound alone."""
  import av

  container: Any
  with av.open(str(path), "w") as container:
    write_silence(container, container.add_stream("aac", rate=8000), seconds)
  return path


def turn(path, matrix):
  """Gives the video track of an mp4 a display matrix [[a, b], [c, d]]."""
  data = bytearray(path.read_bytes())
  at = data.index(b"tkhd") + 4
  assert data[at] == 0  # the version: times of 32 bits
  (a, b), (c, d) = np.asarray(matrix) * 65536
  whole = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4")
  data[at + 40 : at + 76] = whole.tobytes()
  path.write_bytes(bytes(data))
  return path
