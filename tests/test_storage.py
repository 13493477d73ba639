"""Tests of ptlr_jax.io.storage: seals, sealed JSON, folders, leftovers."""

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ptlr_jax.data.files import sealing
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import Damaged, OtherVersion
from tests.damage import flipped, names, random_bits

# Seals.


def test_the_seal_is_the_sha256_with_zeros_in_its_place():
  sealed = sealing.seal(b"a" + sealing.PLACE + b"z")
  digest = hashlib.sha256(b"a" + b"0" * 64 + b"z").hexdigest()
  assert sealed == f"a{digest}z".encode()
  assert sealing.is_sealed(sealed, 1)


@pytest.mark.parametrize("at", [-1, 0, 2, 65, 66, 1000, -65])
def test_a_seal_at_another_place_is_none(at):
  sealed = sealing.seal(b"a" + sealing.PLACE + b"z")
  assert not sealing.is_sealed(sealed, at)


def test_of_several_places_the_last_is_filled():
  sealed = sealing.seal(sealing.PLACE + b", " + sealing.PLACE)
  assert sealed.startswith(sealing.PLACE + b", ")
  assert not sealed.endswith(sealing.PLACE)
  assert sealing.is_sealed(sealed, 66)


def test_what_leaves_no_place_cannot_be_sealed():
  with pytest.raises(ValueError, match="not found"):
    sealing.seal(b"0" * 63)


def test_any_turned_bit_breaks_a_seal():
  data = np.random.default_rng(0).bytes(200)
  sealed = sealing.seal(data + sealing.PLACE)
  assert sealing.is_sealed(sealed, 200)
  for bit in range(8 * len(sealed)):
    assert not sealing.is_sealed(flipped(sealed, bit), 200), bit


# JSON.

