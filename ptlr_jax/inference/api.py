"""What `ptlr_jax.predict(...)` does: arrays or paths in, detections out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.inference import feature_inputs, run_model, video_inputs
from ptlr_jax.inference.model_file import Model
from ptlr_jax.inference.predictor import Predictor
from ptlr_jax.inference.video_detections import VideoDetections
from ptlr_jax.runtime.errors import InputError


def load_model(model: str | Path, stage: int | None = None) -> Any:
  """A model in memory, `model_file.Model`, for many calls.

  Raises:
    InputError: there is none that can be used.
  """
  from ptlr_jax.inference import run_model

  return run_model.open_model(Path(model).expanduser(), stage=stage)


def predict(
  model: Any,
  wanted: Mapping[str, Any],
  weights: Mapping[str, str],
  said: Mapping[str, float],
  *,
  trim: bool,
  batch_size: int,
) -> VideoDetections | list[VideoDetections]:
  """See `ptlr_jax.predict`; `wanted` are its rgb, flow, features and video that
  are not None."""
  try:
    return _predict(model, wanted, weights, said, trim, batch_size)
  except InputError as error:
    raise InputError(*_in_python(error.problems)) from None


def _predict(
  model: Any,
  wanted: Mapping[str, Any],
  weights: Mapping[str, str],
  said: Mapping[str, float],
  trim: bool,
  batch_size: int,
) -> VideoDetections | list[VideoDetections]:
  if not wanted:
    raise InputError(
      "expected features (rgb= and flow=, or features=) or video=, came none"
    )
  if not isinstance(model, Model):
    model = run_model.open_model(Path(model).expanduser())
  many = [_is_many(x) for x in wanted.values()]
  sources = {name: _sources(name, x) for name, x in wanted.items()}
  videos = sources.pop("video", [])
  features = sources.pop("features", [])
  how = feature_inputs.InputOptions(model.widths, model.geometry, said, trim)
  problems: list[str] = []
  found = (
    feature_inputs.find_inputs(how, sources, features, problems) if many else []
  )
  if problems:
    raise InputError(*problems)
  loaded = [feature_inputs.load_input(one, problems) for one in found]
  if videos:
    seen = video_inputs.VideoInputs(model, weights, said)
    for one in seen.videos(video_inputs.video_files(videos)):
      if isinstance(one, InputError):
        raise one
      loaded.append(one)
  if problems:
    raise InputError(*problems)
  predictor = Predictor(model, batch_size)
  results = predictor([video for video in loaded if video is not None])
  return results if any(many) or len(results) > 1 else results[0]


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
