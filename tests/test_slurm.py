"""launch/slurm.sbatch in a real SLURM, of two nodes on this host."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_config
from tiny_config import ROOT

from ptlr_jax.runtime import cluster

SCRIPT = ROOT / "launch/slurm.sbatch"
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")

# In the place of Python: notes what it was given; once queued anew it is done
# at once, before it waits as $DO says, and takes a second to end by SIGTERM.
STUB = """#!/bin/bash
began=${SLURM_RESTART_COUNT:-0}
here=$NOTES/$SLURM_JOB_ID.${SLURM_PROCID:-none}.$began
trap 'sleep 1; touch "$here.saved"; exit 143' TERM
printf '%s\\n' "$@" >"$here.args"
env -0 >"$here.env"
echo "start $began of task $SLURM_PROCID"
touch "$here.began"
((began == 0)) || exit 0
case $DO in
  wait) until [[ -e $NOTES/go ]]; do sleep 0.2; done ;;
  fail)
    ((SLURM_PROCID == 0)) || exit 1
    # SLURM would have ended this task by now.
    for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; done
    exit 1
    ;;
esac
"""

# A run of few programs, see tests/tiny_config.py.
SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.networks=('ots',)"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ptlr.stages=1"),
  *("--config.detect.sources=('ots',)", "--config.ilg.steps=60"),
)


def _wait(true: Callable[[], Any], seconds: float, what: str) -> None:
  deadline = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < deadline, what
    time.sleep(0.1)


class Slurm(NamedTuple):
  """A cluster to send jobs to; `directory` is for what they leave."""

  conf: str
  directory: Path

  def call(self, *command: str, **environment: str) -> str:
    """What a command of SLURM's prints."""
    ours = re.compile("(SLURM|SBATCH|SRUN)_")  # of a job that runs the tests
    kept = {k: v for k, v in os.environ.items() if not ours.match(k)}
    return subprocess.run(
      command,
      cwd=ROOT,
      env={**kept, "SLURM_CONF": self.conf, **environment},
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    ).stdout

  def send(self, *options: str, name: str, do: str, **environment: str) -> str:
    """Sends a job in which the stub stands for Python; returns its number."""
    notes = self.directory / name
    notes.mkdir()
    given = [] if any(o.startswith("--wrap") for o in options) else [SCRIPT]
    arguments = ["--config=C", "--workdir=W"] if given else []
    return self.call(
      *("sbatch", "--parsable", f"--output={notes}/log-%a", *options),
      *map(str, given),
      *arguments,
      PYTHON=str(self.directory / "stub"),
      NOTES=str(notes),
      DO=do,
    ).strip()

  def records(self, job: str) -> list[dict[str, str]]:
    """What SLURM says of a job, or of each of an array."""
    lines = self.call("scontrol", "show", "job", "--oneliner", job)
    return [
      dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines.splitlines()
    ]

  def ended(self, job: str, seconds: float = 600) -> dict[str, str]:
    """What it says of a job at its end."""

    def is_over() -> bool:
      return self.records(job)[0]["JobState"] in OVER

    _wait(is_over, seconds, f"job {job} is not over")
    return self.records(job)[0]

  def notes(self, name: str, ending: str) -> dict[str, str]:
    """{"TASK.START": text} of what the stub noted with that ending."""
    return {
      path.name.partition(".")[2].removesuffix(f".{ending}"): path.read_text()
      for path in sorted((self.directory / name).glob(f"*.{ending}"))
    }

  def begun(self, name: str) -> None:
    """Waits until its two tasks run."""
    found = self.directory / name
    _wait(lambda: len([*found.glob("*.began")]) == 2, 600, f"{name} is waiting")

  def environments(self, name: str) -> list[dict[str, str]]:
    """The environments of its tasks, by task."""
    return [
      dict(line.split("=", 1) for line in text.split("\0") if line)
      for text in self.notes(name, "env").values()
    ]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
  """A SLURM of this file's own, see tests/slurm_cluster.sh."""
  path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
  if missing := [one for one in NEEDED if not shutil.which(one, path=path)]:
    pytest.skip(f"there is no {', '.join(missing)}; Debian: slurm-wlm, munge")
  if os.geteuid():
    pytest.skip("only root can start slurmd")
  # Not pytest's own: the path of a socket has to be short.
  with tempfile.TemporaryDirectory(prefix="slurm-") as temporary:
    directory = Path(temporary)
    stub = directory / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    said = directory / "said"
    with (
      said.open("w") as errors,
      subprocess.Popen(
        [
          *(
            "bash",
            str(ROOT / "tests/slurm_cluster.sh"),
            directory / "cluster",
          ),
          *("sh", "-c", 'echo "$SLURM_CONF"; exec cat'),
        ],
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
      ) as process,
    ):
      assert process.stdout
      assert process.stdin
      conf = process.stdout.readline().strip()
      if not conf:
        process.wait()
        pytest.skip(f"SLURM does not start here: {said.read_text().strip()}")
      yield Slurm(conf, directory)
      process.stdin.close()  # and it ends
      process.wait(600)
    assert said.read_text() == ""


