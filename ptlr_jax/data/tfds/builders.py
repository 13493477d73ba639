"""TFDS builders: a data set as ArrayRecord shards that any tfds user can read.

    tfds.builder_from_directory(DIR).as_data_source("train")[0]
    -> {"id", "rgb" f[T,D], "flow" f[T,D], "labels" [n], "instances": {"start",
        "end", "label"}, "ambiguous": {"start", "end"}, "duration", "fps",
        "stride", "window", "offset"}, in seconds (0: unknown) and frames

An example holds times in single precision, as all of tfds does;
builder.info.metadata has them in full, with the rest that is known of a video.

TensorFlow is not needed. Shards are first written into a hidden folder beside
the data set, each whole or not at all, by as many processes as are asked for;
a killed preparation goes on with the shards that are missing. `BUILDERS` names
the data sets.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.core.writer import ExampleWriter

from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.data.sampling import part_bounds
from ptlr_jax.data.tfds.examples import Shape, example_of, index_of, shape_of
from ptlr_jax.data.tfds.prepared import FORMAT
from ptlr_jax.runtime.errors import InputError

_RECORDS = FileFormat.ARRAY_RECORD


@dataclasses.dataclass(frozen=True)
class Shard:
  """Some videos in a row, and the name of their file."""

  name: str
  split: str
  videos: tuple[Video, ...]


def shards_of(
  data: Dataset, name: str, megabytes: int, parts: int = 1
) -> list[Shard]:
  """Cuts each split, in its order, into shards of about that size; the training
  set also where its `parts` meet, so that nobody opens those of another."""
  found = []
  for split, videos in (("train", data.train), ("test", data.test)):
    bounds = part_bounds(len(videos), parts if split == "train" else 1)
    cuts = {first for first, _ in bounds}
    shards: list[list[Video]] = [[]]
    size = 0
    for i, video in enumerate(videos):
      nbytes = sum(x.nbytes for x in video.features.values())
      full = size and size + nbytes > megabytes * 1e6
      if full or (i in cuts and shards[-1]):
        shards.append([])
        size = 0
      shards[-1].append(video)
      size += nbytes
    found += [
      Shard(
        f"{name}-{split}.array_record-{n:05d}-of-{len(shards):05d}",
        split,
        tuple(shard),
      )
      for n, shard in enumerate(shards)
    ]
  return found


def _write_shard(job: tuple[Shard, Shape, Path]) -> tuple[int, list[str]]:
  """Writes a shard whole or not at all. -> (its videos, problems)."""
  shard, shape, folder = job
  problems: list[str] = []
  target = folder / shard.name
  if not target.exists():
    features = shape.features()
    serializer = example_serializer.ExampleSerializer(
      features.get_serialized_info()
    )

    def serialized() -> Iterator[tuple[str, bytes]]:
      for video in shard.videos:
        example = features.encode_example(example_of(video, shape, problems))
        # Maps of a protocol buffer have no order unless it is asked for.
        proto = serializer.get_tf_example(example)
        yield video.id, proto.SerializeToString(deterministic=True)

    temporary = folder / f".{shard.name}.{os.getpid()}"
    try:
      ExampleWriter(_RECORDS).write(str(temporary), serialized())
      with temporary.open("rb") as file:
        os.fsync(file.fileno())
      if not problems:
        temporary.rename(target)
    finally:
      temporary.unlink(missing_ok=True)
  return len(shard.videos), problems


class _Staged(ExampleWriter):
  """Puts a shard that is written already where tfds wants it."""

  def __init__(self, folder: Path):
    super().__init__(_RECORDS)
    self._folder = folder

  def write(self, path, examples):
    """Ignores `examples`: they are in the staged shard."""
    del examples
    staged = self._folder / Path(path).name
    try:
      os.link(staged, path)
    except OSError:  # a file system without links
      shutil.copy2(staged, path)


class _Builder(tfds.core.ShardBasedBuilder, skip_registration=True):  # pyright: ignore
  """A data set whose shards lie in `staging`."""

  VERSION = tfds.core.Version("1.0.0")
  ABOUT = ""

  def __init__(self, *, staging, shape, shards, metadata, **options):
    self._staging, self._shape = staging, shape
    self._shards, self._about = shards, metadata
    super().__init__(file_format=_RECORDS.value, **options)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.ABOUT,
      features=self._shape.features(),
      metadata=tfds.core.MetadataDict(self._about),
    )

  def _example_writer(self) -> ExampleWriter:
    return _Staged(self._staging)

  def _shard_iterators_per_split(self, dl_manager):
    del dl_manager

    def counted(shard: Shard) -> Callable[[], Iterator[tuple[str, dict]]]:
      return lambda: ((video.id, {}) for video in shard.videos)

    splits: dict[str, list] = {}
    for shard in self._shards:
      if shard.videos:
        splits.setdefault(shard.split, []).append(counted(shard))
    return splits


class Thumos14I3d(_Builder, skip_registration=True):  # pyright: ignore
  """Two-stream features of THUMOS14."""

  ABOUT = "THUMOS14: features of untrimmed videos, 20 classes of sport."


class ActivitynetI3d(_Builder, skip_registration=True):  # pyright: ignore
  """Two-stream features of ActivityNet."""

  ABOUT = "ActivityNet: features of untrimmed videos, 100 or 200 activities."


class Own(_Builder, skip_registration=True):  # pyright: ignore
  """A user's features."""

  ABOUT = "Features of untrimmed videos with video-level labels."


