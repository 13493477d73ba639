"""Connections between the processes of a run: messages and a relay."""

import contextlib
import errno
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

# A host that is off or unreachable is noticed after IDLE + COUNT x EVERY
# seconds; a process that ends is noticed at once.
IDLE, EVERY, COUNT = 10, 5, 4
RETRY = 0.2  # seconds between two attempts to connect
HELLO, LOOK = 10.0, 0.05  # seconds for the first word, and to wait for others


class Link:
  """A connection over which JSON objects go, a line each."""

  def __init__(self, connection: socket.socket):
    _keep_alive(connection)
    self._socket = connection
    self._lines = connection.makefile("rb")
    self._sending = threading.Lock()

  def send(self, message: dict[str, Any]) -> None:
    """Sends a message; what cannot be sent is lost."""
    data = json.dumps(message).encode() + b"\n"
    with self._sending, contextlib.suppress(OSError):
      self._socket.sendall(data)

  def received(self) -> Iterator[dict[str, Any]]:
    """The messages that come, until the other end is closed or gone, or says
    what is none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
      for line in self._lines:
        message = json.loads(line)
        if not isinstance(message, dict):
          return
        yield message

  def close(self) -> None:
    """Ends the connection for both sides."""
    with contextlib.suppress(OSError):
      self._socket.shutdown(socket.SHUT_RDWR)
    self._socket.close()


def _keep_alive(connection: socket.socket) -> None:
  """Has the kernel notice a host that is gone; sends are not held back."""
  connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for name, value in (
    ("TCP_KEEPIDLE", IDLE),
    ("TCP_KEEPINTVL", EVERY),
    ("TCP_KEEPCNT", COUNT),
    ("TCP_USER_TIMEOUT", 1000 * (IDLE + COUNT * EVERY)),
  ):
    if hasattr(socket, name):  # Linux has them all
      number = getattr(socket, name)
      connection.setsockopt(socket.IPPROTO_TCP, number, value)


def listen(port: int, host: str = "") -> socket.socket:
  """A server at a port of this host, 0 for any that is free."""
  both = not host and socket.has_dualstack_ipv6()
  return socket.create_server(
    (host, port),
    family=socket.AF_INET6 if both else socket.AF_INET,
    backlog=1024,
    dualstack_ipv6=both,
  )


def greeted(
  server: socket.socket,
) -> Iterator[tuple[Link, dict[str, Any]] | None]:
  """Who comes to a server, and the first that each says; None now and then
  where nobody does. One that says nothing holds up no other."""
  found: queue.SimpleQueue[tuple[Link, dict[str, Any]]] = queue.SimpleQueue()

  def greet(connection: socket.socket) -> None:
    connection.settimeout(HELLO)
    link = Link(connection)
    if message := next(link.received(), None):
      connection.settimeout(None)
      found.put((link, message))
    else:
      link.close()

  server.settimeout(LOOK)
  while True:
    with contextlib.suppress(OSError):
      _start(greet, server.accept()[0])
    yield None if found.empty() else found.get()


def free_port() -> int:
  """A port of this host that nothing listens at."""
  with listen(0) as server:
    return server.getsockname()[1]


def connect(host: str, port: int, seconds: float) -> socket.socket:
  """Connects once somebody listens there. Raises OSError after some seconds."""
  deadline = time.monotonic() + seconds
  while True:
    try:
      connection = socket.create_connection((host, port), timeout=10)
      if connection.getsockname() != connection.getpeername():
        connection.settimeout(None)
        return connection
      # A port that nobody listens at may be given to us, and is itself then.
      connection.close()
      raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
    except OSError:
      if time.monotonic() > deadline:
        raise
      time.sleep(RETRY)


def relay(host: str, port: int) -> int:
  """Listens at a port of this host, which is returned, and connects whoever
  comes there with another host. When that one is gone our side stays open.

  JAX's client ends its process, by a core dump, as soon as its connection to
  process 0 is closed, and nothing can tell it not to.
  """
  server = listen(0, "127.0.0.1")
  kept = []  # a socket that nobody holds is closed

  def serve() -> None:
    while True:
      ours, _ = server.accept()
      kept.append(ours)
      with contextlib.suppress(OSError):
        theirs = connect(host, port, 10)
        kept.append(theirs)
        for pair in ((ours, theirs), (theirs, ours)):
          _start(_pump, *pair)

  _start(serve)
  return server.getsockname()[1]


def _pump(source: socket.socket, target: socket.socket) -> None:
  with contextlib.suppress(OSError):
    while data := source.recv(1 << 16):
      target.sendall(data)

  # Neither is closed: see `relay`. They end with the process.


def _start(function: Any, *args: Any) -> None:
  threading.Thread(
    target=function, args=args, daemon=True, name="relay"
  ).start()
