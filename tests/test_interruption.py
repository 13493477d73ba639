"""Signals: ptlr_jax.runtime.signals, in processes of its own."""

import signal
import subprocess
import sys

import pytest
from tiny_config import ROOT

START = """
import hashlib, os, signal, sys, threading, time
from ptlr_jax.runtime import signals
from ptlr_jax.runtime.errors import Stopped
from ptlr_jax.runtime.signals import deferred
from ptlr_jax.runtime.signals import watched

signals.GRACE = 3600
TERM, INT = signal.SIGTERM, signal.SIGINT
# What starts tests in the background has it ignored.
signal.signal(INT, signal.default_int_handler)

def send(number):
  os.kill(os.getpid(), number)

def handlers():
  return [signal.getsignal(n) for n in (TERM, INT)], signal.set_wakeup_fd(-1)

"""


def _process(code, status=0):
  """What a process that runs some code writes on its two outputs."""
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", START + code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,  # only what hangs needs them
  )
  assert done.returncode == status, done.stderr
  return done.stdout, done.stderr


def test_a_signal_that_was_ignored_before_still_is():
  """As SIGINT is under nohup, and in the background of a script."""
  said, _ = _process("""
signal.signal(INT, signal.SIG_IGN)
with watched():
  send(INT)
  print(signals.asked(), signal.getsignal(INT) == signal.SIG_IGN)
""")
  assert said == "False True\n"


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_a_signal_stops_what_is_watched_at_once(number):
  said, _ = _process(
    f"""
try:
  with watched():
    send({number})
    print("not reached")
except Stopped as error:
  print(error, signals.asked(), signals.name())
  sys.exit(signals.exit_status())
""",
    128 + getattr(signal, f"SIG{number}"),
  )
  assert said == f"what is finished is kept False SIG{number}\n"


def test_without_a_signal_nothing_is_stopped():
  said, _ = _process("""
with watched(), deferred():
  print(signals.asked())
print(signals.asked(), repr(signals.name()))
""")
  assert said == "False\nFalse ''\n"


def test_a_deferred_signal_acts_at_the_end_of_all_that_defers():
  said, _ = _process("""
try:
  with watched():
    with deferred():
      with deferred():
        print(signals.asked())
        send(TERM)
        print(signals.asked())
      print("goes on")
    print("not reached")
except Stopped as error:
  print("stopped:", error)
""")
  assert said == "False\nTrue\ngoes on\nstopped: what is finished is kept\n"


def test_an_error_inside_what_defers_comes_first():
  said, _ = _process("""
try:
  with watched(), deferred():
    send(TERM)
    raise ValueError("full")
except ValueError as error:
  print(error)
try:
  with watched():
    print(signals.asked())
    with deferred():
      pass
    send(INT)
except Stopped:
  print(signals.name())
""")
  assert said == "full\nFalse\nSIGINT\n"


def test_the_handlers_are_what_they_were_afterwards():
  said, _ = _process("""
signal.signal(TERM, lambda *_: print("mine"))
before = handlers()
with watched():
  pass
print(handlers() == before)
try:
  with watched():
    send(TERM)
except Stopped:
  print(handlers() == before)
send(TERM)
try:
  send(INT)
except KeyboardInterrupt:
  print("as usual")
print(threading.active_count(), len(os.listdir("/proc/self/fd")))
with watched():
  pass
print(threading.active_count(), len(os.listdir("/proc/self/fd")))
""")
  *shown, one, two = said.splitlines()
  assert shown == ["True", "True", "mine", "as usual"]
  assert one == two
  assert one.startswith("1 ")


def test_outside_the_main_thread_nothing_is_done():
  said, _ = _process("""
found = []

def run():
  with watched():
    found.append(threading.active_count())
    found.append(handlers_before == [signal.getsignal(n) for n in (TERM, INT)])

handlers_before, _ = handlers()
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(found)
""")
  assert said == "[2, True]\n"


STUCK = {
  "in C": "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)",
  "in Python": "time.sleep(3600)",
}


@pytest.mark.parametrize("number", ["TERM", "INT"])
@pytest.mark.parametrize("where", STUCK)
def test_a_step_that_does_not_end_is_ended(where, number):
  said, complaint = _process(
    f"""
signals.GRACE = 0.2
with watched():
  try:
    with deferred():
      threading.Timer(0.1, send, [{number}]).start()
      {STUCK[where]}
      print("not reached")
  finally:
    print("nor this")
""",
    128 + getattr(signal, f"SIG{number}"),
  )
  assert said == ""
  (line,) = complaint.splitlines()
  assert line.startswith(
    "ptlr_jax: what was under way did not end within 0.2 s"
  )
  assert "the same command goes on from what was saved" in line


def test_a_second_interrupt_ends_at_once():
  for first in ("INT", "TERM"):
    said, complaint = _process(
      f"""
with watched(), deferred():
  send({first})
  print("waits", flush=True)
  send(INT)
  print("not reached")
""",
      130,
    )
    assert said == "waits\n"
    (line,) = complaint.splitlines()
    assert line.startswith("ptlr_jax: stopped at once; the same command goes")


def test_a_second_term_waits_as_the_first():
  said, _ = _process("""
try:
  with watched(), deferred():
    send(TERM)
    send(TERM)
    print("waits")
except Stopped:
  print("stopped")
""")
  assert said == "waits\nstopped\n"


def test_a_command_says_what_stopped_it():
  _, complaint = _process(
    """
from ptlr_jax.cli import command_line

def run(_):
  with watched():
    send(TERM)

command_line.execute(run, "", "")
""",
    143,
  )
  assert complaint == (
    "ptlr_jax: stopped by SIGTERM: what is finished is kept; the same command "
    "goes on\n"
  )
