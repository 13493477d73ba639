"""A trained model in Python: arrays or paths in, detections out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.data.dataset import Video
from ptlr_jax.inference import feature_inputs, run_model, video_inputs
from ptlr_jax.inference.model_file import Model
from ptlr_jax.inference.predictor import Predictor
from ptlr_jax.runtime.errors import InputError


class DetectionModel(Model):
  """A trained model, to be asked about videos."""

  __slots__ = ()

  def detect(
    self,
    *,
    rgb: Any = None,
    flow: Any = None,
    features: Any = None,
    video: Any = None,
    rgb_weights: str | Path = "",
    flow_weights: str | Path = "",
    fps: float = 0.0,
    stride: float = 0.0,
    window: float = 0.0,
    trim: bool = False,
    batch_size: int = 0,
  ) -> Any:
    """The detections of a video, or of several.

    Args:
      rgb, flow: f[T,D] arrays or .npy files; lists of them; or folders.
      features: both streams joined, rgb first, f[T,2D], or a file of it; a
        list; or a folder in one of the forms that the command reads.
      video: a video file, or a list, with the weights of I3D.
      rgb_weights, flow_weights: of I3D's towers, for `video`.
      fps, stride, window: of the features, in frames; 0: geometry.json beside
        them, or as the model learned.
      trim: cuts streams that differ by a segment or two.
      batch_size: videos at a time; 0: as in the run, for its very detections.

    Returns:
      a `VideoDetections`, or for a list or a folder a list of them.

    Raises:
      InputError: a line for everything that is wrong with what was given.
    """
    given = {"rgb": rgb, "flow": flow, "features": features, "video": video}
    wanted = {name: x for name, x in given.items() if x is not None}
    weights = {"rgb": str(rgb_weights), "flow": str(flow_weights)}
    said = {"fps": fps, "stride": stride, "window": window}
    many = any(_is_many(x) for x in wanted.values())
    try:
      videos = self._read(wanted, weights, said, trim)
    except InputError as error:
      raise InputError(*_in_python(error.problems)) from None
    found = Predictor(self, batch_size)(videos)
    return found if many or len(found) > 1 else found[0]

  def _read(
    self,
    wanted: Mapping[str, Any],
    weights: Mapping[str, str],
    said: Mapping[str, float],
    trim: bool,
  ) -> list[Video]:
    """The videos that are given, with their features."""
    if not wanted:
      raise InputError(
        "expected features (rgb= and flow=, or features=) or video=, came none"
      )
    sources = {name: _sources(name, x) for name, x in wanted.items()}
    videos = sources.pop("video", [])
    features = sources.pop("features", [])
    how = feature_inputs.InputOptions(self.widths, self.geometry, said, trim)
    problems: list[str] = []
    found = feature_inputs.find_inputs(how, sources, features, problems)
    if problems:
      raise InputError(*problems)
    loaded = [feature_inputs.load_input(one, problems) for one in found]
    if videos:
      seen = video_inputs.VideoInputs(self, weights, said)
      for one in seen.videos(video_inputs.video_files(videos)):
        if isinstance(one, InputError):
          raise one
        loaded.append(one)
    if problems:
      raise InputError(*problems)
    return [video for video in loaded if video is not None]


def load_model(path: str | Path, stage: int | None = None) -> DetectionModel:
  """A trained model.

  Args:
    path: a file that `ptlr_jax.export` wrote, or the folder of a finished run.
    stage: of a run, another than its last; 0 for the ILG alone.

  Raises:
    InputError: there is none that can be used.
  """
  return DetectionModel(*run_model.open_model(Path(path).expanduser(), stage))


def _in_python(lines: Sequence[str]) -> list[str]:
  """Ways out, which name flags, as arguments."""
  flags = ("rgb_weights", "flow_weights", "rgb", "flow", "features", "video")
  for flag in (*flags, "fps", "stride", "window", "trim"):
    value = "=True" if flag == "trim" else "="
    lines = [line.replace(f"--{flag}", f"{flag}{value}") for line in lines]
  return list(lines)


def _is_many(x: Any) -> bool:
  if isinstance(x, list | tuple):
    return True
  return isinstance(x, str | os.PathLike) and Path(x).expanduser().is_dir()


def _sources(name: str, x: Any) -> list[Any]:
  """Arrays and paths, one or more, as a list of arrays and Paths."""
  found = []
  for one in x if isinstance(x, list | tuple) else [x]:
    if isinstance(one, str | os.PathLike):
      found.append(Path(one).expanduser())
    elif name != "video" and hasattr(one, "__array__"):
      found.append(np.asarray(one))
    else:
      raise InputError(
        f"{name}=: expected a path{'' if name == 'video' else ' or an array'}, "
        f"came {type(one).__name__}"
      )
  return found
