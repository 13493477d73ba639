"""Which process this is, as flags and environments say."""

import pytest

from ptlr_jax.runtime import cluster
from ptlr_jax.runtime.cluster import Place
from ptlr_jax.runtime.errors import InputError

JAX = {"JAX_COORDINATOR_ADDRESS": "a:1234", "JAX_NUM_PROCESSES": "2"}
FLAGS = {"coordinator": "f:99", "num_processes": "3", "process_id": "2"}
STEP = {  # two nodes, a task each
  "SLURM_JOB_ID": "1234",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
  "SLURM_STEP_NUM_TASKS": "2",
  "SLURM_STEP_NUM_NODES": "2",
  "SLURM_STEP_NODELIST": "gpu[03-04]",
  "SLURM_LOCALID": "0",
}
ONE_NODE = {**STEP, "SLURM_STEP_NUM_NODES": "1", "SLURM_LOCALID": "1"}
MPI = {
  "OMPI_COMM_WORLD_SIZE": "4",
  "OMPI_COMM_WORLD_RANK": "3",
  "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
  "OMPI_COMM_WORLD_LOCAL_RANK": "3",
  "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
MPI_5 = {k: v for k, v in MPI.items() if "hnp" not in k}
ADDRESS = {"JAX_COORDINATOR_ADDRESS": "a:1234"}

PLACES = {
  "nothing": ({}, None),
  "a process's number of JAX": (
    {**JAX, "JAX_PROCESS_ID": "1"},
    Place(2, "a:1234", 1),
  ),
  "an Indexed Job": (
    {**JAX, "JOB_COMPLETION_INDEX": "1"},
    Place(2, "a:1234", 1),
  ),
  "the number of JAX before the Job's": (
    {**JAX, "JAX_PROCESS_ID": "0", "JOB_COMPLETION_INDEX": "1"},
    Place(2, "a:1234", 0),
  ),
  "an Indexed Job of strangers": ({"JOB_COMPLETION_INDEX": "7"}, None),
  "a group of one within a step": (
    {**STEP, **JAX, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
    None,
  ),
  "IPv6": (
    {**JAX, "JAX_COORDINATOR_ADDRESS": "[fd00::2]:5", "JAX_PROCESS_ID": "1"},
    Place(2, "[fd00::2]:5", 1),
  ),
  "JAX before SLURM": (
    {**STEP, **JAX, "JAX_PROCESS_ID": "0"},
    Place(2, "a:1234", 0),
  ),
  "a SLURM step, a task a node": (STEP, Place(2, cluster="slurm", devices=())),
  "a SLURM step of one": ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, None),
  "a batch script of two tasks": (
    {k: v for k, v in STEP.items() if "STEP" not in k},
    None,
  ),
  "two tasks a node": (ONE_NODE, Place(2, cluster="slurm")),
  "two tasks a node that see all": (
    {**ONE_NODE, "CUDA_VISIBLE_DEVICES": "0,1"},
    Place(2, cluster="slurm"),
  ),
  "two tasks a node with one device each": (
    {**ONE_NODE, "CUDA_VISIBLE_DEVICES": "1"},
    Place(2, cluster="slurm", devices=()),
  ),
  "devices that the user names": (
    {**STEP, "JAX_LOCAL_DEVICE_IDS": "0,1"},
    Place(2, cluster="slurm"),
  ),
  "Open MPI": (MPI, Place(4, cluster="ompi")),
  "Open MPI, a process a host": (
    {**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
    Place(4, cluster="ompi", devices=()),
  ),
  "Open MPI of one": ({**MPI, "OMPI_COMM_WORLD_SIZE": "1"}, None),
  "Open MPI with an address": (
    {**MPI, **ADDRESS},
    Place(4, "a:1234", 3, devices=(3,)),
  ),
  "Open MPI 5 with an address and a device each": (
    {**MPI_5, **ADDRESS, "CUDA_VISIBLE_DEVICES": "2"},
    Place(4, "a:1234", 3, devices=()),
  ),
  "SLURM before Open MPI": (
    {**MPI, **STEP},
    Place(2, cluster="slurm", devices=()),
  ),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_is_as_the_environment_says(name):
  environment, expected = PLACES[name]
  assert cluster.place(environment) == expected
  assert cluster.place(environment, cluster.FLAGS) == expected
  assert cluster.place(environment, FLAGS) == Place(3, "f:99", 2)


def _line(environment, flags=None):
  with pytest.raises(InputError) as error:
    cluster.place(environment, flags)
  (line,) = error.value.lines
  return line


ALL_OF_JAX = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"
REFUSED = {
  "JAX_PROCESS_ID: expected beside JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, "
  f"got nothing; give all of {ALL_OF_JAX}, or none for a single process": JAX,
  "JAX_NUM_PROCESSES, JAX_PROCESS_ID: expected beside JAX_COORDINATOR_ADDRESS, "
  f"got nothing; give all of {ALL_OF_JAX}, or none for a single process": (
    ADDRESS
  ),
  "JAX_COORDINATOR_ADDRESS: expected beside JAX_NUM_PROCESSES, "
  "JOB_COMPLETION_INDEX, got nothing; give all of JAX_COORDINATOR_ADDRESS, "
  "JAX_NUM_PROCESSES, JOB_COMPLETION_INDEX, or none for a single process": {
    "JAX_NUM_PROCESSES": "2",
    "JOB_COMPLETION_INDEX": "0",
  },
  "JAX_NUM_PROCESSES: expected a number from 0 on, got 'two'": {
    **JAX,
    "JAX_NUM_PROCESSES": "two",
    "JAX_PROCESS_ID": "0",
  },
  "JAX_PROCESS_ID: expected a number from 0 on, got '-1'": {
    **JAX,
    "JAX_PROCESS_ID": "-1",
  },
  "JOB_COMPLETION_INDEX: expected less than the number of processes 2, got 5; "
  "the first is 0": {**JAX, "JOB_COMPLETION_INDEX": "5"},
  "SLURM_STEP_NUM_TASKS: expected a number from 0 on, got 'x'": {
    **STEP,
    "SLURM_STEP_NUM_TASKS": "x",
  },
  "JAX_COORDINATOR_ADDRESS: expected HOST:PORT of process 0, as this Open MPI "
  "does not say where that is, got none; mpirun -x "
  "JAX_COORDINATOR_ADDRESS=HOST:PORT": MPI_5,
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_incomplete_or_wrong_is_named(line):
  assert _line(REFUSED[line]) == line


@pytest.mark.parametrize(
  "address", ["a", "a:", ":1", "a:b", "a:0", "a:65536", "a:-1", "[::1]"]
)
def test_an_address_needs_host_and_port(address):
  environment = {
    **JAX,
    "JAX_COORDINATOR_ADDRESS": address,
    "JAX_PROCESS_ID": "0",
  }
  assert _line(environment) == (
    f"JAX_COORDINATOR_ADDRESS: expected HOST:PORT of process 0, got {address!r}"
  )


@pytest.mark.parametrize("missing", sorted(FLAGS))
def test_flags_come_all_or_none(missing):
  line = _line(STEP, {**FLAGS, missing: ""})
  assert line.startswith(f"--{missing}: expected beside --")
  assert line.endswith(
    "got nothing; give all of --coordinator, --num_processes, --process_id, "
    "or none for a single process"
  )
