"""What has to be settled before JAX is imported, and right after."""

import logging
import os
import sys
from typing import Any

from ptlr_jax.runtime import plugins
from ptlr_jax.runtime.progress import show

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def settle_jax(config: Any = None) -> None:
  """Sets XLA's flags and JAX's compile cache, and imports the plugins.

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
  plugins.import_plugins(config.plugins if config else ())


def _on_gpu() -> bool:
  import jax

  return jax.default_backend() == "gpu"
