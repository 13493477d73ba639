"""What has to be settled before JAX is imported, and right after."""

import logging
import os
import socket
import sys
from typing import Any

from ptlr_jax.runtime import plugins, processes
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import show

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def settle_jax(config: Any = None) -> None:
  """Sets XLA's flags and JAX's compile cache, has JAX join the other processes,
  if there are any, and imports the plugins.

  Raises:
    InputError: a plugin cannot be imported.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  flags = os.environ.get("XLA_FLAGS", "").split()
  if config and config.deterministic and DETERMINISTIC not in flags:
    os.environ["XLA_FLAGS"] = " ".join([*flags, DETERMINISTIC])
    if "jax" in sys.modules and _on_gpu():
      show(
        "deterministic: JAX was imported before the flag was set; where it "
        f"has computed already, set XLA_FLAGS={DETERMINISTIC} in the shell"
      )
  logging.getLogger("absl").setLevel(logging.WARNING)
  # This imports JAX.
  from ptlr_jax.cli.compile_cache import use_cache

  use_cache(config.compile_cache if config else "auto")
  processes.service(_join)
  plugins.import_plugins(config.plugins if config else ())


def _join(address: str, count: int, index: int, bind: str | None) -> None:
  import jax

  # It would take SIGTERM for itself.
  jax.config.update("jax_enable_preemption_service", False)
  own = processes.device()
  jax.distributed.initialize(
    address,
    count,
    index,
    local_device_ids=None if own is None else [own],
    cluster_detection_method="deactivate",
    initialization_timeout=int(processes.PATIENCE),
    coordinator_bind_address=bind,
  )
  hosts = processes.exchange(socket.gethostname())
  if len(set(hosts)) > 1 and jax.default_backend() == "cpu":
    _check_name(socket.gethostname())


def _check_name(host: str) -> None:
  """Refuses a name of this host that would lead the others to themselves, as
  Debian's /etc/hosts has it: on CPUs XLA's collectives (Gloo) go by it.

  Raises:
    InputError: there is no other address for it.
  """
  try:
    address = socket.gethostbyname(host)
  except OSError:
    address = "no address"
  if address == "no address" or address.startswith("127."):
    raise InputError(
      f"the name of this host, {host}: expected an address at which the other "
      f"hosts reach it, came {address}; give it one in /etc/hosts or DNS"
    )


def _on_gpu() -> bool:
  import jax

  return jax.default_backend() == "gpu"
