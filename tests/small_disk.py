"""A small disk that is filled right before a chosen write, and a run on it."""

import contextlib
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from ml_collections import FrozenConfigDict

from ptlr_jax import main
from ptlr_jax.cli import command_line
from ptlr_jax.io import checkpoints, disk_space, storage
from ptlr_jax.workdir import phases, run_folder
from ptlr_jax.workdir.artefacts import Artefacts

ROOT = Path(__file__).absolute().parents[1]
PAGE = 4096  # bytes; a tmpfs gives no less
SIZE = 32 << 20  # bytes; a run of `SMALL` needs half
NAMESPACED = "PTLR_JAX_TEST_NAMESPACE"  # set in tests that unshare has started
CONFIG = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.networks=('ots',)"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ptlr.stages=1"),
  *("--config.detect.sources=('ots',)", "--config.train.log_every=1"),
  *("--config.ilg.model.filter_width=64", "--config.ots.model.width=256"),
  "--config.ots.steps=16",
)
_SAID = re.compile(
  r"ptlr_jax: (\S+): (?:no space left on the disk|no more files can be made on "
  r"the disk \(it has no inodes left\)|the disk takes no more, though it has "
  r"room: a quota may be used up): ([\d.]+) ([kMG]?B) are to be "
  r"written, ([\d.]+) ([kMG]?B) are free; make room and give the same command "
  r"again, all that was written before is kept\n"
)
_UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}

Moment = Callable[[Path, int], bool]  # of a path, and what is to be written


class Disk:
  """A mounted file system, and what is put on it to fill it."""

  def __init__(self, root: Path):
    self.root, self.workdir = root, root / "run"
    self.filler, self.fillers = root / "filler", root / "fillers"

  def free(self) -> int:
    """Bytes."""
    return disk_space.free_space(self.root)

  def fill(self, left: float = 0) -> None:
    """Fills the disk until `left` bytes are free, in whole pages."""
    pages = -(-(self.free() - int(left)) // PAGE)
    if pages > 0:
      with self.filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, pages * PAGE)

  def fill_inodes(self, left: int = 0) -> None:
    """Makes empty files until the disk takes only `left` more."""
    self.fillers.mkdir()
    for i in range(os.statvfs(self.root).f_favail - left):
      (self.fillers / str(i)).touch()

  def make_room(self) -> None:
    """Removes what it was filled with."""
    storage.remove(self.filler)
    storage.remove(self.fillers)


