"""The processes of a run: how they meet, agree and stop together.

JAX's distributed runtime connects them. Where one ends before the run does the
others abort, with JAX's message, once they wait for it or hear no heartbeat;
the same command goes on from what was saved. A process that is alone does not
import JAX here.
"""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ptlr_jax.runtime.cluster import Place
from ptlr_jax.runtime.errors import Absent, InputError, Stopped

PATIENCE = 300  # seconds in which all have to be there
HEARTBEAT = 30  # seconds without one, after which a process counts as gone
LEAVING = 30  # seconds in which all have to leave a run that has ended

_index, _count = 0, 1
_asked = 0  # how often `stops` was called
_told = False  # whether JAX has been told of a signal


def index() -> int:
  """Which process this is, from 0."""
  return _index


def count() -> int:
  """How many processes there are."""
  return _count


def is_first() -> bool:
  """Whether this is process 0, which writes what all leave."""
  return not _index


def exchange(value: Any = None) -> list[Any]:
  """What each process says, in all of them; JSON. Waits for all."""
  if _count == 1:
    return [value]
  from jax.experimental.multihost_utils import process_allgather

  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = process_allgather(np.int32(len(data)))
  # Of few lengths, since each is compiled.
  padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
  padded[: len(data)] = data
  rows = process_allgather(padded)
  return [
    json.loads(row[:size].tobytes())
    for row, size in zip(rows, sizes, strict=True)
  ]


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
    raise InputError(
      f"process {wrong[0]}: expected {what} of process 0, {others[0]}, got "
      f"{others[wrong[0]]}; {hint}"
    )
  exchange()


def stops(asked: bool) -> bool:
  """Whether all processes stop here, as one of them is `asked` to or has got
  SIGTERM; all have to come here equally often."""
  global _asked, _told
  if _count == 1:
    return asked
  from jax.experimental.multihost_utils import reached_preemption_sync_point

  if asked and not _told:  # by SIGINT; JAX tells the others of SIGTERM alone
    _told = True
    os.kill(os.getpid(), signal.SIGTERM)
  _asked += 1
  return reached_preemption_sync_point(_asked)


def own_share(total: int) -> range:
  """The consecutive share of so many things that is this process's."""
  return share_of(total, _index, _count)


def share_of(total: int, part: int, parts: int) -> range:
  """A consecutive share of so many things, as even as can be."""
  return range(part * total // parts, (part + 1) * total // parts)


@contextlib.contextmanager
def joined(place: Place | None) -> Iterator[None]:
  """Inside, this process is one of the group of its place; None: alone. Once
  in a process, before JAX has computed anything. SIGTERM is JAX's from then on.

  Raises:
    Absent: the others do not come.
    InputError: the processes have different numbers of devices.
  """
  global _index, _count
  if place is None:
    yield
    return
  import jax

  try:
    jax.distributed.initialize(
      place.coordinator,
      None if place.index is None else place.count,
      place.index,
      place.devices,
      cluster_detection_method=place.cluster,
      initialization_timeout=PATIENCE,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=LEAVING,
    )
  except (ValueError, RuntimeError) as error:
    raise Absent(
      f"expected {place.count} processes to meet, got: "
      f"{str(error).splitlines()[0]}; look at what the others say"
    ) from None
  _index, _count = jax.process_index(), place.count
  devices, own = jax.device_count(), jax.local_device_count()
  if devices != own * _count:
    raise InputError(
      f"expected as many devices in each process, got {own} of {devices} in "
      "this one; choose them by CUDA_VISIBLE_DEVICES"
    )
  exchange()  # for their first sum XLA's collectives wait a limited time
  try:
    yield
  except Stopped:
    if _told or _asked:
      jax.distributed.shutdown()
    raise
  jax.distributed.shutdown()
