"""Room on the disk that a run needs, before it starts."""

from collections.abc import Sequence

from ptlr_jax.io import checkpoints, disk_space
from ptlr_jax.runs.pipeline import Run
from ptlr_jax.runtime.progress import show
from ptlr_jax.workdir.phases import phases, table_rows

# What cannot be known before: bytes of detections a test video and row (58 kB
# on simulated THUMOS14), and of the rest.
_DETECTIONS = 100e3
_REST = 1e6
_STATE = 3  # parameters and Adam's two moments


def needed_bytes(run: Run) -> float:
  """Bytes that the missing phases of a run are about to write, at the most.

  That of `detections` is a guess. Of a phase that trains the final parameters
  stay; while it trains there are `checkpoints.KEEP` states and the one that is
  being written, of which some may be there already.
  """
  missing = [
    phase
    for phase in phases(run.config)
    if not run.files.is_done(phase, told="")
  ]
  if not missing:
    return 0.0
  kept, passing, there = _REST, 0.0, 0.0
  for phase in missing:
    if phase.kind == "train":
      size = checkpoints.nbytes(run.networks.shapes(phase.network))
      kept += size
      passing = max(passing, (checkpoints.KEEP + 1) * _STATE * size)
      saved = checkpoints.steps(run.files.checkpoint_dir(phase.name))
      there += len(saved[-checkpoints.KEEP :]) * _STATE * size
    elif phase.kind == "labels":
      columns = len(run.data.classes) + 1
      frames = sum(video.num_segments for video in run.data.train)
      kept += frames * ((columns + 7) // 8 + 1)
    elif phase.kind == "detect":
      kept += detection_bytes(run)
  return kept + max(0.0, passing - there)


def detection_bytes(run: Run) -> float:
  """Bytes of the detections of a run, about."""
  return len(run.data.test) * len(table_rows(run.config)) * _DETECTIONS


def check_disk_space(runs: Sequence[Run]) -> None:
  """Refuses runs for which the disk of the first has no room; what is a guess
  is told only.

  Raises:
    NoSpace: how much is needed, and how much is free.
  """
  size = sum(needed_bytes(run) for run in runs)
  path = runs[0].workdir
  free = disk_space.free_space(path)
  if size - sum(detection_bytes(run) for run in runs) > free:
    raise disk_space.no_space(path, size)
  if size > free / 2:
    show(
      f"{path}: up to {disk_space.size_in_words(size)} are to be written, "
      f"{disk_space.size_in_words(free)} are free"
    )
