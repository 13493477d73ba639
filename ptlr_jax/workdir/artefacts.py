"""The artefacts of a run by name, and how another run takes them over."""

import os
import shutil
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from ptlr_jax.io import disk_space, label_files, metrics_log, storage
from ptlr_jax.runtime import config_tree, schema
from ptlr_jax.runtime.errors import Damaged, InputError, OtherVersion
from ptlr_jax.runtime.progress import say, show
from ptlr_jax.workdir import identity, provenance
from ptlr_jax.workdir.identity import fingerprints
from ptlr_jax.workdir.phases import Phase, phases, table_rows


def verify(path: Path) -> None:
  """Verifies an artefact, whichever it is.

  Raises:
    Damaged: it is not as it was written.
    OtherVersion: it is of another version.
  """
  if path.name == storage.FINAL:
    storage.verify_folder(path)
  elif path.suffix == ".npz":
    label_files.check_labels(path)
  else:
    storage.check_json(path)


def read_run_config(directory: Path, called: str) -> FrozenConfigDict:
  """The configuration of the run in a folder; `called`: by the user.

  Raises:
    InputError: it is no folder of a run.
    Damaged, OtherVersion: the configuration.
  """
  path = directory / "config.json"
  if not path.is_file():
    came = "one without config.json"
    if not directory.is_dir():
      came = "a file" if directory.exists() else "no such folder"
    seeds = sorted(p.parent.name for p in directory.glob("seed-*/config.json"))
    if seeds:
      came = f"one with a run a seed; give one of them ({', '.join(seeds)})"
    raise InputError(f"{called}: expected the folder of a run, came {came}")
  return schema.completed(storage.read_json(path))


class Artefacts:
  """What the phases of a run leave in its workdir."""

  def __init__(self, config: Any, directory: Path):
    self.config = config
    self.parts = config.data.parts  # of the training set
    self.directory = directory
    self._verified: set[Path] = set()  # checkpoints, by this process
    self.log = metrics_log.MetricsLog(directory / "metrics.jsonl")

  def checkpoint_dir(self, name: str) -> Path:
    """Checkpoints of a training phase."""
    return self.directory / "checkpoints" / name

  def label_path(self, name: str, part: int = 0) -> Path:
    """Pseudo labels of a labels phase, of a part of the training set."""
    which = f"-{part:05d}-of-{self.parts:05d}" if self.parts > 1 else ""
    return self.directory / "labels" / f"{name}{which}.npz"

  def detection_path(self, row: str) -> Path:
    """Detections of a line of the mAP table; the last line is the result."""
    if row == table_rows(self.config)[-1]:
      return self.directory / "detections.json"
    return self.directory / "detections" / f"{row}.json"

  def metrics_path(self) -> Path:
    """What a finished run measured."""
    return self.directory / "metrics.json"

  def paths(self, phase: Phase) -> list[Path]:
    """What the phase leaves."""
    if phase.kind == "train":
      return [self.checkpoint_dir(phase.name) / storage.FINAL]
    if phase.kind == "labels":
      return [self.label_path(phase.name, k) for k in range(self.parts)]
    if phase.kind == "detect":
      return [self.detection_path(row) for row in table_rows(self.config)]
    return [self.metrics_path()]

  def is_sound(self, path: Path, told: str = "it is made again") -> bool:
    """Whether an artefact is there, and as it was written.

    A damaged one, which counts as missing, is told with what follows of it, or
    for "" is not. A checkpoint is looked at once; whoever reads it looks again.

    Raises:
      OtherVersion: it is of another version.
    """
    if not path.exists():
      return False
    if path in self._verified:
      return True
    try:
      verify(path)
    except Damaged as error:
      if told:
        show(f"{error}; {told}")
      return False
    if path.name == storage.FINAL:  # hundreds of megabytes
      self._verified.add(path)
    return True

  def is_done(self, phase: Phase, **how: str) -> bool:
    """Whether all that the phase leaves `is_sound`."""
    return all([self.is_sound(path, **how) for path in self.paths(phase)])

  def adopt(self, other: "Artefacts") -> list[str]:
    """Takes over what another run on the same data has done alike already.

    That is every phase and every row's detections of the same fingerprint
    (`identity.fingerprints`), with what the log says of it. Files are linked
    where the file system can, else copied; none is ever changed in place.
    Returns the names that were taken.
    """
    if not provenance.same_data(self.directory, other.directory):
      return []
    ours, theirs = fingerprints(self.config), fingerprints(other.config)
    same = {n for n, digest in ours.items() if theirs.get(n) == digest}
    elsewhere, taken = "it is not taken over", []
    for phase in phases(self.config):
      wanted = phase.name in same and not self.is_done(phase)
      if wanted and other.is_done(phase, told=elsewhere):
        self._take_log(other, phase.name)
        pairs = zip(other.paths(phase), self.paths(phase), strict=True)
        if all([self._take(*pair) for pair in pairs]):
          taken.append(phase.name)
    for row in table_rows(self.config):
      source, target = other.detection_path(row), self.detection_path(row)
      if f"detections/{row}" not in same or self.is_sound(target):
        continue
      if other.is_sound(source, elsewhere) and self._take(source, target):
        taken.append(f"detections/{row}")
    return taken

  def _take(self, source: Path, target: Path) -> bool:
    """Links what is sound; whether it still was when it came here."""
    try:
      _link(source, target)
    except FileNotFoundError:  # its own run has just made it anew
      return False
    return self.is_sound(target)

  def adopt_from(self, directory: Path) -> list[str]:
    """Takes over what the run in a folder has alike; see `adopt`.

    Raises:
      Damaged, OtherVersion: its configuration.
    """
    config = read_run_config(directory, str(directory))
    keys = [config_tree.flatten(x).keys() for x in (config, self.config)]
    if (keys[0] ^ keys[1]) - set(identity.NEUTRAL):
      say(f"{directory}: its configuration has other keys; nothing is reused")
      return []
    return self.adopt(Artefacts(config, directory))

  def adopt_neighbours(self) -> None:
    """Takes over what the runs in the folders beside this one have alike."""
    for path in sorted(self.directory.parent.glob("*/config.json")):
      if path.parent != self.directory:
        try:
          self.adopt_from(path.parent)
        except (Damaged, OtherVersion) as error:
          show(f"{error.lines[0]}; nothing more is taken over from there")

  def clear_leftovers(self) -> None:
    """Removes what a stop in the middle of writing left, and tells it; only
    for the one process that writes there."""
    for path in storage.leftovers(self.directory):
      say(f"{path}: left unfinished by a stop; removed")
      storage.remove(path)
    if lost := self.log.mend():
      show(f"{self.log.path}: {lost} lines are not as written; left out")

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
  temporary = target.with_name(f".{target.name}{storage.TAKEN}")
  storage.remove(temporary)
  with disk_space.room_for(target, 0):
    if source.is_dir():
      shutil.copytree(source, temporary, copy_function=_link_file)
    else:
      _link_file(str(source), str(temporary))
  storage.remove(target)  # where there is one, it is damaged
  temporary.rename(target)
