"""Which videos: a folder, a list of paths, or a single file."""

from collections.abc import Iterable
from pathlib import Path

from ptlr_jax.data.files.text import is_file_name
from ptlr_jax.features.video import SUFFIXES
from ptlr_jax.runtime.errors import InputError

FORM = "a folder of videos, a video, or a text file with a path a line"


def is_video(name: str) -> bool:
  """Whether a file is a video by its name; hidden ones are none."""
  return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def videos_of(said: str) -> list[Path]:
  """The videos that `--videos` names, sorted.

  Lines of a list are relative to its folder; empty ones and those that begin
  with # count as none. Files of a list need not be there: a video that is not
  is a bad one among others.

  Raises:
    InputError: there is none, or two have the same name.
  """
  path = Path(said).expanduser()
  if not said or not path.exists():
    came = f"{said!r}, which is not there" if said else "none"
    raise InputError(f"--videos: expected {FORM}, came {came}")
  if path.is_dir():
    found = [p for p in path.iterdir() if is_video(p.name)]
  elif is_video(path.name):
    found = [path]
  else:
    found = [path.parent / line for line in lines_of(path)]
  if not found:
    ends = " ".join(sorted(SUFFIXES))
    raise InputError(
      f"{path}: expected {FORM}, came none; videos end with one of {ends}"
    )
  check_names(map(str, found))
  return sorted(found)


def lines_of(path: Path) -> list[str]:
  """The paths in a text file. Raises InputError where it is none."""
  try:
    text = path.read_text("utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(
      f"{path}: expected {FORM}, came what cannot be read as text ({error}); "
      "a video of another ending than the usual is to be named in a list"
    ) from None
  lines = [line.strip() for line in text.splitlines()]
  return [line for line in lines if line and not line.startswith("#")]


def check_names(paths: Iterable[str]) -> None:
  """Features go by the stems of files: each once, and fit to name a file.

  Raises:
    InputError: a line for each that is not.
  """
  seen: dict[str, str] = {}
  problems = []
  for path in paths:
    name = stem(path)
    if not is_file_name(name):
      problems.append(
        f"{path!r}: expected a name that can be a file's, came {name!r}; "
        "rename the video"
      )
    elif name in seen:
      problems.append(
        f"{path}: expected every name once, as the features are {name}.npy, "
        f"came {seen[name]} too; rename one or give each an --output"
      )
    seen.setdefault(name, path)
  if problems:
    raise InputError(*problems)


def stem(path: str) -> str:
  """The name of a video: that of its file, without the ending."""
  return Path(path.rpartition("/")[2]).stem
