"""Taking over what another run has done alike."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from ptlr_jax import tables
from ptlr_jax.io import checkpoints, detection_files, label_files, storage
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.workdir import identity, run_folder
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import Phase, phases
from tests import tiny_config


def _files(directory, **changes):
  config = ConfigDict(tiny_config.get_config().to_dict())
  flat = {key.replace("__", "."): value for key, value in changes.items()}
  config.update_from_flattened_dict(flat)
  directory.mkdir()
  start = {"data": {"annotations": "a", "features": "f"}}
  storage.write_json(directory / "provenance.json", {"starts": [start]})
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
      label_files.write_labels(files.label_path(phase.name), ["v"], [labels])
      files.log.append(phase.name, 0, {"precision": i / 10})
  for row in ("ilg", "stage-1", "stage-2"):
    detection_files.write_detections(files.detection_path(row), {row: []})
  storage.write_json(files.metrics_path(), {})
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


def test_of_a_run_on_other_data_nothing_is_taken(done, tmp_path):
  files = _files(tmp_path / "new")
  start = {"data": {"annotations": "a", "features": "other"}}
  path = files.directory / "provenance.json"
  storage.write_json(path, {"starts": [start]})
  assert files.adopt(done) == []
  path.unlink()  # nor where that is not known
  assert files.adopt(done) == []


def test_of_a_configuration_with_other_keys_nothing_is_taken(
  done, tmp_path, capsys
):
  said = identity.portable(done.config)
  del said["ptlr"]["warm_start"]
  storage.write_json(done.directory / "config.json", said)
  files = _files(tmp_path / "new")
  files.adopt_neighbours()
  assert "its configuration has other keys" in capsys.readouterr().out
  assert not files.is_done(phases(files.config)[0])


def test_what_is_damaged_is_not_taken(done, tmp_path, capsys):
  path = done.label_path("labels-0")
  path.write_bytes(path.read_bytes()[:-1])
  files = _files(tmp_path / "new")
  assert "labels-0" not in files.adopt(done)
  assert f"{path}: expected it as it was written" in capsys.readouterr().out


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
  detection_files.write_detections(files.detection_path("ilg"), {"mine": []})
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
  detection_files.write_detections(done.detection_path("ilg"), {"other": []})
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


@pytest.mark.parametrize(
  ("name", "left"),
  [
    ("final", "checkpoints/ilg/.final.taken"),
    ("labels-0.npz", "labels/.labels-0.npz.taken"),
    ("detections.json", ".detections.json.taken"),
  ],
)
def test_what_a_stop_in_the_middle_left_is_cleared_away(
  done, tmp_path, monkeypatch, name, left
):
  def stop(self, target):
    if target.name == name:
      raise KeyboardInterrupt
    return rename(self, target)

  rename = Path.rename
  files = _files(tmp_path / "new")
  with monkeypatch.context() as patched:
    patched.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
      files.adopt(done)
  assert (files.directory / left).exists()
  swept = _files(tmp_path / "swept")
  shutil.copytree(files.directory, swept.directory, dirs_exist_ok=True)
  swept.clear_leftovers()
  files.adopt(done)  # what is left is no hindrance
  for run in (swept, files):
    assert not list(run.directory.rglob("*.taken"))
  assert files.log.read() == done.log.read()
  assert _row(files, "stage-2") == _row(done, "stage-2") == {"stage-2": []}
  template = {"bias": np.zeros(2, np.float32)}
  for run in (files, done):
    assert checkpoints.final_params(run.checkpoint_dir("ilg"), template)
    assert run.label_path("labels-0").stat().st_size


def test_an_unfinished_source_gives_what_it_has(done, tmp_path):
  done.metrics_path().unlink()
  done.detection_path("stage-2").unlink()
  files = _files(tmp_path / "new")
  assert len(files.adopt(done)) == 12
  assert run_folder.finished_metrics(files.directory) is None


# Two runs of the tables that are trained: a configuration without stages, and
# the row "ILG", which is then the same.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Where they lie; no test changes it."""
  root = tmp_path_factory.mktemp("trained")
  for name in ("ours", "ilg"):
    _runs(root).finish(name, 0)
  return root


def _runs(root):
  config = base.early_fusion(tiny_config.get_config())
  config.ilg.steps = 2
  return tables.Runs(FrozenConfigDict(config), root)


@pytest.fixture
def copied(trained, tmp_path):
  """The runs for a test to spoil, and the folder of each."""
  runs = _runs(tmp_path / "copy")
  shutil.copytree(trained, runs.root)
  return runs, runs.directory("ours", 0), runs.directory("ilg", 0)


def _snapshot(directory):
  """{path: (contents, when written)} of all files but those of a start."""
  return {
    str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime)
    for path in directory.rglob("*")
    if path.is_file()
    and path.name not in ("metrics.jsonl", "provenance.json", ".lock")
  }


def _bytes(directory):
  return {name: data for name, (data, _) in _snapshot(directory).items()}


def test_runs_that_are_alike_are_one_on_the_disk(trained):
  ours, ilg = (trained / "seed-0" / name for name in ("ours", "ilg"))
  assert _bytes(ours) == _bytes(ilg)
  for name in _bytes(ilg):
    own = name.endswith(("config.json", "metrics.json"))
    assert (ours / name).samefile(ilg / name) != own, name
  logs = [(run / "metrics.jsonl").read_text() for run in (ours, ilg)]
  assert logs[0] == logs[1] != ""


def test_another_seed_is_trained_by_itself(copied):
  runs, _, ilg = copied
  before = _snapshot(ilg)
  runs.finish("ilg", 1)
  other = runs.directory("ilg", 1)
  seeds = [m["seed"] for m in runs.metrics(["ilg"], [0, 1])["ilg"].values()]
  assert seeds == [0, 1]
  assert _bytes(other)["detections.json"] != before["detections.json"][0]
  assert _snapshot(ilg) == before


@pytest.mark.parametrize(
  "gone", [("metrics.json",), ("metrics.json", "detections.json")]
)
def test_what_is_missing_of_a_run_is_made_anew_and_no_more(copied, gone):
  runs, ours, ilg = copied
  before = {run: _snapshot(run) for run in (ours, ilg)}
  for name in gone:
    (ilg / name).unlink()
  if "detections.json" in gone:  # else it would be taken from there
    (ours / "detections.json").unlink()
    before[ours].pop("detections.json")
  for name in ("ours", "ilg"):
    runs.finish(name, 0)
  assert _snapshot(ours) == before[ours]
  after = _snapshot(ilg)
  changed = {name for name in after if after[name] != before[ilg].get(name)}
  assert changed == set(gone)
  assert _bytes(ilg) == {k: data for k, (data, _) in before[ilg].items()}


@pytest.mark.parametrize(
  ("where", "source_stays"), [("final", True), ("labels-0.npz", False)]
)
def test_a_stop_while_files_are_taken_over_leaves_no_trace(
  copied, monkeypatch, where, source_stays
):
  def stop(self, target):
    if target.name == where:
      raise KeyboardInterrupt
    return rename(self, target)

  runs, ours, ilg = copied
  before, rename = _bytes(ilg), Path.rename
  log = (ilg / "metrics.jsonl").read_text()
  shutil.rmtree(ilg)
  with monkeypatch.context() as patched:
    patched.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
      runs.finish("ilg", 0)
  assert list(ilg.rglob(f".{where}.taken"))
  if not source_stays:
    shutil.rmtree(ours)
  runs.finish("ilg", 0)
  assert _bytes(ilg) == before
  assert (ilg / "metrics.jsonl").read_text() == log