@contextlib.contextmanager
def mounted(root: Path, size: int = SIZE, inodes: int = 1000) -> Iterator[Disk]:
  """A tmpfs; raises OSError where this process may mount none."""
  options = f"size={size},nr_inodes={inodes}"
  command = ["mount", "-t", "tmpfs", "-o", options, "small", str(root)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise OSError(done.stderr.strip())
  try:
    yield Disk(root)
  finally:
    subprocess.run(["umount", "--lazy", str(root)], check=True)


@functools.cache
def _elsewhere(tests: Path) -> subprocess.CompletedProcess:
  """Runs a file of tests as a user that may mount, in a namespace."""
  pytest_on = [sys.executable, "-m", "pytest", "-q", str(tests)]
  return subprocess.run(
    ["unshare", "-Urm", *pytest_on],
    cwd=ROOT,
    env={**os.environ, NAMESPACED: "1"},
    capture_output=True,
    text=True,
  )


@contextlib.contextmanager
def disk_for(tests: Path, root: Path) -> Iterator[Disk]:
  """`mounted` for a test; where that may not be, its file is run in a namespace
  of its own, once, and the test skipped or failed as that ends."""
  try:
    stack = contextlib.ExitStack()
    disk = stack.enter_context(mounted(root))
  except OSError as error:
    if os.environ.get(NAMESPACED):
      pytest.skip(f"no tmpfs can be mounted, by unshare neither: {error}")
    done = _elsewhere(tests)
    if "unshare:" in done.stderr:
      pytest.skip(f"no tmpfs can be mounted: {error}; {done.stderr.strip()}")
    if done.returncode:
      pytest.fail(done.stdout)
    pytest.skip("done in a namespace of its own, where all that is here passed")
  with stack:
    yield disk


# When it is filled.


def named(*ends: str) -> Moment:
  """When a file or a folder is written whose path ends so."""
  return lambda path, size: str(path).endswith(ends)


def torn(path: Path, size: int) -> bool:
  """When half a line of the log has room in the file's last page."""
  ours = path.name == "metrics.jsonl" and path.exists()
  there = path.stat().st_size if ours else 0
  return 0 < -there % PAGE < size


def filling(
  disk: Disk, moment: Moment, *, left: float = 0.0, looked: bool = True
):
  """`disk_space.room_for` on a disk that is filled, once, at a moment.

  `left` stays free, as a part of what is to be written. With `looked` the disk
  is filled after the room was looked at: the write itself fails.
  """
  room_for, over = disk_space.room_for, False

  @contextlib.contextmanager
  def room_for_less(path: Path, size: int) -> Iterator[None]:
    nonlocal over
    now = not over and moment(path, size)
    over = over or now
    if now and not looked:
      disk.fill(left * size)
    with room_for(path, size):
      if now and looked:
        disk.fill(left * size)
      yield

  return room_for_less


# A run, and what it says and leaves.


class Ended(NamedTuple):
  """How a command ended."""

  status: int
  out: str
  err: str


def command(monkeypatch, capfd, directory: Path, *overrides: str) -> Ended:
  """The main command in this process, as the command line has it."""
  argv = ["main", CONFIG, f"--workdir={directory}", *SMALL, *overrides]
  capfd.readouterr()
  status: object = 0
  with monkeypatch.context() as context:
    context.setattr(sys, "argv", argv)
    try:
      command_line.execute(main.run_command, "", "")
    except SystemExit as error:
      status = error.code
  assert isinstance(status, int)
  return Ended(status, *capfd.readouterr())


def refusal(ended: Ended) -> tuple[Path, float, float]:
  """What the one line on stderr says: where, bytes needed, bytes free."""
  assert ended.status == 1, ended.err
  said = _SAID.fullmatch(ended.err)
  assert said, ended.err
  where, needed, unit, free, its_unit = said.groups()
  return (
    *(
      Path(where),
      float(needed) * _UNITS[unit],
      float(free) * _UNITS[its_unit],
    ),
  )


def files_of(directory: Path, *overrides: str) -> Artefacts:
  """The artefacts of a run."""
  argv = ["main", CONFIG, f"--workdir={directory}", *SMALL, *overrides]
  return Artefacts(FrozenConfigDict(command_line.parse(argv).config), directory)


def assert_sound(files: Artefacts, ended: bool = False) -> None:
  """All that a run has left is as it was written, and nothing is half.

  Of a checkpoint, orbax's threads may go on after it has failed; what they
  leave is cleared away by the next start, and gone where a run has `ended`.
  """
  hidden = [p for p in files.directory.rglob(".*") if p.name != ".lock"]
  if not ended:
    hidden = [p for p in hidden if p not in storage.leftovers(files.directory)]
  assert hidden == []
  for name in ("config.json", "provenance.json"):
    if (files.directory / name).exists():
      assert files.is_sound(files.directory / name), name
  for phase in phases.phases(files.config):
    if phase.kind == "train":
      folder = files.checkpoint_dir(phase.name)
      assert checkpoints.sound_steps(folder) == checkpoints.steps(folder)
    for path in files.paths(phase):
      assert files.is_sound(path) == path.exists(), path


def done(files: Artefacts) -> list[str]:
  """The phases that are finished."""
  return [p.name for p in phases.phases(files.config) if files.is_done(p)]


def assert_same(ours: Path, expected: Path) -> None:
  """Two runs have left the same, to the bit."""
  names = ["detections.json", "metrics.json", "metrics.jsonl"]
  for folder in ("labels", "detections"):
    names += [f"{folder}/{p.name}" for p in (expected / folder).iterdir()]
  for name in names:
    assert (ours / name).read_bytes() == (expected / name).read_bytes(), name
  left = {str(p.relative_to(ours)) for p in ours.rglob("*")}
  assert not [name for name in left if storage.STEP in name]
  assert run_folder.finished_metrics(ours)
