"""A configuration as a tree: flattened, completed, and its key names."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

# Keys that runs and models of earlier versions lack, and what is meant there.
ADDED: dict[str, Any] = {
  "log.tensorboard": "auto",
  "log.wandb": "",
  "plugins": (),
  "ilg.network": "basnet",
  "ilg.loss.scale_losses": {"sc": 1.0},
  "ptlr.cas": "",
  "ptlr.cas_values": "probability",
  "ptlr.cas_resample": False,
  "ptlr.sampling": "own",
  "labels.fusion": "average",
}


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


def completed(config: Mapping[str, Any]) -> FrozenConfigDict:
  """A configuration with the keys that one of an earlier version lacks."""
  found = ConfigDict(config).to_dict()
  for key, value in ADDED.items():
    *sections, name = key.split(".")
    place = found
    for section in sections:
      place = place.setdefault(section, {})
    place.setdefault(name, value)
  return FrozenConfigDict(found)


def nearest(word: str, known: Iterator[str] | list[str]) -> str:
  """The known word most like a misspelt one, or nothing."""
  match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
  return match[0] if match else ""
