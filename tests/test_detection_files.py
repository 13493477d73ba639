"""Files of detections, written a line a video by several processes."""

import json

import pytest

from ptlr_jax.data.files import sealing
from ptlr_jax.io import detection_files, storage
from ptlr_jax.runtime import processes

FOUND = {
  f"v{i}": [
    {"label": "Diving", "score": 1 / (i + j + 3), "segment": [j, j + 0.64]}
    for j in range(i % 3)
  ]
  for i in range(7)
}


def _whole(found):
  form = {"version": "VERSION 1.3", "results": found, "external_data": {}}
  return sealing.sealed_json(form, indent=None)


def test_lines_as_they_come_make_the_file_of_all_at_once(tmp_path):
  path = tmp_path / "rows" / "detections.json"
  items = list(FOUND.items())
  with detection_files.writing(path) as add:
    add(dict(items[:3]))
    add({})
    add(dict(items[3:]))
  detection_files.write_detections(tmp_path / "once.json", FOUND)
  assert path.read_bytes() == (tmp_path / "once.json").read_bytes()
  assert path.read_bytes() == _whole(FOUND)
  assert [p.name for p in path.parent.iterdir()] == ["detections.json"]


def test_pieces_of_processes_follow_each_other(tmp_path, monkeypatch):
  """Process 0 of three, where the others have written theirs."""
  path = tmp_path / "detections.json"
  items = list(FOUND.items())
  others = {1: items[2:4], 2: items[4:]}
  for number, own in others.items():
    monkeypatch.setattr(processes, "index", lambda n=number: n)
    monkeypatch.setattr(processes, "is_first", lambda: False)
    kept = {}

    def keep(number=number, kept=kept):
      piece = storage.temporary_of(path, f"{number:05d}")
      kept[piece] = piece.read_bytes()

    monkeypatch.setattr(processes, "exchange", keep)
    with detection_files.writing(path) as add:
      add(dict(own))
    assert not path.exists()
    for piece, data in kept.items():
      piece.write_bytes(data)  # as long as process 0 reads it
  monkeypatch.setattr(processes, "index", lambda: 0)
  monkeypatch.setattr(processes, "is_first", lambda: True)
  monkeypatch.setattr(processes, "count", lambda: 3)
  monkeypatch.setattr(processes, "exchange", lambda: None)
  with detection_files.writing(path) as add:
    add(dict(items[:2]))
  assert path.read_bytes() == _whole(FOUND)


def test_without_videos_the_file_is_empty_and_sound(tmp_path):
  with detection_files.writing(tmp_path / "d.json"):
    pass
  found = json.loads((tmp_path / "d.json").read_text())
  assert found["results"] == {}


def _lose(path):
  with detection_files.writing(path) as add:
    add(FOUND)
    raise RuntimeError("lost")


def test_an_error_on_the_way_leaves_nothing(tmp_path):
  with pytest.raises(RuntimeError, match="lost"):
    _lose(tmp_path / "d.json")
  assert list(tmp_path.iterdir()) == []
