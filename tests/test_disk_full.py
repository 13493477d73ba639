"""A run on a small disk: a line when it is full, and the same end later."""

import errno
import os
import re
import sys
from pathlib import Path

import jax
import orbax.checkpoint as ocp
import pytest
from small_disk import (
  PAGE,
  ROOT,
  SMALL,
  Ended,
  assert_same,
  assert_sound,
  command,
  disk_for,
  done,
  files_of,
  filling,
  named,
  refusal,
  torn,
)
from tiny_config import start

from ptlr_jax.cli import compile_cache
from ptlr_jax.io import disk_space
from ptlr_jax.runs import space_estimate

# Orbax leaves its event loop before all that it has asked for has failed.
ORDER = ["ilg", "labels-0", "ots-1", "labels-1-ots", "detect", "evaluate"]


@pytest.fixture(scope="module", autouse=True)
def compiled():
  """What one run of this file compiles, the next ones find."""
  names = (
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
  )
  before = {name: getattr(jax.config, name) for name in names}
  for name, value in zip(names, (0, -1), strict=True):
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture
def disk(tmp_path):
  """A small disk of a test's own, empty."""
  root = tmp_path / "disk"
  root.mkdir()
  with disk_for(Path(__file__), root) as found:
    yield found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """A run with room enough; no test changes it."""
  from ptlr_jax import main

  directory = tmp_path_factory.mktemp("undisturbed") / "run"
  config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
  main.run_command(["main", config, f"--workdir={directory}", *SMALL])
  return directory


@pytest.fixture
def begin(disk, monkeypatch, capfd):
  """Starts the command on the disk."""
  return lambda *more: command(monkeypatch, capfd, disk.workdir, *more)


def _assert_goes_on(disk, begin, undisturbed):
  """With room again the same command ends as if nothing had been."""
  disk.make_room()
  ended = begin()
  assert (ended.status, ended.err) == (0, "")
  assert_sound(files_of(disk.workdir), ended=True)
  assert_same(disk.workdir, undisturbed)


