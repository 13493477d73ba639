"""Checkpoints of a phase on disk; the only place that knows orbax.

DIR/step-000100, DIR/step-000200, ... while a phase trains (the newest two are
kept); DIR/final, parameters only, once it is finished. Each is a folder with
the digests of its files (`storage`), since orbax restores a flipped bit without
a word.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from ptlr_jax import storage
from ptlr_jax.errors import Damaged, InputError, OtherVersion
from ptlr_jax.progress import say

KEEP = 2


class Saved(NamedTuple):
  """A state after some updates, and the notes that were saved with it."""

  state: Any
  notes: Mapping[str, Any]


def nbytes(tree: Any) -> int:
  """Bytes of the arrays of a tree, as many as a checkpoint takes or more."""
  leaves = jax.tree.leaves(tree)
  return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _write(path: pathlib.Path, tree: Any, notes: Mapping[str, Any]) -> None:
  """Writes a tree whole or not at all, with the digests of its files."""
  temporary = path.with_name(f".{path.name}")
  storage.remove(temporary)
  try:
    with storage.room_for(path, nbytes(tree)):
      with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(temporary.absolute(), tree)
      storage.seal_folder(temporary, notes)
      storage.remove(path)  # one that could not be read
      temporary.rename(path)
  except BaseException:  # what is not whole only takes room
    for left in path.parent.glob(f".{path.name}*"):
      storage.remove(left)
    raise


def _read(path: pathlib.Path, template: Any) -> Saved:
  notes = storage.verify_folder(path)
  # On this machine's device, whichever it was saved from.
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), template
  )
  with ocp.StandardCheckpointer() as checkpointer:
    return Saved(checkpointer.restore(path.absolute(), abstract), notes)


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

  Raises:
    NoSpace: the disk is full; what was there stays.
  """
  path = step_path(directory, step)
  _write(path, state, notes or {})
  for old in steps(directory)[:-KEEP]:
    storage.remove(step_path(directory, old))
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
  for step in reversed(steps(directory)):
    if at is not None and step > at:
      continue
    path = step_path(directory, step)
    try:
      found = _read(path, template)
    except Damaged as error:
      say(f"{error}; going on from the one before")
      continue
    except OtherVersion:
      raise
    except Exception as error:  # what orbax raises has no common class
      reason = str(error).partition("\n")[0][:200]
      raise InputError(
        f"{path}: expected a checkpoint of this configuration, it cannot be "
        f"restored ({reason}); remove {directory} to train this phase again"
      ) from error
    for later in steps(directory):
      if later > step:
        storage.remove(step_path(directory, later))
    return found
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
  return _read(directory / storage.FINAL, template).state
