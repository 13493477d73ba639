"""Whether this process is one of several, as its environment says."""

from collections.abc import Mapping
from typing import NamedTuple

from ptlr_jax.runtime.errors import InputError

FLAGS = {"coordinator": "", "num_processes": "", "process_id": ""}
ADDRESS, COUNT = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"
COMPLETION = "JOB_COMPLETION_INDEX"  # an Indexed Job's, also below a JobSet


class Place(NamedTuple):
  """A process among `count`, in the words of `jax.distributed.initialize`.

  coordinator: HOST:PORT of process 0. index: of this process. cluster: by which
  of JAX's methods it finds these two by itself. devices: those of this host
  that are its own, () for all that it sees, None for JAX's choice.
  """

  count: int
  coordinator: str | None = None
  index: int | None = None
  cluster: str = "deactivate"
  devices: tuple[int, ...] | None = None


def place(
  environment: Mapping[str, str], flags: Mapping[str, str] | None = None
) -> Place | None:
  """Where this process is among several, or None where it is alone.

  Asked in this order: flags (`FLAGS`); JAX_COORDINATOR_ADDRESS with
  JAX_NUM_PROCESSES and JAX_PROCESS_ID, or in a Kubernetes Indexed Job
  JOB_COMPLETION_INDEX; the step of a SLURM job; Open MPI. The last two take a
  JAX_COORDINATOR_ADDRESS in place of what JAX finds.

  Raises:
    InputError: what is said is incomplete, or contradicts itself.
  """
  said = {f"--{name}": (flags or {}).get(name, "") for name in FLAGS}
  if any(said.values()):
    return _given(said)
  if any(environment.get(name) for name in (COUNT, INDEX)):
    job = INDEX not in environment and COMPLETION in environment
    return _named(environment, ADDRESS, COUNT, COMPLETION if job else INDEX)
  # Not SLURM_NTASKS, which the batch script has too, in which no step runs.
  if _several(environment, "SLURM_STEP_NUM_TASKS"):
    count = _number(environment["SLURM_STEP_NUM_TASKS"], "SLURM_STEP_NUM_TASKS")
    alone = environment.get("SLURM_STEP_NUM_NODES") == str(count)
    return Place(count, cluster="slurm", devices=_devices(environment, alone))
  if _several(environment, "OMPI_COMM_WORLD_SIZE"):
    return _of_open_mpi(environment)
  if environment.get(ADDRESS):
    return _named(environment, ADDRESS, COUNT, INDEX)
  return None


def _of_open_mpi(environment: Mapping[str, str]) -> Place | None:
  size, rank = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"
  alone = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
  devices = _devices(environment, alone)
  if environment.get(ADDRESS):
    found = _named(environment, ADDRESS, size, rank)
    own = _number(environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"), rank)
    return found and found._replace(
      devices=(own,) if devices is None else devices
    )
  if "OMPI_MCA_orte_hnp_uri" not in environment:  # from version 5 on
    raise InputError(
      f"{ADDRESS}: expected HOST:PORT of process 0, as this Open MPI does not "
      f"say where that is, got none; mpirun -x {ADDRESS}=HOST:PORT"
    )
  count = _number(environment[size], size)
  return Place(count, cluster="ompi", devices=devices)


def _several(environment: Mapping[str, str], name: str) -> bool:
  return environment.get(name, "1") != "1"


def _devices(
  environment: Mapping[str, str], alone: bool
) -> tuple[int, ...] | None:
  """All that it sees, of a process that is alone on its host or has been given
  a device of its own; else JAX's choice, the one of its number."""
  if "JAX_LOCAL_DEVICE_IDS" in environment:
    return None
  seen = environment.get("CUDA_VISIBLE_DEVICES")
  return () if alone or (seen is not None and "," not in seen) else None


def _named(environment: Mapping[str, str], *names: str) -> Place | None:
  return _given({name: environment.get(name, "") for name in names})


def _given(said: Mapping[str, str]) -> Place | None:
  """Of an address, a count and an index, which come all or not at all."""
  if missing := [name for name, value in said.items() if not value]:
    raise InputError(
      f"{', '.join(missing)}: expected beside "
      f"{', '.join(sorted(said.keys() - set(missing)))}, got nothing; give "
      f"all of {', '.join(said)}, or none for a single process"
    )
  address, count, index = said
  host, _, port = said[address].rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise InputError(
      f"{address}: expected HOST:PORT of process 0, got {said[address]!r}"
    )
  found = Place(
    _number(said[count], count), said[address], _number(said[index], index)
  )
  if (found.index or 0) >= found.count:
    raise InputError(
      f"{index}: expected less than the number of processes {found.count}, got "
      f"{found.index}; the first is 0"
    )
  return found if found.count > 1 else None


def _number(text: str, name: str) -> int:
  if not text.isdecimal():
    raise InputError(f"{name}: expected a number from 0 on, got {text!r}")
  return int(text)
