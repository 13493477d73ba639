"""Checkpoints of a phase on disk; the only place that knows orbax.

DIR/step-000100, DIR/step-000200, ... while a phase trains (the newest two are
kept); DIR/final, parameters only, once it is finished. Each is a folder with
the digests of its files (`storage`), since orbax restores a flipped bit without
a word.

All processes of a run save and restore together, each its share of the bytes;
what is decided, named and removed is process 0's. What was saved from some
devices can be restored to any others.
"""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from ptlr_jax.io import disk_space, storage
from ptlr_jax.runtime import processes, signals
from ptlr_jax.runtime.errors import Damaged, InputError
from ptlr_jax.runtime.progress import show

KEEP = 2
_AROUND = 300_000  # bytes that orbax writes besides the arrays, or more


class Saved(NamedTuple):
  """A state after some updates, and the notes that were saved with it."""

  state: Any
  notes: Mapping[str, Any]


def nbytes(tree: Any) -> int:
  """Bytes that a checkpoint of a tree takes, or more."""
  leaves = jax.tree.leaves(tree)
  return _AROUND + sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _write(path: pathlib.Path, tree: Any, notes: Mapping[str, Any]) -> None:
  """Writes a tree whole or not at all, with the digests of its files."""
  temporary = path.with_name(f".{path.name}")
  ours = processes.is_first()
  if ours:
    storage.remove(temporary)
  processes.exchange()
  try:
    # asyncio would lose a `Stopped` that is raised inside.
    with (
      signals.deferred(),
      disk_space.room_for(path, nbytes(tree)),
      _silence(),
    ):
      with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(temporary.absolute(), tree)
      if ours:
        storage.remove(temporary / "commit_success.txt")  # says where we are
        storage.seal_folder(temporary, notes)
        storage.remove(path)  # one that could not be read
        temporary.rename(path)
        storage.sync(path.parent)
      processes.exchange()
  except BaseException:  # what is not whole only takes room
    if ours:
      for left in path.parent.glob(f".{path.name}*"):
        storage.remove(left)
    raise


@contextlib.contextmanager
def _silence() -> Iterator[None]:
  """Keeps orbax's threads from telling in tracebacks what the error of a write
  that failed tells in a line. They do so as late as their loop is collected:
  of a write that failed it lasts."""
  loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
  hook = sys.unraisablehook

  def unraisable(what: Any) -> None:
    if "Event loop is closed" not in str(what.exc_value):
      hook(what)

  for logger in loggers:
    logger.addFilter(_silent)
  sys.unraisablehook = unraisable
  yield
  if sys.unraisablehook is unraisable:
    sys.unraisablehook = hook
  for logger in loggers:
    logger.removeFilter(_silent)


def _silent(record: logging.LogRecord) -> bool:
  del record
  return False


def _read(path: pathlib.Path, template: Any) -> Any:
  # To the devices of the template, whichever it was saved from.
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def shape(x: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(x, "sharding", None) or here
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  abstract = jax.tree.map(shape, template)
  with signals.deferred(), ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(path.absolute(), abstract)


def steps(directory: pathlib.Path) -> list[int]:
  """The steps with a complete checkpoint, ascending."""
  names = (p.name for p in directory.glob(f"{storage.STEP}*") if p.is_dir())
  suffixes = (name.removeprefix(storage.STEP) for name in names)
  return sorted(int(suffix) for suffix in suffixes if suffix.isdigit())


def step_path(directory: pathlib.Path, step: int) -> pathlib.Path:
  """The checkpoint after some updates."""
  return directory / f"{storage.STEP}{step:06d}"


def save(
  directory: pathlib.Path,
  step: int,
  state: Any,
  notes: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Saves the state after `step` updates and drops all but the newest two.

  Those of later steps were damaged, or will be written anew.

  Raises:
    NoSpace: the disk is full; what was there stays.
  """
  path = step_path(directory, step)
  _write(path, state, notes or {})
  if not processes.is_first():
    return path
  there = steps(directory)
  kept = [other for other in there if other <= step][-KEEP:]
  for other in there:
    if other not in kept:
      storage.remove(step_path(directory, other))
  return path


def restore(
  directory: pathlib.Path, template: Any, at: int | None = None
) -> Saved | None:
  """The newest saved state shaped like `template`, or None.

  With `at` none of a later step. One that is damaged is told, and passed over
  for the one before it. Those after the one restored are removed: they will be
  written anew.

  Raises:
    OtherVersion: one is of another version.
    InputError: one is sound, but not shaped like the template.
  """
  newest = processes.first(lambda: _newest_sound(directory, at))
  if newest is None:
    return None
  step, notes = newest
  path = step_path(directory, step)
  try:
    found = Saved(_read(path, template), notes)
  except Exception as error:  # what orbax raises has no common class
    reason = str(error).partition("\n")[0][:200]
    raise InputError(
      f"{path}: expected a checkpoint of this configuration, it cannot be "
      f"restored ({reason}); remove {directory} to train this phase again"
    ) from error
  if processes.is_first():
    for later in steps(directory):
      if later > step:
        storage.remove(step_path(directory, later))
  return found


def _newest_sound(
  directory: pathlib.Path, at: int | None
) -> tuple[int, dict[str, Any]] | None:
  """The last step up to `at` whose checkpoint is as it was written, and its
  notes."""
  for step in reversed(steps(directory)):
    if at is None or step <= at:
      try:
        return step, storage.verify_folder(step_path(directory, step))
      except Damaged as error:
        show(f"{error}; going on from the one before")
  return None


def sound_steps(directory: pathlib.Path) -> list[int]:
  """The steps whose checkpoint is as it was written, ascending."""
  found = []
  for step in steps(directory):
    try:
      storage.verify_folder(step_path(directory, step))
    except Damaged:
      continue
    found.append(step)
  return found


def finish(directory: pathlib.Path, params: Any) -> None:
  """Writes the phase's final parameters and removes what led to them.

  Raises:
    NoSpace: the disk is full; what was there stays.
  """
  _write(directory / storage.FINAL, params, {})
  if processes.is_first():
    tidy(directory)


def tidy(directory: pathlib.Path) -> None:
  """Removes a finished phase's step checkpoints and interrupted writes."""
  for path in directory.iterdir():
    if path.name != storage.FINAL:
      storage.remove(path)


def final_params(directory: pathlib.Path, template: Any) -> Any:
  """The final parameters of a finished phase, shaped like `template`.

  Raises:
    Damaged: they are not as they were written.
  """
  path = directory / storage.FINAL
  processes.first(lambda: storage.verify_folder(path))
  return _read(path, template)
