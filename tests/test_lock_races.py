"""Several at once for a workdir's lock, and what its holder does meanwhile."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
import types

import pytest
from tiny_config import ROOT

from ptlr_jax.io import lock
from ptlr_jax.runtime.errors import InputError

OVER = {"pid": 2**22 + 1, "began": "1"}  # no kernel gives such a number
RACERS = 4

# Holds a folder's lock again and again; two at once would be two who make the
# same file.
RACER = """
import os, pathlib, sys
from ptlr_jax.io import lock
from ptlr_jax.runtime import errors
from ptlr_jax.runtime import progress

progress.say = lambda line: None
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


def _stale(directory, **changes):
  (directory / lock.FILE).write_text(
    json.dumps({**lock._us(), **OVER, **changes})
  )


def _winners(directory, count=RACERS):
  """How many of some threads get the lock while none of them leaves it."""
  begin, end = (threading.Barrier(count, timeout=600) for _ in range(2))
  won = []

  def race():
    begin.wait()
    try:
      with lock.hold_lock(directory):
        won.append(threading.get_ident())
        end.wait()
    except InputError:
      end.wait()

  threads = [threading.Thread(target=race) for _ in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return len(won)


def test_one_of_those_that_race_for_a_stale_lock_gets_it(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, "say", lambda line: None)
  for i in range(30):
    _stale(tmp_path, host=lock._us()["host"])
    assert _winners(tmp_path) == 1, i
    assert not list(tmp_path.iterdir())


def test_one_of_those_that_race_for_a_new_lock_gets_it(tmp_path):
  for i in range(30):
    assert _winners(tmp_path) == 1, i


@pytest.mark.parametrize("anew", [False, True])
def test_a_file_that_its_holder_removes_in_between_holds_nothing(
  anew, tmp_path, monkeypatch
):
  """Between its being opened and locked; by then another may hold a new one."""
  path, try_lock = tmp_path / lock.FILE, lock._lock
  others = []

  def meanwhile(file):
    if not others:
      path.unlink()
      others.append(anew and path.open("w"))
      assert not anew or try_lock(others[0].fileno())
    return try_lock(file)

  monkeypatch.setattr(lock, "_lock", meanwhile)
  if anew:
    with pytest.raises(InputError, match="is at it"), lock.hold_lock(tmp_path):
      pass
    others[0].close()
    assert path.exists()
  else:
    with lock.hold_lock(tmp_path):
      assert json.loads(path.read_text())["pid"] == os.getpid()


def test_one_of_two_that_found_it_stale_gets_it_without_locks(
  tmp_path, monkeypatch
):
  """As `elsewhere` on a file system that carries no locks between hosts."""

  def flock(*_):
    raise OSError(errno.EOPNOTSUPP, "no locks here")

  looked, wrote = (threading.Barrier(2, timeout=600) for _ in range(2))
  why_stale = lock._why_stale

  def both_look(path, holder, locked):
    found = why_stale(path, holder, locked)
    looked.wait()
    return found

  monkeypatch.setattr(fcntl, "flock", flock)
  monkeypatch.setattr(lock, "_why_stale", both_look)
  settles = types.SimpleNamespace(sleep=lambda seconds: wrote.wait())
  monkeypatch.setattr(lock, "time", settles)
  _stale(tmp_path)
  assert _winners(tmp_path, 2) == 1


def test_no_two_processes_hold_it_at_once(tmp_path):
  """Where the lock goes and comes all the time."""
  racers = [
    subprocess.Popen(
      [sys.executable, "-c", RACER, tmp_path],
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(3)
  ]
  for racer in racers:
    assert racer.stdout
    racer.stdout.readline()  # it has started
  said = []
  for racer in racers:
    assert racer.stdin
    racer.stdin.write("\n")
    racer.stdin.flush()
  for racer in racers:
    said.append(racer.communicate())
  assert said == [("100\n", "")] * 3
  assert not list(tmp_path.iterdir())


def _waited_for(happened):
  """Waits for what happens in another thread."""
  for _ in range(60_000):
    if happened():
      return True
    time.sleep(0.01)
  return False


def test_the_holder_touches_the_file_and_no_longer_than_it_holds_it(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(lock, "BEAT", 0.01)
  path = tmp_path / lock.FILE
  with lock.hold_lock(tmp_path):
    for _ in range(2):
      os.utime(path, (1, 1))
      assert _waited_for(lambda: path.stat().st_mtime > 1)
  assert "lock" not in {thread.name for thread in threading.enumerate()}
  assert not list(tmp_path.iterdir())


def test_several_beats_are_missed_before_a_lock_is_stale():
  assert 3 * lock.BEAT <= lock.SILENT


def test_the_age_is_by_the_clock_of_the_file_system(tmp_path, monkeypatch):
  monkeypatch.setattr(time, "time", lambda: 0.0)
  path = tmp_path / lock.FILE
  path.touch()
  assert abs(lock._age(path)) < 3600  # not since 1970
  then = path.stat().st_mtime - 1e6
  os.utime(path, (then, then))
  assert 1e6 <= lock._age(path) < 1e6 + 3600
  assert [found.name for found in tmp_path.iterdir()] == [lock.FILE]


def test_a_lock_that_was_taken_over_is_left_to_the_other(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, "BEAT", 3600)
  path = tmp_path / lock.FILE
  with lock.hold_lock(tmp_path):
    other = {**lock._us(), "host": "elsewhere", "boot": "x", "pid": 4711}
    path.write_text(json.dumps(other))
  assert json.loads(path.read_text())["host"] == "elsewhere"


LOST = """
import pathlib, sys, time
from ptlr_jax.io import lock

lock.BEAT = 0.01
with lock.hold_lock(pathlib.Path(sys.argv[1])):
  pathlib.Path(sys.argv[1], lock.FILE).{lose}
  time.sleep(3600)
"""


@pytest.mark.parametrize("lose", ["unlink()", "write_text('{}')"])
def test_a_holder_whose_lock_is_gone_or_another_s_ends(lose, tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", LOST.format(lose=lose), tmp_path],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.endswith("removed, or taken over by another process; ended")
