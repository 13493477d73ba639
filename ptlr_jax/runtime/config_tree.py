"""A configuration as a tree: flattened, and its key names."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"ilg.steps": 1500, ...}; sequences as tuples."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping) or hasattr(value, "items"):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      is_list = isinstance(value, list | tuple)
      flat[prefix + name] = tuple(value) if is_list else value
  return flat


def nearest(word: str, known: Iterator[str] | list[str]) -> str:
  """The known word most like a misspelt one, or nothing."""
  match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
  return match[0] if match else ""
