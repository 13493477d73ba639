"""When two configurations, or two phases, have the same results."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ptlr_jax.runtime import config_tree, schema
from ptlr_jax.workdir import phases

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
  before, after = (config_tree.flatten(schema.completed(x)) for x in (old, new))
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
  for key, value in config_tree.flatten(found).items():
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


def config_digest(config: Any) -> str:
  """SHA-256 of all that results hang on."""
  flat = config_tree.flatten(portable(config))
  kept = {
    key: flat[key]
    for key in sorted(flat.keys() - set(NEUTRAL))
    if not schema.is_as_before(key, flat[key])  # as runs of before have it
  }
  return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


# What is not read for the first pseudo labels, and for the refined ones.
_OF_REFINED = "labels.network_cas labels.keep_empty labels.update_rule"
_OF_INITIAL = (
  "labels.cas labels.fusion labels.high labels.low labels.background_sum"
)


def fingerprints(config: Any) -> dict[str, str]:
  """What the artefact of each phase hangs on.

  {phase, or detections/ROW: SHA-256 of its settings and of the phases that it
  reads}. Where two runs on the same data have the same fingerprint they have
  the same artefact, to the bit, or up to rounding where seeds were trained at
  once.
  """
  flat = config_tree.flatten(portable(config))
  found: dict[str, str] = {}

  def add(
    name: str, sections: str, *reads: str, without: str = "", **values: Any
  ) -> None:
    chosen = _under(flat, sections.split(), without.split())
    before = [found[read] for read in reads]
    text = json.dumps([name, chosen, before, values], sort_keys=True)
    found[name] = hashlib.sha256(text.encode()).hexdigest()

  first = phases.cas_source(config)
  if first == "ilg":
    add(first, "seed deterministic data optimizer ilg plugins")
  else:  # which these are the data's digest says
    add(first, "data plugins ptlr.cas_values ptlr.cas_resample ilg.loss")
  add("labels-0", "labels fusion predict", first, without=_OF_REFINED)
  labels, sampling = "labels-0", "ptlr.sampling"
  if config.ptlr.sampling == "uniform":
    sampling += " ilg.segments"
  for n in range(1, config.ptlr.stages + 1):
    learned = []
    for net in config.ptlr.networks:
      name = f"{net}-{n}"
      warm = config.ptlr.warm_start and n > 1
      reads = [labels, f"{net}-{n - 1}"] if warm else [labels]
      needs = (
        f"{net} seed deterministic data optimizer ptlr.window ptlr.pack "
        f"{sampling} rts.model.branches"
      )
      add(name, needs, *reads)
      new = f"labels-{n}-{net}"
      theta = config.ptlr.thresholds[n - 1]
      needs = f"labels predict {sampling}"
      add(new, needs, name, labels, without=_OF_INITIAL, theta=theta)
      labels = new
      learned.append(name)
    sections = f"detect fusion predict {sampling}"
    add(f"detections/stage-{n}", sections, first, *learned)
  add(f"detections/{first}", "detect fusion predict", first)
  return found


def _under(
  flat: Mapping[str, Any], sections: list[str], without: list[str]
) -> dict[str, Any]:
  """The settings that are, or lie below, one of the sections."""
  return {
    key: value
    for key, value in flat.items()
    if any(key == s or key.startswith(f"{s}.") for s in sections)
    and key not in (*NEUTRAL, *without)
  }
