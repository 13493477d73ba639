"""Connections between processes: messages, strangers, a relay."""

import contextlib
import gc
import itertools
import json
import socket
import struct
import threading
import warnings

import pytest

from ptlr_jax.runtime import links

SECONDS = 600  # for what takes moments; only what hangs needs them


# A relay keeps its sockets until the process ends, and when they are collected
# is chance.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _collected():
  """Nothing of these tests is collected, and told, in those of another file."""
  yield
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)
    gc.collect()


@pytest.fixture
def server():
  with links.listen(0) as found:
    yield found


def _port(server):
  return server.getsockname()[1]


def _connected(server, host="127.0.0.1"):
  """Both ends of a connection."""
  ours = links.connect(host, _port(server), SECONDS)
  theirs, _ = server.accept()
  for each in (ours, theirs):
    each.settimeout(SECONDS)
  return ours, theirs


@pytest.fixture
def pair(server):
  ours, theirs = _connected(server)
  with ours, theirs:
    yield ours, theirs


VALUES = [None, True, 0, -1.5, "é\n\0\u2028", [], {"a": [1, {"b": None}]}]


def test_messages_come_as_they_were_sent_and_in_order(pair):
  ours, theirs = map(links.Link, pair)
  sent = [{"kind": "said", "value": value} for value in VALUES]
  for message in sent:
    ours.send(message)
  ours.close()
  assert list(theirs.received()) == sent
  theirs.close()


def test_a_large_message_comes_whole_among_small_ones_of_other_threads(pair):
  ours, theirs = map(links.Link, pair)
  large = {"value": "x" * 3_000_000}
  sending = [
    threading.Thread(target=ours.send, args=(message,))
    for message in (large, *({"value": i} for i in range(50)))
  ]
  for thread in sending:
    thread.start()
  found = list(itertools.islice(theirs.received(), 51))
  for thread in sending:
    thread.join(SECONDS)
  assert large in found
  assert {m["value"] for m in found if m != large} == set(range(50))
  ours.close()
  theirs.close()


def test_what_cannot_be_sent_is_lost_without_a_word(pair):
  ours, theirs = map(links.Link, pair)
  theirs.close()
  for _ in range(3):
    ours.send({"value": "x" * 1_000_000})
  ours.close()
  ours.send({})


NO_MESSAGES = {
  "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
  "bytes": bytes(range(256)) + b"\n",
  "a number": b"5\n",
  "a list": b'["kind"]\n',
  "depth": b"[" * 100_000 + b"\n",
  "half a line": b'{"kind": ',
  "an empty line": b"\n",
  "nothing": b"",
}


@pytest.mark.parametrize("name", NO_MESSAGES)
def test_what_is_no_message_ends_the_messages(name, pair):
  ours, theirs = pair
  ours.sendall(b'{"kind": "first"}\n' + NO_MESSAGES[name])
  ours.shutdown(socket.SHUT_WR)
  link = links.Link(theirs)
  assert list(link.received()) == [{"kind": "first"}]
  link.close()


def test_a_port_that_is_free_can_be_listened_at_and_is_not_free_then():
  port = links.free_port()
  with links.listen(port), pytest.raises(OSError, match="in use"):
    links.listen(port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_server_is_reached_by_either_kind_of_address(host, server):
  if host == "::1" and not socket.has_dualstack_ipv6():
    pytest.skip("this host has no IPv6")
  for each in _connected(server, host):
    each.close()


def test_connecting_waits_for_somebody_who_listens():
  port = links.free_port()
  with pytest.raises(ConnectionRefusedError):
    links.connect("127.0.0.1", port, 0)

  found = []
  waiting = threading.Thread(
    target=lambda: found.append(links.connect("127.0.0.1", port, SECONDS))
  )
  waiting.start()
  with links.listen(port):
    waiting.join(SECONDS)
  (connection,) = found
  assert connection.gettimeout() is None
  connection.close()


def test_no_process_connects_with_itself(server, monkeypatch):
  """As Linux lets it where it gives it the very port that it looks for."""
  itself = socket.socket()
  itself.bind(("127.0.0.1", 0))
  itself.connect(itself.getsockname())
  real, came = socket.create_connection, [itself]
  monkeypatch.setattr(
    socket,
    "create_connection",
    lambda *args, **how: came.pop() if came else real(*args, **how),
  )
  with links.connect("127.0.0.1", _port(server), SECONDS) as connection:
    assert connection.getpeername()[1] == _port(server)
  assert itself.fileno() == -1


def _reset(connection):
  """Closes it in a way that the other end sees as an error."""
  linger = struct.pack("ii", 1, 0)
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
  connection.close()


def test_those_who_say_nothing_or_nonsense_hold_up_nobody(server, monkeypatch):
  monkeypatch.setattr(links, "HELLO", SECONDS)
  with contextlib.ExitStack() as stack:
    strangers = [
      stack.enter_context(links.connect("127.0.0.1", _port(server), SECONDS))
      for _ in range(len(NO_MESSAGES) + 12)
    ]
    for stranger, said in zip(strangers, NO_MESSAGES.values(), strict=False):
      stranger.sendall(said)
    for stranger in strangers[-2:]:
      _reset(stranger)
    guest = stack.enter_context(
      links.connect("127.0.0.1", _port(server), SECONDS)
    )
    guest.sendall(json.dumps({"process": 1}).encode() + b"\n")
    link, message = next(filter(None, links.greeted(server)))
    assert message == {"process": 1}
    link.send({"kind": "welcome"})
    assert guest.recv(100) == b'{"kind": "welcome"}\n'
    link.close()


def test_one_who_says_nothing_is_sent_away(server, monkeypatch):
  monkeypatch.setattr(links, "HELLO", 0.01)
  with links.connect("127.0.0.1", _port(server), SECONDS) as silent:
    silent.settimeout(SECONDS)
    coming = links.greeted(server)
    assert next(coming) is None
    assert silent.recv(1) == b""
    assert next(coming) is None


@pytest.fixture
def relayed(server):
  """Our end of a connection through a relay, and the other's."""
  near = links.relay("127.0.0.1", _port(server))
  ours = links.connect("127.0.0.1", near, SECONDS)
  theirs, _ = server.accept()
  for each in (ours, theirs):
    each.settimeout(SECONDS)
  with ours, theirs:
    yield ours, theirs


def _read(connection, size):
  found = b""
  while len(found) < size:
    found += connection.recv(size)
  return found


def test_the_relay_passes_everything_on_in_both_directions(relayed):
  data = bytes(range(256)) * 8192
  for source, target in (relayed, relayed[::-1]):
    sending = threading.Thread(target=source.sendall, args=(data,))
    sending.start()
    assert _read(target, len(data)) == data
    sending.join(SECONDS)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_the_relay_keeps_our_side_open_when_the_other_is_gone(relayed, end):
  ours, theirs = relayed
  if end == "close":
    theirs.sendall(b"last")
    assert _read(ours, 4) == b"last"
    theirs.close()
  else:
    _reset(theirs)
    ours.sendall(b"to nobody")
  ours.settimeout(0.3)
  with pytest.raises(TimeoutError):
    ours.recv(10)
  ours.sendall(b"it is open")


def test_the_relay_serves_several_one_after_the_other(server):
  near = links.relay("127.0.0.1", _port(server))
  for i in range(3):
    with links.connect("127.0.0.1", near, SECONDS) as ours:
      theirs, _ = server.accept()
      theirs.settimeout(SECONDS)
      with theirs:
        ours.sendall(bytes([i]))
        assert _read(theirs, 1) == bytes([i])
