"""Files that are written whole or not at all, and read as written or not.

An artefact carries the SHA-256 of itself (`sealing`); a folder of files (a
checkpoint) has a sealed list of digests.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ptlr_jax.data.files import sealing
from ptlr_jax.io import disk_space
from ptlr_jax.runtime.errors import Damaged, OtherVersion

MANIFEST = "digests.json"  # of a folder
FINAL = "final"  # the folder of parameters that a training phase leaves
STEP = "step-"  # begins the names of its checkpoints

_TEMPORARY = ".tmp-"  # in the name of what is not whole yet
TAKEN = ".taken"  # ends it of what comes from another run

# Single files.


def temporary_of(path: Path, number: str = "") -> Path:
  """Where this process, or whoever has that number, writes a file before it is
  whole."""
  return path.with_name(f".{path.name}{_TEMPORARY}{number or os.getpid()}")


def write_bytes(path: Path, data: bytes) -> None:
  """Writes a file whole or not at all.

  Raises:
    NoSpace: the disk is full; what was there stays.
  """
  with disk_space.room_for(path, len(data)), _replaced(path) as file:
    file.write(data)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
  """A file that takes the place of the one at a path once it is whole."""
  temporary = temporary_of(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with temporary.open("w+b") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)
  finally:
    temporary.unlink(missing_ok=True)


def write_chunks(path: Path, chunks: Iterable[bytes], total: int = 0) -> None:
  """Writes the pieces of a file one after the other, whole or not at all, and
  its digest into the `PLACE` that the last of them has. About `total` bytes.

  Raises:
    NoSpace: the disk is full; what was there stays.
  """
  found, size, last = hashlib.sha256(), 0, b""
  with disk_space.room_for(path, total), _replaced(path) as file:
    for chunk in chunks:
      found.update(chunk)
      file.write(chunk)
      size, last = size + len(chunk), chunk
    file.seek(size - len(last) + last.rindex(sealing.PLACE))
    file.write(found.hexdigest().encode())


def sync(path: Path) -> None:
  """Waits until a file, or the names in a folder, are on the disk itself."""
  try:
    file = os.open(path, os.O_RDONLY)
    try:
      os.fsync(file)
    finally:
      os.close(file)
  except OSError as error:  # many file systems cannot do this with a folder
    if disk_space.is_full(error) or not path.is_dir():
      raise


def damaged(path: Path, came: str) -> Damaged:
  """The error of an artefact that is not as it was written."""
  return Damaged(f"{path}: expected it as it was written, {came}")


def other_version(path: Path, came: Any) -> OtherVersion:
  """The error of an artefact of another version."""
  said = "none" if came is None else repr(came)[:40]
  return OtherVersion(
    f"{path}: expected an artefact of version {sealing.VERSION}, came {said}; "
    "use the ptlr_jax that wrote it, or give a new --workdir"
  )


def read_bytes(path: Path) -> bytes:
  """A file of a workdir. Raises Damaged where it cannot be read."""
  try:
    return path.read_bytes()
  except OSError as error:
    raise damaged(path, f"it cannot be read ({error.strerror})") from error


def check_json(path: Path) -> None:
  """Verifies a `sealed_json` as `parsed_json` does, and faster if it is sound.

  Raises:
    Damaged, OtherVersion: see there.
  """
  data = read_bytes(path)
  end = sealing.sealed_end(data)
  version = int(end[1]) if end and end[1] else None
  if version != sealing.VERSION or not sealing.is_sealed_json(data):
    parsed_json(path, data)


def parsed_json(path: Path, data: bytes) -> dict[str, Any]:
  """The object of a `sealed_json`, without version and digest.

  Raises:
    Damaged: it is not as it was written.
    OtherVersion: it is of another version, or of one without digests.
  """
  try:
    value = json.loads(data)
  except ValueError as error:
    raise damaged(path, f"came no JSON ({error})") from None
  if not isinstance(value, dict):
    raise damaged(path, "came no JSON object")
  version = value.pop(sealing.VERSION_KEY, None)
  sound = sealing.is_sealed_json(data)
  # All versions are sealed alike: of one that is damaged nothing is believed.
  if (sound or sealing.DIGEST_KEY not in value) and version != sealing.VERSION:
    raise other_version(path, version)
  if not sound:
    raise damaged(path, "came another content than its digest is of")
  del value[sealing.DIGEST_KEY]
  return value


# Folders of files.


def _files(folder: Path) -> dict[str, Path]:
  """The files of a folder but the list itself; hidden ones, which file systems
  and desktops leave, are none of ours."""
  found = {}
  for file in sorted(folder.rglob("*")):
    name = file.relative_to(folder)
    if file.is_file() and str(name) != MANIFEST and name.name[0] != ".":
      found[str(name)] = file
  return found


def _digests(folder: Path) -> dict[str, str]:
  """SHA-256 of every file of a folder."""
  found = {}
  for name, file in _files(folder).items():
    with file.open("rb") as opened:
      found[name] = hashlib.file_digest(opened, sealing.DIGEST_KEY).hexdigest()
  return found


def seal_folder(folder: Path, notes: Mapping[str, Any]) -> None:
  """Writes the list of a folder's digests, and notes beside them."""
  for file in _files(folder).values():
    sync(file)
  whole = {"notes": dict(notes), "files": _digests(folder)}
  write_bytes(folder / MANIFEST, sealing.sealed_json(whole))


def verify_folder(folder: Path) -> dict[str, Any]:
  """The notes of a folder that is as it was written.

  Raises:
    Damaged: a file is lost, new or changed; it is named.
    OtherVersion: the list is of another version.
  """
  path = folder / MANIFEST
  if not path.exists():
    raise damaged(folder, f"{MANIFEST} is missing")
  whole = parsed_json(path, read_bytes(path))
  try:
    expected, came = whole["files"], _digests(folder)
  except OSError as error:
    raise damaged(folder, f"it cannot be read ({error.strerror})") from error
  names = sorted(expected.keys() | came.keys())
  wrong = [n for n in names if expected.get(n) != came.get(n)]
  if wrong:
    name, more = wrong[0], f" and {len(wrong) - 1} more" if wrong[1:] else ""
    state = "changed" if name in expected and name in came else "missing"
    state = state if name in expected else "new"
    raise damaged(folder, f"{name}{more} is {state}")
  return whole["notes"]


# What a stop in the middle of writing leaves.

_UNFINISHED = re.compile(
  rf"\..+({re.escape(_TEMPORARY)}\d+|{re.escape(TAKEN)})"
)


def leftovers(directory: Path) -> list[Path]:
  """What never became whole in a workdir."""
  places = (".*", "labels/.*", "detections/.*")
  found = [path for place in places for path in sorted(directory.glob(place))]
  found = [path for path in found if _UNFINISHED.fullmatch(path.name)]
  # Here orbax has names of its own, too.
  written = [
    path
    for begin in (STEP, FINAL)
    for path in sorted(directory.glob(f"checkpoints/*/.{begin}*"))
  ]
  return [*found, *written]


def remove(path: Path) -> None:
  """Removes a file, a link or a folder, or what is left of it."""
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


def write_json(
  path: Path, value: Mapping[str, Any], indent: int | None = 2
) -> None:
  """Writes a JSON object atomically, with version and digest."""
  write_bytes(path, sealing.sealed_json(value, indent))


def read_json(path: Path) -> dict[str, Any]:
  """Reads what `write_json` wrote.

  Raises:
    Damaged: it is not as it was written.
    OtherVersion: it is of another version.
  """
  return parsed_json(path, read_bytes(path))
