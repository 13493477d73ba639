"""Reads what `ptlr_jax.prepare` wrote: TFDS, ArrayRecord shards.

The index of videos is in tfds' metadata.json, so that features are read only
when they are needed: all at once where they fit into memory, else a video at a
time.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.data.dataset import Dataset, Instance, Video, stream_order
from ptlr_jax.data.digest import combined
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.data.layouts.source import ReadOptions, read_options
from ptlr_jax.runtime.errors import InputError

FORMAT = 1  # of metadata.json, see `builders`
INFO = "dataset_info.json"
_KINDS = {
  **dict.fromkeys(("classes", "notes", "train", "test"), list),
  "simulated": bool,
  "sha256": dict,
}
_SETTLED = ("annotations", "train_subset", "test_subset", "video_labels")
_SETTLED += ("fps", "stride", "window", "offset", "trim", "skip_missing")
_VIDEO = {"id", "segments", "labels", "instances"}
_VIDEO |= {"ambiguous", "duration", "geometry"}


class Records:
  """The shards of one split, opened when the first example is read."""

  def __init__(self, folder: Path, split: str):
    self.folder, self.split = folder, split

  @functools.cached_property
  def _source(self) -> Sequence[Mapping[str, Any]]:
    import tensorflow_datasets as tfds  # half a second, spared where unused

    builder = tfds.builder_from_directory(str(self.folder))
    return builder.as_data_source(self.split)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    try:
      return self._source[index]
    except Exception as error:  # a damaged shard fails in many ways
      raise InputError(
        f"{self.folder}: {self.split}: expected a sound record {index}, came: "
        f"{error}; prepare it again from its source in a new --data_dir"
      ) from error


class RecordFeatures(Mapping[str, np.ndarray]):
  """Features of one record: stream -> f[T,D], decoded when they are needed."""

  def __init__(
    self, records: Records, index: int, streams: Sequence[str], length: int
  ):
    self._records, self._index = records, index
    self._streams, self.num_segments = tuple(streams), length

  def load(self) -> dict[str, np.ndarray]:
    """All streams, of one reading of the record."""
    example = self._records[self._index]
    found = {s: example[s] for s in self._streams}
    for stream, x in found.items():
      if len(x) != self.num_segments:
        raise InputError(
          f"{self._records.folder}: {self._records.split}: expected "
          f"{self.num_segments} segments of {stream} in record {self._index}, "
          f"came {len(x)}; prepare it again in a new --data_dir"
        )
    return found

  def __getitem__(self, stream: str) -> np.ndarray:
    return self.load()[stream]

  def __iter__(self) -> Iterator[str]:
    return iter(self._streams)

  def __len__(self) -> int:
    return len(self._streams)


def find_prepared(root: Path) -> list[Path]:
  """The prepared data sets in a folder: itself, or up to three levels below."""
  for depth in ("", "*/", "*/*/", "*/*/*/"):
    found = sorted(path.parent for path in root.glob(f"{depth}{INFO}"))
    if found:
      return found
  return []


def is_prepared(options: ReadOptions) -> bool:
  """Whether `root` is, or holds, a prepared data set."""
  if options.layout == "prepared":
    return True
  root = Path(options.root).expanduser()
  return (
    options.layout == "auto" and root.is_dir() and bool(find_prepared(root))
  )


def folder_of(options: ReadOptions) -> Path:
  root = Path(options.root).expanduser()
  found = find_prepared(root) if root.is_dir() else []
  if len(found) == 1:
    return found[0]
  came = ", ".join(str(path) for path in found) or "none"
  raise InputError(
    f"{root}: expected one data set of ptlr_jax.prepare, came {came}; pass the "
    "one to use as --config.data.root="
  )


# What an example has besides its streams, see `examples.Shape`.
_NO_STREAMS = {"id", "labels", "instances", "ambiguous", "duration"}
_NO_STREAMS |= {"fps", "stride", "window", "offset"}


def read_index(folder: Path) -> dict[str, Any]:
  """metadata.json of a prepared data set."""
  path = folder / "metadata.json"
  try:
    index = json.loads(path.read_text("utf-8"))
    if index["ptlr_jax"] != FORMAT:
      raise ValueError(f"format {index['ptlr_jax']!r}")
    features = json.loads((folder / "features.json").read_text("utf-8"))
    known = features["featuresDict"]["features"]
    index["streams"] = stream_order(known.keys() - _NO_STREAMS)
    for key, kind in _KINDS.items():
      if not isinstance(index[key], kind):
        raise ValueError(f"{key!r} is a {type(index[key]).__name__}")
    for said in (*index["train"], *index["test"]):
      if said.keys() != _VIDEO:
        raise ValueError(f"a video with {sorted(said)}")
    return index
  except (
    *(OSError, ValueError, LookupError),
    *(TypeError, AttributeError, RecursionError),
  ) as error:
    raise InputError(
      f"{path}: expected the index of a data set of ptlr_jax.prepare (format "
      f"{FORMAT}), came {type(error).__name__}: {error}; prepare it again in a "
      "new --data_dir"
    ) from None


def _video(records: Records, n: int, said: Mapping[str, Any], streams) -> Video:
  return Video(
    said["id"],
    RecordFeatures(records, n, streams, said["segments"]),
    tuple(said["labels"]),
    tuple(Instance(*row) for row in said["instances"]),
    Geometry(*said["geometry"]),
    said["duration"],
    tuple((start, end) for start, end in said["ambiguous"]),
  )


def load_prepared(options: ReadOptions) -> Dataset:
  """The data set in `root`. Its geometry, labels and checks are those of its
  preparation; of `options`, memory_gb, classes and streams are heeded.

  Raises:
    InputError: it is not one, or damaged.
  """
  folder = folder_of(options)
  index = read_index(folder)
  usual = read_options()
  settled = [n for n in _SETTLED if getattr(options, n) != getattr(usual, n)]
  if settled:
    raise InputError(
      f"{folder}: expected no setting of what its preparation settled, came "
      f"{', '.join(f'--config.data.{name}' for name in settled)}; leave it "
      "out, or give it to ptlr_jax.prepare and train on what that makes"
    )
  classes, streams = tuple(index["classes"]), tuple(index["streams"])
  if options.classes and options.classes != classes:
    raise InputError(
      f"{folder}: expected the {len(options.classes)} classes of "
      f"--config.data.classes, came {len(classes)}: {', '.join(classes)[:60]}; "
      "leave the setting out, or prepare with --classes"
    )
  if set(options.streams) - set(streams):
    raise InputError(
      f"{folder}: expected the streams {', '.join(options.streams)}, came "
      f"{', '.join(streams)}; leave --config.data.streams out"
    )
  streams = options.streams or streams
  size = sum(path.stat().st_size for path in folder.glob("*.array_record-*"))
  on_disk = size > options.memory_gb * 1e9
  splits = {}
  for split in ("train", "test"):
    records = Records(folder, split)
    videos = [
      _video(records, n, said, streams) for n, said in enumerate(index[split])
    ]
    splits[split] = tuple(videos if on_disk else map(_in_memory, videos))
  notes = (f"{folder}: prepared data set", *index["notes"])
  return Dataset(
    classes,
    splits["train"],
    splits["test"],
    notes,
    on_disk,
    index["simulated"],
    _digest(index["sha256"], streams),
  )


def _digest(shards: Mapping[str, str], streams: Sequence[str]) -> str:
  """The digest of features in shards of known digests, which says so."""
  own = {name: digest.encode() for name, digest in shards.items()}
  return "shards:" + combined({**own, "streams": " ".join(streams).encode()})


def _in_memory(video: Video) -> Video:
  return dataclasses.replace(video, features=dict(video.load()))


def verify_prepared(folder: Path) -> list[str]:
  """A problem for every shard that is not as it was written."""
  problems = []
  for name, expected in read_index(folder)["sha256"].items():
    path = folder / name
    try:
      with path.open("rb") as file:
        came = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
      came = f"{error.strerror}"
    if came != expected:
      problems.append(
        f"{path}: expected SHA-256 {expected[:12]}.., came {came[:40]}; "
        "prepare it again in a new --data_dir, or copy it again"
      )
  return problems
