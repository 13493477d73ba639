"""TV-L1 optical flow as I3D was trained on it: f32[H,W,2] in [-1, 1].

Grey pictures at the resized size; horizontal motion first, vertical second, in
pixels from a frame to the next, clamped to [-20, 20] and divided by 20
(google-deepmind/kinetics-i3d, README; its video pipeline in MediaPipe uses
OpenCV's DualTVL1OpticalFlow with its defaults, as is done here).
"""

from typing import Any

import numpy as np

from ptlr_jax.runtime.errors import InputError

_CREATE = "DualTVL1OpticalFlow_create"  # of opencv-contrib
CLAMP = 20.0  # pixels
# The solver's options; it stops where a step changes less than epsilon.
KINDS: dict[str, dict[str, float]] = {
  "tvl1": {},
  "tvl1_fast": {"epsilon": 0.05},
}
EXTRA = "pip install 'ptlr-jax[video]'"


def opencv() -> Any:
  """OpenCV with its contributed modules, or what to install."""
  try:
    import cv2

    getattr(cv2.optflow, _CREATE)
  except (ImportError, AttributeError) as error:
    raise InputError(
      "optical flow: expected the package opencv-contrib-python-headless, "
      f"came: {error}; {EXTRA}, and remove opencv-python where it is installed "
      "beside it"
    ) from None
  return cv2


def use_threads(count: int) -> None:
  """How many threads flow may use in this process; the result is the same."""
  opencv().setNumThreads(count)


class TvL1:
  """Flow from frame to frame of one video; `kind` is one of KINDS."""

  def __init__(self, kind: str = "tvl1"):
    self._cv2 = opencv()
    create = getattr(self._cv2.optflow, _CREATE)
    self._solver = create(**KINDS[kind])
    self._last: tuple[np.ndarray, np.ndarray] | None = None

  def _grey(self, frame: np.ndarray) -> np.ndarray:
    """u8[H,W,3] -> u8[H,W]; the last one is kept."""
    if self._last is None or self._last[0] is not frame:
      grey = self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2GRAY)
      self._last = frame, grey
    return self._last[1]

  def between(self, frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    """u8[H,W,3] twice -> f32[H,W,2] in [-1, 1], from the one to the other."""
    if frame is following:  # shown for longer: nothing moves
      return np.zeros((*frame.shape[:2], 2), np.float32)
    first, second = self._grey(frame), self._grey(following)
    flow = self._solver.calc(first, second, None)
    return np.clip(flow, -CLAMP, CLAMP) / np.float32(CLAMP)
