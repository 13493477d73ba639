"""One process a workdir: ptlr_jax.io.lock, against processes that hold it."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from tiny_config import ROOT

from ptlr_jax.io import lock
from ptlr_jax.runtime.errors import InputError

HOST = socket.gethostname()
ELSEWHERE = {"host": "elsewhere", "boot": "of another", "pid": 4711}

# Holds a folder's lock until its input ends; with "lockless" where the file
# system carries no locks.
HOLDER = """
import errno, fcntl, pathlib, sys
from ptlr_jax.io import lock
from ptlr_jax.runtime import errors

def flock(*_):
  raise OSError(errno.EOPNOTSUPP, "no locks here")

if "lockless" in sys.argv:
  fcntl.flock = flock
try:
  with lock.hold_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
except errors.InputError as error:
  print(error)
"""


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
  """The tests may themselves run in a job."""
  monkeypatch.delenv("SLURM_JOB_ID", raising=False)
  monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)


@contextlib.contextmanager
def _process(directory, *how):
  """A process at the folder, and the first line that it says."""
  with subprocess.Popen(
    [sys.executable, "-W", "error", "-c", HOLDER, directory, *how],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout
    try:
      yield process, process.stdout.readline().rstrip()
    finally:
      process.kill()


def _killed(directory, *how):
  """The number of a process that was killed while it held the folder."""
  with _process(directory, *how) as (process, said):
    assert said == "held"
    os.kill(process.pid, signal.SIGKILL)
  assert (directory / lock.FILE).exists()
  return process.pid


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
    assert (found["host"], found["pid"]) == (HOST, os.getpid())
  assert not (directory / lock.FILE).exists()


def test_a_second_process_is_told_who_the_first_is(tmp_path):
  with _process(tmp_path) as (process, said):
    assert said == "held"
    line = _refusal(tmp_path)
  assert f"process {process.pid} on {HOST} is at it" in line
  assert "another --workdir" in line


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


def test_a_refused_process_leaves_the_lock_to_the_first(tmp_path):
  with lock.hold_lock(tmp_path):
    for _ in range(2):
      with _process(tmp_path) as (_, said):
        assert f"process {os.getpid()} on {HOST}" in said
    _refusal(tmp_path)  # also to this process itself
  _assert_taken(tmp_path)


def test_other_folders_are_free(tmp_path):
  (tmp_path / "seed-0").mkdir()
  with lock.hold_lock(tmp_path), lock.hold_lock(tmp_path / "seed-0"):
    pass


def test_the_lock_goes_with_the_run(tmp_path):
  for _ in range(2):
    _assert_taken(tmp_path)
  assert not list(tmp_path.iterdir())


def test_the_lock_goes_with_an_exception(tmp_path):
  with pytest.raises(KeyboardInterrupt), lock.hold_lock(tmp_path):
    raise KeyboardInterrupt
  assert not list(tmp_path.iterdir())
  _assert_taken(tmp_path)


@pytest.mark.parametrize("how", [(), ("lockless",)], ids=["locks", "lockless"])
def test_what_a_killed_process_left_is_taken_over(how, tmp_path, capsys):
  pid = _killed(tmp_path, *how)
  _assert_taken(tmp_path)
  (line,) = capsys.readouterr().out.splitlines()
  assert f"{tmp_path / lock.FILE}: left by process {pid} on {HOST}" in line
  assert line.endswith("taken over")


def test_a_process_of_this_host_that_lives_holds_it_without_locks(tmp_path):
  with _process(tmp_path, "lockless") as (process, said):
    assert said == "held"
    assert f"process {process.pid} on {HOST}" in _refusal(tmp_path)
    with _process(tmp_path, "lockless") as (_, second):
      assert f"process {process.pid} on {HOST}" in second
    # A beat that fell silent does not count on this host.
    old = time.time() - 2 * lock.SILENT
    os.utime(tmp_path / lock.FILE, (old, old))
    assert f"process {process.pid} on {HOST}" in _refusal(tmp_path)


def test_a_process_number_that_was_given_anew_does_not_hold_it(
  tmp_path, capsys
):
  path = _left(tmp_path)
  began = json.loads(path.read_text())["began"]
  assert int(began) > 0
  assert f"process {os.getpid()} on {HOST}" in _refusal(tmp_path)
  _left(tmp_path, began=str(int(began) + 1))
  _assert_taken(tmp_path)
  assert "taken over" in capsys.readouterr().out


def test_a_process_that_ended_and_is_not_yet_waited_for_is_over(tmp_path):
  with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as child:
    began = lock._began(child.pid)
    assert lock._is_alive(child.pid, began)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not lock._is_alive(child.pid, began)


def test_another_host_holds_it_as_long_as_it_beats(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(lock, "SILENT", 7200.0)  # half of it takes no test
  changes = {"host": "elsewhere", "boot": "x", "pid": 4711}
  for silent in (0, lock.SILENT / 2):
    path = _left(tmp_path, silent, **changes)
    before = path.read_bytes()
    assert "process 4711 on elsewhere is at it" in _refusal(tmp_path)
    assert path.read_bytes() == before
  assert not capsys.readouterr().out
  _left(tmp_path, 2 * lock.SILENT, **changes)
  _assert_taken(tmp_path)
  assert "left by process 4711 on elsewhere" in capsys.readouterr().out


def test_a_requeued_job_takes_over_what_it_left_on_another_host(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv("SLURM_JOB_ID", "77")
  monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
  for changes in (
    {"restarts": "1"},  # a task of the same job on another node
    {"job": "76", "restarts": "0"},
    {"job": "", "restarts": "0"},
  ):
    _left(tmp_path, **{**ELSEWHERE, **changes})
    line = _refusal(tmp_path)
    assert "process 4711 on elsewhere" in line
    job = changes.get("job", "77")
    assert (f"(SLURM job {job})" in line) == bool(job)
  _left(tmp_path, **ELSEWHERE, restarts="0")
  _assert_taken(tmp_path)
  assert "left by process 4711 on elsewhere" in capsys.readouterr().out


def test_outside_of_jobs_no_restart_count_counts(tmp_path):
  _left(tmp_path, **ELSEWHERE, restarts="1")
  assert "on elsewhere is at it" in _refusal(tmp_path)


NO_NUMBER = {**dict.fromkeys(("host", "began", "job", "restarts"), "x")}


@pytest.mark.parametrize(
  "content",
  [
    *(b"", b"{", b"\xff\xfe\x00", b"null", b"[1]", b"7", b'"x"', b"{}"),
    json.dumps({**NO_NUMBER, "pid": "many"}).encode(),
    json.dumps({**NO_NUMBER, "pid": None}).encode(),
    json.dumps({"host": "elsewhere", "pid": 1}).encode(),
    json.dumps({**NO_NUMBER, "pid": float("inf")}).encode(),
    b"[" * 4096,
  ],
)
def test_a_lock_that_was_not_written_in_full_is_taken_over(content, tmp_path):
  (tmp_path / lock.FILE).write_bytes(content)
  _assert_taken(tmp_path)


def test_what_is_not_written_in_full_is_held_while_the_kernel_says_so(tmp_path):
  path = tmp_path / lock.FILE
  with path.open("wb") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    assert "another process is at it" in _refusal(tmp_path)
    assert path.read_bytes() == b""


def test_a_copy_of_a_folder_that_is_held_is_free(tmp_path, capsys):
  first, copy = tmp_path / "first", tmp_path / "copy"
  first.mkdir()
  with lock.hold_lock(first):
    shutil.copytree(first, copy)
    _assert_taken(copy)
    assert "who holds the folder that this is a copy of" in (
      capsys.readouterr().out
    )
    assert "is at it" in _refusal(first)


def test_what_another_container_of_this_machine_left_is_taken_over(tmp_path):
  _left(tmp_path, host="a1b2c3", space="pid:[2]", pid=1)
  _assert_taken(tmp_path)