# The moment, how many phases are done before it, the part of what is to be
# written that has room.
MOMENTS = {
  "provenance.json": (named("provenance.json"), 0, 0),
  "a first checkpoint": (named("ilg/step-000004"), 0, 0.1),
  "a later checkpoint": (named("ots-1/step-000012"), 2, 0.1),
  "digests": (named(".step-000008/digests.json"), 0, 0),
  "final parameters": (named("ots-1/final"), 2, 0.1),
  "labels": (named("labels-0.npz"), 1, 0),
  "later labels": (named("labels-1-ots.npz"), 3, 0),
  "the first line": (named("metrics.jsonl"), 0, 0),
  "half a line": (torn, 2, 0),
  "detections of a row": (named("detections/ilg.json"), 4, 0.5),
  "detections": (named("detections.json"), 4, 0),
  "metrics.json": (named("metrics.json"), 5, 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_is_full_in_a_write_stops_the_run_with_a_line(
  moment, disk, begin, undisturbed, monkeypatch
):
  when, finished, left = MOMENTS[moment]
  with monkeypatch.context() as context:
    full = filling(disk, when, left=left)
    context.setattr(disk_space, "room_for", full)
    ended = begin()
  where, needed, free = refusal(ended)
  assert disk.filler.exists()
  assert when is torn or when(where, 0)
  assert where.is_relative_to(disk.workdir)
  assert needed > free
  files = files_of(disk.workdir)
  assert_sound(files)
  assert done(files) == ORDER[:finished]
  _assert_goes_on(disk, begin, undisturbed)


def test_a_write_without_room_is_not_begun(
  disk, begin, undisturbed, monkeypatch
):
  begun = []
  save = ocp.StandardCheckpointer.save

  def noted(self, path, *rest):
    begun.append(path.name)
    return save(self, path, *rest)

  with monkeypatch.context() as context:
    context.setattr(ocp.StandardCheckpointer, "save", noted)
    full = filling(disk, named("ots-1/final"), left=0.9, looked=False)
    context.setattr(disk_space, "room_for", full)
    where, needed, free = refusal(begin())
  assert where == disk.workdir / "checkpoints/ots-1/final"
  assert 0.5 * needed < free < needed
  assert begun[-1].endswith("step-000016")
  assert_sound(files_of(disk.workdir))
  _assert_goes_on(disk, begin, undisturbed)


def test_a_disk_that_would_become_full_is_refused_before_the_start(
  disk, begin, undisturbed, monkeypatch
):
  estimated = []
  needed_by = space_estimate.needed_bytes

  def noted(run):
    estimated.append(needed_by(run))
    return estimated[-1]

  monkeypatch.setattr(space_estimate, "needed_bytes", noted)
  disk.fill(1 << 20)
  where, needed, free = refusal(begin())
  assert where == disk.workdir
  assert needed == pytest.approx(estimated[0], rel=0.05)
  assert free == pytest.approx(disk.free(), rel=0.06)
  left = {path.name for path in disk.workdir.iterdir()}
  assert left == {"config.json", "provenance.json"}
  _assert_goes_on(disk, begin, undisturbed)


@pytest.mark.parametrize("pages", [0, 1])
def test_a_disk_that_is_full_at_the_first_write_is_told(
  pages, disk, begin, undisturbed
):
  """Without any room, and with room for the lock but not for config.json."""
  disk.fill(pages * PAGE)
  where, _, free = refusal(begin())
  assert where in (
    disk.workdir,
    disk.workdir / ("config.json", ".lock")[not pages],
  )
  assert free < 100
  assert [p for p in disk.workdir.rglob("*") if p.stat().st_size] == []
  _assert_goes_on(disk, begin, undisturbed)


def test_the_line_says_how_much_the_first_write_needs(disk, begin):
  disk.fill()
  _, needed, free = refusal(begin())
  assert needed > free


@pytest.mark.parametrize("moment", ["a first checkpoint", "labels"])
def test_a_disk_without_inodes_is_a_full_one(
  moment, disk, begin, undisturbed, monkeypatch
):
  when, finished, _ = MOMENTS[moment]
  monkeypatch.setattr(
    disk, "fill", lambda left: disk.fill_inodes(4 * (left > 0))
  )
  with monkeypatch.context() as context:
    context.setattr(
      disk_space, "room_for", filling(disk, when, left=finished == 0)
    )
    where, _, _ = refusal(begin())
  assert when(where, 0)
  assert_sound(files_of(disk.workdir))
  assert done(files_of(disk.workdir)) == ORDER[:finished]
  _assert_goes_on(disk, begin, undisturbed)


def test_a_line_of_a_disk_with_room_says_what_it_lacks(
  disk, begin, monkeypatch
):
  monkeypatch.setattr(disk, "fill", lambda left: disk.fill_inodes())
  full = filling(disk, named("labels-0.npz"))
  monkeypatch.setattr(disk_space, "room_for", full)
  ended = begin()
  assert ended.status == 1
  assert re.search("files|inodes", ended.err)


def test_a_quota_that_is_used_up_is_a_full_disk(
  disk, begin, undisturbed, monkeypatch
):
  def refused(file):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

  with monkeypatch.context() as context:
    context.setattr(os, "fsync", refused)
    where, _, _ = refusal(begin())
  assert where == disk.workdir / ".lock"

  def save(self, path, tree):
    path.mkdir(parents=True)
    (path / "d").write_text("half")
    raise ValueError(
      f"RESOURCE_EXHAUSTED: Error writing {path} [OS error {errno.EDQUOT}: "
      f"{os.strerror(errno.EDQUOT)}]"
    )

  with monkeypatch.context() as context:
    context.setattr(ocp.StandardCheckpointer, "save", save)
    where, _, _ = refusal(begin())
  assert where == disk.workdir / "checkpoints/ilg/step-000004"
  assert_sound(files_of(disk.workdir))
  _assert_goes_on(disk, begin, undisturbed)


def test_seeds_that_are_trained_at_once_go_on_together(
  disk, begin, monkeypatch, capfd, tmp_path
):
  both = "--config.seeds=2"
  room = command(monkeypatch, capfd, tmp_path / "room", both)
  assert room.status == 0
  with monkeypatch.context() as context:
    full = filling(
      disk, named("seed-1/checkpoints/ots-1/step-000008"), left=0.1
    )
    context.setattr(disk_space, "room_for", full)
    where, needed, free = refusal(begin(both))
  assert where == disk.workdir / "seed-1/checkpoints/ots-1/step-000008"
  assert needed > free
  disk.make_room()
  ended = begin(both)
  assert (ended.status, ended.err) == (0, "")
  for seed in ("seed-0", "seed-1"):
    assert_sound(files_of(disk.workdir / seed), ended=True)
    assert_same(disk.workdir / seed, tmp_path / "room" / seed)


def test_an_output_on_a_full_disk_stops_the_run_with_a_line(
  disk, tmp_path, monkeypatch, capfd
):
  with monkeypatch.context() as context, (disk.root / "log").open("w") as log:
    disk.fill()
    context.setattr(sys, "stdout", log)
    ended = command(monkeypatch, capfd, tmp_path / "run")
    disk.make_room()
  assert ended.status == 1
  assert len(ended.err.splitlines()) == 1
  assert ended.err.startswith("ptlr_jax: ")


# In a process of its own: what the shell sees.

FULL = """
import pathlib
from ptlr_jax import main
from ptlr_jax.io import disk_space
from tests import small_disk

disk = small_disk.Disk(pathlib.Path({root!r}))
moment = small_disk.named({moment!r})
disk_space.room_for = small_disk.filling(disk, moment, left={left})
main.main()
"""


def test_a_process_ends_with_status_1_and_one_line(
  disk, begin, undisturbed, cache
):
  moment = "ilg/step-000008"
  code = FULL.format(root=str(disk.root), moment=moment, left=0.1)
  ended = start(disk.workdir, cache, *SMALL, code=code)
  found = refusal(Ended(ended.returncode, ended.stdout, ended.stderr))
  assert found[0] == disk.workdir / "checkpoints" / moment
  assert_sound(files_of(disk.workdir))
  _assert_goes_on(disk, begin, undisturbed)


COMPILING = """
import warnings
warnings.simplefilter("always")  # JAX's are told, they are no errors
import sys
import jax
from ptlr_jax.cli import compile_cache

compile_cache._ROOM = 0  # it fills later
assert compile_cache.use_cache(sys.argv[1].removeprefix("--config="))
for i in range(1, 9):
  print(jax.jit(lambda x: (x * i).sum())(jax.numpy.arange(i)))
"""


def test_a_full_disk_under_the_compile_cache_ends_no_run(disk, tmp_path):
  """Neither while it is full, nor later with what was half written then."""
  folder = disk.root / "compiled"
  expected = "".join(f"{i * i * (i - 1) // 2}\n" for i in range(1, 9))
  disk.fill(5 * PAGE)
  for said in ("Error writing", "Error reading"):
    ended = start(tmp_path, tmp_path, code=COMPILING, config=folder)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == expected
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    disk.make_room()


def test_a_cache_without_room_is_told_and_done_without(disk, capsys):
  before = getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009
  try:
    assert compile_cache.use_cache(str(disk.root / "compiled")) is None
  finally:
    jax.config.update("jax_enable_compilation_cache", before)
  said = capsys.readouterr().out
  assert "are free there); going on without" in said
