"""Modules of the user's own: networks, losses, label rules, layouts.

Importing one enters what it has in a dict, as `method.registry.STAGES`
(docs/FORKING.md lists them). `config.plugins` names the modules, so that
whatever reads the configuration of a run (another process, a resumed run) has
them too.
"""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ptlr_jax.runtime.errors import InputError


def import_plugins(names: Iterable[str]) -> None:
  """Imports the modules of `config.plugins`, each once.

  Raises:
    InputError: a line for every one that cannot be imported.
  """
  problems = []
  for name in names:
    try:
      importlib.import_module(name)
    except Exception as error:  # it is the user's code: anything can happen
      came = " ".join(str(error).split())[:200]
      problems.append(
        f"--config.plugins: expected modules that can be imported, {name!r} "
        f"cannot: {type(error).__name__}: {came}; start from the folder that "
        "holds it, or add that to PYTHONPATH"
      )
  if problems:
    raise InputError(*problems)


def registered(registry: Mapping[str, Any], name: str, key: str) -> Any:
  """The entry of a name in a dict that plugins may add to.

  Raises:
    InputError: there is none, and `key` of the configuration asks for it.
  """
  if name not in registry:
    raise InputError(
      f"--config.{key}: expected one of {', '.join(registry)}, got {name!r}; "
      "--config.plugins names the modules that add others"
    )
  return registry[name]