@pytest.fixture(scope="module")
def jobs(slurm) -> dict[str, str]:
  """Sent at once, as all wait for SLURM, and none needs a processor."""
  two = "--nodes=2"
  of_batch = f"--wrap={slurm.directory}/stub"
  soon = ("--time=1", "--signal=TERM@50")  # SLURM looks twice a minute
  return {
    name: slurm.send(*options, name=name, do=do)
    for name, do, *options in (
      ("timed", "wait", two, *soon),
      ("requeued", "wait", two),
      ("array", "wait", "--array=3,5"),
      ("cancelled", "wait", two),
      ("printed", "print", two, "--cpus-per-task=2"),
      ("batch", "print", two, "--ntasks-per-node=1", of_batch),
      ("failed", "fail", two),
    )
  }


def test_a_job_that_is_queued_anew_saves_first_and_goes_on(slurm, jobs):
  slurm.begun("requeued")
  slurm.call("scontrol", "requeue", jobs["requeued"])
  record = slurm.ended(jobs["requeued"])
  assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1")
  assert list(slurm.notes("requeued", "saved")) == ["0.0", "1.0"]
  assert list(slurm.notes("requeued", "env")) == ["0.0", "0.1", "1.0", "1.1"]
  counts = [
    one.get("SLURM_RESTART_COUNT") for one in slurm.environments("requeued")
  ]
  assert counts == [None, "1", None, "1"]
  (log,) = (slurm.directory / "requeued").glob("log-*")
  lines = [line for line in log.read_text().splitlines() if "start" in line]
  assert sorted(lines) == [
    f"start {i} of task {t}" for i in (0, 1) for t in "01"
  ]


def test_one_seed_of_an_array_is_queued_anew_and_not_the_others(slurm, jobs):
  slurm.begun("array")
  records = {one["ArrayTaskId"]: one for one in slurm.records(jobs["array"])}
  assert sorted(records) == ["3", "5"]
  # The seed whose number in SLURM is that of the array too.
  (one,) = (s for s, r in records.items() if r["JobId"] == jobs["array"])
  (other,) = set(records) - {one}
  slurm.call("scancel", "--signal=TERM", f"{jobs['array']}_{one}")
  record = slurm.ended(f"{jobs['array']}_{one}")
  assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1")
  (slurm.directory / "array/go").touch()
  record = slurm.ended(f"{jobs['array']}_{other}")
  assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "0")
  for path in (slurm.directory / "array").glob("*.args"):
    seed = records[one if jobs["array"] in path.name else other]["ArrayTaskId"]
    assert path.read_text().split() == [
      *("-m", "ptlr_jax.main", "--config=C", "--workdir=W"),
      *(f"--config.seed={seed}", f"--workdir=W/seed-{seed}"),
    ]


