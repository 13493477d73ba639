"""Tests of ptlr_jax.main: what is refused, and what is already finished."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import edit_entry, tiny_videos, write_basnet

from ptlr_jax import main
from ptlr_jax.cli import command_line
from ptlr_jax.evaluation.protocols import PROTOCOLS
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import Diverged, InputError
from ptlr_jax.workdir import run_folder

ROOT = Path(__file__).parents[1]
CONFIG = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
TIOUS = PROTOCOLS["thumos14"].tious
ROW = {
  "protocol": "thumos14",
  "mAP": {f"{tiou:.2f}": tiou / 2 for tiou in TIOUS},
  "averages": {
    "0.1:0.5": 0.15,
    "0.3:0.7": 0.25,
    "0.1:0.7": 0.2,
    "0.1:0.9": 0.25,
  },
}


def _argv(directory, *args):
  return ["main", CONFIG, f"--workdir={directory}", *args]


def _refused(monkeypatch, capsys, argv, said=""):
  """The lines on stderr; exit status 2, no traceback, `said` before it."""
  monkeypatch.setattr(sys, "argv", argv)
  with pytest.raises(SystemExit) as caught:
    main.main()
  assert caught.value.code == 2
  came = capsys.readouterr()
  assert said in came.out if said else came.out == ""
  lines = came.err.splitlines()
  assert lines
  assert all(line.startswith("ptlr_jax: ") for line in lines)
  return [line.removeprefix("ptlr_jax: ") for line in lines]


@pytest.fixture
def finished(tmp_path):
  """A workdir as a finished run leaves it, as far as it is read again."""
  directory = tmp_path / "run"
  directory.mkdir()
  run_folder.prepare_run_folder(
    directory, command_line.parse(_argv(directory)).config
  )
  metrics = {**ROW, "stages": {"ilg": ROW}, "seed": 5, "simulated": True}
  storage.write_json(directory / "metrics.json", metrics)
  return directory


def test_a_finished_run_shows_its_table_again_without_jax(finished):
  code = (
    "import sys; from ptlr_jax import main; main.main();"
    "print({'jax', 'flax', 'orbax'} & sys.modules.keys())"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, *_argv(finished)[1:]],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert "finished before" in done.stdout
  assert "seed 5" in done.stdout
  assert "no number here is a THUMOS14" in done.stdout
  (row,) = [x for x in done.stdout.splitlines() if x.startswith("ilg ")]
  cells = [f"{50 * tiou:.1f}" for tiou in TIOUS]
  assert row.split() == ["ilg", *cells, "15.0", "25.0", "20.0", "25.0"]
  assert done.stdout.endswith("set()\n")


def test_a_finished_run_that_could_not_be_scored_says_why_again(
  finished, monkeypatch, capsys
):
  metrics = {
    **{"protocol": "thumos14", "stages": {}, "seed": 5, "simulated": True},
    "not_evaluated": "there is no test video",
  }
  storage.write_json(finished / "metrics.json", metrics)
  monkeypatch.setattr(sys, "argv", _argv(finished))
  main.main()
  shown = capsys.readouterr().out
  assert "No mAP, seed 5: there is no test video; the detections" in shown
  assert "no number here is a THUMOS14" in shown
  assert "mAP (%)" not in shown


def test_another_configuration_is_refused_with_its_keys(
  finished, monkeypatch, capsys
):
  before = (finished / "config.json").read_bytes()
  argv = _argv(finished, "--config.seed=1", "--config.detect.nms=0.7")
  (line,) = _refused(monkeypatch, capsys, argv)
  assert str(finished / "config.json") in line
  assert "detect.nms: 0.5 -> 0.7; seed: 0 -> 1" in line
  assert "new --workdir" in line
  assert (finished / "config.json").read_bytes() == before


def test_a_run_that_has_done_nothing_takes_another_configuration(tmp_path):
  for seed in (0, 1):
    config = command_line.parse(_argv(tmp_path, f"--config.seed={seed}")).config
    run_folder.prepare_run_folder(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == seed


def test_a_run_without_its_configuration_is_refused(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  config = command_line.parse(_argv(tmp_path)).config
  with pytest.raises(InputError, match=r"config\.json: .* is missing"):
    run_folder.prepare_run_folder(tmp_path, config)


def test_a_folder_of_other_things_becomes_a_workdir(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  config = command_line.parse(_argv(tmp_path)).config
  run_folder.prepare_run_folder(tmp_path, config)
  run_folder.prepare_run_folder(tmp_path, config)
  stored = storage.read_json(tmp_path / "config.json")
  assert stored == json.loads(json.dumps(config.to_dict()))
  assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_workdir_that_cannot_be_is_one_line(
  below, tmp_path, monkeypatch, capsys
):
  (tmp_path / "file").write_text("in the way")
  directory = tmp_path / "file" / below
  (line,) = _refused(monkeypatch, capsys, _argv(directory))
  assert f"--workdir={directory}: cannot be written" in line
  assert (tmp_path / "file").read_text() == "in the way"


def test_a_damaged_config_json_is_named(finished, monkeypatch, capsys):
  (finished / "config.json").write_text("{")
  (line,) = _refused(monkeypatch, capsys, _argv(finished))
  assert str(finished / "config.json") in line


def _basnet(*args):
  return ("--config.data.layout=basnet", "--config.data.width=4", *args)


def test_a_missing_root_is_one_line(tmp_path, monkeypatch, capsys):
  run, nowhere = tmp_path / "run", tmp_path / "nowhere"
  (line,) = _refused(monkeypatch, capsys, _argv(run, *_basnet()))
  assert "--config.data.root" in line
  # The mistake put right, the same workdir goes on to the next.
  argv = _argv(run, *_basnet(f"--config.data.root={nowhere}"))
  (line,) = _refused(monkeypatch, capsys, argv)
  assert str(nowhere) in line
  assert "no such folder" in line
  assert not (run / "checkpoints").exists()


FEATURES = Path("features")


def _edit(root, file, change):
  x = np.load(root / FEATURES / file)
  np.save(root / FEATURES / file, change(x))


def _nan(x):
  x[3, 1] = np.nan
  return x


BAD = {
  "NaN": (
    lambda root: _edit(root, "test/rgb/test0001.npy", _nan),
    ("test/rgb/test0001.npy", "segment 3"),
  ),
  "streams of different lengths": (
    lambda root: _edit(root, "train/flow/train0000.npy", lambda x: x[:5]),
    ("train/flow/train0000.npy", "expected 8 segments", "came 5"),
  ),
  "another width": (
    lambda root: _edit(root, "train/rgb/train0002.npy", lambda x: x[:, :3]),
    ("train/rgb/train0002.npy", "(8, 3)"),
  ),
  "unknown label": (
    lambda root: edit_entry(
      root,
      "test0000",
      annotations=[{"segment": [0, 1], "label": "HighJmup"}],
    ),
    ("gt.json: test0000", "'HighJmup'", "'HighJump'"),
  ),
  "feature file missing": (
    lambda root: (root / FEATURES / "test/flow/test0000.npy").unlink(),
    ("test/flow/test0000.npy", "no such file"),
  ),
  "annotations missing": (
    lambda root: (root / "gt.json").unlink(),
    ("gt.json", "no such file"),
  ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs_are_refused_before_any_training(
  name, tmp_path, monkeypatch, capsys
):
  damage, said = BAD[name]
  train, test = tiny_videos("train", 4), tiny_videos("test", 2, seed=1)
  classes = ("Diving", "HighJump")
  root = write_basnet(tmp_path / "root", train, test, classes)
  damage(root)
  run = tmp_path / "run"
  argv = _argv(run, *_basnet(f"--config.data.root={root}"))
  (line,) = _refused(monkeypatch, capsys, argv)
  assert not [part for part in said if part not in line], line
  assert {path.name for path in run.iterdir()} == {"config.json"}


def test_a_stream_that_the_features_lack_is_refused(
  tmp_path, monkeypatch, capsys
):
  streams, classes = ("flow",), ("Diving", "HighJump")
  train = tiny_videos("train", 4, streams=streams)
  test = tiny_videos("test", 2, streams=streams)
  root = write_basnet(tmp_path / "root", train, test, classes)
  where = _basnet(f"--config.data.root={root}")
  argv = _argv(tmp_path / "run", *where, "--config.data.streams=('flow',)")
  said = "4 training and 2 test videos of 2 classes"
  (line,) = _refused(monkeypatch, capsys, argv, said)
  assert "--config.ilg.streams: expected streams of the features" in line
  assert "which have flow, came rgb, flow; pass" in line
  assert line.endswith("--config.ilg.streams=\"('flow',)\"")


def test_a_mistake_in_python_is_no_mistake_of_the_user(monkeypatch):
  def fail(*_):
    raise RuntimeError("a bug")

  monkeypatch.setattr(command_line, "parse", fail)
  with pytest.raises(RuntimeError, match="a bug"):
    main.main()


def test_a_training_that_diverged_exits_with_1(monkeypatch, capsys):
  def fail(*_):
    raise Diverged("loss not finite at step 3")

  monkeypatch.setattr(command_line, "parse", fail)
  with pytest.raises(SystemExit) as caught:
    main.main()
  assert caught.value.code == 1
  assert capsys.readouterr().err == "ptlr_jax: loss not finite at step 3\n"


def test_what_changes_no_result_may_change_between_two_starts(finished, capsys):
  """A machine with less memory streams what another had in it."""
  argv = _argv(
    finished,
    "--config.data.memory_gb=0.5",
    "--config.data.stream_threads=4",
    "--config.data.check_finite=False",
  )
  main.run_command(argv)
  assert "finished before" in capsys.readouterr().out
