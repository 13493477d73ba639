"""What `ptlr_jax.predict(...)` does: arrays or paths in, detections out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax import footage, predicting, trained
from ptlr_jax.data import given
from ptlr_jax.detected import Detected
from ptlr_jax.errors import InputError
from ptlr_jax.exported import Model


def predict(
  model: Any,
  wanted: Mapping[str, Any],
  weights: Mapping[str, str],
  said: Mapping[str, float],
  *,
  trim: bool,
  batch_size: int,
) -> Detected | list[Detected]:
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
) -> Detected | list[Detected]:
  if not wanted:
    raise InputError(
      "expected features (rgb= and flow=, or features=) or video=, came none"
    )
  if not isinstance(model, Model):
    model = trained.open_model(Path(model).expanduser())
  many = [_is_many(x) for x in wanted.values()]
  sources = {name: _sources(name, x) for name, x in wanted.items()}
  videos = sources.pop("video", [])
  features = sources.pop("features", [])
  how = given.How(model.widths, model.geometry, said, trim)
  problems: list[str] = []
  found = given.find(how, sources, features, problems) if many else []
  if problems:
    raise InputError(*problems)
  loaded = [given.load(one, problems) for one in found]
  if videos:
    seen = footage.Footage(model, weights, said)
    for one in seen.videos(footage.files(videos)):
      if isinstance(one, InputError):
        raise one
      loaded.append(one)
  if problems:
    raise InputError(*problems)
  predictor = predicting.Predictor(model, batch_size)
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
