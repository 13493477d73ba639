"""Tests of ptlr_jax.predict and ptlr_jax.export: detections of one's own."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ptlr_jax import export, predict
from ptlr_jax.data import dataset
from ptlr_jax.features import extraction
from ptlr_jax.inference import model_file, run_model, video_detections
from ptlr_jax.inference.detection_model import load_model
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import InputError
from tests.trained_fixture import configuration, leave_run, results_of

pytest.importorskip("safetensors", reason="model files need safetensors")
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _jax_stays_as_it_is(monkeypatch):
  monkeypatch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A finished run, its test videos' features on disk, and its model file."""
  folder = tmp_path_factory.mktemp("predict")
  data = leave_run(folder / "run", configuration())
  for video in data.test:
    for stream, x in video.features.items():
      path = folder / "features" / stream / f"{video.id}.npy"
      path.parent.mkdir(parents=True, exist_ok=True)
      np.save(path, x)
  model = folder / "elsewhere" / "model.safetensors"
  _export(f"--workdir={folder / 'run'}", f"--output={model}")
  return folder


def _export(*flags):
  export.run_command(["", *flags])


def _predict(*flags):
  predict.run_command(["", "--pictures=none", *flags])


def _line(function, *flags):
  """The one line with which flags are refused."""
  with pytest.raises(InputError) as error:
    function(*flags)
  (line,) = error.value.lines
  return line


def _text(entry):
  return json.dumps(entry)


# The detections of a run.


@pytest.mark.parametrize("kind", ["workdir", "model"])
def test_test_videos_get_the_detections_of_the_run(run, tmp_path, kind):
  model = {"workdir": "run", "model": "elsewhere/model.safetensors"}[kind]
  _predict(
    f"--{kind}={run / model}",
    f"--features={run / 'features'}",
    f"--output={tmp_path}",
  )
  expected = results_of(run / "run")
  assert results_of(tmp_path).keys() == expected.keys()
  # Those of a file in the same order of videos are the same bytes.
  for video, entry in results_of(tmp_path).items():
    assert _text(entry) == _text(expected[video])
  assert sum(map(len, expected.values())) > 4
  assert not (tmp_path / "features").exists()


def test_a_video_alone_gets_the_same(run):
  expected = results_of(run / "run")
  model = load_model(run / "elsewhere" / "model.safetensors")
  for video, entry in expected.items():
    paths = {s: run / "features" / s / f"{video}.npy" for s in ("rgb", "flow")}
    found = model.detect(**paths)
    assert found.video == video
    assert _text(found.results()) == _text(entry)


