"""Room on the disk, and whether an output can be written."""

import contextlib
import errno
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptlr_jax.runtime.errors import InputError, NoSpace

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Room on the disk.


def size_in_words(size: float) -> str:
  """A size in words."""
  units = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
  unit, name = next((u for u in units if size >= u[0]), units[-1])
  return f"{size / unit:.1f} {name}"


def free_space(path: Path) -> int:
  """Bytes that can be written below a path, which need not be there yet."""
  usage = shutil.disk_usage(_nearest(path))
  return usage.free if usage.total else sys.maxsize  # it does not say


def _nearest(path: Path) -> Path:
  return next(p for p in (path, *path.absolute().parents) if p.exists())


def no_space(path: Path, needed: float) -> NoSpace:
  """What is said where `needed` bytes have no room at a path."""
  free, files = free_space(path), os.statvfs(_nearest(path))
  why = "no space left on the disk"
  if files.f_files and not files.f_favail:
    why = "no more files can be made on the disk (it has no inodes left)"
  elif free >= needed:
    why = "the disk takes no more, though it has room: a quota may be used up"
  return NoSpace(
    f"{path}: {why}: {size_in_words(needed)} are to be written, "
    f"{size_in_words(free)} are free; make room and give the same command "
    "again, all that was written before is kept"
  )


def is_full(error: BaseException) -> bool:
  """Whether an error, or one that led to it, is that of a full disk."""
  seen: BaseException | None = error
  while seen is not None:
    if isinstance(seen, OSError) and seen.errno in _FULL:
      return True
    if "No space left" in str(seen) or "quota exceeded" in str(seen):
      return True
    seen = seen.__cause__ or seen.__context__
  return False


@contextlib.contextmanager
def room_for(path: Path, size: int) -> Iterator[None]:
  """Writing of `size` bytes at a path, which ends in `NoSpace` if full."""
  if free_space(path) < size:
    raise no_space(path, size)
  try:
    yield
  except NoSpace:
    raise
  except Exception as error:  # orbax has classes of its own
    if is_full(error):
      raise no_space(path, size) from error
    raise


def make_writable(folder: pathlib.Path) -> None:
  """Makes a folder, and in it a file that goes at once; raises OSError."""
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=folder):
    pass


def check_file(
  path: pathlib.Path, given: str, read: Sequence[pathlib.Path] = ()
) -> None:
  """Refuses a file that cannot be written, before anything is computed.

  `given` is how the user named it, `read` the files that are read meanwhile.

  Raises:
    InputError: why not.
  """
  fault = ""
  try:
    make_writable(path.parent)
    if path.is_dir():
      fault = "it is a folder"
    elif path.resolve() in [other.resolve() for other in read]:
      fault = "it is one of those that are read"
  except OSError as error:
    fault = str(error.strerror)
  if fault:
    raise InputError(
      f"--output={given}: expected a file that can be written, came: {fault}; "
      "choose another"
    )
