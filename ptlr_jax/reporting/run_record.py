"""What a run has left in its folder so far, each artefact verified."""

from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.data import digest
from ptlr_jax.data.dataset import Dataset
from ptlr_jax.evaluation import files
from ptlr_jax.io import detection_files, metrics_log, storage
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime import plugins
from ptlr_jax.runtime.errors import Damaged, InputError
from ptlr_jax.workdir import artefacts, identity, phases, provenance
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import Phase


class RunRecord(NamedTuple):
  """A run as it lies there.

  detections: {line of the mAP table: {video: detections}} of those that are
    made. metrics: metrics.json, {} before the end. log: the lines of
    metrics.jsonl. done: the phases whose artefacts are there and sound. notes:
    a line for all that is not as it should be.
  """

  directory: Path
  name: str
  config: FrozenConfigDict
  starts: list[dict[str, Any]]
  log: list[dict[str, Any]]
  detections: dict[str, detection_files.Found]
  metrics: dict[str, Any]
  done: list[Phase]
  notes: list[str]

  @property
  def files(self) -> Artefacts:
    """Its artefacts by name."""
    return Artefacts(self.config, self.directory)

  @property
  def missing(self) -> list[str]:
    """The phases that are not there, in their order."""
    return [p.name for p in phases.phases(self.config) if p not in self.done]

  @property
  def row(self) -> str:
    """The last line of the mAP table that is there; "" where none is."""
    return next(reversed(self.detections), "")

  @property
  def stage(self) -> int | None:
    """The last stage whose networks are all trained, 0 for the ILG alone; None
    where that is not."""
    trained = {p.name for p in self.done if p.kind == "train"}
    if "ilg" not in trained:
      return None
    networks = self.config.ptlr.networks
    last = 0
    for n in range(1, self.config.ptlr.stages + 1):
      if {f"{net}-{n}" for net in networks} <= trained:
        last = n
    return last


def read_run(directory: Path, flag: str = "workdir") -> RunRecord:
  """Reads a run.

  Raises:
    InputError: the folder is none, or its configuration is damaged.
    OtherVersion: an artefact is of another version.
  """
  try:
    config = artefacts.read_run_config(directory, f"--{flag}={directory}")
  except Damaged as error:
    raise InputError(
      f"{error.lines[0]}; give the command of the run again, which mends it"
    ) from None
  notes: list[str] = []
  found = RunRecord(
    directory=directory,
    name=directory.resolve().name,
    config=config,
    starts=_starts(directory, notes),
    log=_log(directory, notes),
    detections={},
    metrics={},
    done=[],
    notes=notes,
  )
  said: list[str] = []
  for phase in phases.phases(config):
    if all([_is_sound(found, path, said) for path in found.files.paths(phase)]):
      found.done.append(phase)
  for row in phases.table_rows(config):
    path = found.files.detection_path(row)
    if _is_sound(found, path, said):
      found.detections[row] = storage.read_json(path)["results"]
  path = found.files.metrics_path()
  metrics = storage.read_json(path) if _is_sound(found, path, said) else {}
  notes += dict.fromkeys(said)
  return found._replace(metrics=metrics)


def _is_sound(found: RunRecord, path: Path, said: list[str]) -> bool:
  """Whether an artefact is there as it was written; a damaged one is noted."""
  if not path.exists():
    return False
  try:
    artefacts.verify(path)
  except Damaged as error:
    said.append(
      f"{error.lines[0]}; it is left out, the command of the run makes it again"
    )
    return False
  return True


def _starts(directory: Path, notes: list[str]) -> list[dict[str, Any]]:
  starts = provenance.read_starts(directory)
  if not starts:
    notes.append(
      f"{directory / provenance.FILE}: missing or damaged; what the run was "
      "made with is not known"
    )
  return starts


def _log(directory: Path, notes: list[str]) -> list[dict[str, Any]]:
  path = directory / "metrics.jsonl"
  log = metrics_log.MetricsLog(path)
  lines = log.read()
  if not lines:
    notes.append(f"{path}: there is no line; no curve can be drawn")
    return []
  lost = path.read_bytes().count(b"\n") - len(lines)
  if lost > 0:
    notes.append(f"{path}: {lost} lines are not as written; left out")
  return lines


def dataset(
  run: RunRecord, source: str, annotations: str, notes: list[str]
) -> Dataset | None:
  """The data of a run, features unread; None, noted, where nothing says where
  they are, since a run keeps no path.

  Raises:
    InputError: they cannot be read, or are not those of the run.
  """
  options: Any = ConfigDict(run.config.data.to_dict())
  if options.layout != "simulated":
    if not source:
      notes.append(
        "without the data set there are no intervals, no error diagnosis and "
        "no ground truth or CAS in the viewer; pass --source=ROOT, its folder"
      )
      return None
    options.update({"root": source, "check_finite": False, "memory_gb": 0.0})
    if annotations:
      options.annotations = annotations
  plugins.import_plugins(run.config.plugins)
  try:
    data = load_dataset(options, run.config.evaluate)
  except InputError as error:
    raise InputError(*map(_in_our_flags, error.problems)) from None
  ours = digest.data_digest(data)
  if data.simulated:  # features may differ in their last digit elsewhere
    ours["features"] = None
  for start in run.starts:
    if other := digest.contradict(start["data"], ours):
      raise InputError(
        f"--source={source}: expected the data set of the run in "
        f"{run.directory}, came one with other {' and '.join(other)}"
      )
  return data


def _in_our_flags(line: str) -> str:
  for key, flag in (("root", "source"), ("annotations", "annotations")):
    line = line.replace(f"--config.data.{key}", f"--{flag}")
  return line


class Compared(NamedTuple):
  """What a run is held against; `run` where that is a run's folder."""

  name: str
  detections: detection_files.Found
  run: RunRecord | None = None


def compared(path: Path, run: RunRecord) -> Compared:
  """A run's folder, or anybody's results file of the ActivityNet form.

  Raises:
    InputError: it is neither, has no detections, or is of other test videos.
  """
  if path.is_file():
    problems: list[str] = []
    found = files.read_results(path, run.notes, problems)
    if problems:
      raise InputError(*problems)
    return Compared(_name(path.stem, run), found)
  other = read_run(path, "against")
  if not other.detections:
    raise InputError(
      f"--against={path}: expected a run with detections, came one that has "
      "none yet; give its command again, which goes on with it"
    )
  for one, two in ((a, b) for a in run.starts[-1:] for b in other.starts[-1:]):
    if "annotations" in digest.contradict(one["data"], two["data"]):
      raise InputError(
        f"--against={path}: expected a run on the data of {run.directory}, "
        "came one with other annotations; compare runs on one data set"
      )
  name = other.name
  if name == run.name:
    name = "/".join(path.resolve().parts[-2:])
  return Compared(_name(name, run), other.detections[other.row], other)


def _name(name: str, run: RunRecord) -> str:
  """A name that no line of the run's own table has."""
  return f"{name} (compared)" if name in run.detections else name


def config_digest(run: RunRecord) -> str:
  """SHA-256 of all that the results hang on."""
  return identity.config_digest(run.config)
