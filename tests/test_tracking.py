"""Tests of ptlr_jax.io.wandb_log: what Weights & Biases is told, and what not.

A stand-in notes down what it is asked; with the extra `wandb` installed, the
package itself writes a run offline.
"""

import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from ptlr_jax.io import metrics_log, wandb_log

ROOT = Path(__file__).parents[1]
CONFIG = {"seed": 3, "data": {"root": "root"}}


class Wandb(types.ModuleType):
  """The few calls of the package; `fails` names those that raise."""

  def __init__(self, mode="online", key=True, fails=()):
    super().__init__("wandb")
    self.mode, self.key, self.fails = mode, key, fails
    self.runs: list[dict] = []

  def Settings(self, **said):
    self._call("Settings")
    return types.SimpleNamespace(mode=self.mode, said=said)

  def setup(self, settings):
    return types.SimpleNamespace(settings=settings)

  def login(self, *, prompt):
    assert prompt is False
    return self.key

  def init(self, **said):
    self._call("init")
    run = {"said": said, "lines": [], "steps": {}, "ended": None}
    self.runs.append(run)

    def log(values):
      self._call("log")
      run["lines"].append(values)

    def finish(exit_code):
      self._call("finish")
      run["ended"] = exit_code

    def define_metric(name, *, step_metric):
      run["steps"][name] = step_metric

    return types.SimpleNamespace(
      log=log, finish=finish, define_metric=define_metric
    )

  def _call(self, name):
    if name in self.fails:
      raise RuntimeError(f"no {name}\ntoday")


@pytest.fixture
def begin(tmp_path, monkeypatch):
  """Begins a log that is followed by a tracker of a stand-in."""

  def begin(wandb, project="mine"):
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = metrics_log.MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.path.parent.mkdir(exist_ok=True)
    log.follow([wandb_log.Tracker(project, log.path.parent, CONFIG)])
    return log

  return begin


def test_each_line_is_sent_with_its_phases_own_step(begin, capsys):
  wandb = Wandb()
  log = begin(wandb)
  assert not wandb.runs  # nothing before the first line
  log.append("ilg", 2, {"loss": 0.5, "rgb/sc": 0.25})
  log.append("labels-0", 0, {"precision": 1.0})
  log.tell("evaluate", [{"phase": "evaluate", "step": 0, "mAP/0.50": 0.5}])
  log.close()
  (run,) = wandb.runs
  assert run["lines"] == [
    {"ilg/step": 2, "ilg/loss": 0.5, "ilg/rgb/sc": 0.25},
    {"labels-0/step": 0, "labels-0/precision": 1.0},
    {"evaluate/step": 0, "evaluate/mAP/0.50": 0.5},
  ]
  assert run["steps"]["ilg/*"] == "ilg/step"
  assert run["ended"] == 0
  assert capsys.readouterr() == ("", "")


def test_what_is_sent_names_neither_code_nor_host(begin):
  wandb = Wandb()
  begin(wandb, "team/mine").append("ilg", 2, {"loss": 0.5})
  said = wandb.runs[0]["said"]
  assert (said["entity"], said["project"]) == ("team", "mine")
  assert said["config"] == CONFIG
  assert said["name"] == "run"
  settings = said["settings"].said
  for name in ("code", "git"):
    assert settings[f"disable_{name}"] is True
  for name in ("machine_info", "meta", "stats"):
    assert settings[f"x_disable_{name}"] is True
  assert settings["console"] == "off"
  assert settings["x_save_requirements"] is False


def test_a_run_that_goes_on_begins_anew_there_with_whole_curves(begin):
  wandb = Wandb()
  log = begin(wandb)
  for step in (2, 4, 6):
    log.append("ilg", step, {"loss": 1 / step})
  again = begin(wandb)
  again.rewind("ilg", 2)
  for step in (4, 6, 8):
    again.append("ilg", step, {"loss": 1 / step})
  steps = [[line["ilg/step"] for line in run["lines"]] for run in wandb.runs]
  assert steps == [[2, 4, 6], [2, 4, 6, 8]]
  groups = {run["said"]["group"] for run in wandb.runs}
  assert len(groups) == 1


def test_a_run_that_an_error_ends_has_failed_there(begin):
  wandb = Wandb()
  log = begin(wandb)
  log.append("ilg", 2, {"loss": 0.5})

  def ends():
    try:
      raise ZeroDivisionError
    finally:
      log.close()

  with pytest.raises(ZeroDivisionError):
    ends()
  assert wandb.runs[0]["ended"] == 1


FAULTS = {
  "settings of another version": ({"fails": ["Settings"]}, "no Settings today"),
  "no network": ({"fails": ["init"]}, "no init today"),
  "lost in between": ({"fails": ["log"]}, "no log today"),
  "lost at the end": ({"fails": ["finish"]}, "no finish today"),
  "no key": ({"key": False}, "expected an API key, found none; give `wandb"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_fails_there_is_one_line_and_ends_no_run(name, begin, capsys):
  how, said = FAULTS[name]
  log = begin(Wandb(**how))
  for step in (2, 4):
    log.append("ilg", step, {"loss": 1.0})
  log.close()
  assert [line["step"] for line in log.read()] == [2, 4]
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f"Weights & Biases: {said}")
  assert line.endswith("; going on without")


def test_no_key_is_asked_for_offline(begin, capsys):
  wandb = Wandb(mode="offline", key=False)
  begin(wandb).append("ilg", 2, {"loss": 1.0})
  assert wandb.runs
  assert capsys.readouterr().out == ""


REAL = """
import sys
from pathlib import Path
from ptlr_jax.io import metrics_log
from ptlr_jax.io import wandb_log
log = metrics_log.MetricsLog(Path(sys.argv[1]) / "metrics.jsonl")
for _ in range(2):
  log.follow([wandb_log.Tracker("mine", log.path.parent, {"seed": 3})])
  log.append("ilg", 2, {"loss": 0.5})
  log.close()
"""


def test_the_package_itself_writes_a_run_offline_without_a_word(
  tmp_path, monkeypatch
):
  pytest.importorskip("wandb", reason="the extra wandb is not installed")
  for name in ("CONFIG", "CACHE", "DATA"):
    monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "user"))
  monkeypatch.setenv("WANDB_MODE", "offline")
  run = tmp_path / "run"
  run.mkdir()
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", REAL, str(run)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
  runs = sorted((run / "wandb").glob("offline-run-*"))
  assert len(runs) == 2
  for one in runs:
    (file,) = one.glob("run-*.wandb")
    sent = file.read_bytes()
    assert b"ilg/loss" in sent
    host = socket.gethostname()
    # A short name may be in the names that it draws.
    for private in (str(ROOT), str(tmp_path), *[host] * (len(host) > 5)):
      assert private.encode() not in sent
