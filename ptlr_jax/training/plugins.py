"""Modules of the user's own that add stages, networks or losses.

Importing one enters what it has in `registry.STAGES`, `ilg.NETWORKS` or
`losses.SCALE_LOSSES`; `config.plugins` names them, so that whatever reads the
configuration of a run (another process, a resumed run) has them too.
"""

import importlib
from collections.abc import Iterable

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
