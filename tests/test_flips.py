"""Damage of the single files of a workdir is noticed where they are read.

Turned bits, lost ends, more bytes, lost files: `Damaged` names what
is not as it was written, and nothing else is raised. A sound artefact of
another version, or of a release without digests, is `OtherVersion`.
"""

import json
import random

import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from ptlr_jax.data.files import sealing
from ptlr_jax.io import detection_files, label_files, storage
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.workdir import identity
from ptlr_jax.workdir.artefacts import Artefacts
from tests import damage, tiny_config
from tests.damage import assert_damaged, assert_other

IDS, LENGTHS = ("video_a", "b", "c"), (3, 40, 12)


def _labels():
  draw = np.random.default_rng(0)
  return [
    PseudoLabels(draw.random((t, 11)) < 0.3, draw.random(t) < 0.5)
    for t in LENGTHS
  ]


def _write_labels(path):
  label_files.write_labels(path, IDS, _labels())


def _write_detections(path):
  one = {"label": "Diving", "score": 0.5, "segment": [1.0, 2.5]}
  detection_files.write_detections(path, {"video_1": [one] * 4, "video_2": []})


JSON = {
  "metrics.json": {"mAP": {"0.50": 0.25}, "stages": {}, "seed": 0, "said": "é"},
  "config.json": identity.portable(tiny_config.get_config()),
  "provenance.json": {"starts": [{"config": "0" * 64, "seed": 0}] * 2},
}
WRITE = {
  "labels-0.npz": _write_labels,
  "detections.json": _write_detections,
  **{
    name: lambda path, value=value: storage.write_json(path, value)
    for name, value in JSON.items()
  },
}


def _read(path):
  if path.suffix == ".npz":
    return label_files.read_labels(path, IDS, LENGTHS)
  return storage.read_json(path)


@pytest.fixture
def artefact(tmp_path, request):
  path = tmp_path / request.param
  WRITE[request.param](path)
  return path


single = pytest.mark.parametrize("artefact", WRITE, indirect=True)


# Single files.


@single
def test_what_was_written_is_read_and_written_alike_again(artefact):
  assert _read(artefact)
  before = artefact.read_bytes()
  WRITE[artefact.name](artefact)
  assert artefact.read_bytes() == before


@single
def test_a_turned_bit_anywhere_in_a_file_is_noticed(artefact):
  """Versions, digests, white space and the zip's comment among them."""
  data = artefact.read_bytes()
  for bit in damage.flip_bits(data):
    artefact.write_bytes(damage.flipped(data, bit))
    assert_damaged(artefact, _read)


@single
def test_a_lost_end_of_a_file_is_noticed(artefact):
  data = artefact.read_bytes()
  for length in {0, 1, *random.Random(0).sample(range(len(data)), 60)}:
    artefact.write_bytes(data[:length])
    assert_damaged(artefact, _read)
  for lost in range(1, 92):
    artefact.write_bytes(data[:-lost])
    assert_damaged(artefact, _read)


@pytest.mark.parametrize("artefact", ["labels-0.npz"], indirect=True)
def test_labels_that_lost_just_their_comment_are_damaged(artefact):
  comment = len("ptlr_jax labels 0001 sha256 ") + 64
  artefact.write_bytes(artefact.read_bytes()[:-comment])
  assert_damaged(artefact, _read)


@single
def test_bytes_behind_or_before_a_file_are_noticed(artefact):
  data = artefact.read_bytes()
  for more in (b"\n", b" ", b"\0", b"}", b"0" * 64, b"\0" * 4096, data):
    for changed in (data + more, more + data):
      artefact.write_bytes(changed)
      assert_damaged(artefact, _read)


@single
def test_a_block_of_zeros_in_a_file_is_noticed(artefact):
  data = artefact.read_bytes()
  for start in range(0, len(data), 64):
    artefact.write_bytes(data[:start] + bytes(64) + data[start + 64 :])
    assert_damaged(artefact, _read)
  artefact.write_bytes(bytes(len(data)))
  assert_damaged(artefact, _read)


@single
def test_a_file_that_is_lost_or_a_folder_is_noticed(artefact):
  artefact.unlink()
  assert_damaged(artefact, _read)
  artefact.mkdir()
  assert_damaged(artefact, _read)


@pytest.mark.parametrize("artefact", ["labels-0.npz"], indirect=True)
def test_another_kind_of_file_in_the_place_of_labels_is_noticed(artefact):
  _write_detections(artefact)
  assert_damaged(artefact, _read)


# Other versions.


def _sealed_by(monkeypatch, version, write):
  """What another version writes."""
  with monkeypatch.context() as patched:
    patched.setattr(sealing, "VERSION", version)
    comment = f"ptlr_jax labels {version:04d} sha256 ".encode()
    patched.setattr(label_files, "_COMMENT", comment)
    write()


@single
@pytest.mark.parametrize("version", [0, 2, 17])
def test_another_version_of_a_file_is_told(artefact, monkeypatch, version):
  write = WRITE[artefact.name]
  _sealed_by(monkeypatch, version, lambda: write(artefact))
  assert_other(artefact, str(version), _read)
  damage.flip(artefact)
  assert_damaged(artefact, _read)


@pytest.mark.parametrize("name", JSON)
def test_json_of_a_release_without_digests_is_told(tmp_path, name):
  path = tmp_path / name
  path.write_text(json.dumps(JSON[name], indent=2) + "\n")
  assert_other(path, "none", _read)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_labels_of_a_release_without_digests_are_told(tmp_path, save):
  path, labels = tmp_path / "labels-0.npz", _labels()
  save(
    path,
    ids=np.array(IDS),
    lengths=np.array(LENGTHS),
    labels=np.packbits(np.concatenate([x.labels for x in labels]), axis=1),
    selected=np.concatenate([x.selected for x in labels]),
    columns=np.array(11),
  )
  assert_other(path, "none", _read)
  damage.cut(path, path.stat().st_size - 1)
  assert_damaged(path, _read)


# What lies beside a run.


@pytest.mark.parametrize("content", ['{"hidden_size": 768}', "older release"])
def test_a_folder_of_something_else_beside_a_run_is_passed_over(
  tmp_path, content, capsys
):
  config = tiny_config.get_config()
  if content == "older release":
    content = json.dumps(identity.portable(config))
  ours, theirs = tmp_path / "ours", tmp_path / "theirs"
  for path in (ours, theirs):
    path.mkdir()
  (theirs / "config.json").write_text(content)
  Artefacts(FrozenConfigDict(config), ours).adopt_neighbours()
  assert str(theirs) in capsys.readouterr().out
  assert damage.names(ours) == []


def test_a_damaged_config_json_beside_a_run_is_passed_over(tmp_path, capsys):
  config = FrozenConfigDict(tiny_config.get_config())
  ours, theirs = tmp_path / "ours", tmp_path / "theirs" / "config.json"
  ours.mkdir()
  storage.write_json(theirs, identity.portable(config))
  damage.flip(theirs)
  Artefacts(config, ours).adopt_neighbours()
  assert f"{theirs}: expected it as it was written" in capsys.readouterr().out
  assert damage.names(ours) == []
