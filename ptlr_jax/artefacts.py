"""The artefacts of a run by name, and how another run takes them over."""

import os
import shutil
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from ptlr_jax import checkpoints, writers
from ptlr_jax.phases import Phase, fingerprints, phases, rows

_TAKEN = ".taken"  # ends the name of what is not whole yet


class Artefacts:
  """What the phases of a run leave in its workdir."""

  def __init__(self, config: Any, directory: Path):
    self.config = config
    self.directory = directory
    self.log = writers.MetricsLog(directory / "metrics.jsonl")

  def checkpoint_dir(self, name: str) -> Path:
    """Checkpoints of a training phase."""
    return self.directory / "checkpoints" / name

  def label_path(self, name: str) -> Path:
    """Pseudo labels of a labels phase."""
    return self.directory / "labels" / f"{name}.npz"

  def detection_path(self, row: str) -> Path:
    """Detections of a line of the mAP table; the last line is the result."""
    if row == rows(self.config)[-1]:
      return self.directory / "detections.json"
    return self.directory / "detections" / f"{row}.json"

  def metrics_path(self) -> Path:
    """What a finished run measured."""
    return self.directory / "metrics.json"

  def is_done(self, phase: Phase) -> bool:
    """Whether the phase's artefact is there."""
    if phase.kind == "train":
      return checkpoints.is_finished(self.checkpoint_dir(phase.name))
    if phase.kind == "labels":
      return self.label_path(phase.name).exists()
    if phase.kind == "detect":
      return all(self.detection_path(r).exists() for r in rows(self.config))
    return self.metrics_path().exists()

  def adopt(self, other: "Artefacts") -> list[str]:
    """Takes over what another run on the same data has done alike already.

    That is every phase and every row's detections of the same fingerprint
    (`phases.fingerprints`), with what the log says of it. Files are linked
    where the file system can, else copied; none is ever changed in place.
    Returns the names that were taken.
    """
    ours, theirs = fingerprints(self.config), fingerprints(other.config)
    same = {n for n, digest in ours.items() if theirs.get(n) == digest}
    taken = []
    for phase in phases(self.config):
      if phase.name in same and other.is_done(phase) > self.is_done(phase):
        if phase.kind == "train":
          final = Path(phase.name) / checkpoints.FINAL
          parts = (run.checkpoint_dir(str(final)) for run in (other, self))
        else:
          parts = (run.label_path(phase.name) for run in (other, self))
        self._take_log(other, phase.name)
        _link(*parts)
        taken.append(phase.name)
    for row in rows(self.config):
      name = f"detections/{row}"
      if name in same:
        source, target = other.detection_path(row), self.detection_path(row)
        if source.exists() and not target.exists():
          _link(source, target)
          taken.append(name)
    return taken

  def adopt_neighbours(self) -> None:
    """Takes over what the runs in the folders beside this one have alike."""
    self.tidy()
    for path in sorted(self.directory.parent.glob("*/config.json")):
      if path.parent != self.directory:
        config = FrozenConfigDict(writers.read_json(path))
        self.adopt(Artefacts(config, path.parent))

  def tidy(self) -> None:
    """Removes what a stop in the middle of `adopt` left."""
    for path in list(self.directory.rglob(f".*{_TAKEN}")):
      if path.is_dir():
        shutil.rmtree(path)
      else:
        path.unlink()

  def _take_log(self, other: "Artefacts", name: str) -> None:
    self.log.rewind(name, -1)
    for line in other.log.read():
      if line["phase"] == name:
        values = {k: v for k, v in line.items() if k not in ("phase", "step")}
        self.log.append(name, line["step"], values)


def _link_file(source: str, target: str) -> None:
  try:
    os.link(source, target)
  except OSError:  # another file system, or one without links
    shutil.copy2(source, target)


def _link(source: Path, target: Path) -> None:
  """A file or a folder of files under a second name, whole or not at all."""
  target.parent.mkdir(parents=True, exist_ok=True)
  temporary = target.with_name(f".{target.name}{_TAKEN}")
  if source.is_dir():
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=_link_file)
  else:
    temporary.unlink(missing_ok=True)
    _link_file(str(source), str(temporary))
  temporary.rename(target)
