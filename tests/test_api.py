"""Tests of ptlr_jax.api; every example of docs/PYTHON.md runs here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documents import ROOT

import ptlr_jax
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import InputError
from tests import tiny_config
from tests.report_fixture import finished_run

PAGE = (ROOT / "docs" / "PYTHON.md").read_text()


@pytest.fixture(autouse=True)
def _jax_stays_as_it_is(monkeypatch):
  monkeypatch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The folder of a finished run, and its data set."""
  folder = tmp_path_factory.mktemp("api") / "run"
  return folder, finished_run(folder)


def _ground_truth(path: Path, data) -> Path:
  """The test instances as a file of the ActivityNet form."""
  database = {
    video.id: {
      "subset": "test",
      "annotations": [
        {"segment": [x.start, x.end], "label": data.classes[x.label]}
        for x in video.instances
      ],
    }
    for video in data.test
  }
  path.write_text(json.dumps({"database": database}))
  return path


def test_the_names_are_there_and_import_nothing_heavy():
  code = (
    "import sys, ptlr_jax\n"
    "assert not {'jax', 'numpy'} & set(sys.modules)\n"
    "from ptlr_jax import load_model, load_run, score, train\n"
    "assert load_model.__module__.startswith('ptlr_jax.')\n"
  )
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
  with pytest.raises(AttributeError, match="no attribute 'predict_all'"):
    ptlr_jax.predict_all  # noqa: B018


def test_every_example_of_the_page_runs(trained, tmp_path, monkeypatch):
  folder, data = trained
  pytest.importorskip("matplotlib", reason="a timeline needs matplotlib")
  monkeypatch.chdir(tmp_path)
  _ground_truth(tmp_path / "gt.json", data)
  detections = (folder / "detections.json").read_bytes()
  (tmp_path / "detections.json").write_bytes(detections)
  names = dict(data.test[0].features)
  blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
  assert len(blocks) == 4
  for code in blocks:
    code = code.replace("configs/simulated.py", f"{ROOT}/tests/tiny_config.py")
    exec(compile(code, "docs/PYTHON.md", "exec"), names)
  assert (tmp_path / "video.png").stat().st_size > 1000


def test_a_run_gives_what_its_files_have(trained):
  folder, data = trained
  run = ptlr_jax.load_run(folder)
  metrics = storage.read_json(folder / "metrics.json")
  assert [line["row"] for line in run.mean_ap] == list(metrics["stages"])
  last = metrics["stages"][run.mean_ap[-1]["row"]]["averages"]["0.1:0.7"]
  assert run.mean_ap[-1]["0.1:0.7"] == 100 * last
  assert run.label_quality == metrics["pseudo_labels"]
  labels = run.pseudo_labels("labels-1-ots")
  assert {v.id: v.num_segments for v in data.train} == {
    name: len(own.selected) for name, own in labels.items()
  }
  results = storage.read_json(folder / "detections.json")["results"]
  found = run.detections()
  assert {v: [x.entry() for x in own] for v, own in found.items()} == results
  # What the networks say now is what the test phase has written.
  for video in run.videos():
    assert video.segments == found[video.video]
    assert video.cas["ilg"].shape == (len(video.times), len(data.classes) + 1)
  assert "finished" in repr(run)
  assert "<pre>mAP (%)" in run._repr_html_()
  with pytest.raises(InputError, match=r"a row it has \(ilg, .*got 'stage-9'"):
    run.detections("stage-9")
  with pytest.raises(InputError, match=r"labels of a phase.*got 'ots-1'"):
    run.pseudo_labels("ots-1")
  with pytest.raises(InputError, match="expected the folder of a run"):
    ptlr_jax.load_run(folder / "labels")


def test_a_run_is_trained_and_the_same_call_goes_on(tmp_path):
  config = tiny_config.get_config()
  config.ptlr.stages = 0
  run = ptlr_jax.train(config, tmp_path / "run")
  assert [line["row"] for line in run.mean_ap] == ["ilg"]
  before = (tmp_path / "run" / "metrics.json").read_bytes()
  assert ptlr_jax.train(config, tmp_path / "run").mean_ap == run.mean_ap
  assert (tmp_path / "run" / "metrics.json").read_bytes() == before
  config.ilg.steps = 0
  with pytest.raises(InputError, match=r"ilg\.steps: expected an integer of"):
    ptlr_jax.train(config, tmp_path / "other")
  config.update({"seeds": 2, "ilg": {"steps": 2}})
  with pytest.raises(InputError, match="seeds: expected 1, got 2"):
    ptlr_jax.train(config, tmp_path / "other")


def test_scores_are_those_of_the_run_whatever_holds_the_detections(
  trained, tmp_path
):
  folder, data = trained
  truth = _ground_truth(tmp_path / "gt.json", data)
  run = ptlr_jax.load_run(folder)
  expected = run.metrics["stages"][run.mean_ap[-1]["row"]]
  for detections in (
    folder / "detections.json",
    run.detections(),
    run.videos(),
  ):
    found = ptlr_jax.score(truth, detections, "thumos14", bootstrap=0)
    assert found.averages == expected["averages"]
    assert found.mean_ap == expected["mAP"]
  assert "protocol thumos14" in repr(found)
  assert "<pre>" in found._repr_html_()
  with pytest.raises(InputError, match="--protocol: expected one of"):
    ptlr_jax.score(truth, run.detections(), "thumos15")


def test_a_notebook_shows_a_picture_of_a_video(trained):
  pytest.importorskip("matplotlib", reason="a timeline needs matplotlib")
  _, data = trained
  model = ptlr_jax.load_model(trained[0])
  found = model.detect(**dict(data.test[0].features))
  assert found._repr_png_()[:4] == b"\x89PNG"
  both = model.detect(
    rgb=[np.asarray(v.features["rgb"]) for v in data.test[:2]],
    flow=[np.asarray(v.features["flow"]) for v in data.test[:2]],
  )
  assert [len(both), both[0].segments] == [2, found.segments]
