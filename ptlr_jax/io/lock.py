"""One process a workdir: the second is refused, and told who the first is.

WORKDIR/.lock names the process that holds it: host, pid, SLURM job. The kernel
has it locked for that process (flock), however that ends. For hosts between
which the file system carries no locks, and file systems without any, its holder
touches it every `BEAT` seconds. It goes with the run; what a kill left is taken
over.
"""

import contextlib
import fcntl
import io
import json
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import say

FILE = ".lock"
BEAT = 20.0  # seconds
SILENT = 120.0  # seconds without a beat, after which another host's is stale


def _us() -> dict[str, str]:
  """What the lock says of this process."""
  host, boot = socket.gethostname(), Path("/proc/sys/kernel/random/boot_id")
  return {
    "host": host,
    "boot": boot.read_text().strip() if boot.exists() else host,
    "pid": str(os.getpid()),
    "job": os.environ.get("SLURM_JOB_ID", ""),
    "restarts": os.environ.get("SLURM_RESTART_COUNT", ""),
    "token": secrets.token_hex(8),  # of this one hold
  }


def _holder(file: io.FileIO) -> dict[str, str]:
  """Who the lock names; nothing where that was not written in full."""
  try:
    found = json.loads(os.pread(file.fileno(), 4096, 0))
    return {key: str(found[key]) for key in _us()}
  except (ValueError, LookupError, TypeError, RecursionError):
    return {}


def _name(holder: dict[str, str]) -> str:
  if not holder:
    return "another process"
  job = f" (SLURM job {holder['job']})" if holder["job"] else ""
  return f"process {holder['pid']} on {holder['host']}{job}"


def _is_at(path: Path, file: io.FileIO) -> bool:
  """Whether a file is still the one that we opened."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[io.FileIO, bool | None]]:
  """The lock's file, and whether the kernel has locked it for us; None on a
  file system without locks."""
  for _ in range(100):
    with path.open("a+b", buffering=0) as file:
      locked: bool | None = True
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        locked = False
      except OSError:
        locked = None
      if _is_at(path, file):  # else its holder has removed it in between
        yield file, locked
        return
  raise _refusal(path, {})


def _age(path: Path) -> float:
  """Seconds since a file was touched, by its file system's own clock."""
  with tempfile.TemporaryFile(dir=path.parent) as now:
    return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime


def _may_beat(path: Path, holder: dict[str, str], locked: bool | None) -> bool:
  """Whether the holder may live where our kernel does not know of its lock."""
  us = _us()
  if not holder or (locked and holder["boot"] == us["boot"]):
    return False
  if us["job"] == holder["job"] != "" and us["restarts"] != holder["restarts"]:
    return False  # it was before this job was requeued
  return _age(path) <= SILENT


def _refusal(path: Path, holder: dict[str, str], hint: str = "") -> InputError:
  return InputError(
    f"{path.parent}: expected no other run in this folder, {_name(holder)} is "
    f"at it; wait for its end or give another --workdir{hint}"
  )


def _take(path: Path, file: io.FileIO, locked: bool | None) -> dict[str, str]:
  """Writes into the lock who holds it now, which is returned."""
  holder, us = _holder(file), _us()
  if locked is False:
    raise _refusal(path, holder)
  if _may_beat(path, holder, locked):
    hint = f"; if it has died, its lock ends after {SILENT:g} s"
    raise _refusal(path, holder, hint)
  if os.fstat(file.fileno()).st_size:
    say(f"{path}: left by {_name(holder)}; taken over")
  try:
    file.truncate(0)
    file.write(json.dumps(us).encode())
    os.fsync(file)
  except OSError:  # a full disk
    path.unlink(missing_ok=True)
    raise
  return us


@contextlib.contextmanager
def hold_lock(directory: Path) -> Iterator[None]:
  """Holds the lock of a workdir, which is there.

  Where another host takes it over, as it does of a machine that was suspended,
  this process ends at its next beat.

  Raises:
    InputError: another process holds it; its pid and host are named.
  """
  path, over = directory / FILE, threading.Event()
  with _opened(path) as (file, locked):
    us = _take(path, file, locked)

    def is_ours() -> bool:
      return _is_at(path, file) and _holder(file) == us

    def beat() -> None:
      while not over.wait(BEAT):
        with contextlib.suppress(OSError):
          if not is_ours():
            lost = "removed, or taken over by another process; ended"
            os.write(2, f"ptlr_jax: {path}: {lost}\n".encode())
            os._exit(1)
          os.utime(path)

    beating = threading.Thread(target=beat, daemon=True, name="lock")
    beating.start()
    try:
      yield
    finally:
      over.set()
      beating.join()
      with contextlib.suppress(OSError):
        if is_ours():
          path.unlink()