class Simulated(_Builder, skip_registration=True):  # pyright: ignore
  """Simulated features."""

  ABOUT = "Simulated features: no evidence about any real video."


BUILDERS: dict[str, type[_Builder]] = {
  "thumos14_i3d": Thumos14I3d,
  "activitynet_i3d": ActivitynetI3d,
  "own": Own,
  "simulated": Simulated,
}


def directory(data_dir: Path, name: str, config: str) -> Path:
  """Where a data set is, or will be: tfds' DIR/NAME/CONFIG/VERSION."""
  return data_dir / name / config / str(_Builder.VERSION)


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[], object]) -> Iterator[None]:
  """One process at a time; the lock falls with its process."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      on_wait()
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def build(
  data: Dataset,
  data_dir: Path,
  name: str,
  config: str,
  *,
  jobs: int = 1,
  megabytes: int = 128,
  parts: int = 1,
  on_wait: Callable[[], object] = lambda: None,
  on_videos: Callable[[int], object] = lambda count: None,
) -> Path:
  """Writes a data set, or what is missing of it; returns its folder.

  `on_videos(n)` hears how many videos are written, `on_wait()` that another
  process is at the same data set.

  Raises:
    InputError: a line for every stream that is not finite.
  """
  target = directory(data_dir, name, config)
  with _locked(data_dir / name / f".{config}.lock", on_wait):
    if (target / "dataset_info.json").exists():
      return target
    staging = data_dir / name / f".{config}.part"
    shape = shape_of(data)
    shards = shards_of(data, name, megabytes, parts)
    _start(staging, target, shape, shards)
    _write_all(staging, shape, [s for s in shards if s.videos], jobs, on_videos)
    builder = BUILDERS[name](
      staging=staging,
      shape=shape,
      shards=shards,
      metadata=_metadata(data, shards, staging),
      data_dir=str(data_dir),
      config=tfds.core.BuilderConfig(name=config),
    )
    with contextlib.redirect_stdout(io.StringIO()):
      # Nothing is downloaded; tfds makes the folder all the same.
      builder.download_and_prepare(download_dir=str(staging / "downloads"))
    shutil.rmtree(staging)
  return target


def _start(staging: Path, target: Path, shape: Shape, shards) -> None:
  """Makes the staging folder, or keeps the shards of a killed preparation."""
  plan = json.dumps([dataclasses.asdict(shape), [s.name for s in shards]])
  file = staging / "plan.json"
  if staging.exists() and not (file.exists() and file.read_text() == plan):
    shutil.rmtree(staging)  # another shard size, or a stop before the plan
  staging.mkdir(parents=True, exist_ok=True)
  for left in staging.glob(".*"):
    left.unlink()
  file.write_text(plan)
  for left in target.parent.glob(f"*incomplete*_{target.name}"):
    shutil.rmtree(left)


def _write_all(
  staging: Path,
  shape: Shape,
  shards: Sequence[Shard],
  jobs: int,
  on_videos: Callable[[int], object],
) -> None:
  done, problems = 0, []
  work = [(shard, shape, staging) for shard in shards]
  with contextlib.ExitStack() as stack:
    results = map(_write_shard, work)
    if jobs > 1 and len(work) > 1:
      pool = multiprocessing.get_context("spawn").Pool(min(jobs, len(work)))
      results = stack.enter_context(pool).imap(_write_shard, work)
    for count, found in results:
      done += count
      problems += found
      on_videos(done)
  if problems:
    raise InputError(*problems)


def _metadata(
  data: Dataset, shards: Sequence[Shard], staging: Path
) -> dict[str, Any]:
  """What `prepared` reads; with a digest of every shard."""
  digests = {}
  for shard in shards:
    if shard.videos:
      with (staging / shard.name).open("rb") as file:
        digests[shard.name] = hashlib.file_digest(file, "sha256").hexdigest()
  return {
    "ptlr_jax": FORMAT,
    "classes": list(data.classes),
    "simulated": data.simulated,
    "notes": list(data.notes),
    "train": [index_of(video) for video in data.train],
    "test": [index_of(video) for video in data.test],
    "sha256": digests,
  }
