"""The folder of a run: its config, and what a finished one shows."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.evaluation import mean_ap
from ptlr_jax.io import disk_space, lock, metrics_log, storage
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import Damaged, InputError, NoSpace
from ptlr_jax.runtime.progress import show
from ptlr_jax.workdir import identity, provenance
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import phases

CONFIG = "config.json"

SIMULATED = (
  "Simulated features: no number here is a THUMOS14 or ActivityNet result."
)
_SHARED = 60.0  # seconds for a file to be seen by all; NFS keeps names so long
_TRACES = ("checkpoints", "labels", "detections", "detections.json")
_TRACES += ("metrics.json",)


def runs_of(
  config: FrozenConfigDict, directory: Path
) -> dict[Path, FrozenConfigDict]:
  """{workdir: configuration} of the runs that a configuration asks for.

  One, in the directory itself, or with `config.seeds` = k the seeds
  config.seed to config.seed + k - 1, in seed-N below it.

  Raises:
    InputError: the directory holds a run of the other kind.
  """
  if config.seeds == 1:
    if others := sorted(directory.glob("seed-*/config.json")):
      raise InputError(
        f"{directory}: expected a folder of one run, came one with a run a "
        f"seed ({others[0].parent.name}, ...); give --config.seeds=K to go on "
        "with them, or a new --workdir"
      )
    return {directory: config}
  if (directory / CONFIG).exists():
    raise InputError(
      f"{directory}: expected a folder for a run a seed, came one with a "
      "single run; give --config.seeds=1 to go on with it, or a new --workdir"
    )
  found = {}
  for seed in range(config.seed, config.seed + config.seeds):
    own = ConfigDict(config.to_dict())
    own.update({"seed": seed, "seeds": 1})
    found[directory / f"seed-{seed}"] = FrozenConfigDict(own)
  return found


@contextlib.contextmanager
def open_run_folders(runs: Mapping[Path, FrozenConfigDict]) -> Iterator[None]:
  """Makes the folders of runs and their config.json, or checks that they
  agree, and holds the folders for this process, or for all by the first.

  Raises:
    InputError: a folder cannot be written, holds a run of another
      configuration or version, or another process is at it.
    NoSpace: the disk is full.
  """
  processes.agree(
    [identity.config_digest(config) for config in runs.values()],
    "the configuration",
    "start all processes with the same arguments",
  )
  with contextlib.ExitStack() as stack:
    for directory, config in runs.items() if processes.is_first() else ():
      try:
        with disk_space.room_for(directory / lock.FILE, 4096):
          disk_space.make_writable(directory)
          stack.enter_context(lock.hold_lock(directory))
      except NoSpace:
        raise
      except OSError as error:
        raise InputError(
          f"--workdir={directory}: cannot be written ({error.strerror}); "
          "choose another folder"
        ) from None
      prepare_run_folder(directory, config)
      Artefacts(config, directory).clear_leftovers()
    if processes.count() > 1:
      _check_shared(next(iter(runs)))
    yield


def _check_shared(directory: Path) -> None:
  """Refuses a folder that is not the one of process 0; waits for it."""
  path = directory / lock.FILE
  token = processes.first(path.read_text)
  deadline = time.monotonic() + _SHARED
  while not _holds(path, token):
    if time.monotonic() > deadline:
      raise InputError(
        f"process {processes.index()}: --workdir={directory}: expected the "
        "folder that process 0 has opened, came another of that name; give one "
        "on a file system that all hosts share"
      )
    time.sleep(0.5)
  processes.exchange()


def _holds(path: Path, text: str) -> bool:
  try:
    return path.read_text() == text
  except OSError:
    return False


def prepare_run_folder(directory: Path, config: FrozenConfigDict) -> None:
  """Writes config.json into a folder, or checks that it agrees.

  Raises:
    InputError: it is of another configuration, lost or damaged.
    OtherVersion: it is of another version.
  """
  path = directory / CONFIG
  said = identity.portable(config)
  _check_version(directory)
  provenance.mend_provenance(
    directory, (finished_metrics(directory) or {}).get("made_with", ())
  )
  # A run that was refused before it did anything may be put right in place.
  if not any((directory / name).exists() for name in _TRACES):
    (directory / provenance.FILE).unlink(missing_ok=True)
    storage.write_json(path, said)
    return
  try:
    if not path.exists():
      raise storage.damaged(path, "it is missing")
    before = storage.read_json(path)
  except Damaged as error:
    known = {start["config"] for start in provenance.read_starts(directory)}
    if known != {identity.config_digest(config)}:
      raise InputError(
        f"{error}; put it back, or give the configuration that this folder's "
        f"{provenance.FILE} knows, or a new --workdir"
      ) from None
    show(f"{error}; {provenance.FILE} knows this configuration: written anew")
    storage.write_json(path, said)
    return
  if changed := identity.differences(before, said):
    raise InputError(
      f"{path}: this folder holds a run of another configuration "
      f"({'; '.join(changed)}); give the same values or a new --workdir"
    )


def _check_version(directory: Path) -> None:
  """Raises OtherVersion before anything of another version is touched."""
  metrics_log.MetricsLog(directory / "metrics.jsonl").read()
  for name in (CONFIG, provenance.FILE):
    if (directory / name).exists():
      with contextlib.suppress(Damaged):
        storage.read_json(directory / name)


def finished_metrics(directory: Path) -> dict[str, Any] | None:
  """The metrics of a finished run, or None where they lack or are damaged.

  Raises:
    OtherVersion: they are of another version.
  """
  path = directory / "metrics.json"
  try:
    return storage.read_json(path) if path.exists() else None
  except Damaged:
    return None


def are_whole(runs: Mapping[Path, FrozenConfigDict]) -> bool:
  """Whether all runs are, see `run_folder.is_whole`; as process 0 sees it."""
  return processes.first(lambda: all([is_whole(*r) for r in runs.items()]))


def is_whole(directory: Path, config: FrozenConfigDict) -> bool:
  """Whether a run is finished, and what is left of its artefacts is as it was
  written; some may have been removed to save space."""
  if not (directory / "metrics.json").exists():
    return False
  files = Artefacts(config, directory)
  paths = [path for phase in phases(config) for path in files.paths(phase)]
  return all([files.is_sound(path, told="") for path in paths if path.exists()])


def map_table(metrics: dict[str, Any]) -> str:
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
    f"{mean_ap.format_table(rows, protocol)}\n{note}"
  )


def seeds_table(metrics: Sequence[dict[str, Any]]) -> str:
  """Average mAP of each row in percent: mean and standard deviation over the
  seeds, then every seed. A single run is shown in full."""
  first = metrics[0]
  if len(metrics) == 1 or first.get("not_evaluated"):
    return "".join(map_table(values) for values in metrics)
  blocks = []
  for name in first["averages"]:
    lines = [[name, "mean", "sd", *(f"seed {m['seed']}" for m in metrics)]]
    for row in first["stages"]:
      own = [100 * m["stages"][row]["averages"][name] for m in metrics]
      numbers = [statistics.mean(own), statistics.stdev(own), *own]
      lines.append([row, *(f"{number:.1f}" for number in numbers)])
    blocks.append(mean_ap.aligned(lines))
  note = f"{SIMULATED}\n" if first["simulated"] else ""
  text = "\n\n".join(blocks)
  return f"\nmAP (%), protocol {first['protocol']}\n{text}\n{note}"