VALUES = [
  {},
  {"a": 1, "b": [1.5, None, True, "é\n\"'"], "c": {"d": {}}},
  {"zeros": sealing.PLACE.decode(), "more": ["0" * 200]},
  {"said": '"sha256": "' + "a" * 64 + '"}', "sha": 256},
  {"long": "x" * 100_000},
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("value", VALUES)
def test_sealed_json_comes_back_and_is_json(value, indent):
  data = sealing.sealed_json(value, indent)
  assert sealing.is_sealed_json(data)
  assert storage.parsed_json(Path("x"), data) == value
  assert data == sealing.sealed_json(value, indent)
  plain = json.loads(data)
  assert list(plain) == [*value, "ptlr_jax", "sha256"]
  assert plain["ptlr_jax"] == sealing.VERSION
  assert data.endswith(b"}\n")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_refused(bad):
  with pytest.raises(ValueError, match="JSON compliant"):
    sealing.sealed_json({"a": [bad]})


@pytest.mark.parametrize(
  ("data", "said"),
  [
    (b"", "no JSON"),
    (b"{", "no JSON"),
    (b"\xff\xfe\x00", "no JSON"),
    (b"\x00" * 50, "no JSON"),
    (b"[1]", "no JSON object"),
    (b"null", "no JSON object"),
    (b'"text"', "no JSON object"),
    (b'{"sha256": 3}', "another content"),
    (b'{"ptlr_jax": 1}', "another content"),
    (b'{"ptlr_jax": 2, "sha256": "0"}', "another content"),
  ],
)
def test_what_is_no_sealed_json_is_damaged_and_named(data, said):
  with pytest.raises(Damaged, match=said) as caught:
    storage.parsed_json(Path("runs/x.json"), data)
  assert str(caught.value).startswith("runs/x.json: expected it as it was")


@pytest.mark.parametrize("version", [0, 2, 1.5, "1", None, [1], {}])
def test_sound_json_of_another_version_is_no_damage(monkeypatch, version):
  monkeypatch.setattr(sealing, "VERSION", version)
  data = sealing.sealed_json({"a": 1})
  monkeypatch.undo()
  with pytest.raises(OtherVersion) as caught:
    storage.parsed_json(Path("x.json"), data)
  said = "none" if version is None else repr(version)
  assert str(caught.value) == (
    f"x.json: expected an artefact of version 1, came {said}; use the ptlr_jax "
    "that wrote it, or give a new --workdir"
  )


def test_damaged_json_of_another_version_is_damaged(monkeypatch):
  monkeypatch.setattr(sealing, "VERSION", 2)
  data = sealing.sealed_json({"a": 1})
  monkeypatch.undo()
  with pytest.raises(Damaged):
    storage.parsed_json(Path("x"), data.replace(b'"a"', b'"b"'))


def test_the_same_content_in_another_layout_is_not_as_it_was_written():
  data = sealing.sealed_json({"a": 1})
  for other in (
    json.dumps(json.loads(data)).encode(),
    data[:-1],
    data + b"\n",
    b" " + data,
    data.replace(b"\n", b"\r\n"),
  ):
    assert json.loads(other) == json.loads(data)
    with pytest.raises(Damaged):
      storage.parsed_json(Path("x"), other)


# Reading.


def test_what_cannot_be_read_is_damaged_and_said_why(tmp_path):
  with pytest.raises(Damaged, match="No such file") as caught:
    storage.read_bytes(tmp_path / "lost")
  assert str(tmp_path / "lost") in str(caught.value)
  with pytest.raises(Damaged, match="Is a directory"):
    storage.read_bytes(tmp_path)


# Folders.


@pytest.fixture
def folder(tmp_path):
  """A sealed folder of a, b/c and b/digests.json."""
  path = tmp_path / "folder"
  for name in ("a", "b/c", "b/digests.json"):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(name.encode() * 20)
  storage.seal_folder(path, {"pending": [{"loss": 0.5}], "n": 3})
  return path


def test_a_folder_as_it_was_written_gives_its_notes(folder):
  assert storage.verify_folder(folder) == {"pending": [{"loss": 0.5}], "n": 3}
  listed = json.loads((folder / storage.MANIFEST).read_bytes())["files"]
  assert set(listed) == {"a", "b/c", "b/digests.json"}
  assert listed["a"] == hashlib.sha256(b"a" * 20).hexdigest()


def test_what_a_file_system_hides_in_a_folder_is_none_of_its_files(folder):
  (folder / ".nfs000012").write_bytes(b"x")
  assert storage.verify_folder(folder) == {"pending": [{"loss": 0.5}], "n": 3}


def test_what_is_not_as_written_in_a_folder_is_named(folder):
  for name, change, state in (
    ("a", lambda p: p.write_bytes(b"b" * 20), "changed"),
    ("b/digests.json", lambda p: p.write_bytes(b""), "changed"),
    ("b/c", lambda p: p.unlink(), "missing"),
    ("b/new", lambda p: p.write_bytes(b""), "new"),
  ):
    path, before = folder / name, None
    before = path.read_bytes() if path.exists() else None
    change(path)
    with pytest.raises(Damaged) as caught:
      storage.verify_folder(folder)
    said = f"{folder}: expected it as it was written, {name} is {state}"
    assert str(caught.value) == said
    path.unlink() if before is None else path.write_bytes(before)
  assert storage.verify_folder(folder)["n"] == 3


def test_several_wrong_files_are_counted(folder):
  (folder / "a").unlink()
  (folder / "b" / "c").write_bytes(b"")
  (folder / "z").write_bytes(b"")
  with pytest.raises(Damaged, match="a and 2 more is missing"):
    storage.verify_folder(folder)


def test_two_files_with_each_others_names_are_noticed(folder):
  (folder / "a").rename(folder / "x")
  (folder / "b" / "c").rename(folder / "a")
  (folder / "x").rename(folder / "b" / "c")
  with pytest.raises(Damaged, match="a and 1 more is changed"):
    storage.verify_folder(folder)


def test_a_folder_in_the_place_of_a_file_is_noticed(folder):
  (folder / "a").unlink()
  (folder / "a").mkdir()
  with pytest.raises(Damaged, match="a is missing"):
    storage.verify_folder(folder)


def test_a_file_or_nothing_in_the_place_of_a_folder_is_damaged(tmp_path):
  (tmp_path / "file").write_bytes(b"")
  for name in ("file", "nothing"):
    with pytest.raises(Damaged, match=r"digests\.json is missing") as caught:
      storage.verify_folder(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_that_fails_to_be_read_damages_its_folder(folder, monkeypatch):
  def failing(self, *args, **kwargs):
    if self.name == "c":
      raise OSError(errno.EIO, os.strerror(errno.EIO))
    return opened(self, *args, **kwargs)

  opened = Path.open
  monkeypatch.setattr(Path, "open", failing)
  with pytest.raises(Damaged, match="Input/output error"):
    storage.verify_folder(folder)


def test_turned_bits_in_a_list_of_digests_are_noticed(folder):
  path = folder / storage.MANIFEST
  data = path.read_bytes()
  for bit in random_bits(data, 300):
    path.write_bytes(flipped(data, bit))
    with pytest.raises(Damaged, match=r"digests\.json"):
      storage.verify_folder(folder)


# What a stop leaves.


def test_leftovers_are_what_has_no_whole_name_yet(tmp_path):
  run = tmp_path / "run"
  left = {
    *(".config.json.tmp-7", "labels/.labels-0.npz.tmp-12"),
    *("detections/.ilg.json.taken", "checkpoints/ilg/.step-000004"),
    "checkpoints/ilg/.final.orbax-checkpoint-tmp-1",
  }
  others = {
    *(".lock", ".gitignore", "config.json", "labels/labels-0.npz"),
    *("checkpoints/ilg/final", "tmp-7", "notes.tmp-7", ".tmp-x"),
    *("labels/.keep", "detections/.nfs0001", ".git/.x.tmp-3"),
  }
  for name in left | others:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_bytes(b"")
  found = {str(p.relative_to(run)) for p in storage.leftovers(run)}
  assert found == left


@pytest.mark.parametrize("where", ["checkpoints/run", "checkpoints"])
def test_hidden_files_of_a_workdir_are_not_ours_wherever_it_lies(
  tmp_path, where
):
  run = tmp_path / where
  for name in (".lock", ".git/HEAD", ".gitignore", "labels/.keep"):
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_bytes(b"")
  assert storage.leftovers(run) == []


def test_removing_takes_files_folders_and_nothing(tmp_path):
  (tmp_path / "folder" / "deep").mkdir(parents=True)
  (tmp_path / "folder" / "deep" / "file").write_bytes(b"x")
  (tmp_path / "file").write_bytes(b"x")
  for name in ("folder", "file", "nothing"):
    storage.remove(tmp_path / name)
  assert names(tmp_path) == []