def test_the_results_are_scored_as_any_results_file(run, tmp_path):
  _predict(
    f"--workdir={run / 'run'}",
    f"--features={run / 'features'}",
    f"--output={tmp_path}",
  )
  raw = json.loads((tmp_path / "detections.json").read_text())
  assert raw["version"] == "VERSION 1.3"
  assert raw.keys() >= {"results", "external_data"}
  with (tmp_path / "detections.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert [*rows[0]] == ["video", "label", "start", "end", "score"]
  flat = [
    (video, one["label"], *one["segment"], one["score"])
    for video, entry in raw["results"].items()
    for one in entry
  ]
  assert flat == [
    (r["video"], r["label"], *map(float, (r["start"], r["end"], r["score"])))
    for r in rows
  ]


def test_an_earlier_stage_can_be_had(run, tmp_path):
  path = tmp_path / "ilg.safetensors"
  _export(f"--workdir={run / 'run'}", f"--output={path}", "--stage=0")
  model = load_model(path)
  assert list(model.params) == ["ilg"]
  found = model.detect(features=run / "features")
  expected = storage.read_json(run / "run" / "detections" / "ilg.json")
  for one in found:
    assert _text(one.results()) == _text(expected["results"][one.video])


@pytest.mark.parametrize(
  "changes",
  [
    {
      "predict.sampling": "uniform",
      "detect.cas": "minmax",
      "ilg.streams": ("rgb",),
    },
    {
      "detect.cas": "logit_minmax",
      "detect.class_scores": "ptlr",
      "detect.sources": ("ots", "rts", "ilg"),
      "ilg.streams": ("fused",),
      "ptlr.sampling": "uniform",
    },
  ],
)
def test_other_ways_to_detect_are_those_of_the_run(tmp_path, changes):
  data = leave_run(tmp_path / "run", configuration(**changes))
  joined = [np.hstack([v.features[s] for s in data.streams]) for v in data.test]
  for video, x in zip(data.test, joined, strict=True):
    np.save(tmp_path / f"{video.id}.npy", x)
  paths = [tmp_path / f"{video.id}.npy" for video in data.test]
  found = load_model(tmp_path / "run").detect(features=paths)
  expected = results_of(tmp_path / "run")
  assert sum(map(len, expected.values())) > 0
  for one in found:
    assert _text(one.results()) == _text(expected[one.video])


def test_a_model_of_one_stream_wants_that_alone(run, tmp_path):
  """The whole way of a data set of one's own, of rgb alone."""
  root = tmp_path / "mine"
  shutil.copytree(run / "features" / "rgb", root / "features" / "rgb")
  names = sorted(p.stem for p in (root / "features" / "rgb").iterdir())
  labels = ["video,label", f"{names[0]},run", f"{names[1]},jump"]
  (root / "labels.csv").write_text("\n".join(labels))
  (root / "geometry.json").write_text('{"fps": 30, "stride": 8, "window": 8}')
  from ptlr_jax.runs.dataset import load_dataset

  given = {
    **{"data.root": str(root), "data.layout": "auto", "data.width": 0},
    **{"ilg.streams": ("rgb",), "ilg.batch_size": 2},
  }
  config = configuration(**given)
  leave_run(tmp_path / "run", config, load_dataset(config.data))
  model = tmp_path / "model.safetensors"
  # Which classes an earlier version learned only its data set can say.
  path = tmp_path / "run" / "provenance.json"
  starts = storage.read_json(path)["starts"]
  old = [{k: v for k, v in s.items() if k != "learned_from"} for s in starts]
  storage.write_json(path, {"starts": old})
  flags = (f"--workdir={tmp_path / 'run'}", f"--output={model}")
  assert "pass --source=ROOT" in _line(_export, *flags)
  _export(*flags, f"--source={root}")
  shutil.rmtree(root / "features" / "rgb")
  found = load_model(model).detect(rgb=run / "features" / "rgb")
  expected = results_of(tmp_path / "run")
  assert {one.video for one in found} == set(names)
  for one in found:
    assert one.classes == ("jump", "run")
    # The geometry came with the model.
    assert one.times[1] - one.times[0] == pytest.approx(8 / 30)
    if one.video in expected:
      assert _text(one.results()) == _text(expected[one.video])
  with pytest.raises(InputError, match="flow=: expected features of rgb"):
    load_model(model).detect(rgb=np.zeros((9, 8)), flow=np.zeros((9, 8)))


def test_classes_are_those_that_the_run_has_noted(run, tmp_path):
  shutil.copytree(run / "run", tmp_path / "run")
  path = tmp_path / "run" / "provenance.json"
  starts = storage.read_json(path)["starts"]
  noted = {
    "classes": ["x", "y", "z"],
    "widths": {"rgb": 8, "flow": 8},
    "geometry": {"fps": 25.0, "stride": 4.0, "window": 16.0, "offset": 0.0},
    "simulated": True,
  }
  starts[-1]["learned_from"] = noted
  storage.write_json(path, {"starts": starts})
  model = load_model(tmp_path / "run")
  assert model.classes == ("x", "y", "z")
  assert model.geometry["stride"] == 4.0
  assert [set(x) & {"learned_from", "time"} for x in model.made_with] == [set()]


def test_what_is_noted_of_a_data_set_is_what_prediction_needs():
  from ptlr_jax.data import simulated

  data = simulated.simulate(width=5, train_videos=4, test_videos=1)
  assert dataset.describe_dataset(data) == {
    "classes": list(data.classes),
    "widths": {"rgb": 5, "flow": 5},
    "geometry": {"fps": 25.0, "stride": 16.0, "window": 16.0, "offset": 0.0},
    "simulated": True,
  }


def test_every_video_gets_its_timeline(run, tmp_path):
  pytest.importorskip("matplotlib", reason="pictures need matplotlib")
  names = list(results_of(run / "run"))
  truth = f"video,label,start,end\n{names[0]},action_1,1.5,4\n"
  (tmp_path / "truth.csv").write_text(truth)
  flags = _flags(run, tmp_path, ground_truth=tmp_path / "truth.csv")
  predict.run_command(["", *flags, "--pictures=svg"])
  pictures = {p.stem: p.read_text() for p in (tmp_path / "out").glob("*.svg")}
  assert pictures.keys() == set(names)
  assert [n for n in names if ">ground truth<" in pictures[n]] == names[:1]
  assert all(f">{name}<" in picture for name, picture in pictures.items())


def test_without_matplotlib_there_are_detections_and_a_note(
  run, tmp_path, monkeypatch, capsys
):
  monkeypatch.setitem(sys.modules, "ptlr_jax.inference.timeline", None)
  monkeypatch.delattr("ptlr_jax.inference.timeline", raising=False)
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.delitem(sys.modules, "ptlr_jax.inference.timeline")
  predict.run_command(["", *_flags(run, tmp_path)])
  assert "no pictures: timelines need the package" in capsys.readouterr().out
  assert results_of(tmp_path / "out") == results_of(run / "run")
  assert not list((tmp_path / "out").glob("*.png"))


# In Python.


@pytest.fixture(scope="module")
def model(run):
  return load_model(run / "elsewhere" / "model.safetensors")


def _features(run):
  name = next((run / "features" / "rgb").iterdir()).name
  return {s: np.load(run / "features" / s / name) for s in ("rgb", "flow")}


def test_what_is_found_is_what_a_notebook_wants(run, model, tmp_path):
  found = model.detect(**_features(run))
  assert isinstance(found, video_detections.VideoDetections)
  assert list(found.cas) == ["ilg", "ots", "rts"]
  for cas in found.cas.values():
    assert cas.shape == (len(found.times), len(model.classes) + 1)
  assert found.times[0] == pytest.approx(0.32)
  scores = [segment.score for segment in found.segments]
  assert scores == sorted(scores, reverse=True)
  assert found.labels[0] == found.segments[0].label
  assert found.scores.keys() == set(model.classes)
  assert f"video: {len(scores)} detection" in repr(found)
  found.to_csv(tmp_path / "a.csv")
  found.to_json(tmp_path / "a.json")
  assert (tmp_path / "a.csv").read_text().count("\n") == len(scores) + 1
  written = storage.read_json(tmp_path / "a.json")["results"]
  assert written == {"video": found.results()}


def test_both_streams_may_come_joined_and_in_lists(run, model):
  given = _features(run)
  joined = np.hstack([given["rgb"], given["flow"]])
  one = model.detect(**given)
  both = model.detect(features=[joined])
  assert isinstance(both, list)
  assert _text(both[0].results()) == _text(one.results())
  double = {s: x.astype(np.float64) for s, x in given.items()}
  assert model.detect(**double).segments == one.segments


def test_a_video_of_one_segment_has_detections_without_failing(model):
  found = model.detect(rgb=np.ones((1, 8)), flow=np.ones((1, 8)))
  assert len(found.times) == 1
  assert all(np.isfinite(s.score) for s in found.segments)


@pytest.mark.parametrize(
  ("given", "what"),
  [
    ({}, "expected features"),
    ({"rgb": 3, "flow": 4}, "rgb=: expected a path or an array, came int"),
    ({"rgb": np.ones((4, 8))}, "flow=: expected features of rgb and flow"),
    ({"features": np.ones((4, 9))}, "came (4, 9)"),
    (
      {"rgb": np.ones((4, 8)), "flow": np.ones((5, 8))},
      "or pass trim=True",
    ),
  ],
)
def test_mistakes_in_python_name_arguments(model, given, what):
  with pytest.raises(InputError) as error:
    model.detect(**given)
  (line,) = error.value.lines
  assert what in line
  assert "--" not in line


def test_importing_the_api_s_package_is_light():
  code = (
    "import sys, ptlr_jax, ptlr_jax.inference, ptlr_jax.predict\n"
    "heavy = {'jax', 'flax', 'safetensors', 'matplotlib', 'cv2', 'av'}\n"
    "print(sorted(heavy & set(sys.modules)))\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stderr == ""
  assert done.stdout == "[]\n"


# What is wrong.


def _flags(run, tmp_path, **changes):
  given = {
    "model": run / "elsewhere" / "model.safetensors",
    "features": run / "features",
    "output": tmp_path / "out",
    **changes,
  }
  return [f"--{name}={value}" for name, value in given.items() if value]


def test_one_bad_video_does_not_stop_the_rest(run, tmp_path):
  shutil.copytree(run / "features", tmp_path / "features")
  bad = sorted((tmp_path / "features" / "rgb").iterdir())[1]
  x = np.load(bad)
  x[0, 0] = np.inf
  np.save(bad, x)
  flags = _flags(run, tmp_path, features=tmp_path / "features")
  assert _line(_predict, *flags).startswith(f"{bad}: expected finite numbers")
  expected = {k: v for k, v in results_of(run / "run").items() if k != bad.stem}
  assert results_of(tmp_path / "out") == expected


def test_where_no_video_can_be_used_nothing_is_written(run, tmp_path):
  np.save(tmp_path / "V.npy", np.full((4, 16), np.nan))
  flags = _flags(run, tmp_path, features=tmp_path / "V.npy")
  assert "4 of 4 segments" in _line(_predict, *flags)
  assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
  ("changes", "what"),
  [
    ({"model": ""}, "expected --model or --workdir, came neither"),
    ({"workdir": "x"}, "expected --model or --workdir, came both"),
    ({"features": ""}, "expected features or videos, came none"),
    ({"pictures": "gif"}, "--pictures: expected one of png, pdf, svg, none"),
    ({"stage": 1}, "--stage, --source: expected them with --workdir"),
    ({"model": "none.safetensors"}, "no such file"),
    ({"model": __file__}, "cannot be read"),
    ({"features": "nowhere"}, "no such file"),
    ({"ground_truth": "nowhere.json"}, "nowhere.json: expected a text file"),
    ({"stride": -1}, "flag --stride=-1"),
    ({"output": __file__}, "expected a folder that can be written"),
    ({"video": ROOT / "tests", "features": ""}, "videos end with one of"),
  ],
)
def test_a_mistake_is_a_line(run, tmp_path, changes, what):
  line = _line(_predict, *_flags(run, tmp_path, **changes))
  assert what in line


def test_the_folder_of_a_run_is_not_written_over(run):
  before = (run / "run" / "detections.json").read_bytes()
  line = _line(_predict, *_flags(run, run, output=run / "run"))
  assert "expected a folder of its own, came that of a run" in line
  assert (run / "run" / "detections.json").read_bytes() == before


@pytest.mark.parametrize(
  ("lost", "what"),
  [
    ("checkpoints/rts-1/final", "without the parameters of rts-1"),
    ("config.json", "without config.json"),
    (".", "no such folder"),
  ],
)
def test_a_run_that_is_not_finished_is_refused(run, tmp_path, lost, what):
  shutil.copytree(run / "run", tmp_path / "run")
  storage.remove((tmp_path / "run" / lost).resolve())
  for flag in ("export", "predict"):
    flags = [f"--workdir={tmp_path / 'run'}", f"--output={tmp_path}/out.x"]
    if flag == "export":
      flags[1] = f"--output={tmp_path}/m.safetensors"
      line = _line(_export, *flags)
    else:
      line = _line(_predict, *flags, f"--features={run / 'features'}")
    assert what in line
  assert not (tmp_path / "m.safetensors").exists()


def test_the_folder_of_several_seeds_is_refused_with_their_names(run, tmp_path):
  for seed in (3, 4):
    shutil.copytree(run / "run", tmp_path / f"seed-{seed}")
  line = _line(
    _export, f"--workdir={tmp_path}", f"--output={tmp_path}/m.safetensors"
  )
  assert "give one of them (seed-3, seed-4)" in line
  _export(
    f"--workdir={tmp_path / 'seed-3'}", f"--output={tmp_path}/m.safetensors"
  )
  whole = (run / "elsewhere" / "model.safetensors").read_bytes()
  assert (tmp_path / "m.safetensors").read_bytes() == whole


def test_damaged_parameters_are_refused(run, tmp_path):
  shutil.copytree(run / "run", tmp_path / "run")
  folder = tmp_path / "run" / "checkpoints" / "ots-1" / "final"
  files = (path for path in folder.rglob("*") if path.is_file())
  largest = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 4
  largest.write_bytes(content)
  line = _line(
    _export,
    f"--workdir={tmp_path / 'run'}",
    f"--output={tmp_path}/m.safetensors",
  )
  assert "is changed; give the command of the run again" in line


@pytest.mark.parametrize(
  ("flags", "what"),
  [
    (["--output=m.safetensors"], "--workdir: expected a path, got none"),
    (["--workdir=RUN"], "--output: expected a path, got none"),
    (["--workdir=RUN", "--output=m.pt"], "expected a file NAME.safetensors"),
    (["--workdir=RUN", "--output=O/m.safetensors", "--stage=2"], "0 to 1"),
    (
      ["--workdir=RUN", f"--output={__file__}/m.safetensors"],
      "expected a file that can be written",
    ),
  ],
)
def test_a_mistake_in_an_export_is_a_line(run, tmp_path, flags, what):
  names = {"RUN": str(run / "run"), "O": str(tmp_path)}
  for name, value in names.items():
    flags = [flag.replace(f"={name}", f"={value}") for flag in flags]
  assert what in _line(_export, *flags)


def test_a_model_of_other_shapes_is_refused(run, model, tmp_path):
  model_file.write_model(
    tmp_path / "m.safetensors", model._replace(classes=("a", "b"))
  )
  line = _line(
    _predict, *_flags(run, tmp_path, model=tmp_path / "m.safetensors")
  )
  assert "expected parameters ilg/flow/cas_module/classifier" in line


def test_features_at_another_pace_are_noted(run, tmp_path, capsys):
  _predict(*_flags(run, tmp_path), "--stride=4")
  said = capsys.readouterr().out
  assert "have a segment every 0.16 s, the model learned from one" in said
  ends = [
    one["segment"][1]
    for entry in results_of(tmp_path / "out").values()
    for one in entry
  ]
  assert 0 < max(ends) <= 32 * 4 / 25 + (16 - 4) / 2 / 25


# Videos, by towers that stand in for I3D's.


def test_a_model_of_other_features_takes_no_videos(model, tmp_path):
  (tmp_path / "V.mp4").touch()
  with pytest.raises(InputError, match="from I3D's 1024 numbers a segment"):
    model.detect(video=tmp_path / "V.mp4")


def test_weights_that_lack_are_named(run, tmp_path, model):
  wide = model._replace(widths={"rgb": 1024, "flow": 1024})
  (tmp_path / "V.mp4").touch()
  cases: Any = (({}, "rgb"), ({"rgb_weights": "x"}, "flow"))
  for weights, what in cases:
    with pytest.raises(InputError, match=f"{what}_weights=: expected"):
      wide.detect(video=tmp_path / "V.mp4", **weights)


class _Extraction:
  """Extraction that knows its videos by name, and damages some."""

  def __init__(self):
    self.settings, self.extracted = None, []

  def load_towers(self, **weights):
    assert weights == {"rgb": "r.safetensors", "flow": "f.safetensors"}
    return extraction.Towers({"rgb": 0.0, "flow": 1.0})

  def features_of_many(self, paths, towers, settings, jobs, **how):
    assert towers.streams == ("rgb", "flow")
    self.settings = settings
    self.extracted += [path.name for path in paths]
    for path in paths:
      if "bad" in path.name:
        yield path, InputError(f"{path}: expected a video, came none")
      else:
        yield path, extraction.Features(_seen(path), 25.0, 16, 16, 6.4)


def _seen(path) -> dict[str, Any]:
  rng = np.random.default_rng(len(path.name))
  return {s: rng.random((10, 1024), np.float32) for s in ("rgb", "flow")}


@pytest.fixture
def towers(monkeypatch, model):
  """A model of I3D's width, and extraction without I3D."""
  wide = model._replace(widths={"rgb": 1024, "flow": 1024})
  rng = np.random.default_rng(0)
  params = {
    net: jax.tree.map(
      lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32),
      run_model.shapes_of(net, wide),
    )
    for net in model.params
  }
  stand_in = _Extraction()
  for name in ("load_towers", "features_of_many"):
    monkeypatch.setattr(extraction, name, getattr(stand_in, name))
  return wide._replace(params=params), stand_in


