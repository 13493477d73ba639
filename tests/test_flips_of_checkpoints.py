"""Damage of a checkpoint is noticed where it is read, and passed over.

Turned bits, cut, lost and added files, of the state and of the list of their
digests.
"""

import json

import numpy as np
import pytest

from ptlr_jax.data.files import sealing
from ptlr_jax.io import checkpoints, storage
from ptlr_jax.runtime.errors import Damaged
from tests import damage
from tests.damage import assert_damaged, assert_other

TREE = {
  "w": np.arange(600.0, dtype=np.float32).reshape(3, 200),
  "b": np.ones(5, np.float32),
}
NOTES = {"pending": [{"loss": 0.25}]}

NEWEST = "step-000008"


@pytest.fixture
def phase(tmp_path):
  """The folder of a phase with steps 4 and 8, and final parameters."""
  done = tmp_path / "done"
  checkpoints.finish(done, TREE)
  for step in (4, 8):
    tree = {**TREE, "b": np.full(5, step, np.float32)}
    checkpoints.save(tmp_path / "ilg", step, tree, NOTES)
  (done / storage.FINAL).rename(tmp_path / "ilg" / storage.FINAL)
  return tmp_path / "ilg"


def _read_checkpoint(path):
  """As `final_params` and `restore` do."""
  if path.name == storage.FINAL:
    return checkpoints.final_params(path.parent, TREE)
  storage.verify_folder(path)
  return checkpoints._read(path, TREE)


either = pytest.mark.parametrize("name", [storage.FINAL, NEWEST])


@either
def test_a_turned_bit_in_any_file_of_a_checkpoint_is_noticed(phase, name):
  path = phase / name
  assert _read_checkpoint(path)
  for file in damage.files(path):
    data, listed = file.read_bytes(), file.name == storage.MANIFEST
    for bit in damage.random_bits(data, 150 if listed else 12):
      file.write_bytes(damage.flipped(data, bit))
      assert_damaged(file if listed else path, _read_checkpoint, path)
    file.write_bytes(data)
  assert _read_checkpoint(path)


@either
def test_a_cut_longer_or_lost_file_of_a_checkpoint_is_named(phase, name):
  path = phase / name
  for file in damage.files(path):
    data, where = file.read_bytes(), path
    lengths = [0, 1, len(data) // 2, len(data) - 1]
    for changed in (*(data[:n] for n in lengths), data + b"\0", data + b"\n"):
      file.write_bytes(changed)
      where = file if file.name == storage.MANIFEST else path
      assert_damaged(where, _read_checkpoint, path)
    file.unlink()
    with pytest.raises(Damaged) as caught:
      _read_checkpoint(path)
    assert f"{file.relative_to(path)} is missing" in str(caught.value)
    file.write_bytes(data)


@either
@pytest.mark.parametrize("new", ["new", "d/new", "deep/digests.json"])
def test_an_added_file_of_a_checkpoint_is_named(phase, name, new):
  file = phase / name / new
  file.parent.mkdir(exist_ok=True)
  file.write_bytes(b"")
  with pytest.raises(Damaged, match=f"{new} is new"):
    _read_checkpoint(phase / name)


def test_the_parameters_of_one_checkpoint_in_another_are_noticed(phase):
  ours, theirs = (phase / f"step-00000{i}" for i in (4, 8))
  for file in damage.files(theirs):
    other = ours / file.relative_to(theirs)
    if other.exists() and file.name != storage.MANIFEST:
      other.write_bytes(file.read_bytes())
  with pytest.raises(Damaged, match=r"is (changed|missing)"):
    storage.verify_folder(ours)


def test_damage_of_the_newest_step_falls_back_to_the_one_before(phase, capsys):
  bad = phase / NEWEST
  damage.flip(damage.largest(bad))
  assert checkpoints.sound_steps(phase) == [4]
  found = checkpoints.restore(phase, TREE)
  assert found is not None
  np.testing.assert_array_equal(found.state["b"], np.full(5, 4))
  assert found.notes == NOTES
  said = capsys.readouterr().out
  assert said.startswith(f"{bad}: expected it as it was written, ")
  assert said.endswith("is changed; going on from the one before\n")
  assert checkpoints.steps(phase) == [4]


def test_a_new_checkpoint_stays_though_all_before_were_damaged(phase):
  for step in checkpoints.steps(phase):
    damage.flip(damage.largest(checkpoints.step_path(phase, step)))
  assert checkpoints.restore(phase, TREE) is None
  path = checkpoints.save(phase, 2, TREE)
  assert path.exists()
  assert checkpoints.sound_steps(phase) == [2]


def test_a_checkpoint_that_finds_no_room_leaves_those_before(
  phase, monkeypatch
):
  def full(folder, notes):
    raise OSError(28, "No space left on device")

  before = [phase / storage.FINAL, *(phase / f"step-00000{i}" for i in (4, 8))]
  with monkeypatch.context() as patched:
    patched.setattr(storage, "seal_folder", full)
    with pytest.raises(OSError, match="step-000012: the disk takes no more"):
      checkpoints.save(phase, 12, TREE)
    with pytest.raises(OSError, match="final: the disk takes no more"):
      checkpoints.finish(phase, TREE)
  assert damage.names(phase) == sorted(path.name for path in before)
  for path in before:
    storage.verify_folder(path)


@either
def test_a_checkpoint_of_another_version_is_told(phase, monkeypatch, name):
  path = phase / name
  listed = path / storage.MANIFEST
  with monkeypatch.context() as patched:
    patched.setattr(sealing, "VERSION", 2)
    storage.seal_folder(path, NOTES)
  assert_other(listed, "2", _read_checkpoint, path)
  if name != storage.FINAL:
    assert_other(listed, "2", checkpoints.restore, phase, TREE)
    assert_other(listed, "2", checkpoints.sound_steps, phase)
  assert path.exists()
  listed.write_text(json.dumps({"files": {}}))
  assert_other(listed, "none", _read_checkpoint, path)
