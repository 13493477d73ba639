"""Tests of ptlr_jax.io.metrics_log."""

import json

import numpy as np
import pytest

from ptlr_jax.io import detection_files, label_files, metrics_log, storage
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runtime.errors import Damaged, InputError

IDS, LENGTHS = ("a", "video_b", "c"), (1, 7, 12)


def _labels(columns, seed=0):
  rng = np.random.default_rng(seed)
  return [
    PseudoLabels(rng.random((t, columns)) < 0.4, rng.random(t) < 0.5)
    for t in LENGTHS
  ]


def _names(directory):
  return sorted(path.name for path in directory.iterdir())


class _Full(Exception):
  pass


@pytest.fixture
def full_disk(monkeypatch):
  """Writing fails at the very end, when the data goes to the disk."""

  def fail(_):
    raise _Full

  monkeypatch.setattr(storage.os, "fsync", fail)


@pytest.mark.parametrize("columns", [2, 7, 8, 9, 21, 201])
def test_labels_come_back_as_they_were_written(tmp_path, columns):
  path, labels = tmp_path / "labels" / "ilg.npz", _labels(columns)
  label_files.write_labels(path, IDS, labels)
  found = label_files.read_labels(path, IDS, LENGTHS)
  for one, other in zip(labels, found, strict=True):
    assert other.labels.dtype == other.selected.dtype == bool
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.selected, other.selected)
  assert _names(path.parent) == ["ilg.npz"]


def test_labels_come_in_the_order_asked_for(tmp_path):
  path, labels = tmp_path / "x.npz", _labels(3)
  label_files.write_labels(path, IDS, labels)
  found = label_files.read_labels(path, IDS[::-1], LENGTHS[::-1])
  for one, other in zip(labels[::-1], found, strict=True):
    np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
  ("ids", "lengths"),
  [
    (("a", "video_b", "d"), LENGTHS),
    (IDS, (1, 7, 13)),
    (IDS[:2], LENGTHS[:2]),
    ((*IDS, "d"), (*LENGTHS, 3)),
  ],
)
def test_labels_of_other_videos_are_refused(tmp_path, ids, lengths):
  path = tmp_path / "x.npz"
  label_files.write_labels(path, IDS, _labels(3))
  with pytest.raises(InputError, match="use a new --workdir") as caught:
    label_files.read_labels(path, ids, lengths)
  assert str(path) in str(caught.value)


def test_a_labels_file_holds_no_pickles(tmp_path):
  path = tmp_path / "x.npz"
  label_files.write_labels(path, IDS, _labels(9))
  with np.load(path, allow_pickle=False) as file:
    assert {name: file[name].dtype.kind for name in file.files} == {
      "ids": "U",
      "lengths": "i",
      "labels": "u",
      "selected": "b",
      "columns": "i",
    }
    assert file["labels"].shape == (20, 2)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("before", [b"old", None])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, before):
  path = tmp_path / "x.npz"
  if before:
    path.write_bytes(before)
  for write in (
    lambda: storage.write_bytes(path, b"new"),
    lambda: storage.write_json(path, {"a": 1}),
    lambda: label_files.write_labels(path, IDS, _labels(3)),
    lambda: detection_files.write_detections(path, {}),
  ):
    with pytest.raises(_Full):
      write()
    assert _names(tmp_path) == (["x.npz"] if before else [])
    assert not before or path.read_bytes() == before


def test_json_comes_back_and_nan_is_refused(tmp_path):
  path = tmp_path / "deep" / "x.json"
  storage.write_json(path, {"a": [1, 2.5, None], "b": "é"})
  assert storage.read_json(path) == {"a": [1, 2.5, None], "b": "é"}
  with pytest.raises(ValueError, match="JSON compliant"):
    storage.write_json(path, {"a": float("nan")})
  assert storage.read_json(path)["b"] == "é"
  assert _names(path.parent) == ["x.json"]


def test_a_file_that_is_no_json_is_named(tmp_path):
  path = tmp_path / "metrics.json"
  path.write_text('{"a": 1')
  with pytest.raises(Damaged, match="no JSON") as caught:
    storage.read_json(path)
  assert str(path) in str(caught.value)


def test_detections_have_the_activitynet_form(tmp_path):
  path = tmp_path / "detections.json"
  found = [{"label": "Diving", "score": 0.5, "segment": [1.0, 2.5]}]
  detection_files.write_detections(path, {"video_1": found, "video_2": []})
  form = json.loads(path.read_text())
  assert (form.pop("ptlr_jax"), len(form.pop("sha256"))) == (1, 64)
  assert form == storage.read_json(path)
  assert form == {
    "version": "VERSION 1.3",
    "results": {"video_1": found, "video_2": []},
    "external_data": {},
  }


@pytest.fixture
def log(tmp_path):
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  for phase in ("ilg", "ots-1"):
    for step in (2, 4, 6):
      log.append(phase, step, {"loss": step / 4, "b/c": 0.1})
  return log


def _steps(log):
  return [(line["phase"], line["step"]) for line in log.read()]


def test_the_log_holds_what_was_appended(log, tmp_path):
  assert _steps(log) == [(p, s) for p in ("ilg", "ots-1") for s in (2, 4, 6)]
  first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
  assert (first.pop("ptlr_jax"), len(first.pop("crc32"))) == (1, 8)
  assert first == {"phase": "ilg", "step": 2, "loss": 0.5, "b/c": 0.1}


def test_rewinding_forgets_the_later_steps_of_one_phase(log):
  log.rewind("ots-1", 2)
  assert _steps(log) == [("ilg", 2), ("ilg", 4), ("ilg", 6), ("ots-1", 2)]
  log.rewind("ots-1", -1)
  assert _steps(log) == [("ilg", 2), ("ilg", 4), ("ilg", 6)]


def test_rewinding_to_the_end_changes_no_byte(log, tmp_path):
  path = tmp_path / "metrics.jsonl"
  before = path.read_bytes()
  log.rewind("ots-1", 6)
  assert path.read_bytes() == before


def test_a_line_that_a_kill_cut_off_is_left_out_and_written_again(
  log, tmp_path
):
  path = tmp_path / "metrics.jsonl"
  whole = path.read_bytes()
  for cut in (1, 2, 30):  # without its newline, its brace, half of it
    path.write_bytes(whole[:-cut])
    log.rewind("ots-1", 4)
    assert _steps(log)[-1] == ("ots-1", 4)
    log.append("ots-1", 6, {"loss": 6 / 4, "b/c": 0.1})
    assert path.read_bytes() == whole


def test_a_log_that_is_not_there_is_empty(tmp_path):
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  log.rewind("ilg", 0)
  assert log.read() == []
  assert not (tmp_path / "metrics.jsonl").exists()
