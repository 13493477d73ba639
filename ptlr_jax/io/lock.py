"""One process a workdir: the second is refused, and told who the first is.

WORKDIR/.lock names the process that holds it: host, pid, when it began, its
SLURM job. The holder also has it locked for the kernel (flock), which ends with
the process however that ends, and touches it every `BEAT` seconds, for hosts
between which the file system carries no locks. It goes with the run; one that a
kill left is stale, and taken over.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import say

FILE = ".lock"
BEAT = 20.0  # seconds
SILENT = 120.0  # seconds without a beat, after which another host's is stale
SETTLED = 0.5  # seconds in which others that saw the same would have written


def _read(path: str) -> str:
  """A file of the kernel's, or a link; "" on a system without it."""
  try:
    if os.path.islink(path):
      return os.readlink(path)
    return Path(path).read_text().strip()
  except OSError:
    return ""


def _began(pid: int) -> str:
  """When a process of this host began, in the kernel's ticks; "" if gone."""
  fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
  return fields[19] if fields and fields[0] not in "ZX" else ""


def _is_alive(pid: int, began: str) -> bool:
  """Whether a process of this host runs, and is the one that began then."""
  if _read("/proc/self/stat"):
    now = _began(pid)
    return bool(now) and (not began or now == began)
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True


def _us() -> dict[str, Any]:
  """What the lock says of this process; `boot` and `space` are those in which
  its pid means something."""
  return {
    "host": socket.gethostname(),
    "boot": _read("/proc/sys/kernel/random/boot_id"),
    "space": _read("/proc/self/ns/pid"),
    "pid": os.getpid(),
    "began": _began(os.getpid()),
    "job": os.environ.get("SLURM_JOB_ID", ""),
    "restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    "inode": 0,  # of the file, where it is written
    "token": secrets.token_hex(8),  # of this one hold
  }


def _holder(file: int) -> dict[str, Any]:
  """Who the lock names; nothing where that was not written in full."""
  try:
    found = json.loads(os.pread(file, 4096, 0))
    return {key: type(own)(found[key]) for key, own in _us().items()}
  except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
    return {}


def _age(path: Path) -> float:
  """Seconds since a file was touched, by its file system's own clock."""
  with tempfile.TemporaryFile(dir=path.parent) as now:
    return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime


def _is_here(holder: dict[str, Any]) -> bool:
  """Whether we would see the holder if it were alive."""
  us = _us()
  return all(holder[key] == us[key] for key in ("host", "boot", "space"))


def _why_stale(path: Path, holder: dict[str, Any], locked: bool | None) -> str:
  """Why nobody holds a lock that the kernel lets us have; "" if one may."""
  us = _us()
  if not holder:
    return "it names nobody"
  if locked and holder["inode"] not in (0, path.stat().st_ino):
    return "who holds the folder that this is a copy of"
  if _is_here(holder):
    return "" if _is_alive(holder["pid"], holder["began"]) else "which is over"
  if locked and holder["boot"] and holder["boot"] == us["boot"]:
    return "which is over"  # as our kernel knows, of another container
  ours = us["job"] and holder["job"] == us["job"]
  if ours and holder["restarts"] < us["restarts"]:
    return "which was before this job was requeued"
  age = _age(path)
  return f"not heard of for {age:.0f} s" if age > SILENT else ""


def _lock(file: int) -> bool | None:
  """Locks a file for the kernel; False where another process has it, None on a
  file system without locks."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    return None
  return True


def _is_ours(path: Path, file: int) -> bool:
  """Whether the lock is still the file that we opened."""
  try:
    return os.path.samestat(os.fstat(file), path.stat())
  except FileNotFoundError:
    return False


def _acquire(directory: Path) -> tuple[int, dict[str, Any]]:
  path = directory / FILE
  for _ in range(100):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      locked = _lock(file)
      if _is_ours(path, file):  # else its holder has removed it in between
        return _taken(path, file, locked)
    except BaseException:
      os.close(file)
      raise
    os.close(file)
  raise _refusal(path, {})


def _taken(
  path: Path, file: int, locked: bool | None
) -> tuple[int, dict[str, Any]]:
  if locked is None and not _holder(file):
    time.sleep(SETTLED)  # somebody may be about to write into it
  holder, empty = _holder(file), not os.fstat(file).st_size
  why = _why_stale(path, holder, locked)
  if locked is False or not why:
    raise _refusal(path, holder)
  if holder:
    pid, host = holder["pid"], holder["host"]
    say(f"{path}: left by process {pid} on {host}, {why}; taken over")
  elif not empty:
    say(f"{path}: {why}; taken over")
  us = {**_us(), "inode": os.fstat(file).st_ino}
  try:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(us).encode(), 0)
    os.fsync(file)
  except OSError:  # a full disk
    path.unlink(missing_ok=True)
    raise
  if locked is None:
    time.sleep(SETTLED)
    if _holder(file) != us:  # another did the same, and was the last
      raise _refusal(path, _holder(file))
  return file, us


def _refusal(path: Path, holder: dict[str, Any]) -> InputError:
  who, hint = "another process", ""
  if holder:
    who = f"process {holder['pid']} on {holder['host']}"
    who += f" (SLURM job {holder['job']})" if holder["job"] else ""
    if not _is_here(holder):
      hint = f"; if it has died there, its lock ends after {SILENT:g} s"
  return InputError(
    f"{path.parent}: expected no other run in this folder, {who} is at it; "
    f"wait for its end or give another --workdir{hint}"
  )


def _lost(path: Path) -> None:
  said = f"ptlr_jax: {path}: removed, or taken over by another process; ended\n"
  os.write(2, said.encode())
  os._exit(1)


@contextlib.contextmanager
def hold_lock(directory: Path) -> Iterator[None]:
  """Holds the lock of a workdir, which is there.

  Where another host takes it over, as it does of a machine that was suspended,
  this process ends at its next beat.

  Raises:
    InputError: another process holds it; its pid and host are named.
  """
  file, us = _acquire(directory)
  path, over = directory / FILE, threading.Event()

  def beat() -> None:
    while not over.wait(BEAT):
      with contextlib.suppress(OSError):
        if not _is_ours(path, file) or _holder(file) != us:
          _lost(path)
        os.utime(path)

  def give_back() -> None:
    with contextlib.suppress(OSError):
      if _is_ours(path, file) and _holder(file) == us:
        path.unlink()

  beating = threading.Thread(target=beat, daemon=True, name="lock")
  beating.start()
  try:
    yield
  finally:
    over.set()
    beating.join()
    give_back()
    os.close(file)
