"""Tests of ptlr_jax.inference.model_file: a model in one file."""

import json

import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from ptlr_jax.data.files import sealing
from ptlr_jax.inference import model_file
from ptlr_jax.runtime import config_tree
from ptlr_jax.runtime.errors import InputError
from tests import tiny_config

safetensors = pytest.importorskip(
  "safetensors", reason="model files need safetensors"
)
safe_numpy = pytest.importorskip("safetensors.numpy")

RNG = np.random.default_rng(0)
MODEL = model_file.Model(
  config=FrozenConfigDict(tiny_config.get_config()),
  classes=("jump", "saut à la perche"),
  widths={"rgb": 8, "flow": 8},
  geometry={"fps": 25.0, "stride": 16.0, "window": 16.0, "offset": 0.0},
  stage=2,
  simulated=True,
  params={
    "ilg": {"rgb": {"kernel": RNG.normal(size=(3, 8, 4)).astype(np.float32)}},
    # A transposed array is not contiguous, which safetensors would mix up.
    "ots": {"kernel": RNG.normal(size=(4, 6)).astype(np.float32).T},
  },
  made_with=[{"seed": 0}],
)


@pytest.fixture
def path(tmp_path):
  model_file.write_model(tmp_path / "model.safetensors", MODEL)
  return tmp_path / "model.safetensors"


def _line(path):
  """The one line with which a file is refused; it begins with its name."""
  with pytest.raises(InputError) as error:
    model_file.read_model(path)
  (line,) = error.value.lines
  assert line.startswith(f"{path}: expected ")
  return line


def _rewritten(path, **changes):
  """The file with another description, sealed as it should be."""
  tensors = safe_numpy.load_file(path)
  with safetensors.safe_open(path, "np") as file:
    said = json.loads(file.metadata()["ptlr_jax"])
  del said["sha256"]  # which comes last
  said |= {**changes, "sha256": sealing.PLACE.decode()}
  kept = {key: value for key, value in said.items() if value != "gone"}
  text = sealing.seal(json.dumps(kept).encode()).decode()
  safe_numpy.save_file(tensors, path, {"ptlr_jax": text})


def test_what_is_read_is_what_was_written(path):
  found = model_file.read_model(path)
  for name in set(model_file.Model._fields) - {"params", "config"}:
    assert getattr(found, name) == getattr(MODEL, name)
  assert config_tree.flatten(found.config) == config_tree.flatten(MODEL.config)
  ours, theirs = map(model_file.flatten_params, (MODEL.params, found.params))
  assert theirs.keys() == ours.keys() == {"ilg/rgb/kernel", "ots/kernel"}
  for name, x in ours.items():
    np.testing.assert_array_equal(theirs[name], x)
  assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_any_reader_of_safetensors_reads_it(path):
  tensors = safe_numpy.load_file(path)
  assert tensors["ots/kernel"].shape == (6, 4)
  with safetensors.safe_open(path, "np") as file:
    said = json.loads(file.metadata()["ptlr_jax"])
  assert said["classes"] == list(MODEL.classes)
  assert said["config"]["ilg"]["steps"] == 8


def test_the_same_model_is_the_same_bytes(path, tmp_path):
  model_file.write_model(tmp_path / "again.safetensors", MODEL)
  assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_flip_of_any_bit_is_noticed(path):
  whole = path.read_bytes()
  for at in {*range(0, 60, 7), *range(0, len(whole), 41), len(whole) - 1}:
    flipped = bytearray(whole)
    flipped[at] ^= 1 << (at % 8)
    path.write_bytes(flipped)
    _line(path)
  path.write_bytes(whole)
  model_file.read_model(path)


@pytest.mark.parametrize(
  ("content", "what"),
  [
    (b"", "cannot be read"),
    (b"\x80\x04\x95", "cannot be read"),
    (b"PK\x03\x04" + bytes(400), "cannot be read"),
    (b'{"a": 1}' * 40, "cannot be read"),
  ],
)
def test_another_kind_of_file_is_refused(path, content, what):
  path.write_bytes(content)
  assert what in _line(path)


def test_a_file_that_was_cut_off_is_refused(path):
  path.write_bytes(path.read_bytes()[:-8])
  assert "copy it again" in _line(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
  assert "no such file" in _line(tmp_path / "model.safetensors")


def test_a_folder_is_refused_with_the_flag_for_it(tmp_path):
  assert "--workdir" in _line(tmp_path)


def test_a_safetensors_file_of_others_is_refused(path):
  safe_numpy.save_file({"weight": np.zeros(3)}, path, {"format": "pt"})
  assert "another .safetensors file" in _line(path)


def test_another_version_is_named(path):
  _rewritten(path, format=2)
  line = _line(path)
  assert "format 1, came 2" in line
  assert "export the run again" in line


@pytest.mark.parametrize(
  ("changes", "what"),
  [
    ({"classes": "gone"}, "other entries (classes)"),
    ({"more": 1}, "other entries (more)"),
    ({"classes": ["a", "a"]}, "class list"),
    ({"widths": {"depth": 3}}, "other streams"),
    ({"geometry": {"fps": "25"}}, "not made of numbers"),
    ({"geometry": {"speed": 25.0}}, "faulty geometry"),
    ({"config": {"seed": 0}}, "another configuration"),
  ],
)
def test_a_sound_file_of_another_form_is_refused(path, changes, what):
  _rewritten(path, **changes)
  assert what in _line(path)


def test_an_absent_package_is_named_with_its_extra(path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
  with pytest.raises(InputError, match=r"ptlr-jax\[predict\]"):
    model_file.read_model(path)