def test_an_array_needs_a_workdir(slurm):
  done = subprocess.run(
    ["bash", SCRIPT, "--config=C", "--workdir", "W"],
    env={
      **os.environ,
      **{"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7"},
      **{"SLURM_ARRAY_TASK_ID": "0"},
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert "--workdir=DIR, with =" in done.stderr


def test_a_job_that_is_cancelled_saves_and_stays_so(slurm, jobs):
  slurm.begun("cancelled")
  slurm.call("scancel", jobs["cancelled"])
  record = slurm.ended(jobs["cancelled"])
  assert (record["JobState"], record["Restarts"]) == ("CANCELLED", "0")
  _wait(
    lambda: list(slurm.notes("cancelled", "saved")) == ["0.0", "1.0"],
    600,
    "the tasks were killed before they had saved",
  )


def test_a_job_that_fails_is_not_queued_anew(slurm, jobs):
  record = slurm.ended(jobs["failed"])
  assert (record["JobState"], record["Restarts"]) == ("FAILED", "0")
  assert record["ExitCode"] == "1:0"
  assert slurm.notes("failed", "saved") == {}


def test_processes_know_their_places(slurm, jobs):
  slurm.ended(jobs["printed"])
  tasks = slurm.environments("printed")
  places = [cluster.place(environment) for environment in tasks]
  assert places == [cluster.Place(2, cluster="slurm", devices=())] * 2
  for index, environment in enumerate(tasks):
    assert environment["SLURM_STEP_NODELIST"] == "127.0.0.[1-2]"
    assert environment["SLURM_STEP_NUM_TASKS"] == "2"
    assert environment["SLURM_STEP_NUM_NODES"] == "2"
    assert environment["SLURM_PROCID"] == str(index)
    assert environment["SLURM_LOCALID"] == "0"
    assert environment["SLURM_JOB_ID"] == jobs["printed"]
    assert environment["SLURM_CPUS_ON_NODE"] == "2"
  assert slurm.notes("printed", "args")["1.0"].split() == [
    *("-m", "ptlr_jax.main", "--config=C", "--workdir=W")
  ]


def test_a_batch_script_is_no_process_of_several(slurm, jobs):
  slurm.ended(jobs["batch"])
  (environment,) = slurm.environments("batch")
  assert environment["SLURM_NTASKS"] == "2"
  assert environment["SLURM_PROCID"] == "0"
  assert not [name for name in environment if name.startswith("SLURM_STEP")]
  assert cluster.place(environment) is None


def test_two_processes_and_a_requeue_end_like_one(slurm, jobs, cache):
  workdir = slurm.directory / "run"
  job = slurm.call(
    *("sbatch", "--parsable", "--nodes=2", f"--output={workdir}.log"),
    *(str(SCRIPT), f"--config={tiny_config.__file__}", f"--workdir={workdir}"),
    *SMALL,
    PYTHON=sys.executable,
    JAX_PLATFORMS="cpu",
    JAX_COMPILATION_CACHE_DIR=str(cache),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
  ).strip()

  def trains() -> bool:
    assert slurm.records(job)[0]["JobState"] not in OVER, _read(
      f"{workdir}.log"
    )
    return bool(_read(workdir / "metrics.jsonl"))

  _wait(trains, 1800, "no training began")
  slurm.call("scontrol", "requeue", job)
  alone = slurm.directory / "alone"
  done = tiny_config.start(alone, cache, *SMALL)
  assert done.returncode == 0, done.stderr
  record = slurm.ended(job, 1800)
  assert record["JobState"] == "COMPLETED", _read(f"{workdir}.log")
  assert record["Restarts"] == "1"
  ours, theirs = (
    json.loads(_read(d / "metrics.json")) for d in (workdir, alone)
  )
  for name, expected in theirs["mAP"].items():
    assert ours["mAP"][name] == pytest.approx(expected, abs=1e-3)
  ours, theirs = (
    json.loads(_read(d / "detections.json"))["results"]
    for d in (workdir, alone)
  )
  assert {v: len(found) for v, found in ours.items()} == {
    v: len(found) for v, found in theirs.items()
  }


def test_a_job_whose_time_is_up_saves_first_and_goes_on(slurm, jobs):
  record = slurm.ended(jobs["timed"])
  assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1")
  assert list(slurm.notes("timed", "saved")) == ["0.0", "1.0"]


def _read(path: str | Path) -> str:
  return Path(path).read_text() if Path(path).exists() else ""
