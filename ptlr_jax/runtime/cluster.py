"""Whether this process is one of several, as its environment says."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from ptlr_jax.runtime.errors import InputError

FLAGS = {"coordinator": "", "num_processes": "", "process_id": ""}
# Of which a job takes one by its number; below those that Linux gives away.
_PORTS = 20_000, 32_000
_ADDRESS, _COUNT = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"
_INDEX = "JAX_PROCESS_ID"
_COMPLETION = "JOB_COMPLETION_INDEX"  # an Indexed Job's, also below a JobSet


class Place(NamedTuple):
  """A process among several; process 0 listens at `host`:`port`.

  `device` is the one of this host's devices that is its own, where others of
  the run are on the same host; None: all that it sees.
  """

  host: str
  port: int
  count: int
  index: int
  device: int | None = None


def place(
  environment: Mapping[str, str], flags: Mapping[str, str] | None = None
) -> Place | None:
  """Where this process is among several, or None where it is alone.

  Asked in this order: flags (`FLAGS`); JAX_COORDINATOR_ADDRESS with
  JAX_NUM_PROCESSES and JAX_PROCESS_ID, or in a Kubernetes Indexed Job
  JOB_COMPLETION_INDEX; the step of a SLURM job; Open MPI.

  Raises:
    InputError: what is said is incomplete, or contradicts itself.
  """
  found = (
    _of_flags(flags or {})
    or _of_jax(environment)
    or _of_slurm(environment)
    or _of_open_mpi(environment)
  )
  return found if found and found.count > 1 else None


def _of_flags(flags: Mapping[str, str]) -> Place | None:
  said = {f"--{name}": flags.get(name, "") for name in FLAGS}
  return _of_three(said, flags.get("coordinator", ""))


def _of_jax(environment: Mapping[str, str]) -> Place | None:
  address = environment.get(_ADDRESS, "")
  if not any(environment.get(n) for n in (_ADDRESS, _COUNT, _INDEX)):
    return None  # also an Indexed Job's that have nothing in common
  own = _INDEX in environment or _COMPLETION not in environment
  names = (_ADDRESS, _COUNT, _INDEX if own else _COMPLETION)
  return _of_three({n: environment.get(n, "") for n in names}, address)


def _of_three(said: Mapping[str, str], address: str) -> Place | None:
  """Of the address, the count and the index, which come all or not at all."""
  if not any(said.values()):
    return None
  _, count, index = said
  if missing := [name for name, value in said.items() if not value]:
    raise InputError(
      f"{', '.join(missing)}: expected beside "
      f"{', '.join(sorted(said.keys() - set(missing)))}, came nothing; give "
      f"all of {', '.join(said)}, or none for a single process"
    )
  return _checked(
    *_parsed(address, next(iter(said))),
    _number(said[count], count),
    _number(said[index], index),
    index,
  )


def _of_slurm(environment: Mapping[str, str]) -> Place | None:
  # Not SLURM_NTASKS, which the batch script has too, in which no step runs.
  if "SLURM_STEP_NUM_TASKS" not in environment:
    return None
  count = _number(environment["SLURM_STEP_NUM_TASKS"], "SLURM_STEP_NUM_TASKS")
  if count == 1:
    return None
  names = "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"
  if missing := [name for name in names if not environment.get(name)]:
    raise InputError(
      f"{', '.join(missing)}: expected in the step of a SLURM job, came "
      "nothing; start the processes by srun"
    )
  index = _number(environment["SLURM_PROCID"], "SLURM_PROCID")
  return _checked(
    first_node(environment["SLURM_STEP_NODELIST"]),
    _port(_number(environment["SLURM_JOB_ID"], "SLURM_JOB_ID")),
    count,
    index,
    "SLURM_PROCID",
    _device(environment, "SLURM_LOCALID", _tasks_here(environment)),
  )


def first_node(nodes: str) -> str:
  """The first host of a SLURM node list: gpu03 of gpu[03-05,7],cpu1."""
  # Of each range its first number: then no comma is left but between hosts.
  firsts = re.sub(r"\[(\w*)[^\]]*\]?", r"\1", nodes)
  return firsts.partition(",")[0]


def _tasks_here(environment: Mapping[str, str]) -> int:
  """How many tasks of the step run on this node, of "2(x3),1"."""
  counts = []
  said = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
  for part in said.split(","):
    number, _, times = part.partition("(x")
    counts += [int(number)] * int(times.rstrip(")") or 1)
  node = int(environment.get("SLURM_NODEID") or 0)
  return counts[node] if node < len(counts) else 1


def _of_open_mpi(environment: Mapping[str, str]) -> Place | None:
  if "OMPI_COMM_WORLD_SIZE" not in environment:
    return None
  count = _number(environment["OMPI_COMM_WORLD_SIZE"], "OMPI_COMM_WORLD_SIZE")
  if count == 1:
    return None
  rank = environment.get("OMPI_COMM_WORLD_RANK", "")
  index = _number(rank, "OMPI_COMM_WORLD_RANK")
  here = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") or 1)
  # "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", or PMIx's of version 5:
  # "prterun-host-4711@0.0;tcp4://127.0.0.1:40241"
  said = environment.get("OMPI_MCA_orte_hnp_uri") or environment.get(
    "PMIX_SERVER_URI41", ""
  )
  job = re.match(r"(?:.*-)?(\d+)", said)
  # Version 5 names the host that asks, not the first.
  where = re.search(r"tcp4?://(?!127\.)([\d.]+)", said)
  host = "127.0.0.1" if here == count else where[1] if where else ""
  if not host or not job:
    raise InputError(
      f"{_ADDRESS}: expected HOST:PORT of process 0, as Open MPI does not say "
      f"where that is, came nothing; mpirun -x {_ADDRESS}=HOST:PORT"
    )
  return _checked(
    host,
    _port(int(job[1])),
    count,
    index,
    "OMPI_COMM_WORLD_RANK",
    _device(environment, "OMPI_COMM_WORLD_LOCAL_RANK", here),
  )


def _device(environment: Mapping[str, str], rank: str, here: int) -> int | None:
  """This process's own device; all it sees where it is alone on its host, or
  where it has been given one already."""
  seen = environment.get("CUDA_VISIBLE_DEVICES")
  if here == 1 or (seen is not None and "," not in seen):
    return None
  return _number(environment.get(rank, "0"), rank)


def _port(job: int) -> int:
  first, last = _PORTS
  return first + job % (last - first)


def _number(text: str, name: str) -> int:
  if not text.isdecimal():
    raise InputError(f"{name}: expected a number from 0 on, came {text!r}")
  return int(text)


def _parsed(address: str, name: str) -> tuple[str, int]:
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise InputError(
      f"{name}: expected HOST:PORT of process 0, came {address!r}"
    )
  return host.strip("[]"), int(port)


def _checked(
  host: str, port: int, count: int, index: int, name: str, *device: int | None
) -> Place:
  if index >= count:
    raise InputError(
      f"{name}: expected less than the number of processes {count}, came "
      f"{index}; the first is 0"
    )
  return Place(host, port, count, index, *device)
