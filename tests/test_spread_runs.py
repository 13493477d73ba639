"""Whole runs on one device, several devices and several processes: the same
results, also where a process ends in between and others go on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_config import ROOT, free_port

from ptlr_jax.io import checkpoints, storage

CONFIG = ROOT / "tests" / "spread_config.py"
NETWORKS = ("ilg", "ots-1", "rts-1")
NEAR = 1e-5  # parameters after 12 updates
DEADLINE = 3600  # seconds; only what hangs needs them

# One of two gets a signal in the training of a phase, after a checkpoint; how
# slow the machine is makes no difference.
SIGNALLED = """
import os
from ptlr_jax import main
from ptlr_jax.runtime import processes, signals
from ptlr_jax.training.trainer import Trainer

signals.GRACE = 3600
batches = Trainer.batches

def signalled(self, start):
  batch_at = batches(self, start)
  def of(i):
    if (processes.index(), self.phase.name, i) == {moment!r}:
      os.kill(os.getpid(), {number})
    return batch_at(i)
  return of

Trainer.batches = signalled
main.main()
"""


class Ended(NamedTuple):
  """How a process ended."""

  status: int
  out: str
  err: str


def _environment(cache: Path, devices: int) -> dict[str, str]:
  flags = os.environ.get("XLA_FLAGS", "")
  return {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "PYTHONPATH": str(ROOT),
  }


def _begin(workdir, cache, *more, processes=1, devices=1, code=""):
  """Starts the processes of a run, or of `code` in its place."""
  what = ["-c", code] if code else ["-m", "ptlr_jax.main"]
  address = f"127.0.0.1:{free_port()}"
  started = []
  for i in range(processes):
    place = [f"--coordinator={address}", f"--process_id={i}"]
    place += [f"--num_processes={processes}"]
    command = [sys.executable, *what, f"--config={CONFIG}"]
    command += [f"--workdir={workdir}", *more]
    started.append(
      subprocess.Popen(
        command + (place if processes > 1 else []),
        cwd=ROOT,
        env=_environment(cache, devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return started


def _end(started) -> list[Ended]:
  said = [process.communicate(timeout=DEADLINE) for process in started]
  return [Ended(p.returncode, *s) for p, s in zip(started, said, strict=True)]


def _run(workdir, cache, *more, **where) -> Path:
  """Runs to the end."""
  ended = _end(_begin(workdir, cache, *more, **where))
  assert [one.status for one in ended] == [0] * len(ended), ended
  return workdir


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
  """The run of one process on one device."""
  return _run(tmp_path_factory.mktemp("alone") / "run", cache)


def _parameters(workdir, name):
  path = (workdir / "checkpoints" / name / storage.FINAL).absolute()
  with ocp.StandardCheckpointer() as checkpointer:
    shapes = checkpointer.metadata(path).item_metadata
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
      shapes,
      is_leaf=lambda x: hasattr(x, "dtype"),
    )
    return jax.tree.leaves(checkpointer.restore(path, like))


def _assert_alike(workdir, other):
  for name in NETWORKS:
    pairs = zip(
      _parameters(workdir, name), _parameters(other, name), strict=True
    )
    assert max(np.abs(a - b).max() for a, b in pairs) < NEAR, name
  found = [
    json.loads((path / "metrics.json").read_text())["stages"]
    for path in (workdir, other)
  ]
  assert found[0].keys() == found[1].keys()
  for row, values in found[0].items():
    assert values["mAP"] == pytest.approx(found[1][row]["mAP"], abs=1e-3)
  ids = [
    list(json.loads((path / "detections.json").read_text())["results"])
    for path in (workdir, other)
  ]
  assert ids[0] == ids[1]


def _assert_same_bits(workdir, other):
  for name in NETWORKS:
    pairs = zip(
      _parameters(workdir, name), _parameters(other, name), strict=True
    )
    assert all(np.array_equal(a, b) for a, b in pairs), name
  names = ["detections.json", "detections/ilg.json"]
  names += [f"labels/{p.name}" for p in (workdir / "labels").glob("*.npz")]
  assert len(names) > len(NETWORKS)
  for name in names:
    assert (workdir / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def pair(tmp_path_factory, cache):
  """The run of two processes."""
  workdir = tmp_path_factory.mktemp("pair") / "run"
  return _run(workdir, cache, processes=2)


def test_two_processes_come_to_what_one_does(pair, alone):
  _assert_alike(pair, alone)
  names = {p.name for p in (pair / "labels").glob("labels-0*")}
  assert names == {f"labels-0-{k:05d}-of-00004.npz" for k in range(4)}


@pytest.fixture(scope="module")
def eight(tmp_path_factory, cache):
  """The run of eight devices of one process."""
  workdir = tmp_path_factory.mktemp("eight") / "run"
  return _run(workdir, cache, devices=8)


def test_eight_devices_come_to_what_one_does(eight, alone):
  _assert_alike(eight, alone)


def test_eight_devices_train_a_network_twice_to_the_same_bits(
  eight, tmp_path, cache
):
  again = shutil.copytree(eight, tmp_path / "again")
  shutil.rmtree(again / "checkpoints" / "rts-1")
  made_of_it = [*(again / "labels").glob("labels-1-rts*")]
  assert len(made_of_it) == 4
  for path in (*made_of_it, again / "detections.json", again / "metrics.json"):
    path.unlink()
  _assert_same_bits(_run(again, cache, devices=8), eight)


def _stop(workdir, cache, which, number, phase):
  """Two processes, of which one gets a signal in the training of a phase."""
  code = SIGNALLED.format(moment=(which, phase, 6), number=int(number))
  return _end(_begin(workdir, cache, processes=2, code=code))


def _assert_left(ended, killed, workdir, phase):
  """The other process has ended too, and a checkpoint is there."""
  assert ended[killed].status == -signal.SIGKILL
  assert ended[1 - killed].status in (1, -signal.SIGABRT)
  assert checkpoints.sound_steps(workdir / "checkpoints" / phase)


def _assert_stopped(ended, workdir):
  """All saved at the same step."""
  assert [one.status for one in ended] == [143, 143]
  steps = {re.findall(r"is saved at step (\d+)", one.err)[0] for one in ended}
  assert len(steps) == 1
  assert not (workdir / ".lock").exists()


@pytest.fixture(scope="module")
def killed(tmp_path_factory, cache):
  """What two processes leave of which one gets a signal in the first phase,
  then process 0 is killed in the last."""
  workdir = tmp_path_factory.mktemp("killed") / "run"
  _assert_stopped(_stop(workdir, cache, 1, signal.SIGTERM, "ilg"), workdir)
  ended = _stop(workdir, cache, 0, signal.SIGKILL, "rts-1")
  _assert_left(ended, 0, workdir, "rts-1")
  return workdir


def test_a_signal_and_the_death_of_process_0_leave_no_trace(
  killed, pair, tmp_path, cache
):
  workdir = shutil.copytree(killed, tmp_path / "run")
  _assert_same_bits(_run(workdir, cache, processes=2), pair)


def test_where_processes_were_killed_eight_devices_of_one_go_on(
  killed, alone, tmp_path, cache
):
  workdir = shutil.copytree(killed, tmp_path / "run")
  _assert_alike(_run(workdir, cache, devices=8), alone)


def test_what_cannot_be_spread_is_a_line(tmp_path, cache):
  size = "--config.ilg.batch_size=6"
  whole = "--config.data.parts=1"
  (ended,) = _end(_begin(tmp_path, cache, size, whole, devices=4))
  assert ended.status == 2
  (line,) = ended.err.splitlines()
  assert "--config.ilg.batch_size=6: expected a multiple of the 4 dev" in line
  assert "give 8, or fewer devices" in line


def test_processes_with_other_settings_are_refused(tmp_path, cache):
  address = f"--coordinator=127.0.0.1:{free_port()}"
  started = []
  for i in range(2):
    more = (address, "--num_processes=2", f"--process_id={i}")
    seed = f"--config.seed={i}"
    started += _begin(tmp_path, cache, seed, *more)
  first, second = _end(started)
  assert first.status == 2
  assert second.status
  assert "expected the configuration of process 0" in first.err
