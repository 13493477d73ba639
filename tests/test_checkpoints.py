"""Tests of ptlr_jax.io.checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptlr_jax.io import checkpoints
from ptlr_jax.runtime.errors import Damaged, InputError
from ptlr_jax.training import train_step


def _state(value, step):
  """A state whose numbers all differ, so that a mix-up shows."""
  params = {"w": value + jnp.arange(3000.0).reshape(3, 1000), "b": jnp.ones(2)}
  state = train_step.create_state(params, train_step.adam(0.1))
  return state.replace(step=jnp.array(step, jnp.int32))


@pytest.fixture
def saved(tmp_path):
  """A folder with checkpoints of steps 4 and 8."""
  for step in (2, 4, 8):
    checkpoints.save(tmp_path, step, _state(100.0 * step, step))
  return tmp_path


def _names(directory):
  return sorted(path.name for path in directory.iterdir())


def _data_file(directory):
  """The file that holds the arrays: the largest."""
  files = [path for path in directory.rglob("*") if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def _cut_off(directory):
  path = _data_file(directory)
  path.write_bytes(path.read_bytes()[:100])


def _lost(directory):
  _data_file(directory).unlink()


def _flipped_bit(directory):
  path = _data_file(directory)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def _no_manifest(directory):
  (directory / "manifest.ocdbt").unlink()


def _no_metadata(directory):
  (directory / "_METADATA").write_text("{")


def _no_digests(directory):
  (directory / "digests.json").unlink()


def _half_written_digests(directory):
  (directory / "digests.json").write_text('{"a')


def _emptied(directory):
  for path in directory.rglob("*"):
    if path.is_file():
      path.unlink()


DAMAGE = [
  _cut_off,
  _lost,
  _flipped_bit,
  _no_manifest,
  _no_metadata,
  _no_digests,
  _half_written_digests,
  _emptied,
]


def test_the_newest_two_are_kept(saved):
  assert checkpoints.steps(saved) == [4, 8]
  assert _names(saved) == ["step-000004", "step-000008"]


def test_the_newest_comes_back_bit_for_bit(saved):
  restored = checkpoints.restore(saved, _state(0.0, 0))
  assert restored is not None
  state, wanted = restored.state, _state(800.0, 8)
  assert jax.tree.structure(state) == jax.tree.structure(wanted)
  pairs = zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True)
  for one, other in pairs:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


def test_steps_sort_as_numbers(tmp_path):
  for step in (999_999, 1_000_000):
    checkpoints.save(tmp_path, step, _state(0.0, step))
  assert checkpoints.steps(tmp_path) == [999_999, 1_000_000]


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
  assert checkpoints.restore(tmp_path, _state(0.0, 0)) is None
  assert checkpoints.restore(tmp_path / "absent", _state(0.0, 0)) is None


def test_an_interrupted_write_is_no_checkpoint(saved):
  names = (".step-000012", ".final", ".step-000012.orbax-checkpoint-tmp")
  for name in (*names, "step-000016.orbax-checkpoint-tmp"):
    (saved / name).mkdir()
    (saved / name / "half").write_text("x")
  assert checkpoints.steps(saved) == [4, 8]
  assert not (saved / "final").exists()
  restored = checkpoints.restore(saved, _state(0.0, 0))
  assert restored is not None
  assert int(restored.state.step) == 8
  checkpoints.save(saved, 12, _state(1200.0, 12))
  assert checkpoints.steps(saved) == [8, 12]


def test_finish_leaves_the_final_parameters_alone(saved):
  (saved / ".step-000012.orbax-checkpoint-tmp").mkdir()
  (saved / ".final").mkdir()
  params = _state(7.0, 8).params
  assert not (saved / "final").exists()
  checkpoints.finish(saved, params)
  assert (saved / "final").is_dir()
  assert _names(saved) == ["final"]
  found = checkpoints.final_params(saved, _state(0.0, 0).params)
  assert found.keys() == params.keys()
  np.testing.assert_array_equal(found["w"], params["w"])


def test_finishing_again_replaces_what_is_there(saved):
  checkpoints.finish(saved, _state(7.0, 8).params)
  _flipped_bit(saved / "final")
  checkpoints.finish(saved, _state(9.0, 8).params)
  found = checkpoints.final_params(saved, _state(0.0, 0).params)
  assert float(found["w"][0, 0]) == 9.0


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_unreadable_checkpoint_falls_back_to_the_one_before(saved, damage):
  damage(saved / "step-000008")
  restored = checkpoints.restore(saved, _state(0.0, 0))
  assert restored is not None
  assert int(restored.state.step) == 4
  np.testing.assert_array_equal(
    restored.state.params["w"], _state(400.0, 4).params["w"]
  )


def test_without_any_readable_checkpoint_each_is_named(saved, capsys):
  _cut_off(saved / "step-000004")
  _no_metadata(saved / "step-000008")
  assert checkpoints.restore(saved, _state(0.0, 0)) is None
  first, second = capsys.readouterr().out.splitlines()
  assert first.startswith(f"{saved / 'step-000008'}: expected it as it was")
  assert second.startswith(f"{saved / 'step-000004'}: expected it as it was")


def test_a_sound_checkpoint_of_other_parameters_is_refused_in_one_line(saved):
  other = _state(0.0, 0).replace(params={"w": jnp.zeros((2, 2))})
  with pytest.raises(InputError, match="of this configuration") as caught:
    checkpoints.restore(saved, other)
  (line,) = caught.value.problems
  assert line.startswith(f"{saved / 'step-000008'}: ")
  assert f"remove {saved} to train" in line


def test_notes_come_back_with_the_state_they_were_saved_with(tmp_path):
  notes = {"pending": [{"loss": float(np.float32(0.1))}]}
  checkpoints.save(tmp_path, 2, _state(0.0, 2), notes)
  checkpoints.save(tmp_path, 4, _state(0.0, 4))
  newest = checkpoints.restore(tmp_path, _state(0.0, 0))
  before = checkpoints.restore(tmp_path, _state(0.0, 0), at=3)
  assert newest is not None
  assert before is not None
  assert newest.notes == {}
  assert before.notes == notes
  assert int(before.state.step) == 2
  assert checkpoints.steps(tmp_path) == [2]  # the later one is made anew


def test_damaged_final_parameters_are_refused_in_one_line(saved):
  params = _state(7.0, 8).params
  checkpoints.finish(saved, params)
  _flipped_bit(saved / "final")
  with pytest.raises(Damaged) as caught:
    checkpoints.final_params(saved, params)
  (line,) = caught.value.problems
  assert str(saved / "final") in line
  assert line.endswith("is changed")


def test_going_on_after_a_fall_back_replaces_the_unreadable_one(saved):
  _lost(saved / "step-000008")
  restored = checkpoints.restore(saved, _state(0.0, 0))
  assert restored is not None
  assert int(restored.state.step) == 4
  checkpoints.save(saved, 8, _state(800.0, 8))
  again = checkpoints.restore(saved, _state(0.0, 0))
  assert again is not None
  assert int(again.state.step) == 8
