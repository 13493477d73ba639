"""Streams with names of the user's own, from features to detections."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from layout_fixture import CLASSES, tiny_splits, write_own
from ml_collections import ConfigDict
from stage_batches import KEY, QUICK, C, batch_of, options, params_of

from configs import own
from ptlr_jax import export
from ptlr_jax.cli import config_checks
from ptlr_jax.data.dataset import stream_order
from ptlr_jax.inference.detection_model import load_model
from ptlr_jax.method import ilg
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime.errors import InputError
from tests.trained_fixture import configuration, leave_run, results_of

NAMES = {"rgb": "pose", "flow": "motion"}


def _write(root: Path) -> Path:
  write_own(root, *tiny_splits(), CLASSES)
  for usual, name in NAMES.items():
    (root / "features" / usual).rename(root / "features" / name)
  return root


def _config(root: Path, fusion=None, **changes):
  named = own.get_config("pose,motion")
  given = {"data.root": str(root), "data.layout": "auto", "data.width": 0}
  given |= {"data.streams": named.data.streams, "ilg.batch_size": 2}
  given |= {"ilg.streams": named.ilg.streams}
  config = ConfigDict(configuration(**given | changes).to_dict())
  config.fusion = named.fusion if fusion is None else ConfigDict(fusion)
  return config_checks.freeze_config(config)


@pytest.fixture(autouse=True)
def _jax_stays_as_it_is(monkeypatch):
  monkeypatch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)


def test_streams_are_joined_rgb_first_then_by_name():
  assert stream_order({"flow", "rgb"}) == ["rgb", "flow"]
  assert stream_order(["pose", "flow", "audio"]) == ["flow", "audio", "pose"]


def test_the_loss_is_that_of_rgb_and_flow_with_other_names():
  params, batch = params_of("ilg"), batch_of()
  named = {**batch, "features": _named(batch["features"])}
  weights = {"loss.alpha": 0.3, "loss.beta": 0.5, "loss.gamma": 0.7}
  total, terms = _loss(("rgb", "flow"), weights, params, batch)
  same, own = _loss(tuple(NAMES.values()), weights, _named(params), named)
  assert {"csc", "pose/sc", "motion/sc"} < own.keys()
  assert same == total
  usual = {v: k for k, v in NAMES.items()}
  for name, value in own.items():
    stream, _, term = name.rpartition("/")
    assert terms[f"{usual[stream]}/{term}" if stream else name] == value


def _named(tree):
  return {NAMES[stream]: x for stream, x in tree.items()}


def _loss(streams, weights, params, batch):
  made = ilg.ILG(C, options("ilg", {"streams": streams, **weights}).to_dict())
  return jax.jit(made.loss, compiler_options=QUICK)(params, batch, KEY)


def test_a_model_of_named_streams_detects_what_its_run_does(tmp_path):
  _write(tmp_path / "named")
  config = _config(tmp_path / "named")
  leave_run(tmp_path / "run", config, load_dataset(config.data))
  model = tmp_path / "model.safetensors"
  export.run_command(["", f"--workdir={tmp_path / 'run'}", f"--output={model}"])
  expected = results_of(tmp_path / "run")
  assert sum(map(len, expected.values())) > 0
  told = load_model(model).detect(features=tmp_path / "named" / "features")
  found = {one.video: json.dumps(one.results()) for one in told}
  for video, entry in expected.items():
    assert found[video] == json.dumps(entry)


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    (
      {"fusion": {"pose": 1.0, "flow": 1.5}},
      r"config\.fusion: expected a weight for each of ilg\.streams .*, came "
      r"none for motion",
    ),
    (
      {"fusion": {"pose": 0.0, "motion": 0.0}},
      r"--config\.fusion\.motion: expected a weight above 0 beside pose's 0",
    ),
    (
      {"fusion": {"pose": -1.0, "motion": 2.0}},
      r"--config\.fusion\.pose: expected a number of at least 0, got -1\.0",
    ),
    (
      {"ilg.streams": ("pose", "pose")},
      r"--config\.ilg\.streams: expected two streams",
    ),
    (
      {"data.streams": ("fused", "pose"), "ilg.streams": ("pose",)},
      r"--config\.data\.streams: expected names of streams",
    ),
  ],
)
def test_a_mistake_in_names_is_a_line(changes, line):
  with pytest.raises(InputError) as caught:
    _config(Path(), **changes)
  assert re.match(line, caught.value.problems[0])


def test_other_layouts_have_rgb_and_flow(tmp_path):
  _write(tmp_path)
  config = _config(tmp_path, **{"data.layout": "basnet"})
  with pytest.raises(InputError) as caught:
    load_dataset(config.data)
  (line,) = caught.value.problems
  assert "expected rgb, flow or both in the layout basnet" in line


def test_a_stream_that_is_not_there_is_a_line(tmp_path):
  _write(tmp_path)
  names = ("pose", "depth")
  fusion = {"pose": 1.0, "depth": 1.0}
  changes = {"data.streams": names, "ilg.streams": names, "fusion": fusion}
  with pytest.raises(InputError) as caught:
    load_dataset(_config(tmp_path, **changes).data)
  (line,) = caught.value.problems
  assert line.startswith(
    f"{tmp_path / 'features' / 'depth'}: expected features"
  )
  assert "leave it out of --config.data.streams" in line


def test_named_streams_are_read_without_a_note_on_joined_ones(tmp_path):
  found = load_dataset(_config(_write(tmp_path)).data)
  assert found.streams == ("pose", "motion")
  assert not [note for note in found.notes if "joined" in note]


def test_widths_are_held_stream_by_stream(tmp_path):
  root = _write(tmp_path)
  path = next((root / "features" / "motion").iterdir())
  np.save(path, np.zeros((20, 9), np.float32))
  with pytest.raises(InputError) as caught:
    load_dataset(_config(root).data)
  assert str(path) in caught.value.problems[0]
