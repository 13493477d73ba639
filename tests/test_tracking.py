"""Tests of ptlr_jax.io.wandb_log: what Weights & Biases is told, and what not.

A stand-in notes down what it is asked; with the extra `wandb` installed, the
package itself writes a run offline.
"""

import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from ptlr_jax.io import metrics_log, wandb_log

ROOT = Path(__file__).parents[1]
CONFIG = {"seed": 3, "data": {"root": "root"}}
# A module of that name, for processes: it notes down what each is sent.
STAND_IN = """
import json, os
from unittest import mock

def log(values):
  with open(os.environ["NOTES"], "a") as notes:
    print(json.dumps([os.getpid(), values]), file=notes)

Settings = setup = mock.Mock()
init = mock.Mock(return_value=mock.Mock(log=log))
"""


def _stand_in(mode="online", key=True):
  """The few calls of the package, and a run for each start."""
  runs = [mock.Mock() for _ in range(3)]
  settings = mock.Mock(settings=mock.Mock(mode=mode))
  return mock.Mock(
    **{"setup.return_value": settings, "login.return_value": key},
    **{"init.side_effect": runs, "runs": runs},
  )


def _lines(run):
  return [call.args[0] for call in run.log.call_args_list]


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
  wandb = _stand_in()
  log = begin(wandb)
  assert not wandb.init.called  # nothing before the first line
  log.append("ilg", 2, {"loss": 0.5, "rgb/sc": 0.25})
  log.append("labels-0", 0, {"precision": 1.0})
  log.tell([{"phase": "evaluate", "step": 0, "mAP/0.50": 0.5}])
  log.close()
  assert _lines(wandb.runs[0]) == [
    {"ilg/step": 2, "ilg/loss": 0.5, "ilg/rgb/sc": 0.25},
    {"labels-0/step": 0, "labels-0/precision": 1.0},
    {"evaluate/step": 0, "evaluate/mAP/0.50": 0.5},
  ]
  wandb.runs[0].define_metric.assert_any_call("ilg/*", step_metric="ilg/step")
  wandb.runs[0].finish.assert_called_once_with(exit_code=0)
  assert capsys.readouterr() == ("", "")


def test_what_is_sent_names_neither_code_nor_host(begin):
  wandb = _stand_in()
  begin(wandb, "team/mine").append("ilg", 2, {"loss": 0.5})
  said = wandb.init.call_args.kwargs
  assert (said["entity"], said["project"]) == ("team", "mine")
  assert (said["config"], said["name"]) == (CONFIG, "run")
  wandb.login.assert_called_once_with(prompt=False)
  settings = wandb.Settings.call_args.kwargs
  off = ("disable_code", "disable_git", "x_disable_machine_info")
  assert all(settings[x] for x in (*off, "x_disable_meta", "x_disable_stats"))
  assert (settings["console"], settings["host"]) == ("off", "")
  assert settings["save_code"] is settings["x_save_requirements"] is False


def test_a_run_that_goes_on_begins_anew_there_with_whole_curves(begin):
  wandb = _stand_in()
  log = begin(wandb)
  for rewound, steps in ((-1, [2, 4, 6]), (4, [6]), (2, [4, 6, 8])):
    if rewound == 2:
      log = begin(wandb)  # after a kill
    log.rewind("ilg", rewound)
    for step in steps:
      log.append("ilg", step, {"loss": 1 / step})
  steps = [[line["ilg/step"] for line in _lines(run)] for run in wandb.runs]
  assert steps == [[2, 4, 6], [2, 4, 6], [2, 4, 6, 8]]
  groups = {call.kwargs["group"] for call in wandb.init.call_args_list}
  assert len(groups) == 1


def test_a_run_that_an_error_ends_has_failed_there(begin):
  wandb = _stand_in()
  log = begin(wandb)
  log.append("ilg", 2, {"loss": 0.5})
  try:
    raise ZeroDivisionError
  except ZeroDivisionError:
    log.close()
  wandb.runs[0].finish.assert_called_once_with(exit_code=1)


@pytest.mark.parametrize("where", ["Settings", "init", "log", "finish", "key"])
def test_whatever_fails_there_is_one_line_and_ends_no_run(where, begin, capsys):
  wandb, said = _stand_in(key=where != "key"), f"no {where} today"
  if where == "key":
    said = "expected an API key, found none; give `wandb login` once"
  else:
    at = wandb if where in ("Settings", "init") else wandb.runs[0]
    getattr(at, where).side_effect = RuntimeError(f"no {where}\ntoday")
  log = begin(wandb)
  for step in (2, 4):
    log.append("ilg", step, {"loss": 1.0})
  log.close()
  assert [line["step"] for line in log.read()] == [2, 4]
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f"Weights & Biases: {said}")
  assert line.endswith("; going on without")


def test_no_key_is_asked_for_offline(begin, capsys):
  wandb = _stand_in(mode="offline", key=False)
  begin(wandb).append("ilg", 2, {"loss": 1.0})
  assert wandb.init.called
  assert capsys.readouterr().out == ""


REAL = """
import sys
from pathlib import Path
from ptlr_jax.io import metrics_log, wandb_log
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
  command = [sys.executable, "-W", "error", "-c", REAL, str(tmp_path)]
  said = subprocess.check_output(command, stderr=subprocess.STDOUT, cwd=ROOT)
  assert said == b""
  files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
  assert len(files) == 2
  host = socket.gethostname()
  for sent in (file.read_bytes() for file in files):
    assert b"ilg/loss" in sent
    # A short name may be in the names that it draws.
    for private in (str(ROOT), str(tmp_path), *[host] * (len(host) > 5)):
      assert private.encode() not in sent
