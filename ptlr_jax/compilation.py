"""Where compiled programs are kept from one run to the next."""

import os
from pathlib import Path

import jax

from ptlr_jax import writers
from ptlr_jax.progress import say

_OFF = "off"
_SHORTEST = 0.1  # seconds of compiling that are worth a file


def cache_directory(setting: str) -> Path | None:
  """What `config.compile_cache` names: a folder, or none for `off`.

  `auto`: the one that JAX_COMPILATION_CACHE_DIR names, else ptlr_jax/compiled
  in the user's cache directory.
  """
  if setting == _OFF:
    return None
  if setting != "auto":
    return Path(setting).expanduser()
  if named := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return Path(named)
  cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(cache) / "ptlr_jax" / "compiled"


def use_cache(setting: str) -> Path | None:
  """Has JAX keep what it compiles, and look there first.

  A folder that cannot be written is told, and done without.
  """
  directory = cache_directory(setting)
  if directory is not None:
    try:
      writers.make_writable(directory)
    except OSError as error:
      say(
        f"compile cache: {directory} cannot be written ({error.strerror}); "
        "going on without; another is --config.compile_cache=FOLDER"
      )
      directory = None
  jax.config.update("jax_enable_compilation_cache", directory is not None)
  if directory is not None:
    jax.config.update("jax_compilation_cache_dir", str(directory))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
      jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST)
  return directory
