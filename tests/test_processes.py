"""Processes that meet, agree, stop and end together."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from tiny_config import ROOT, free_port

from ptlr_jax.runtime import processes

SECONDS = 600  # for what takes a second; only what hangs needs them
MEMBER = """
import os, signal, sys
from ptlr_jax.cli import command_line
from ptlr_jax.runtime import cluster, errors, processes, signals

signal.signal(signal.SIGINT, signal.default_int_handler)  # also under nohup
index, count, port, patience, code = sys.argv[1:]
index, count = int(index), int(count)
processes.PATIENCE = int(patience)
signals.GRACE = 3600
place = cluster.Place(count, "127.0.0.1:" + port, index)

def member(argv):
  with signals.watched(), processes.joined(place):
    exec(code, globals())
  print("end")

command_line.execute(member, "", "")
"""


class Processes(contextlib.ExitStack):
  """Processes of a test that know each other's port."""

  def __init__(self):
    super().__init__()
    self.port = free_port()

  def start(self, index, count, code="", patience=SECONDS, devices=1):
    """Starts one that runs the code within the group."""
    arguments = index, count, self.port, patience, code
    flag = f"--xla_force_host_platform_device_count={devices}"
    process = subprocess.Popen(
      [sys.executable, "-c", MEMBER, *map(str, arguments)],
      cwd=ROOT,
      env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.enter_context(process)
    self.callback(process.kill)  # before it is waited for
    return process

  def all(self, *codes):
    """How a group ends: (status, stdout, stderr) of each."""
    started = [self.start(i, len(codes), c) for i, c in enumerate(codes)]
    return [ended(process) for process in started]


def ended(process):
  """(status, stdout, stderr) of a process, when it has ended."""
  said, complaint = process.communicate(timeout=SECONDS)
  return process.returncode, said, complaint


@pytest.fixture
def group():
  with Processes() as found:
    yield found


KINDS = """
for i, value in enumerate((
  None, True, -1.5, "\\u2028\\n\\0\\xe9", {}, [index, [None]], {"a": {"b": 1}}
)):
  said = processes.exchange(value)
  assert len(said) == count and said[index] == value, said
assert processes.exchange("x" * index) == ["x" * p for p in range(count)]
large = str(index) * 100_000
assert processes.exchange(large) == [str(p) * 100_000 for p in range(count)]
assert processes.first(lambda: [index, "said"]) == [0, "said"]
assert (processes.index(), processes.count()) == (index, count)
assert processes.is_first() == (index == 0)
processes.agree({"a": [1.5]}, "that", "so")
assert not signals.stops()
"""


def test_what_each_says_all_get_in_order(group):
  found = group.all(*[KINDS] * 3)
  assert [one[0] for one in found] == [0] * 3, found
  assert all(one[1].endswith("end\n") for one in found)


def test_a_process_alone_needs_nobody():
  assert processes.exchange("a") == ["a"]
  assert processes.first(lambda: 5) == 5
  processes.agree("a", "", "")
  assert processes.stops(True)
  assert not processes.stops(False)
  with processes.joined(None):
    assert (processes.index(), processes.count()) == (0, 1)


@pytest.mark.parametrize("total", [0, 1, 7, 8, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_shares_are_consecutive_even_and_all(total, parts):
  shares = [processes.share_of(total, i, parts) for i in range(parts)]
  assert [i for share in shares for i in share] == list(range(total))
  assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_where_they_do_not_agree_the_first_says_who_and_all_end(group):
  code = 'processes.agree(index // 2, "the number", "count again")'
  first, *others = group.all(*[code] * 3)
  assert first[0] == 2
  line = "ptlr_jax: process 2: expected the number of process 0, 0, got 1; "
  assert f"{line}count again\n" in first[2]
  assert all(status for status, *_ in others)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
  ("code", "status"),
  [
    ('raise errors.InputError("no such file")', 2),
    ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
  ],
)
def test_where_one_ends_the_other_does(which, code, status, group):
  codes = ["processes.exchange()"] * 2
  codes[which] = code
  found = group.all(*codes)
  assert found[which][0] == status
  assert found[1 - which][0] not in (0, 2, 143)
  assert "end\n" not in found[0][1] + found[1][1]


def test_other_numbers_of_devices_are_a_line(group):
  started = [group.start(i, 2, devices=1 + i) for i in range(2)]
  for own, (status, _, complaint) in enumerate(map(ended, started), 1):
    assert status == 2
    assert f"expected as many devices in each process, got {own} of 3" in (
      complaint
    )


def test_who_does_not_come_is_missed(group):
  status, _, complaint = ended(group.start(1, 2, patience=1))
  assert status
  assert "expected 2 processes to meet, got: " in complaint or status < 0


LOOP = """
with signals.deferred():  # as in training
  for step in range(1, 10_000):
    processes.exchange()
    if (index, step) == (1, 5):
      os.kill(os.getpid(), signal.{})
    if signals.stops():
      print(step)
      break
"""


@pytest.mark.parametrize(
  ("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)]
)
def test_all_stop_after_the_same_update(name, status, group):
  found = group.all(*[LOOP.format(name)] * 2)
  assert [one[0] for one in found] == [143, status], found
  (first,), (second,) = (
    [int(line) for line in out.splitlines() if line.isdecimal()]
    for _, out, _ in found
  )
  assert first == second > 5
