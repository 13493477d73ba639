"""The folder of a run: its config, and what a finished one shows."""

import json
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from ptlr_jax import detection_map, settings, writers
from ptlr_jax.errors import InputError

SIMULATED = (
  "Simulated features: no number here is a THUMOS14 or ActivityNet result."
)
_TRACES = ("checkpoints", "labels", "detections.json", "metrics.json")


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
