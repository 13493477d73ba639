"""One process a workdir: ptlr_jax.io.lock, against processes that hold it."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from tiny_config import ROOT

from ptlr_jax.io import lock
from ptlr_jax.runtime.errors import InputError

HOST = socket.gethostname()
ELSEWHERE: dict[str, Any] = {
  "host": "elsewhere",
  "boot": "of another",
  "pid": "4711",
}

# Holds a folder's lock until its input ends, or it is lost.
HOLDER = """
import pathlib, sys
from ptlr_jax.io import lock
from ptlr_jax.runtime import errors

lock.BEAT = 0.01
try:
  with lock.hold_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
except errors.InputError as error:
  print(error)
"""

# Holds it again and again; two at once would be two who make the same file.
RACER = """
import os, pathlib, sys
from ptlr_jax.io import lock
from ptlr_jax.runtime import errors

folder, wins = pathlib.Path(sys.argv[1]), 0
print(flush=True)
sys.stdin.readline()
while wins < 100:
  try:
    with lock.hold_lock(folder):
      os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
      os.unlink(folder / "inside")
      wins += 1
  except errors.InputError as error:
    assert "is at it" in str(error), error
print(wins)
"""


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
  """The tests may themselves run in a job."""
  monkeypatch.delenv("SLURM_JOB_ID", raising=False)
  monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)


def _start(code, directory):
  return subprocess.Popen(
    [sys.executable, "-W", "error", "-c", code, directory],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@contextlib.contextmanager
def _process(directory):
  """A process at the folder, and the first line that it says."""
  with _start(HOLDER, directory) as process:
    assert process.stdout
    try:
      yield process, process.stdout.readline().rstrip()
    finally:
      process.kill()


def _left(directory, silent=0.0, **changes):
  """Leaves a lock that names this process, but for the changes."""
  path = directory / lock.FILE
  path.write_text(json.dumps({**lock._us(), **changes}))
  now = time.time()
  os.utime(path, (now - silent, now - silent))
  return path


def _refusal(directory):
  """The line in which a folder is refused to this process."""
  with pytest.raises(InputError) as caught, lock.hold_lock(directory):
    pass
  (line,) = caught.value.lines
  assert line.startswith(f"{directory}: expected no other run in this folder,")
  return line


def _assert_taken(directory):
  """This process gets the folder, and its lock then names it."""
  with lock.hold_lock(directory):
    found = json.loads((directory / lock.FILE).read_text())
    assert (found["host"], found["pid"]) == (HOST, str(os.getpid()))
  assert not (directory / lock.FILE).exists()


def test_a_second_process_is_told_who_the_first_is(tmp_path):
  with _process(tmp_path) as (process, said):
    assert said == "held"
    for _ in range(2):  # who is refused leaves the lock to the first
      line = _refusal(tmp_path)
      assert f"process {process.pid} on {HOST} is at it" in line
      assert line.endswith("another --workdir")


def test_a_command_is_refused_in_a_line(tmp_path):
  with lock.hold_lock(tmp_path):
    refused = subprocess.run(
      [
        *(sys.executable, "-m", "ptlr_jax.main", f"--workdir={tmp_path}"),
        f"--config={ROOT / 'tests' / 'tiny_config.py'}",
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    assert (tmp_path / lock.FILE).exists()
  assert refused.returncode == 2
  (line,) = refused.stderr.splitlines()
  assert line.startswith(f"ptlr_jax: {tmp_path}: expected no other run")
  assert f"process {os.getpid()} on {HOST}" in line
  assert not list(tmp_path.iterdir())


def test_other_folders_are_free(tmp_path):
  (tmp_path / "seed-0").mkdir()
  with lock.hold_lock(tmp_path), lock.hold_lock(tmp_path / "seed-0"):
    pass


def test_the_lock_goes_with_the_run_however_that_ends(tmp_path):
  _assert_taken(tmp_path)
  with pytest.raises(KeyboardInterrupt), lock.hold_lock(tmp_path):
    raise KeyboardInterrupt
  assert not list(tmp_path.iterdir())
  _assert_taken(tmp_path)


def test_what_a_killed_process_left_is_taken_over(tmp_path, capsys):
  with _process(tmp_path) as (process, _):
    os.kill(process.pid, signal.SIGKILL)
  assert (tmp_path / lock.FILE).exists()
  _assert_taken(tmp_path)
  assert capsys.readouterr().out == (
    f"{tmp_path / lock.FILE}: left by process {process.pid} on {HOST}; "
    "taken over\n"
  )


@pytest.mark.parametrize("where", ["another host", "no locks"])
def test_without_the_kernel_s_word_it_is_held_as_long_as_it_is_touched(
  where, tmp_path, monkeypatch, capsys
):
  def flock(*_):
    raise OSError(errno.ENOLCK, "no locks here")

  monkeypatch.setattr(lock, "SILENT", 7200.0)  # half of it takes no test
  changes: Any = ELSEWHERE if where == "another host" else {"pid": "4711"}
  if where == "no locks":
    monkeypatch.setattr(fcntl, "flock", flock)
  for silent in (0, lock.SILENT / 2):
    path = _left(tmp_path, silent, **changes)
    before = path.read_bytes(), path.stat().st_mtime
    assert "process 4711 on" in (line := _refusal(tmp_path))
    assert line.endswith("if it has died, its lock ends after 7200 s")
    assert (path.read_bytes(), path.stat().st_mtime) == before
  assert not capsys.readouterr().out
  _left(tmp_path, 2 * lock.SILENT, **changes)
  _assert_taken(tmp_path)
  assert "left by process 4711 on" in capsys.readouterr().out


def test_a_requeued_job_takes_over_what_it_left_on_another_host(
  tmp_path, monkeypatch
):
  lost: Any = {**ELSEWHERE, "job": "77", "restarts": ""}
  _left(tmp_path, **lost)
  assert "on elsewhere (SLURM job 77) is at it" in _refusal(tmp_path)
  monkeypatch.setenv("SLURM_JOB_ID", "77")
  monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
  for changes in (
    {"restarts": "1"},  # a task of the same job on another node
    {"job": "76"},
    {"job": ""},
  ):
    _left(tmp_path, **{**lost, **changes})
    assert "process 4711 on elsewhere" in _refusal(tmp_path)
  _left(tmp_path, **lost)
  _assert_taken(tmp_path)


@pytest.mark.parametrize(
  "content",
  [
    *(b"", b"{", b"\xff\xfe\x00", b"null", b"[1]", b"7", b'"x"', b"{}"),
    json.dumps({"host": "elsewhere", "pid": "1"}).encode(),
    b"[" * 4096,
  ],
)
def test_a_lock_that_was_not_written_in_full_is_taken_over(content, tmp_path):
  path = tmp_path / lock.FILE
  path.write_bytes(content)
  with path.open("rb") as file:  # unless the kernel says that it is held
    fcntl.flock(file, fcntl.LOCK_EX)
    assert "another process is at it" in _refusal(tmp_path)
  assert path.read_bytes() == content
  _assert_taken(tmp_path)


def test_a_copy_of_a_folder_that_is_held_is_free(tmp_path):
  first, copy = tmp_path / "first", tmp_path / "copy"
  first.mkdir()
  with lock.hold_lock(first):
    shutil.copytree(first, copy)
    _assert_taken(copy)
    assert "is at it" in _refusal(first)


def test_what_another_container_of_this_machine_left_is_taken_over(tmp_path):
  _left(tmp_path, host="a1b2c3", pid="1")
  _assert_taken(tmp_path)


def test_a_file_that_its_holder_removes_in_between_holds_nothing(
  tmp_path, monkeypatch
):
  """Between its being opened and locked; by then another holds a new one."""
  path, flock, others = tmp_path / lock.FILE, fcntl.flock, []

  def meanwhile(file, how):
    if not others:
      path.unlink()
      others.append(path.open("w"))
      flock(others[0], how)
    flock(file, how)

  monkeypatch.setattr(fcntl, "flock", meanwhile)
  assert "is at it" in _refusal(tmp_path)
  others[0].close()
  assert path.exists()


def test_no_two_processes_hold_it_at_once(tmp_path):
  """Where the lock goes and comes all the time."""
  racers = [_start(RACER, tmp_path) for _ in range(3)]
  for racer in racers:
    assert racer.stdout
    racer.stdout.readline()  # it has started
  for racer in racers:
    assert racer.stdin
    racer.stdin.write("\n")
    racer.stdin.flush()
  said = [racer.communicate() for racer in racers]
  assert said == [("100\n", "")] * 3
  assert not list(tmp_path.iterdir())


def test_the_holder_touches_the_file_and_no_longer_than_it_holds_it(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(lock, "BEAT", 0.01)
  path = tmp_path / lock.FILE
  with lock.hold_lock(tmp_path):
    for _ in range(2):
      os.utime(path, (1, 1))
      for _ in range(60_000):
        if path.stat().st_mtime > 1:
          break
        time.sleep(0.01)
      assert path.stat().st_mtime > 1
  assert "lock" not in {thread.name for thread in threading.enumerate()}
  assert not list(tmp_path.iterdir())


def test_the_age_is_by_the_clock_of_the_file_system(tmp_path, monkeypatch):
  monkeypatch.setattr(time, "time", lambda: 0.0)
  path = tmp_path / lock.FILE
  path.touch()
  assert abs(lock._age(path)) < 3600  # not since 1970


def test_a_lock_that_was_taken_over_is_left_to_the_other(tmp_path):
  with lock.hold_lock(tmp_path):
    _left(tmp_path, **ELSEWHERE)
  assert "on elsewhere is at it" in _refusal(tmp_path)


@pytest.mark.parametrize("other", ["", "{}"])
def test_a_holder_whose_lock_is_gone_or_another_s_ends(other, tmp_path):
  path = tmp_path / lock.FILE
  with _process(tmp_path) as (process, said):
    assert said == "held"
    path.write_text(other) if other else path.unlink()
    assert process.wait() == 1
    assert process.stderr
    (line,) = process.stderr
  assert line.endswith("removed, or taken over by another process; ended\n")
  assert path.exists() == bool(other)
