"""Batches and parameters on the devices of one and of several processes."""

import os
import subprocess
import sys

import pytest
from tiny_config import ROOT, free_port

from ptlr_jax.runtime import mesh
from ptlr_jax.runtime.errors import InputError

# What each of two processes of four devices does; its number is the argument.
WORK = """
import sys
from ptlr_jax.runtime import cluster
from ptlr_jax.runtime import processes

number, port = map(int, sys.argv[1:])
with processes.joined(cluster.Place(2, f"127.0.0.1:{port}", number)):
  import jax
  import numpy as np
  from ptlr_jax.runtime import mesh

  all_ = mesh.run_devices(0)
  assert (all_.count, all_.processes, all_.own().count) == (8, 2, 4)
  some = mesh.run_devices(3)
  assert (some.count, some.processes, some.own().count) == (6, 2, 3)

  rows = np.arange(16.0).reshape(8, 2)
  batch = {"x": 100 * number + rows, "t": np.float32(7)}
  put = all_.put(batch, common=["t"])
  assert put["x"].shape == (16, 2) and put["t"].shape == ()
  whole = jax.jit(lambda x: x, out_shardings=all_.everywhere)(put["x"])
  expected = np.concatenate([rows, 100 + rows])
  assert (all_.owned(whole) == expected).all()
  for shard in put["x"].addressable_shards:
    assert shard.data.shape == (2, 2)
    assert (np.asarray(shard.data) == expected[shard.index]).all()
  along = all_.put({"x": batch["x"].T}, axis=1)["x"]
  assert along.shape == (2, 16)

  key = all_.copied(jax.random.key(3))
  here = all_.owned(jax.random.key_data(key))
  assert (here == jax.random.key_data(jax.random.key(3))).all()
  assert {d.process_index for d in here.devices()} == {number}
  total = jax.jit(lambda x: x.sum(), out_shardings=all_.everywhere)(put["x"])
  assert float(total) == expected.sum()
"""


def test_rows_lie_in_the_order_of_processes_and_devices():
  flags = os.environ.get("XLA_FLAGS", "")
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4",
    "PYTHONPATH": str(ROOT),
  }
  port = str(free_port())
  started = [
    subprocess.Popen(
      [sys.executable, "-c", WORK, str(number), port],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  said = [process.communicate(timeout=600)[1] for process in started]
  assert [process.returncode for process in started] == [0, 0], said


def test_more_devices_than_there_are_is_a_line():
  with pytest.raises(InputError) as caught:
    mesh.run_devices(99)
  (line,) = str(caught.value).splitlines()
  assert line.startswith("--config.devices=99: expected at most the ")
  assert "cpu devices of a process, give fewer, or 0 for all" in line


def test_one_device_is_a_mesh_of_one():
  one = mesh.run_devices(1)
  assert (one.count, one.processes, one.own()) == (1, 1, one)
