"""Which share of a run each device and process takes, and whether it is even.

Every batch is spread evenly over the devices. The training set may lie in
`config.data.parts` consecutive parts, as many of each batch from each: then a
process reads, labels and remembers the videos of its own parts only.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.data import sampling
from ptlr_jax.data.dataset import Video
from ptlr_jax.io import label_files, storage
from ptlr_jax.io.label_files import Labels
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.mesh import Devices
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import trained_networks


def check_shares(config: Any, devices: Devices, num_videos: int) -> None:
  """Refuses what cannot be shared evenly.

  Raises:
    InputError: a line for every setting that does not fit.
  """
  if problems := list(_problems(config, devices, num_videos)):
    raise InputError(*problems)


def _problems(config: Any, devices: Devices, num_videos: int) -> Iterator[str]:
  parts, count = config.data.parts, devices.processes
  if parts > 1 and parts % count:
    yield (
      f"--config.data.parts={parts}: expected a multiple of the {count} "
      f"processes, or 1; give {-(-parts // count) * count}"
    )
  if max(parts, count) > num_videos:
    yield (
      f"--config.data.parts={parts} and {count} processes: expected at most "
      f"one for each of the {num_videos} training videos; give fewer"
    )
  for net in trained_networks(config):
    size, accumulate = config[net].batch_size, config[net].accumulate
    if size % parts:
      yield (
        f"--config.{net}.batch_size={size}: expected a multiple of data.parts "
        f"{parts}; give {-(-size // parts) * parts}"
      )
    packed = net != "ilg" and config.ptlr.pack
    each = count if packed else devices.count * accumulate
    if size % each:
      of = f"{count} processes" if packed else f"{devices.count} devices"
      of += f" x {net}.accumulate {accumulate}" if each > devices.count else ""
      yield (
        f"--config.{net}.batch_size={size}: expected a multiple of the {of}, "
        f"to be spread evenly; give {-(-size // each) * each}, or fewer "
        "devices by --config.devices=N or CUDA_VISIBLE_DEVICES"
      )


def own_parts(parts: int) -> range:
  """The parts of the training set that this process trains on."""
  return range(1) if parts == 1 else processes.own_share(parts)


def own_videos(parts: int, num_videos: int) -> range:
  """The training videos of these parts, which lie beside each other."""
  of, own = bounds(parts, num_videos), own_parts(parts)
  return range(of[own.start].start, of[own.stop - 1].stop)


def bounds(parts: int, num_videos: int) -> list[range]:
  """The videos of each part."""
  return [range(*each) for each in sampling.part_bounds(num_videos, parts)]


def read_labels(
  files: Artefacts,
  name: str,
  videos: Sequence[Video],
  parts: Iterable[int],
) -> Labels:
  """Pseudo labels of a finished labels phase, of some parts of the training
  `videos`, by the numbers of these.

  Raises:
    InputError: a file is damaged, of another version or of other videos.
  """
  of = bounds(files.parts, len(videos))
  return label_files.read_parts(
    [(of[k], files.label_path(name, k)) for k in parts],
    [video.id for video in videos],
    [video.num_segments for video in videos],
  )


def label_pieces(
  files: Artefacts, name: str, num_videos: int
) -> list[tuple[range, Path]]:
  """The videos that this process labels, and the files for them: its parts, or
  of a single part a piece that process 0 joins."""
  if processes.count() == 1 or files.parts > 1:
    of = bounds(files.parts, num_videos)
    own = own_parts(files.parts)
    return [(of[k], files.label_path(name, k)) for k in own]
  return [
    (processes.own_share(num_videos), _pieces(files, name)[processes.index()])
  ]


def _pieces(files: Artefacts, name: str) -> list[Path]:
  path = files.label_path(name)
  numbers = range(processes.count())
  return [storage.temporary_of(path, f"{i:05d}") for i in numbers]


def pieces_to_join(files: Artefacts, name: str) -> list[Path]:
  """The pieces of all processes that process 0 joins, if any."""
  if processes.count() == 1 or files.parts > 1:
    return []
  return _pieces(files, name)
