"""The phases of Algorithm 1 as data: their order, and what each hangs on."""

from typing import Any, NamedTuple


class Phase(NamedTuple):
  """One line of Algorithm 1; `network` and `stage` (from 1) where it has."""

  name: str
  kind: str
  network: str = ""
  stage: int = 0


def cas_source(config: Any) -> str:
  """Where the first CASs come from: the ilg, or another method's cas."""
  return "cas" if config.ptlr.cas else "ilg"


def trained_networks(config: Any) -> tuple[str, ...]:
  """The networks that a run trains."""
  refining = config.ptlr.networks if config.ptlr.stages else ()
  return (*([] if config.ptlr.cas else ["ilg"]), *refining)


def sampled_segments(config: Any, network: str) -> int:
  """Segments that a network's videos are uniformly sampled at in prediction;
  0: their own length."""
  uniform = config.predict.sampling == "uniform"
  if network != "ilg":
    uniform |= config.ptlr.sampling == "uniform"
  return config.ilg.segments if uniform else 0


def phases(config: Any) -> list[Phase]:
  """ilg, labels-0, ots-1, labels-1-ots, rts-1, ..., detect, evaluate; no ilg
  where another method's CASs are there."""
  first = cas_source(config)
  found = [Phase("ilg", "train", "ilg")] if first == "ilg" else []
  found.append(Phase("labels-0", "labels", first))
  for n in range(1, config.ptlr.stages + 1):
    for net in config.ptlr.networks:
      found.append(Phase(f"{net}-{n}", "train", net, n))
      found.append(Phase(f"labels-{n}-{net}", "labels", net, n))
  return [*found, Phase("detect", "detect"), Phase("evaluate", "evaluate")]


def table_rows(config: Any) -> list[str]:
  """The lines of a run's mAP table: the first CAS, then every stage."""
  return [
    cas_source(config),
    *(f"stage-{n}" for n in range(1, config.ptlr.stages + 1)),
  ]
