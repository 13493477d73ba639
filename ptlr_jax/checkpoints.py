"""Checkpoints of a phase on disk; the only place that knows orbax.

DIR/step-000100, DIR/step-000200, ... while a phase trains (the newest two are
kept); DIR/final, parameters only, once it is finished.
"""

import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp

FINAL = "final"
_KEEP = 2


def _write(path: pathlib.Path, tree: Any) -> None:
  """Writes a tree atomically: orbax renames a finished temporary."""
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path.absolute(), tree)


def _read(path: pathlib.Path, template: Any) -> Any:
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
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
  path = _step_path(directory, step)
  if not path.exists():
    _write(path, state)
  for old in steps(directory)[:-_KEEP]:
    shutil.rmtree(_step_path(directory, old))


def restore(directory: pathlib.Path, template: Any) -> Any | None:
  """The newest saved state shaped like `template`, or None.

  An unreadable checkpoint is passed over for the one before it.
  """
  failure = None
  for step in reversed(steps(directory)):
    try:
      return _read(_step_path(directory, step), template)
    except (ValueError, OSError, KeyError) as error:
      failure = error
  if failure is not None:
    raise ValueError(
      f"{directory}: no checkpoint of {steps(directory)} can be read "
      f"({failure}); remove the folder to train this phase again"
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
