"""Checkpoints of a phase on disk; the only place that knows orbax.

DIR/step-000100, DIR/step-000200, ... while a phase trains (the newest two are
kept); DIR/final, parameters only, once it is finished.
"""

import hashlib
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp

from ptlr_jax import writers
from ptlr_jax.errors import InputError

FINAL = "final"
_DIGESTS = "digests.json"  # orbax restores a flipped bit without a word
_KEEP = 2


def _digests(path: pathlib.Path) -> dict[str, str]:
  """SHA-256 of every file of a checkpoint."""
  found = {}
  for file in sorted(path.rglob("*")):
    if file.is_file() and file.name != _DIGESTS:
      with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
      found[str(file.relative_to(path))] = digest
  return found


def _write(path: pathlib.Path, tree: Any) -> None:
  """Writes a tree atomically, with the digests of its files."""
  temporary = path.with_name(f".{path.name}")
  shutil.rmtree(temporary, ignore_errors=True)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(temporary.absolute(), tree)
  writers.write_json(temporary / _DIGESTS, _digests(temporary))
  shutil.rmtree(path, ignore_errors=True)  # one that could not be read
  temporary.rename(path)


def _read(path: pathlib.Path, template: Any) -> Any:
  digests = path / _DIGESTS
  if not digests.exists() or writers.read_json(digests) != _digests(path):
    raise InputError(
      f"{path}: expected the files that were written, came others or fewer; "
      f"remove {path.parent} to train this phase again"
    )
  # On this machine's device, whichever it was saved from.
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), template
  )
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(path.absolute(), abstract)


def steps(directory: pathlib.Path) -> list[int]:
  """The steps with a complete checkpoint, ascending."""
  names = (p.name for p in directory.glob("step-*") if p.is_dir())
  suffixes = (name.removeprefix("step-") for name in names)
  return sorted(int(suffix) for suffix in suffixes if suffix.isdigit())


def _step_path(directory: pathlib.Path, step: int) -> pathlib.Path:
  return directory / f"step-{step:06d}"


def save(directory: pathlib.Path, step: int, state: Any) -> None:
  """Saves the state after `step` updates and drops all but the newest two."""
  _write(_step_path(directory, step), state)
  for old in steps(directory)[:-_KEEP]:
    shutil.rmtree(_step_path(directory, old))


def restore(directory: pathlib.Path, template: Any) -> Any | None:
  """The newest saved state shaped like `template`, or None.

  An unreadable checkpoint is passed over for the one before it.

  Raises:
    InputError: there are checkpoints, and none can be read.
  """
  failure = None
  for step in reversed(steps(directory)):
    try:
      return _read(_step_path(directory, step), template)
    except Exception as error:  # what orbax raises has no common class
      failure = error
  if failure is not None:
    reason = str(failure).partition("\n")[0][:200]
    raise InputError(
      f"{directory}: expected a checkpoint that can be read, none of steps "
      f"{steps(directory)} can ({reason}); remove the folder to train this "
      "phase again"
    ) from failure
  return None


def finish(directory: pathlib.Path, params: Any) -> None:
  """Writes the phase's final parameters and removes what led to them."""
  if not is_finished(directory):
    _write(directory / FINAL, params)
  tidy(directory)


def tidy(directory: pathlib.Path) -> None:
  """Removes a finished phase's step checkpoints and interrupted writes."""
  for path in directory.iterdir():
    if path.name != FINAL:
      shutil.rmtree(path, ignore_errors=True)


def is_finished(directory: pathlib.Path) -> bool:
  """Whether the phase has its final parameters."""
  return (directory / FINAL).is_dir()


def final_params(directory: pathlib.Path, template: Any) -> Any:
  """The final parameters of a finished phase, shaped like `template`."""
  return _read(directory / FINAL, template)
