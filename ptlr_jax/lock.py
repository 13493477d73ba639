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
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptlr_jax.errors import InputError
from ptlr_jax.progress import say

FILE = ".lock"
BEAT = 20.0  # seconds
SILENT = 120.0  # seconds without a beat, after which another host's is stale


def _began(pid: int) -> str:
  """When a process of this host began, in the kernel's ticks; "" if gone."""
  try:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
  except OSError:
    return ""
  return "" if fields[0] in "ZX" else fields[19]


def _is_alive(pid: int, began: str) -> bool:
  """Whether a process of this host runs, and is the one that began then."""
  if Path("/proc/self/stat").exists():
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
  """What the lock says of this process."""
  return {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "began": _began(os.getpid()),
    "job": os.environ.get("SLURM_JOB_ID", ""),
    "restarts": os.environ.get("SLURM_RESTART_COUNT", "0"),
  }


def _holder(file: int) -> dict[str, Any]:
  """Who the lock names; nothing where that was not written in full."""
  try:
    found = json.loads(os.pread(file, 4096, 0))
    return {key: type(own)(found[key]) for key, own in _us().items()}
  except (ValueError, KeyError, TypeError):
    return {}


def _age(path: Path) -> float:
  """Seconds since a file was touched, by its file system's own clock."""
  with tempfile.TemporaryFile(dir=path.parent) as now:
    return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime


def _is_stale(path: Path, holder: dict[str, Any]) -> bool:
  """Whether nobody holds a lock that the kernel lets us have."""
  us = _us()
  if not holder:
    return True
  if holder["host"] == us["host"]:
    return not _is_alive(holder["pid"], holder["began"])
  requeued = holder["job"] == us["job"] and holder["restarts"] != us["restarts"]
  if us["job"] and requeued:  # the job's earlier processes are over
    return True
  return _age(path) > SILENT


def _lock(file: int) -> bool:
  """Locks a file for the kernel; false where another process has it."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:  # a file system without locks
    pass
  return True


def _acquire(directory: Path) -> int:
  path = directory / FILE
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      free = _lock(file)
      holder = _holder(file)
      if not free or not _is_stale(path, holder):
        raise _refusal(path, holder)
      # Its former holder may have removed it in between.
      if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
        if holder:
          say(
            f"{path}: left by process {holder['pid']} on {holder['host']}, "
            "which is over; taken over"
          )
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(_us()).encode(), 0)
        return file
    except BaseException:
      os.close(file)
      raise
    os.close(file)


def _refusal(path: Path, holder: dict[str, Any]) -> InputError:
  who = "another process"
  if holder:
    who = f"process {holder['pid']} on {holder['host']}"
    who += f" (SLURM job {holder['job']})" if holder["job"] else ""
  return InputError(
    f"{path.parent}: expected no other run in this folder, {who} is at it; "
    f"wait for its end or give another --workdir (where it has died on another "
    f"host, the lock ends by itself after {SILENT:g} s)"
  )


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
  """Holds the lock of a workdir, which is there.

  Raises:
    InputError: another process holds it; its pid and host are named.
  """
  file, over = _acquire(directory), threading.Event()
  path = directory / FILE

  def beat() -> None:
    while not over.wait(BEAT):
      with contextlib.suppress(OSError):
        os.utime(path)

  beating = threading.Thread(target=beat, daemon=True, name="lock")
  beating.start()
  try:
    yield
  finally:
    over.set()
    beating.join()
    with contextlib.suppress(OSError):
      path.unlink()
    os.close(file)
