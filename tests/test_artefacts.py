"""Taking over what another run has done alike."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax import checkpoints, workdir, writers
from ptlr_jax.artefacts import Artefacts
from ptlr_jax.phases import Phase, phases
from ptlr_jax.pseudo_labels import PseudoLabels
from tests import tiny_config


def _files(directory, **changes):
  config = ConfigDict(tiny_config.get_config().to_dict())
  flat = {key.replace("__", "."): value for key, value in changes.items()}
  config.update_from_flattened_dict(flat)
  directory.mkdir()
  return Artefacts(FrozenConfigDict(config), directory)


@pytest.fixture
def done(tmp_path):
  """A finished run, its artefacts filled with their own names."""
  files = _files(tmp_path / "done")
  for i, phase in enumerate(phases(files.config)):
    if phase.kind == "train":
      tree = {"bias": np.full(2, i, np.float32)}
      checkpoints.finish(files.checkpoint_dir(phase.name), tree)
      files.log.append(phase.name, 4, {"loss": i})
    elif phase.kind == "labels":
      labels = PseudoLabels(np.eye(2, dtype=bool), np.ones(2, bool))
      writers.write_labels(files.label_path(phase.name), ["v"], [labels])
      files.log.append(phase.name, 0, {"precision": i / 10})
  for row in ("ilg", "stage-1", "stage-2"):
    writers.write_detections(files.detection_path(row), {row: []})
  writers.write_json(files.metrics_path(), {})
  return files


def _row(files, row):
  return json.loads(files.detection_path(row).read_text())["results"]


def test_an_equal_run_takes_everything_but_the_metrics(done, tmp_path):
  files = _files(tmp_path / "new")
  taken = files.adopt(done)
  assert len(taken) == 10 + 3
  names = [p.name for p in phases(files.config) if not files.is_done(p)]
  assert names == ["evaluate"]
  assert files.log.read() == done.log.read()


def test_another_last_stage_moves_the_result_to_its_name(done, tmp_path):
  files = _files(tmp_path / "new", ptlr__stages=1)
  files.adopt(done)
  assert files.detection_path("stage-1").name == "detections.json"
  assert _row(files, "stage-1") == {"stage-1": []}
  longer = _files(tmp_path / "longer", ptlr__stages=3)
  longer.adopt(done)
  assert longer.detection_path("stage-2").name == "stage-2.json"
  assert _row(longer, "stage-2") == {"stage-2": []}
  assert not longer.detection_path("stage-3").exists()


def test_only_what_is_alike_is_taken(done, tmp_path):
  files = _files(tmp_path / "new", rts__upsampling="copy")
  assert files.adopt(done) == [
    *("ilg", "labels-0", "ots-1", "labels-1-ots"),
    "detections/ilg",
  ]
  assert not files.is_done(Phase("rts-1", "train", "rts", 1))
  assert _files(tmp_path / "seed", seed=9).adopt(done) == []


def test_what_is_there_stays(done, tmp_path):
  files = _files(tmp_path / "new")
  own = {"bias": np.full(2, -1, np.float32)}
  checkpoints.finish(files.checkpoint_dir("ilg"), own)
  writers.write_detections(files.detection_path("ilg"), {"mine": []})
  files.adopt(done)
  read = checkpoints.final_params(files.checkpoint_dir("ilg"), own)
  np.testing.assert_array_equal(read["bias"], own["bias"])
  assert _row(files, "ilg") == {"mine": []}
  assert files.adopt(done) == []


def test_what_is_taken_can_be_read_and_outlives_its_source(done, tmp_path):
  files = _files(tmp_path / "new")
  files.adopt(done)
  template = {"bias": np.zeros(2, np.float32)}
  for name, i in (("ilg", 0), ("rts-2", 8)):
    read = checkpoints.final_params(files.checkpoint_dir(name), template)
    np.testing.assert_array_equal(read["bias"], [i, i])
  writers.write_detections(done.detection_path("ilg"), {"other": []})
  assert _row(files, "ilg") == {"ilg": []}


def test_a_phase_that_was_under_way_is_replaced_and_its_log_too(done, tmp_path):
  files = _files(tmp_path / "new")
  checkpoints.save(files.checkpoint_dir("ilg"), 2, {"bias": np.zeros(2)})
  files.log.append("ilg", 2, {"loss": 99})
  files.adopt(done)
  lines = [line for line in files.log.read() if line["phase"] == "ilg"]
  assert lines == [{"phase": "ilg", "step": 4, "loss": 0}]


def test_files_are_copied_where_links_are_not_to_be_had(
  done, tmp_path, monkeypatch
):
  def refuse(source, target):
    raise OSError(95, "Operation not supported")

  monkeypatch.setattr("os.link", refuse)
  files = _files(tmp_path / "new")
  assert len(files.adopt(done)) == 13
  assert _row(files, "stage-2") == {"stage-2": []}


def test_an_unfinished_source_gives_what_it_has(done, tmp_path):
  done.metrics_path().unlink()
  done.detection_path("stage-2").unlink()
  files = _files(tmp_path / "new")
  assert len(files.adopt(done)) == 12
  assert workdir.finished(files.directory) is None
