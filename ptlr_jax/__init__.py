"""Weakly supervised temporal action localization in JAX: ILG and PTLR.

import ptlr_jax

found = ptlr_jax.predict("model.safetensors", rgb="a.npy", flow="b.npy")
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
  """`predict`, imported when it is asked for: `import ptlr_jax` stays light.

  It is the module of that name, which can be called.
  """
  if name == "predict":
    return importlib.import_module("ptlr_jax.predict")
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
