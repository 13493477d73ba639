"""Where configurations are: one's own files, and those of this package.

`configs/NAME.py` is the file of that name below the current folder, or where
there is none the one that the package has: in a checkout configs/ itself, in a
wheel a copy inside the package. So a command means the same in any folder.
"""

import functools
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

NAME = "configs"


def folder() -> Path:
  """The configurations of this package."""
  package = Path(__file__).absolute().parents[1]
  inside = package / NAME
  return inside if inside.is_dir() else package.parent / NAME


@functools.cache
def base() -> ModuleType:
  """This package's configs/base.py, whichever `configs` can be imported."""
  spec = importlib.util.spec_from_file_location(
    f"{__package__}.base", folder() / "base.py"
  )
  assert spec
  assert spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def path_of(said: str) -> str:
  """FILE or FILE:ARGUMENT as it was said, or of this package's file."""
  file, colon, argument = said.partition(":")
  ours = folder().parent / file
  if (
    not file.startswith(f"{NAME}/") or Path(file).exists() or not ours.exists()
  ):
    return said
  return f"{ours}{colon}{argument}"


def resolved(argv: Sequence[str]) -> list[str]:
  """A command line in which --config=FILE is a file that there is."""
  found = []
  for before, arg in zip(["", *argv], argv, strict=False):
    if match := re.fullmatch(r"(--?config=)(.+)", arg):
      found.append(match[1] + path_of(match[2]))
    elif re.fullmatch(r"--?config", before):
      found.append(path_of(arg))
    else:
      found.append(arg)
  return found


def make_importable(said: str) -> None:
  """Lets a configuration say `from configs import base`, wherever the command
  is called from: of its own neighbours, else of this package."""
  file = Path(said.partition(":")[0]).absolute()
  if folder() not in file.parents:
    sys.path.append(str(file.parent.parent))
    if _has_base():
      return
  if NAME not in sys.modules:
    _import(folder())


def _has_base() -> bool:
  spec = importlib.util.find_spec(NAME)
  places = spec.submodule_search_locations if spec else None
  return any((Path(place) / "base.py").is_file() for place in places or ())


def _import(place: Path) -> None:
  """Imports a folder as the package `configs`, without a place on sys.path
  that would show everything beside it."""
  spec = importlib.util.spec_from_file_location(
    NAME, place / "__init__.py", submodule_search_locations=[str(place)]
  )
  assert spec
  assert spec.loader
  module = importlib.util.module_from_spec(spec)
  sys.modules[NAME] = module
  spec.loader.exec_module(module)
