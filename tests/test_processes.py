"""Processes that meet, agree, and end together; none of them imports JAX."""

import contextlib
import random
import re
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from tiny_config import ROOT

from ptlr_jax.runtime import links, processes
from ptlr_jax.runtime.group import Group

SECONDS = 600  # for what takes a second; only what hangs needs them
MEMBER = """
import os, signal, sys, time
from pathlib import Path
from ptlr_jax.runtime import cluster
from ptlr_jax.runtime import errors
from ptlr_jax.runtime import links
from ptlr_jax.runtime import processes
from ptlr_jax.runtime import signals

index, count, port, patience, folder, before, code = sys.argv[1:]
index, count = int(index), int(count)
processes.VERDICT, processes.PATIENCE = 0.3, float(patience)
signals.GRACE = links.HELLO = 3600
exec(before)
with (
  signals.watched(),
  processes.joined(cluster.Place("127.0.0.1", int(port), count, index)),
):
  processes.at_loss(lambda: 1 / 0)
  processes.at_loss(Path(folder, f"loss-{index}").touch)
  exec(code)
print("end")
"""


class Processes(contextlib.ExitStack):
  """Processes of a test that know each other's port."""

  def __init__(self, folder):
    super().__init__()
    self.folder, self.port = folder, links.free_port()

  def start(self, index, count, code="", patience=SECONDS, before=""):
    """Starts one that runs the code within the group."""
    arguments = index, count, self.port, patience, self.folder, before, code
    process = subprocess.Popen(
      [sys.executable, "-c", MEMBER, *map(str, arguments)],
      cwd=ROOT,
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
def group(tmp_path):
  with Processes(tmp_path) as found:
    yield found


KINDS = """
for i, value in enumerate((
  None, True, -1.5, "\\u2028\\n\\0\\xe9", {}, [index, [None]], {"a": {"b": 1}}
)):
  said = processes.exchange(value)
  assert len(said) == count and said[index] == value, said
for value in ((1, (2, index)), {1: index}):
  print(processes.exchange(value))
for i in range(1000):
  assert processes.exchange([index, i]) == [[p, i] for p in range(count)]
large = str(index) * 1_000_000
assert processes.exchange(large) == [str(p) * 1_000_000 for p in range(count)]
assert processes.first(lambda: [index, "said"]) == [0, "said"]
assert (processes.index(), processes.count()) == (index, count)
assert processes.is_first() == (index == 0)
processes.agree({"a": [1.5]}, "that", "so")
assert not processes.stops_after(1, False)
"""


@pytest.mark.parametrize("count", [3, 5])
def test_what_each_says_all_get_in_order(count, group):
  found = group.all(*[KINDS] * count)
  numbers = range(count)
  tuples = [[1, [2, p]] for p in numbers]
  keys = [{"1": p} for p in numbers]
  assert set(found) == {(0, f"{tuples}\n{keys}\nend\n", "")}
  assert list(group.folder.iterdir()) == []


def test_a_process_alone_needs_nobody():
  assert processes.exchange("a") == ["a"]
  assert processes.first(lambda: 5) == 5
  processes.agree("a", "", "")
  assert processes.stops_after(3, True)
  assert not processes.stops_after(3, False)
  with processes.joined(None):
    assert (processes.index(), processes.count()) == (0, 1)


@pytest.mark.parametrize(("total", "parts"), [(8, 3), (2, 4), (0, 2), (7, 7)])
def test_shares_are_consecutive_even_and_all(total, parts):
  shares = [processes.share_of(total, k, parts) for k in range(parts)]
  assert [i for share in shares for i in share] == list(range(total))
  sizes = set(map(len, shares))
  assert max(sizes) - min(sizes) <= 1


# How a process ends: what it runs, why the others say it did, their status.
ENDS = {
  "killed": (
    "os.kill(os.getpid(), signal.SIGKILL)",
    "it is gone without a word (killed, out of memory?)",
    1,
  ),
  "an error": ("raise ValueError('boo\\nhoo')", "boo", 1),
  "an error without a word": ("raise KeyError", "KeyError", 1),
  "no JSON": (
    "processes.exchange({1, 2})",
    "Object of type set is not JSON serializable",
    1,
  ),
  "a mistake": ("raise errors.InputError('this', 'that')", "this", 2),
  "a stop": (
    "os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)",
    "stopped by a signal: what is finished is kept",
    143,
  ),
  "a stop while it waits": (
    "import threading\n"
    "def kill():\n"
    "  while not processes._group._news._waiters:\n"
    "    time.sleep(0.01)\n"
    "  os.kill(os.getpid(), signal.SIGTERM)\n"
    "threading.Thread(target=kill).start()\n"
    "processes.exchange()",
    "stopped by a signal: what is finished is kept",
    143,
  ),
  "a stop that takes too long": (
    "signals.GRACE = 0.3\n"
    "with signals.deferred():\n"
    "  os.kill(os.getpid(), signal.SIGTERM)\n"
    "  time.sleep(600)",
    "what was under way did not end within 0.3 s",
    143,
  ),
  "an exit": ("sys.exit(3)", "3", 1),
  "its own end": ("os._exit(0)", "it is gone without a word", 1),
}
HERE = re.escape(socket.gethostname()) + r" \(pid \d+\)"


@pytest.mark.parametrize("end", ENDS)
def test_where_one_ends_the_others_do_and_say_which_and_why(end, group):
  """One of them waits for it, the other computes."""
  code, why, status = ENDS[end]
  victim = list(ENDS).index(end) % 3
  codes = ["processes.exchange()", "time.sleep(600)"]
  codes.insert(victim, f"processes.exchange()\n{code}")
  codes = [f"processes.exchange()\n{c}" if c != code else c for c in codes]
  codes[victim] = f"processes.exchange()\n{code}"
  found = group.all(*codes)
  why = rf"process {victim} on {HERE}: {re.escape(why)}.*"
  for i, (came, said, complaint) in enumerate(found):
    if i == victim:
      continue
    assert (came, said) == (status, ""), complaint
    through = "" if not victim or not i else rf"process 0 on {HERE}: "
    assert re.fullmatch(
      rf"ptlr_jax: process {i}: ended with {through}{why}; the same command "
      r"goes on from what was saved\n",
      complaint,
    ), complaint
  left = {f"loss-{i}" for i in range(3) if i != victim}
  assert {path.name for path in group.folder.iterdir()} == left


def test_where_process_0_is_killed_all_others_end(group):
  codes = [f"processes.exchange()\n{ENDS['killed'][0]}"]
  found = group.all(*codes, *["processes.exchange()\nprocesses.exchange()"] * 3)
  for status, _, complaint in found[1:]:
    assert status == 1
    (line,) = complaint.splitlines()
    assert " ended with process 0 on " in line


def test_several_that_end_at_once_are_a_line_each(group):
  kill = "processes.exchange(); os.kill(os.getpid(), signal.SIGKILL)"
  wait = "processes.exchange(); processes.exchange()"
  codes = wait, kill, wait, kill, kill
  found = group.all(*codes)
  for (status, *_), code in zip(found, codes, strict=True):
    assert status in ((1,) if code == wait else (-9, 1))  # before it can
  for _, _, complaint in found[0:3:2]:
    assert len(complaint.splitlines()) == 1, complaint
    assert re.search(rf"process [134] on {HERE}: it is gone ", complaint)


def _last(complaint):
  return complaint.splitlines()[-1]


def test_where_they_do_not_agree_the_first_says_who_and_all_end(group):
  code = "processes.agree(index // 2, 'the number', 'give the same')"
  (first, _, told), *others = group.all(*[code] * 4)
  assert first == 1  # as nothing catches it here
  assert re.search(
    rf"InputError: process 2 on {HERE}: expected the number of process 0, 0, "
    r"came 1; give the same$",
    told.rstrip(),
  )
  for status, _, complaint in others:
    assert status == 2
    assert "ended with process 0 on " in complaint
    assert "came 1; give the same; the same command" in complaint


def test_what_the_first_alone_does_ends_all_where_it_fails(group):
  code = "processes.first(lambda: Path('/no/such').read_text())"
  (_, _, told), (status, _, complaint) = group.all(code, code)
  assert "No such file or directory" in _last(told)
  assert status == 1
  (line,) = complaint.splitlines()
  assert "No such file or directory: '/no/such'" in line


# Its patience is over when two have come, and not before.
TWO_COME = """
greeted = links.greeted

def until_two(server):
  came = 0
  for guest in greeted(server):
    came += guest is not None
    if guest or came == 2:
      yield guest

links.greeted = until_two
"""


def test_who_does_not_come_is_missed_and_those_who_came_are_told(group):
  first = group.start(0, 4, patience=0, before=TWO_COME)
  others = [group.start(i, 4) for i in (1, 3)]
  _, _, complaint = ended(first)
  said = re.search(
    r"Absent: (expected 4 processes within 0 s, came 0, 1, 3; look at what the "
    r"others say)",
    _last(complaint),
  )
  assert said
  for process in others:
    status, _, complaint = ended(process)
    (line,) = complaint.splitlines()
    assert status == 1
    assert said[1] in line


def test_process_0_that_does_not_come_is_named_with_its_address(group):
  _, _, complaint = ended(group.start(1, 2, patience=0.2))
  assert _last(complaint).endswith(
    f"Absent: process 1: expected process 0 at 127.0.0.1:{group.port} within "
    "0.2 s, came Connection refused; look whether it has started, and whether "
    "its host and port can be reached"
  )


def _refused(process, number, count, port):
  status, _, complaint = ended(process)
  assert status == 1
  assert _last(complaint).endswith(
    f"InputError: process {number} of {count}: expected to join process 0 at "
    f"127.0.0.1:{port}, came refused; give each process a number of its own "
    "and all the same count"
  )


def test_a_number_twice_or_another_count_is_refused_and_the_rest_go_on(group):
  first, twins = group.start(0, 3), [group.start(1, 3) for _ in range(2)]
  _refused(group.start(2, 4), 2, 4, group.port)
  while all(twin.poll() is None for twin in twins):
    time.sleep(0.02)
  twins.sort(key=lambda twin: twin.poll() is None)  # one of the two is let in
  _refused(twins[0], 1, 3, group.port)
  going = first, twins[1], group.start(2, 3)
  assert [ended(process) for process in going] == [(0, "end\n", "")] * 3


def test_a_port_that_is_taken_is_named(group):
  with links.listen(group.port):
    _, _, complaint = ended(group.start(0, 2))
  assert _last(complaint).endswith(
    f"InputError: port {group.port} of this host, where the other processes "
    "come: expected it free, came Address already in use; end what listens "
    "there, or give another in JAX_COORDINATOR_ADDRESS"
  )


STRANGE = (
  b"GET / HTTP/1.1\r\n\r\n",
  b"[]\n",
  b"[" * 100_000 + b"\n",
  b'{"kind": "over"}\n',
  b'{"process": [1], "of": 2, "name": "x"}\n',
  b'{"process": 7, "of": 2, "name": "x"}\n',
  b'{"process": null, "of": 2}\n',
  b'{"process": 1, "of": "2"}\n',
)


def test_strangers_at_its_port_do_not_disturb_a_group(group):
  """Thirty say nothing: one after the other they would take minutes."""
  first = group.start(0, 2)
  with contextlib.ExitStack() as stack:
    for said in (*[b""] * 30, *STRANGE):
      stranger = links.connect("127.0.0.1", group.port, SECONDS)
      stack.enter_context(stranger).sendall(said)
    second = group.start(1, 2)
    assert ended(first) == ended(second) == (0, "end\n", "")


# Stopping, of processes that are threads here.


def _groups(count):
  """Processes that are connected; they are threads of this one."""
  groups = [Group(i, count) for i in range(count)]
  with links.listen(0, "127.0.0.1") as server:
    for i in range(1, count):
      ours = links.connect("127.0.0.1", server.getsockname()[1], SECONDS)
      groups[i].links[0] = links.Link(ours)
      groups[0].links[i] = links.Link(server.accept()[0])
  for each in groups:
    for peer in each.links:
      each.listen_to(peer)
  return groups


def _train(each, loops, steps, every, asked_at, pace) -> Any:
  """As `run_updates` does for phase after phase; (loop, step) of the end."""
  rng = random.Random(f"{each.index} {pace}")
  for loop in range(1, loops + 1):
    each.begin_loop(1)
    for step in range(1, steps + 1):
      if rng.random() < 0.2:
        time.sleep(rng.random() * pace)
      asked = asked_at is not None and (loop, step) >= asked_at
      stop = each.stops_after(step, asked)
      if stop or step % every == 0 or step == steps:
        each.exchange([loop, step])  # as all save together
      if stop:
        return loop, step
    each.exchange(None)
  return None


def _schedule(seed):
  """When each is asked, and how slow it is."""
  rng = random.Random(seed)
  loops, steps = 2, rng.choice((1, 5, 12))
  moments = [(1, 1), (1, steps), (2, 1), (2, steps)]
  moments += [(rng.randint(1, 2), rng.randint(1, steps)) for _ in range(4)]
  asked = [rng.choice((None, *moments)) for _ in range(3)]
  paces = [rng.choice((0.0, 0.001, 0.004)) for _ in range(3)]
  return loops, steps, rng.choice((1, 3, 5)), asked, paces


@pytest.mark.parametrize("seed", range(40))
def test_all_stop_after_the_same_update_whoever_is_asked_when(seed):
  loops, steps, every, asked, paces = _schedule(seed)
  groups, stopped = _groups(3), {}

  def train(i):
    stopped[i] = _train(groups[i], loops, steps, every, asked[i], paces[i])

  threads = [
    threading.Thread(target=train, args=(i,), daemon=True) for i in range(3)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(SECONDS)
  for each in groups:
    each.over = True
  for each in groups:
    for link in each.links.values():
      link.close()
      link._lines.close()
  assert sorted(stopped) == [0, 1, 2], "a deadlock"
  (end,) = set(stopped.values())
  earliest = min((at for at in asked if at is not None), default=None)
  if earliest is None:
    assert end is None
  elif end is None:  # past the last update, where all is saved
    assert earliest[0] == loops
  else:
    assert end >= earliest
