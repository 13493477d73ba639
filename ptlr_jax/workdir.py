"""The folder of a run: its config, and what a finished one shows."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax import detection_map, settings, writers
from ptlr_jax.errors import InputError

SIMULATED = (
  "Simulated features: no number here is a THUMOS14 or ActivityNet result."
)
_TRACES = ("checkpoints", "labels", "detections.json", "metrics.json")


def runs_of(
  config: FrozenConfigDict, directory: Path
) -> dict[Path, FrozenConfigDict]:
  """{workdir: configuration} of the runs that a configuration asks for.

  One, in the directory itself, or with `config.seeds` = k the seeds
  config.seed to config.seed + k - 1, in seed-N below it.
  """
  if config.seeds == 1:
    return {directory: config}
  found = {}
  for seed in range(config.seed, config.seed + config.seeds):
    own = ConfigDict(config.to_dict())
    own.update({"seed": seed, "seeds": 1})
    found[directory / f"seed-{seed}"] = FrozenConfigDict(own)
  return found


def prepare(directory: Path, config: FrozenConfigDict) -> None:
  """Makes the folder and its config.json, or checks that they agree.

  Raises:
    InputError: the folder cannot be written, or holds a run of another
      configuration.
  """
  try:
    writers.make_writable(directory)
  except OSError as error:
    raise InputError(
      f"--workdir={directory}: cannot be written ({error.strerror}); "
      "choose another folder"
    ) from None
  path = directory / "config.json"
  # As JSON knows it: tuples are lists there.
  plain = json.loads(json.dumps(config.to_dict()))
  # A run that was refused before it did anything may be put right in place.
  if not any((directory / name).exists() for name in _TRACES):
    writers.write_json(path, plain)
    return
  if not path.exists():
    raise InputError(
      f"{path}: expected the configuration of the run that is in this folder, "
      "it is missing; put it back or give a new --workdir"
    )
  changed = settings.differences(writers.read_json(path), plain)
  if changed:
    raise InputError(
      f"{path}: this folder holds a run of another configuration "
      f"({'; '.join(changed)}); give the same values or a new --workdir"
    )


def finished(directory: Path) -> dict[str, Any] | None:
  """The metrics of a finished run, or None."""
  path = directory / "metrics.json"
  return writers.read_json(path) if path.exists() else None


def table(metrics: dict[str, Any]) -> str:
  """The mAP table of a run, in percent: the ILG, then every stage."""
  note = f"{SIMULATED}\n" if metrics["simulated"] else ""
  if fault := metrics.get("not_evaluated"):
    return (
      f"\nNo mAP, seed {metrics['seed']}: {fault}; the detections are in "
      f"detections.json\n{note}"
    )
  rows = list(metrics["stages"].items())
  protocol = metrics["protocol"]
  return (
    f"\nmAP (%), protocol {protocol}, seed {metrics['seed']}\n"
    f"{detection_map.format_table(rows, protocol)}\n{note}"
  )


def seeds_table(metrics: Sequence[dict[str, Any]]) -> str:
  """Average mAP of each row in percent: mean and standard deviation over the
  seeds, then every seed. A single run is shown in full."""
  first = metrics[0]
  if len(metrics) == 1 or first.get("not_evaluated"):
    return "".join(table(values) for values in metrics)
  blocks = []
  for name in first["averages"]:
    lines = [[name, "mean", "sd", *(f"seed {m['seed']}" for m in metrics)]]
    for row in first["stages"]:
      own = [100 * m["stages"][row]["averages"][name] for m in metrics]
      numbers = [statistics.mean(own), statistics.stdev(own), *own]
      lines.append([row, *(f"{number:.1f}" for number in numbers)])
    blocks.append(detection_map.aligned(lines))
  note = f"{SIMULATED}\n" if first["simulated"] else ""
  text = "\n\n".join(blocks)
  return f"\nmAP (%), protocol {first['protocol']}\n{text}\n{note}"
