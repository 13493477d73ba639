"""One process among those of a run: what it says and hears, and when it ends.

Each has a link to process 0, which passes on what concerns all. The methods of
`Group` named on_KIND act on a message of that kind, in the thread of its link.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from ptlr_jax.runtime import links

# What is said of one that ended and did not say why.
GONE: dict[str, Any] = {
  "why": "it is gone without a word (killed, out of memory?)",
  "status": 1,
}


class Group:
  """One process among `count`; without links it is alone."""

  def __init__(self, index: int = 0, count: int = 1):
    self.index, self.count = index, count
    self.device: int | None = None
    self.host = ""  # of process 0
    self.links: dict[int, links.Link] = {}
    self.names: dict[int, str] = {}
    self._news = threading.Condition()
    self._leaving = threading.Lock()  # never given back
    self._said: dict[int, dict[int, Any]] = {}  # to process 0, by exchange
    self._answers: dict[int, list[Any]] = {}
    self._exchanges = 0
    self.over = False  # the run has ended for all
    self.at_loss: list[Callable[[], None]] = []
    # How a training loop ends for all at the same update, see `stops_after`.
    self._loop = 0
    self._next = (0, 0)  # the next (loop, step) at which we shall ask
    self._stopping = False
    self._steps: dict[int, tuple[int, int]] = {}
    self._last: tuple[int, int] | None = None
    self._handlers: dict[str, Callable[..., None]] = {
      "said": self.on_said,
      "answer": self.on_answer,
      "ended": self.on_ended,
      "over": self.on_over,
      "stop": self.on_stop,
      "where": self.on_where,
      "here": self.on_here,
      "until": self.on_until,
    }

  # What comes from the others.

  def listen_to(self, peer: int) -> None:
    """Heeds the messages of a process until it ends."""
    threading.Thread(
      target=self._heed, args=(peer,), daemon=True, name=f"process {peer}"
    ).start()

  def _heed(self, peer: int) -> None:
    for message in self.links[peer].received():
      if self.over:  # also where we end, and say why ourselves
        return
      self._handlers[message.pop("kind")](peer, **message)
    if not self.over:
      self.on_ended(peer, **GONE)

  def on_said(self, peer: int, number: int, value: Any) -> None:
    with self._news:
      self._gather(peer, number, value)

  def on_answer(self, peer: int, number: int, values: list[Any]) -> None:
    del peer
    with self._news:
      self._answers[number] = values
      self._news.notify_all()

  def on_ended(self, peer: int, why: str, status: int) -> NoReturn:
    self._leave(peer, why, status)

  def on_over(self, peer: int) -> None:
    del peer
    self.over = True

  def on_stop(self, peer: int) -> None:
    del peer
    with self._news:
      self._ask_all()

  def on_where(self, peer: int) -> None:
    with self._news:
      self._stopping = True
      self.links[peer].send({"kind": "here", "at": self._next})

  def on_here(self, peer: int, at: list[int]) -> None:
    with self._news:
      self._note(peer, (at[0], at[1]))

  def on_until(self, peer: int, at: list[int]) -> None:
    del peer
    with self._news:
      self._last = (at[0], at[1])
      self._news.notify_all()

  def _leave(self, peer: int, why: str, status: int) -> NoReturn:
    """Ends this process, wherever it is: in XLA it may wait for ever."""
    self._leaving.acquire()  # that others go then is no news
    for act in self.at_loss:
      with contextlib.suppress(Exception):
        act()
    line = (
      f"ptlr_jax: process {self.index}: ended with process {peer} on "
      f"{self.names.get(peer, 'its host')}: {why}; the same command goes on "
      "from what was saved\n"
    )
    if not self.index:  # the rest hears of it by us
      self.tell_end(f"process {peer} on {self.names.get(peer)}: {why}", status)
    os.write(2, line.encode())
    os._exit(status)

  def tell_end(self, why: str, status: int) -> None:
    """Tells the others that this process ends, and why; that they end after it
    is no news."""
    self.over = True
    for link in self.links.values():
      link.send({"kind": "ended", "why": why, "status": status})

  # Exchanges.

  def _gather(self, peer: int, number: int, value: Any) -> None:
    said = self._said.setdefault(number, {})
    said[peer] = value
    if len(said) < self.count:
      return
    values = [self._said[number][i] for i in range(self.count)]
    del self._said[number]
    for link in self.links.values():
      link.send({"kind": "answer", "number": number, "values": values})
    self._answers[number] = values
    self._news.notify_all()

  def exchange(self, value: Any) -> list[Any]:
    """What each process says; JSON. Waits for all of them."""
    if self.count == 1:
      return [value]
    value = json.loads(json.dumps(value))  # the same for us as for the others
    with self._news:
      number = self._exchanges
      self._exchanges += 1
      if self.index:
        message = {"kind": "said", "number": number, "value": value}
        self.links[0].send(message)
      else:
        self._gather(0, number, value)
      self._news.wait_for(lambda: number in self._answers)
      return self._answers.pop(number)

  # Stopping in a training loop.

  def begin_loop(self, step: int) -> None:
    """A loop begins whose first update will be `step`."""
    with self._news:
      self._loop += 1
      self._next = (self._loop, step)

  def stops_after(self, step: int, asked: bool) -> bool:
    """Whether the loop ends after an update, in all processes after the same.

    The first that is `asked` has everyone say which update it cannot hold back
    any more; the last of them is the end.
    """
    if self.count == 1:
      return asked
    at = (self._loop, step)
    with self._news:
      if asked and not self._stopping:
        if self.index:
          self._stopping = True
          self._next = at
          self.links[0].send({"kind": "stop"})
        else:
          self._next = at
          self._ask_all()
      if self._stopping:
        self._next = max(self._next, at)
        self._news.wait_for(lambda: self._last is not None)
      if self._last is not None:
        return at >= self._last
      self._next = (self._loop, step + 1)
      return False

  def _ask_all(self) -> None:
    """Process 0 asks where everyone is, once."""
    if self._steps:
      return
    self._stopping = True
    self._note(0, self._next)
    for link in self.links.values():
      link.send({"kind": "where"})

  def _note(self, peer: int, at: tuple[int, int]) -> None:
    self._steps[peer] = at
    if len(self._steps) < self.count:
      return
    self._last = max(self._steps.values())
    for link in self.links.values():
      link.send({"kind": "until", "at": self._last})
    self._news.notify_all()
