"""Video files to predict: their features, extracted as the model learned."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.data.dataset import Video
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.features import extraction, listing
from ptlr_jax.features.output import Output
from ptlr_jax.features.segments import Settings
from ptlr_jax.inference.model_file import Model
from ptlr_jax.runtime.errors import InputError

_WIDTH = 1024  # of what I3D gives


def video_files(paths: Sequence[Path]) -> list[Path]:
  """The video files among paths, those of folders and of lists included.

  Raises:
    InputError: there is none, or two have one name.
  """
  try:
    found = [file for path in paths for file in listing.videos_of(str(path))]
    listing.check_names(map(str, found))
  except InputError as error:
    lines = (line.replace("--videos", "--video") for line in error.problems)
    raise InputError(*lines) from None
  return found


class VideoInputs:
  """Videos in, features out, by the towers of I3D that a model needs.

  With a folder the features are kept there, ROOT/features/{rgb,flow}/VIDEO.npy,
  and a video that has them already is not decoded again.

  Raises:
    InputError: the model learned from other features, weights are missing, or
      the folder has features that were made otherwise.
  """

  def __init__(
    self,
    model: Model,
    weights: Mapping[str, str],
    said: Mapping[str, float],
    root: Path | None = None,
  ):
    other = {s: w for s, w in model.widths.items() if w != _WIDTH}
    if other:
      raise InputError(
        f"--video: expected a model that learned from I3D's {_WIDTH} numbers a "
        f"segment, came one of {', '.join(map(str, other.values()))}; give its "
        "features by --features"
      )
    if lacking := [s for s in model.widths if not weights.get(s)]:
      raise InputError(
        f"--{lacking[0]}_weights: expected the weights of I3D's {lacking[0]} "
        "tower, got none; docs/I3D_WEIGHTS.md says where they come from"
      )
    self._streams = tuple(model.widths)
    self._settings = _settings(model, said)
    self._towers = extraction.load_towers(
      **{s: str(Path(weights[s]).expanduser()) for s in self._streams}
    )
    self._output = None
    if root is not None:
      self._output = Output(str(root), "own")
      self._output.settle(self._settings, self._towers.digests())

  def videos(
    self, paths: Sequence[Path], jobs: int = 1, **how: Any
  ) -> Iterator[Video | InputError]:
    """Every video with its features, or why it has none, as it is finished.
    `jobs` processes decode them."""
    left = []
    for path in paths:
      kept = self._kept(path)
      if kept is None:
        left.append(path)
      else:
        yield kept
    for path, found in extraction.features_of_many(
      left, self._towers, self._settings, jobs, **how
    ):
      if isinstance(found, InputError):
        yield found
        continue
      if self._output is not None:
        self._output.write(path.stem, path.stat().st_size, found)
      yield self._video(path, found.streams, found.duration)

  def _video(
    self,
    path: Path,
    features: Mapping[str, np.ndarray],
    duration: float | None = None,
  ) -> Video:
    geometry = Geometry(
      self._settings.fps,
      float(self._settings.stride),
      float(self._settings.window),
    )
    own = {s: features[s] for s in self._streams}
    return Video(path.stem, own, (), (), geometry, duration)

  def _kept(self, path: Path) -> Video | InputError | None:
    """A video whose features are kept from before."""
    if self._output is None or not path.is_file():
      return None
    try:
      size = path.stat().st_size
      if not self._output.is_done(path.stem, size, self._streams):
        return None
    except InputError as error:
      return error
    found = {
      s: np.load(self._output.path(path.stem, s), allow_pickle=False)
      for s in self._streams
    }
    return self._video(path, found)


def _settings(model: Model, said: Mapping[str, float]) -> Settings:
  """The extraction that the model learned from, or what the user says."""
  if not said.get("fps") and "fps" not in model.geometry:
    raise InputError(
      "--fps: expected the frames a second to extract at, which differed "
      "between the videos that the model learned from, got none"
    )
  usual = Geometry(**model.geometry)
  return Settings(
    fps=said.get("fps") or usual.fps,
    stride=int(said.get("stride") or usual.stride),
    window=int(said.get("window") or usual.window),
  )
