"""Features that detections are wanted for: files, folders or arrays.

A stream by itself, as `rgb` and `flow`:
  an array f[T,D], a file, or a folder of VIDEO.npy or VIDEO_rgb.npy
Both at once, as `features`, in the forms of the layout `own`:
  a folder of rgb/VIDEO.npy and flow/VIDEO.npy, of VIDEO_rgb.npy and
  VIDEO_flow.npy, or of VIDEO.npy, which is joined, rgb first, f[T,2D]; the same
  in its folder `features`; or an array or a file f[T,2D]

Functions append to `problems`, one line each, and go on without what is wrong.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.dataset import Video
from ptlr_jax.data.files.arrays import StoredArray, stored_npy
from ptlr_jax.data.files.features import FLOATS, MAX_TRIM, STREAMS, Part
from ptlr_jax.data.files.text import is_file_name
from ptlr_jax.data.geometry import FILE, Geometry, settle
from ptlr_jax.inference.input_files import (
  AGAIN,
  InputFile,
  file_name,
  grouped_files,
)

_INSIDE = (*STREAMS, "features", "train", "test")  # folders of a data set
_NOWHERE = Path("/dev/null")  # no geometry.json lies beside an array


class InputOptions(NamedTuple):
  """What features have to be like, and where they lie in time.

  `widths` {stream: D} and `geometry` of the model; `said` {"fps", "stride",
  "window": frames} by the user, 0 where left open. With `trim` streams that
  differ by up to two segments are cut.
  """

  widths: Mapping[str, int]
  geometry: Mapping[str, float]
  said: Mapping[str, float]
  trim: bool = False

  @property
  def words(self) -> str:
    """The streams in words."""
    return " and ".join(self.widths)


class FeatureInput(NamedTuple):
  """A video's features where they lie, their shapes checked, and their
  geometry."""

  id: str
  parts: dict[str, Part]
  geometry: Geometry


# What is there.


def find_inputs(
  how: InputOptions,
  streams: Mapping[str, Sequence[Any]],
  features: Sequence[Any],
  problems: list[str],
) -> list[FeatureInput]:
  """The videos among paths and arrays, {stream: those of it} and those with all
  of them."""
  if others := sorted(set(streams) - set(how.widths)):
    problems.append(
      f"--{others[0]}: expected features of {how.words}, which the model "
      f"learned from, came {others[0]}; leave it out"
    )
    return []
  videos: dict[str, list[InputFile]] = {}
  for files in grouped_files(tuple(how.widths), streams, features, problems):
    if files[0].id in videos:
      problems.append(
        f"{file_name(files[0])}: expected every video once, came another "
        f"{files[0].id}; rename one of them or leave it out"
      )
    else:
      videos[files[0].id] = files
  geometries: dict[Path, Geometry | None] = {}
  found = []
  for name, files in videos.items():
    folder = _folder(files[0].source)
    if folder not in geometries:
      geometries[folder] = _geometry(how, folder, problems)
    parts = _parts(how, name, files, problems)
    geometry = geometries[folder]
    if parts and geometry:
      found.append(FeatureInput(name, parts, geometry))
  return found


# What it is like.


def _parts(
  how: InputOptions, name: str, files: Sequence[InputFile], problems: list[str]
) -> dict[str, Part]:
  """The streams of a video, all as wide as the model has them."""
  if not is_file_name(name):
    problems.append(
      f"{file_name(files[0])}: expected a name that can be a file's, came "
      f"{name!r:.60}; rename it"
    )
    return {}
  parts: dict[str, Part] = {}
  for file in files:
    array = _array(file_name(file), file.source, problems)
    if array is None:
      return {}
    own = _streams_of(how, file, array, problems)
    if not own:
      return {}
    parts |= own
  rows = {stream: part.array.shape[0] for stream, part in parts.items()}
  (first, expected), *rest = rows.items()
  for stream, came in rest:
    small = abs(came - expected) <= MAX_TRIM
    if came != expected and not (how.trim and small):
      problems.append(
        f"{parts[stream].where}: expected {expected} segments as {first} has, "
        f"came {came}; extract both from the same frames"
        + (" or pass --trim" if small else "")
      )
      return {}
  return parts


def _array(
  where: str, source: Any, problems: list[str]
) -> StoredArray | np.ndarray | None:
  """Floats f[T,D], T and D > 0, or a problem."""
  array = source
  if not isinstance(source, np.ndarray):
    try:
      array = stored_npy(source)
    except FileNotFoundError:
      problems.append(f"{where}: expected a feature file, came no such file")
      return None
    except (ValueError, OSError) as error:
      problems.append(
        f"{where}: expected an .npy file of floats, came: {error}; {AGAIN}"
      )
      return None
  if array is None:
    problems.append(
      f"{where}: expected an array of floats, came pickled Python objects, "
      "which are never loaded: they can run code; save it again with np.save"
    )
  elif array.dtype not in FLOATS:
    problems.append(
      f"{where}: expected float16, float32 or float64, came {array.dtype}; "
      "save it again as float32"
    )
  elif len(array.shape) != 2 or not min(array.shape):
    problems.append(
      f"{where}: expected shape (T, D), a row for each segment, came "
      f"{array.shape}; {AGAIN}"
    )
  else:
    return array
  return None


def _streams_of(
  how: InputOptions,
  file: InputFile,
  array: StoredArray | np.ndarray,
  problems: list[str],
) -> dict[str, Part]:
  """The streams of the model in an array, by its width."""
  where, came = file_name(file), array.shape[1]
  asked = [s for s in file.streams if s in how.widths]
  if len(asked) == 1 and came == how.widths[asked[0]]:
    return {asked[0]: Part(where, array)}
  widest = 2 * max(how.widths.values())
  if len(file.streams) == 2 and came == widest:
    return {s: Part(where, array, file.streams.index(s)) for s in asked}
  expected = f"(T, {how.widths[asked[0]]}), {asked[0]}"
  if len(asked) == 2:
    expected = f"(T, {widest}), {' and '.join(file.streams)} joined"
  problems.append(
    f"{where}: expected shape {expected} as the model learned from, came "
    f"{tuple(array.shape)}; give features of the extractor of its data set"
  )
  return {}


# Where it lies in time.


def _folder(source: Any) -> Path:
  """The folder of a data set that a file is in, where geometry.json may be."""
  if isinstance(source, np.ndarray):
    return _NOWHERE
  folder = source.parent
  while folder.name in _INSIDE and not (folder / FILE).is_file():
    folder = folder.parent
  return folder if (folder / FILE).is_file() else source.parent


def _geometry(
  how: InputOptions, folder: Path, problems: list[str]
) -> Geometry | None:
  """The user's, else that of geometry.json, else the model's own."""
  told: list[str] = []
  usual = Geometry(**how.geometry)
  geometry, said = settle(usual, how.said, folder, told)
  problems += [line.replace("--config.data.", "--") for line in told]
  lacking = sorted({"fps", "stride", "window"} - set(how.geometry) - said)
  if lacking and not told:
    problems.append(
      f"{folder if folder != _NOWHERE else 'features'}: expected their "
      f"{' and '.join(lacking)}, which differed between the videos that the "
      f"model learned from; pass --{lacking[0]}, or write it into {FILE}"
    )
  return None if lacking or told else geometry


def load_input(given: FeatureInput, problems: list[str]) -> Video | None:
  """The video in memory, or None and a problem where it is not finite."""
  length = min(part.array.shape[0] for part in given.parts.values())
  features = {}
  for stream, part in given.parts.items():
    try:
      x = np.array(part.map()[:length], order="C")
    except OSError as error:  # it went while others were computed
      problems.append(
        f"{part.where}: cannot be read ({error.strerror or error})"
      )
      return None
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
      problems.append(
        f"{part.where}: expected finite numbers, came NaN or infinity in "
        f"{bad.size} of {length} segments, first in segment {bad[0]}; {AGAIN}"
      )
      return None
    features[stream] = x
  return Video(given.id, features, (), (), given.geometry)
