"""When two configurations are of one run, whatever machine they are from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ptlr_jax import settings

# What changes no result: where features lie, how they come to the device, where
# programs are kept and the log is shown, to the bit; how many seeds are trained
# at once and on how many devices, up to rounding.
NEUTRAL = (
  "compile_cache",
  "seeds",
  "devices",
  "log.tensorboard",
  "log.wandb",
  "data.root",  # what lies there has a digest
  "data.memory_gb",
  "data.stream_threads",
  "data.check_finite",
  "data.resident",
)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """One "key: old -> new" for every key in which two configs differ, but for
  those that change no result."""
  before, after = (settings.flatten(settings.completed(x)) for x in (old, new))
  return [
    f"{key}: {before.get(key, 'absent')!r} -> {after.get(key, 'absent')!r}"
    for key in sorted((before.keys() | after.keys()) - set(NEUTRAL))
    if key not in before or key not in after or before[key] != after[key]
  ]


# What names places of this machine, and has no business in an artefact.
_PLACES = ("data.root", "data.annotations", "ptlr.cas")
_PLACES += ("compile_cache", "log.wandb")


def portable(config: Any) -> dict[str, Any]:
  """A configuration as JSON has it, without the places of this machine: of a
  path its last name is left."""
  found = ConfigDict(config.to_dict())
  for key, value in settings.flatten(found).items():
    if key in _PLACES:
      name = _last_name(value)
      if key == "ptlr.cas" and value:  # without a name there would be an ILG
        name = name or "cas"
      found.update_from_flattened_dict({key: name})
  return json.loads(json.dumps(found.to_dict()))


def _last_name(place: str) -> str:
  """Of a path the last name, unless that is the user's."""
  path, home = Path(place).expanduser().absolute(), Path.home()
  return "" if path in (home, *home.parents) else Path(place).name


def digest(config: Any) -> str:
  """SHA-256 of all that results hang on."""
  flat = settings.flatten(portable(config))
  kept = {key: flat[key] for key in sorted(flat.keys() - set(NEUTRAL))}
  return hashlib.sha256(json.dumps(kept).encode()).hexdigest()
