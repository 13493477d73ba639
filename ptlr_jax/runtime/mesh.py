"""The devices of a run: the mesh and its shardings, which are named here only.

Batches are spread over the axis `data`, row by row; parameters are on every
device. One device is a mesh of one. Training spans the devices of all
processes; what each predicts for itself spans its own.
"""

import functools
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import InputError


def device_info() -> dict[str, Any]:
  """What JAX computes on, and the flags that XLA is given."""
  devices = jax.devices()
  # A flag may name a folder.
  flags = os.environ.get("XLA_FLAGS", "").split()
  return {
    "platform": devices[0].platform,
    "kind": devices[0].device_kind,
    "count": len(devices),
    "processes": jax.process_count(),
    "runtime": " ".join(devices[0].client.platform_version.split()),
    "machine": platform.machine(),
    "xla_flags": [flag for flag in flags if "/" not in flag],
  }


AXIS = "data"


class Devices(NamedTuple):
  """Devices in a row, those of a process beside each other."""

  mesh: Mesh

  @property
  def count(self) -> int:
    """How many there are, in all processes."""
    return self.mesh.size

  @property
  def processes(self) -> int:
    """How many processes they are of."""
    return len({d.process_index for d in self.mesh.devices.flat})

  @property
  def everywhere(self) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(self.mesh, PartitionSpec())

  def spread(self, axis: int = 0) -> NamedSharding:
    """An axis of an array over the devices."""
    return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))

  def put(
    self, batch: Mapping[str, Any], common: Sequence[str] = (), axis: int = 0
  ) -> dict[str, Any]:
    """This process's rows of a batch, spread over the devices together with
    those of the others; `common` entries are the same everywhere. `axis` is
    that of the rows."""

    def placed(name: str, x: Any) -> Any:
      if name in common:
        return self.copied(x)
      spread = self.spread(axis)
      return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(spread, x), x
      )

    if self.count == 1:  # the same, with less ado
      return jax.device_put(dict(batch), self.mesh.devices.flat[0])
    return {name: placed(name, x) for name, x in batch.items()}

  def copied(self, tree: Any) -> Any:
    """Arrays that every process has, on every device; also random keys."""

    def one(x: Any) -> jax.Array:
      if isinstance(x, jax.Array) and jnp.issubdtype(
        x.dtype, jax.dtypes.prng_key
      ):
        return jax.random.wrap_key_data(one(jax.random.key_data(x)))
      values = np.asarray(x)
      return jax.make_array_from_callback(
        values.shape, self.everywhere, lambda index: values[index]
      )

    return jax.tree.map(one, tree)

  def shapes(self, tree: Any) -> Any:
    """What a tree that is the same everywhere is shaped like."""
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=self.everywhere
      ),
      tree,
    )

  def own(self) -> "Devices":
    """Those of this process."""
    return Devices(_mesh(tuple(self.mesh.local_devices)))

  def owned(self, tree: Any) -> Any:
    """What is the same everywhere, as arrays of this process's devices."""
    if self.processes == 1:
      return tree
    here = self.own()
    return here.copied(jax.tree.map(lambda x: x.addressable_data(0), tree))


@functools.cache
def _mesh(devices: tuple[Any, ...]) -> Mesh:
  # Linen's Dropout fails on axes of the type Explicit, which is the default.
  return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def run_devices(number: int) -> Devices:
  """The first `number` devices of every process; 0: all.

  Raises:
    InputError: a process has fewer.
  """
  found: dict[int, list[Any]] = {}
  for device in jax.devices():
    found.setdefault(device.process_index, []).append(device)
  fewest = min(map(len, found.values()))
  if number > fewest:
    raise InputError(
      f"--config.devices={number}: expected at most the {fewest} "
      f"{jax.default_backend()} devices of a process, give fewer, or 0 for all"
    )
  taken = number or fewest
  devices = Devices(
    _mesh(tuple(d for _, own in sorted(found.items()) for d in own[:taken]))
  )
  if devices.processes > 1:
    _first_collective(devices)
  return devices


def _first_collective(devices: Devices) -> None:
  """Adds something up over all devices. For their first sum XLA's collectives
  on CPUs wait 30 s for each other, less than compiling may differ by; for later
  ones as long as it takes."""
  ones = devices.put({"x": np.ones(devices.own().count, np.float32)})["x"]
  add = jax.jit(jnp.sum, out_shardings=devices.everywhere).lower(ones).compile()
  processes.exchange()
  jax.block_until_ready(add(ones))
