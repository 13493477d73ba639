"""What programs are compiled for, and where they are kept between runs."""

import os
from pathlib import Path

import jax

from ptlr_jax.io import disk_space
from ptlr_jax.runtime.progress import show

OFF = "off"
_SHORTEST = 0.1  # seconds of compiling that are worth a file
_ROOM = 200e6  # bytes; a file that a full disk cuts off stays there for good


def cache_directory(setting: str) -> Path | None:
  """The folder that `config.compile_cache` names, or none for `off`.

  `auto`: ptlr_jax/compiled in the user's cache directory.
  """
  if setting == OFF:
    return None
  if setting != "auto":
    return Path(setting).expanduser()
  cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(cache) / "ptlr_jax" / "compiled"


def use_cache(setting: str) -> Path | None:
  """Has JAX keep what it compiles, and look there first; returns the folder.

  With `auto` a JAX_COMPILATION_CACHE_DIR is left to JAX as it is. A folder that
  cannot be written is told, and done without.
  """
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST)
  if setting == "auto" and os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return None
  directory = None
  try:
    directory = cache_directory(setting)
    if directory is not None:
      disk_space.make_writable(directory)
      if (free := disk_space.free_space(directory)) < _ROOM:
        raise OSError(
          0, f"only {disk_space.size_in_words(free)} are free there"
        )
      jax.config.update("jax_compilation_cache_dir", str(directory))
  except (OSError, RuntimeError) as error:  # RuntimeError: no such home
    said = getattr(error, "strerror", None) or error
    show(
      f"compile cache: {directory or setting} cannot be written ({said}); "
      "going on without; another is --config.compile_cache=FOLDER"
    )
    directory = None
  jax.config.update("jax_enable_compilation_cache", directory is not None)
  return directory
