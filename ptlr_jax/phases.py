"""The phases of Algorithm 1 as data: their order, and what each hangs on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ptlr_jax import identity, settings


class Phase(NamedTuple):
  """One line of Algorithm 1; `network` and `stage` (from 1) where it has."""

  name: str
  kind: str
  network: str = ""
  stage: int = 0


def source(config: Any) -> str:
  """Where the first CASs come from: the ilg, or another method's cas."""
  return "cas" if config.ptlr.cas else "ilg"


def trained(config: Any) -> tuple[str, ...]:
  """The networks that a run trains."""
  refining = config.ptlr.networks if config.ptlr.stages else ()
  return (*([] if config.ptlr.cas else ["ilg"]), *refining)


def phases(config: Any) -> list[Phase]:
  """ilg, labels-0, ots-1, labels-1-ots, rts-1, ..., detect, evaluate; no ilg
  where another method's CASs are there."""
  first = source(config)
  found = [Phase("ilg", "train", "ilg")] if first == "ilg" else []
  found.append(Phase("labels-0", "labels", first))
  for n in range(1, config.ptlr.stages + 1):
    for net in config.ptlr.networks:
      found.append(Phase(f"{net}-{n}", "train", net, n))
      found.append(Phase(f"labels-{n}-{net}", "labels", net, n))
  return [*found, Phase("detect", "detect"), Phase("evaluate", "evaluate")]


def rows(config: Any) -> list[str]:
  """The lines of a run's mAP table: the first CAS, then every stage."""
  return [
    source(config),
    *(f"stage-{n}" for n in range(1, config.ptlr.stages + 1)),
  ]


def fingerprints(config: Any) -> dict[str, str]:
  """What the artefact of each phase hangs on.

  {phase, or detections/ROW: SHA-256 of its settings and of the phases that it
  reads}. Where two runs on the same data have the same fingerprint they have
  the same artefact, to the bit, or up to rounding where seeds were trained at
  once.
  """
  flat = settings.flatten(identity.portable(config))
  found: dict[str, str] = {}

  def add(name: str, sections: str, *reads: str, **values: Any) -> None:
    chosen = _under(flat, sections.split())
    before = [found[read] for read in reads]
    text = json.dumps([name, chosen, before, values], sort_keys=True)
    found[name] = hashlib.sha256(text.encode()).hexdigest()

  first = source(config)
  if first == "ilg":
    add(first, "seed deterministic data optimizer ilg plugins")
  else:  # which these are the data's digest says
    add(first, "data plugins ptlr.cas_values ptlr.cas_resample ilg.loss")
  add("labels-0", "labels fusion predict", first)
  labels = "labels-0"
  for n in range(1, config.ptlr.stages + 1):
    learned = []
    for net in config.ptlr.networks:
      name = f"{net}-{n}"
      warm = config.ptlr.warm_start and n > 1
      reads = [labels, f"{net}-{n - 1}"] if warm else [labels]
      needs = (
        f"{net} seed deterministic data optimizer ptlr.window ptlr.pack "
        "rts.model.branches"
      )
      add(name, needs, *reads)
      new = f"labels-{n}-{net}"
      theta = config.ptlr.thresholds[n - 1]
      add(new, "labels predict", name, labels, theta=theta)
      labels = new
      learned.append(name)
    add(f"detections/stage-{n}", "detect fusion predict", first, *learned)
  add(f"detections/{first}", "detect fusion predict", first)
  return found


def _under(flat: Mapping[str, Any], sections: list[str]) -> dict[str, Any]:
  """The settings that are, or lie below, one of the sections."""
  return {
    key: value
    for key, value in flat.items()
    if any(key == s or key.startswith(f"{s}.") for s in sections)
    and key not in identity.NEUTRAL
  }