WEIGHTS: dict[str, Any] = {
  "rgb_weights": "r.safetensors",
  "flow_weights": "f.safetensors",
}


def test_a_video_file_is_seen_through_the_towers(towers, tmp_path):
  wide, extraction_ = towers
  (tmp_path / "jump.mp4").touch()
  (tmp_path / "bad.mp4").touch()
  found = wide.detect(video=tmp_path / "jump.mp4", **WEIGHTS)
  again = wide.detect(**_seen(Path("jump.mp4")))
  assert found.video == "jump"
  assert _text(found.results()) == _text(again.results())
  assert extraction_.settings.fps == 25.0
  assert extraction_.settings.stride == extraction_.settings.window == 16
  with pytest.raises(InputError, match="expected a video, came none"):
    wide.detect(video=[tmp_path / "bad.mp4"], **WEIGHTS)


def test_a_folder_of_videos_leaves_features_and_tells_the_bad(towers, tmp_path):
  model_file.write_model(tmp_path / "m.safetensors", towers[0])
  (tmp_path / "clips").mkdir()
  for name in ("a.mp4", "bad.mp4", "bb.MKV", "notes.txt"):
    (tmp_path / "clips" / name).touch()
  weights = [f"--{name}={path}" for name, path in WEIGHTS.items()]
  flags = [f"--model={tmp_path}/m.safetensors", *weights]
  flags += [f"--video={tmp_path}/clips", f"--output={tmp_path}/out"]
  assert "bad.mp4: expected a video" in _line(_predict, *flags)
  first = results_of(tmp_path / "out")
  assert list(first) == ["a", "bb"]
  kept = tmp_path / "out"
  assert sorted(p.name for p in (kept / "features").rglob("*.npy")) == [
    *("a.npy", "a.npy", "bb.npy", "bb.npy")
  ]
  assert json.loads((kept / "geometry.json").read_text())["stride"] == 16
  _predict(*flags[:1], f"--features={kept}", f"--output={tmp_path}/again")
  assert results_of(tmp_path / "again") == first
  # What has features is not extracted again.
  towers[1].extracted.clear()
  (tmp_path / "clips" / "bad.mp4").unlink()
  _predict(*flags)
  assert results_of(tmp_path / "out") == first
  assert towers[1].extracted == []


def test_a_folder_without_videos_is_refused(towers, tmp_path):
  with pytest.raises(InputError, match="videos end with one of"):
    towers[0].detect(video=tmp_path, **WEIGHTS)


def test_a_video_and_features_of_one_name_are_refused(towers, tmp_path):
  model_file.write_model(tmp_path / "m.safetensors", towers[0])
  np.save(tmp_path / "a.npy", np.ones((4, 2048), np.float32))
  (tmp_path / "a.mp4").touch()
  weights = [f"--{name}={path}" for name, path in WEIGHTS.items()]
  flags = [f"--model={tmp_path}/m.safetensors", *weights]
  flags += [f"--features={tmp_path}/a.npy", f"--output={tmp_path}/out"]
  line = _line(_predict, *flags, f"--video={tmp_path}/a.mp4")
  assert "expected every video once, came a with features too" in line
