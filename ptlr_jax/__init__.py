"""Weakly supervised temporal action localization in JAX: ILG and PTLR.

In Python: `train`, `load_run`, `load_model` and `score` (`ptlr_jax.api`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from ptlr_jax.api import load_model, load_run, score, train

__all__ = ["load_model", "load_run", "score", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
  """The names of `ptlr_jax.api`, imported when they are asked for: it imports
  JAX."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from ptlr_jax import api

  return getattr(api, name)
