"""The processes of a run: how they meet, agree, and notice that one is gone.

Each has a connection to process 0. What one `exchange`s all get; where one
ends before the run does, the others end within seconds, with a line that says
which and why. A process that is alone is a group of one.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from ptlr_jax.runtime import links
from ptlr_jax.runtime.cluster import Place
from ptlr_jax.runtime.errors import (
  Absent,
  Diverged,
  InputError,
  NoSpace,
  Stopped,
)
from ptlr_jax.runtime.group import GONE, Group

PATIENCE = 300.0  # seconds in which all have to be there
VERDICT = 5.0  # seconds for the link to tell that a process is gone

_group = Group()


def index() -> int:
  """Which process this is, from 0."""
  return _group.index


def count() -> int:
  """How many processes there are."""
  return _group.count


def is_first() -> bool:
  """Whether this is process 0, which writes what all leave."""
  return not _group.index


def exchange(value: Any = None) -> list[Any]:
  """What each process says, in all of them; JSON. Waits for all."""
  return _group.exchange(value)


def first(function: Callable[[], Any]) -> Any:
  """What the function gives in process 0, which alone calls it; JSON. The
  others wait for it, and end with it where it raises."""
  return exchange(function() if is_first() else None)[0]


def agree(value: Any, what: str, hint: str) -> None:
  """Raises InputError in process 0 where not all say the same; waits for all.

  `what` is what they should have in common, `hint` the way out.
  """
  others = exchange(value)
  wrong = [i for i, other in enumerate(others) if other != others[0]]
  if wrong and is_first():
    name = _group.names[wrong[0]]
    raise InputError(
      f"process {wrong[0]} on {name}: expected {what} of process 0, "
      f"{others[0]}, came {others[wrong[0]]}; {hint}"
    )
  exchange()


def begin_loop(step: int) -> None:
  """See `Group.begin_loop`."""
  _group.begin_loop(step)


def stops_after(step: int, asked: bool) -> bool:
  """See `Group.stops_after`."""
  return _group.stops_after(step, asked)


def own_share(total: int) -> range:
  """The consecutive share of so many things that is this process's."""
  return share_of(total, index(), count())


def share_of(total: int, part: int, parts: int) -> range:
  """A consecutive share of so many things, as even as can be."""
  return range(part * total // parts, (part + 1) * total // parts)


def at_loss(act: Callable[[], None]) -> None:
  """Has something done where this process ends because another has."""
  _group.at_loss.append(act)


def device() -> int | None:
  """The one of this host's devices that is this process's own, if there is."""
  return _group.device


def tell_end(why: str, status: int) -> None:
  """Tells the others that this process ends, and why."""
  _group.tell_end(why, status)


def service(begin: Callable[[str, int, int, str | None], None]) -> None:
  """Begins JAX's service: begin(address, count, index, address to bind to).

  The connection to it goes through a `links.relay`.
  """
  if _group.count == 1:
    return
  port = first(links.free_port)
  if is_first():
    begin(f"127.0.0.1:{port}", _group.count, 0, f"[::]:{port}")
  else:
    near = links.relay(_group.host, port)
    begin(f"127.0.0.1:{near}", _group.count, _group.index, None)


@contextlib.contextmanager
def joined(place: Place | None) -> Iterator[None]:
  """Inside, this process is one of the group of its place; None: alone. Once
  in a process, and in the main thread.

  Raises:
    Absent: the others do not come.
    InputError: they are of another group.
  """
  global _group
  if place is None:
    yield
    return
  group = _group = Group(place.index, place.count)
  group.device, group.host = place.device, place.host
  try:
    _gather(group, place) if not place.index else _join(group, place)
    yield
    group.exchange(None)
    group.over = True
    for link in group.links.values():
      link.send({"kind": "over"})
  except BaseException as error:
    ours = (InputError, Absent, Diverged, NoSpace, Stopped)
    ours += (KeyboardInterrupt, SystemExit)
    if not isinstance(error, ours):
      # A collective of XLA fails as soon as another process is gone; the line
      # that says so comes by the link and ends us here.
      time.sleep(VERDICT)
    _tell(group, error)
    raise
  finally:
    for link in group.links.values():
      link.close()


def _tell(group: Group, error: BaseException) -> None:
  """Tells the others why this process ends, and with which status."""
  why = str(error).partition("\n")[0] or type(error).__name__
  if isinstance(error, Stopped):
    group.tell_end(f"stopped by a signal: {why}", 128 + signal.SIGTERM)
  else:
    group.tell_end(why, 2 if isinstance(error, InputError) else 1)


def _hello(group: Group) -> dict[str, Any]:
  name = f"{socket.gethostname()} (pid {os.getpid()})"
  return {"process": group.index, "of": group.count, "name": name}


def _gather(group: Group, place: Place) -> None:
  """Process 0 waits for the others."""
  try:
    server = links.listen(place.port)
  except OSError as error:
    raise InputError(
      f"port {place.port} of this host, where the other processes come: "
      f"expected it free, came {os.strerror(error.errno or 0)}; end what "
      "listens there, or give another in JAX_COORDINATOR_ADDRESS"
    ) from None
  deadline = time.monotonic() + PATIENCE
  with server:
    coming = links.greeted(server)
    while len(group.links) < group.count - 1:
      if guest := next(coming):
        _let_in(group, *guest)
      elif time.monotonic() > deadline:
        came = sorted({0, *group.links})
        raise Absent(
          f"expected {group.count} processes within {PATIENCE:g} s, came "
          f"{', '.join(map(str, came))}; look at what the others say"
        )
  for link in group.links.values():
    link.send({"kind": "welcome", "name": _hello(group)["name"]})
  for peer in group.links:
    group.listen_to(peer)


def _let_in(group: Group, link: links.Link, hello: dict[str, Any]) -> None:
  peer = hello.get("process")
  missing = [i for i in range(1, group.count) if i not in group.links]
  if hello.get("of") == group.count and peer in missing:
    group.links[peer], group.names[peer] = link, str(hello.get("name"))
  else:
    link.send({"kind": "refused"})
    link.close()


def _join(group: Group, place: Place) -> None:
  """Another process goes to process 0."""
  where = f"{place.host}:{place.port}"
  try:
    link = links.Link(links.connect(place.host, place.port, PATIENCE))
  except OSError as error:
    raise Absent(
      f"process {group.index}: expected process 0 at {where} within "
      f"{PATIENCE:g} s, came {error.strerror or error}; look whether it has "
      "started, and whether its host and port can be reached"
    ) from None
  link.send(_hello(group))
  group.names[0] = where
  answer = next(link.received(), {"kind": "ended", **GONE})
  if answer["kind"] == "ended":
    group.on_ended(0, answer["why"], answer["status"])
  if answer["kind"] == "refused":
    raise InputError(
      f"process {group.index} of {group.count}: expected to join process 0 at "
      f"{where}, came refused; give each process a number of its own and all "
      "the same count"
    )
  group.links[0], group.names[0] = link, answer["name"]
  group.listen_to(0)
