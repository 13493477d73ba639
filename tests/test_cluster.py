"""Which process this is, as flags and environments say."""

import pytest

from ptlr_jax.runtime import cluster
from ptlr_jax.runtime.cluster import Place
from ptlr_jax.runtime.errors import InputError

JAX = {"JAX_COORDINATOR_ADDRESS": "a:1234", "JAX_NUM_PROCESSES": "2"}
FLAGS = {"coordinator": "f:99", "num_processes": "3", "process_id": "2"}
STEP = {
  "SLURM_JOB_ID": "1234",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
  "SLURM_STEP_NUM_TASKS": "2",
  "SLURM_STEP_NODELIST": "gpu[03-04]",
  "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
  "SLURM_LOCALID": "0",
  "SLURM_NODEID": "1",
}
ONE_NODE = {
  **STEP,
  "SLURM_STEP_NODELIST": "gpu03",
  "SLURM_STEP_TASKS_PER_NODE": "2",
  "SLURM_LOCALID": "1",
  "SLURM_NODEID": "0",
}
UNEVEN = {
  **STEP,
  "SLURM_STEP_NUM_TASKS": "4",
  "SLURM_PROCID": "3",
  "SLURM_STEP_TASKS_PER_NODE": "1,3",
  "SLURM_LOCALID": "2",
}
MPI = {
  "OMPI_COMM_WORLD_SIZE": "4",
  "OMPI_COMM_WORLD_RANK": "3",
  "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
  "OMPI_COMM_WORLD_LOCAL_RANK": "3",
  "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
HOSTS = {
  **MPI,
  "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
  "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
PMIX = {k: v for k, v in MPI.items() if "hnp" not in k} | {
  "PMIX_SERVER_URI41": "prterun-a-host-4711@0.0;tcp4://127.0.0.1:40241"
}


def _slurm(index=1, count=2, device=None):
  return Place("gpu03", cluster._port(1234), count, index, device)


def _mpi(host, device, job=1531576320):
  return Place(host, cluster._port(job), 4, 3, device)


def _with(environment, **more):
  return {**environment, **more}


def _without(environment, *names):
  return {k: v for k, v in environment.items() if k not in names}


PLACES = {
  "nothing": ({}, None),
  "a process's number of JAX": (
    _with(JAX, JAX_PROCESS_ID="1"),
    Place("a", 1234, 2, 1),
  ),
  "an Indexed Job": (
    _with(JAX, JOB_COMPLETION_INDEX="1"),
    Place("a", 1234, 2, 1),
  ),
  "the number of JAX before the Job's": (
    _with(JAX, JAX_PROCESS_ID="0", JOB_COMPLETION_INDEX="1"),
    Place("a", 1234, 2, 0),
  ),
  "an Indexed Job of strangers": ({"JOB_COMPLETION_INDEX": "7"}, None),
  "a group of one": (
    _with(JAX, JAX_NUM_PROCESSES="1", JAX_PROCESS_ID="0"),
    None,
  ),
  "a group of one within a step": (
    _with(STEP, **JAX, JAX_PROCESS_ID="0") | {"JAX_NUM_PROCESSES": "1"},
    None,
  ),
  "IPv6": (
    _with(JAX, JAX_COORDINATOR_ADDRESS="[fd00::2]:5", JAX_PROCESS_ID="1"),
    Place("fd00::2", 5, 2, 1),
  ),
  "JAX before SLURM": (
    _with(STEP, **JAX, JAX_PROCESS_ID="0"),
    Place("a", 1234, 2, 0),
  ),
  "a SLURM step": (STEP, _slurm()),
  "a SLURM step of one": (
    _with(STEP, SLURM_STEP_NUM_TASKS="1", SLURM_PROCID="0"),
    None,
  ),
  "a batch script of two tasks": (
    {k: v for k, v in STEP.items() if "STEP" not in k},
    None,
  ),
  "two tasks a node": (ONE_NODE, _slurm(device=1)),
  "two tasks a node that see all": (
    _with(ONE_NODE, CUDA_VISIBLE_DEVICES="0,1"),
    _slurm(device=1),
  ),
  "two tasks a node with one device each": (
    _with(ONE_NODE, CUDA_VISIBLE_DEVICES="1"),
    _slurm(),
  ),
  "two tasks a node without devices": (
    _with(ONE_NODE, CUDA_VISIBLE_DEVICES=""),
    _slurm(),
  ),
  "one task a node that sees all": (
    _with(STEP, CUDA_VISIBLE_DEVICES="0,1,2,3"),
    _slurm(),
  ),
  "three tasks on the second node": (UNEVEN, _slurm(3, 4, device=2)),
  "one task on the first node": (
    _with(UNEVEN, SLURM_PROCID="0", SLURM_NODEID="0", SLURM_LOCALID="0"),
    _slurm(0, 4),
  ),
  "Open MPI on one host": (MPI, _mpi("127.0.0.1", 3)),
  "Open MPI on two hosts": (HOSTS, _mpi("10.96.0.1", 1)),
  "Open MPI with a device each": (
    _with(MPI, CUDA_VISIBLE_DEVICES="2"),
    _mpi("127.0.0.1", None),
  ),
  "Open MPI of one": (_with(MPI, OMPI_COMM_WORLD_SIZE="1"), None),
  "Open MPI 5 on one host": (PMIX, _mpi("127.0.0.1", 3, 4711)),
  "SLURM before Open MPI": (_with(MPI, **STEP), _slurm()),
  "mpirun within a batch script": (
    _with(MPI, SLURM_NTASKS="4", SLURM_JOB_ID="7"),
    _mpi("127.0.0.1", 3),
  ),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_is_as_the_environment_says(name):
  environment, expected = PLACES[name]
  assert cluster.place(environment) == expected


@pytest.mark.parametrize("name", PLACES)
def test_flags_come_before_every_environment(name):
  found = cluster.place(PLACES[name][0], FLAGS)
  assert found == Place("f", 99, 3, 2)


def test_flags_that_are_not_given_say_nothing():
  assert cluster.place(STEP, cluster.FLAGS) == _slurm()
  assert cluster.place({}, cluster.FLAGS) is None


def test_processes_of_a_job_have_the_same_port_and_others_another():
  ports = {cluster._port(job) for job in range(5000)}
  assert len(ports) == 5000
  assert min(ports) > 1023
  assert max(ports) < 65536


NODES = {
  "gpu03": "gpu03",
  "a1,b2": "a1",
  "n[001-004,7],m": "n001",
  "n[3,5]": "n3",
  "n[3]": "n3",
  "m,n[3,5]": "m",
  "rack[1-2]n5": "rack1n5",
  "rack[1-2]n[05-06,8],x": "rack1n05",
  "cn-[12-13].cluster.org,cn-20": "cn-12.cluster.org",
  "a-b-c": "a-b-c",
}


@pytest.mark.parametrize("nodes", NODES)
def test_the_first_node_of_a_list(nodes):
  assert cluster.first_node(nodes) == NODES[nodes]


def _line(environment, flags=None):
  with pytest.raises(InputError) as error:
    cluster.place(environment, flags)
  (line,) = error.value.lines
  return line


ALL_OF_JAX = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"
REFUSED = {
  "JAX_PROCESS_ID: expected beside JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, "
  f"came nothing; give all of {ALL_OF_JAX}, or none for a single process": JAX,
  "JAX_COORDINATOR_ADDRESS: expected beside JAX_NUM_PROCESSES, "
  f"JAX_PROCESS_ID, came nothing; give all of {ALL_OF_JAX}, or none for a "
  "single process": {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
  "JAX_COORDINATOR_ADDRESS: expected beside JAX_NUM_PROCESSES, "
  "JOB_COMPLETION_INDEX, came nothing; give all of JAX_COORDINATOR_ADDRESS, "
  "JAX_NUM_PROCESSES, JOB_COMPLETION_INDEX, or none for a single process": {
    "JAX_NUM_PROCESSES": "2",
    "JOB_COMPLETION_INDEX": "0",
  },
  "JAX_NUM_PROCESSES: expected a number from 0 on, came 'two'": _with(
    JAX, JAX_NUM_PROCESSES="two", JAX_PROCESS_ID="0"
  ),
  "JAX_PROCESS_ID: expected a number from 0 on, came '-1'": _with(
    JAX, JAX_PROCESS_ID="-1"
  ),
  "JAX_PROCESS_ID: expected less than the number of processes 2, came 2; the "
  "first is 0": _with(JAX, JAX_PROCESS_ID="2"),
  "JOB_COMPLETION_INDEX: expected less than the number of processes 2, came 5; "
  "the first is 0": _with(JAX, JOB_COMPLETION_INDEX="5"),
  "SLURM_PROCID, SLURM_STEP_NODELIST: expected in the step of a SLURM job, "
  "came nothing; start the processes by srun": _without(
    STEP, "SLURM_PROCID", "SLURM_STEP_NODELIST"
  ),
  "SLURM_STEP_NUM_TASKS: expected a number from 0 on, came 'x'": _with(
    STEP, SLURM_STEP_NUM_TASKS="x"
  ),
  "SLURM_JOB_ID: expected a number from 0 on, came '1_2'": _with(
    STEP, SLURM_JOB_ID="1_2"
  ),
  "SLURM_PROCID: expected less than the number of processes 2, came 2; the "
  "first is 0": _with(STEP, SLURM_PROCID="2"),
  "OMPI_COMM_WORLD_RANK: expected a number from 0 on, came ''": _without(
    MPI, "OMPI_COMM_WORLD_RANK"
  ),
  "OMPI_COMM_WORLD_RANK: expected less than the number of processes 4, came 4; "
  "the first is 0": _with(MPI, OMPI_COMM_WORLD_RANK="4"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_incomplete_or_wrong_is_named(line):
  assert _line(REFUSED[line]) == line


@pytest.mark.parametrize(
  "address", ["a", "a:", ":1", "a:b", "a:0", "a:65536", "a:-1", "[::1]"]
)
def test_an_address_needs_host_and_port(address):
  environment = _with(JAX, JAX_COORDINATOR_ADDRESS=address, JAX_PROCESS_ID="0")
  assert _line(environment) == (
    "JAX_COORDINATOR_ADDRESS: expected HOST:PORT of process 0, came "
    f"{address!r}"
  )


@pytest.mark.parametrize("missing", sorted(FLAGS))
def test_flags_come_all_or_none(missing):
  line = _line(STEP, {**FLAGS, missing: ""})
  assert line.startswith(f"--{missing}: expected beside --")
  assert line.endswith(
    "came nothing; give all of --coordinator, --num_processes, --process_id, "
    "or none for a single process"
  )


def test_flags_that_are_wrong_are_named():
  line = _line({}, {**FLAGS, "process_id": "3"})
  assert line.startswith("--process_id: expected less than the number of ")
  line = _line({}, {**FLAGS, "num_processes": "3.0"})
  assert line == "--num_processes: expected a number from 0 on, came '3.0'"
  line = _line({}, {**FLAGS, "coordinator": "host"})
  assert line.startswith("--coordinator: expected HOST:PORT of process 0, ")


@pytest.mark.parametrize(
  "environment",
  [
    _without(HOSTS, "OMPI_MCA_orte_hnp_uri"),
    _without(MPI, "OMPI_MCA_orte_hnp_uri"),
    _with(PMIX, OMPI_COMM_WORLD_LOCAL_SIZE="2"),  # it names the host it is on
  ],
)
def test_where_open_mpi_names_no_host_the_address_is_asked_for(environment):
  assert _line(environment) == (
    "JAX_COORDINATOR_ADDRESS: expected HOST:PORT of process 0, as Open MPI "
    "does not say where that is, came nothing; mpirun -x "
    "JAX_COORDINATOR_ADDRESS=HOST:PORT"
  )
