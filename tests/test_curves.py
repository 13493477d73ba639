"""Tests of ptlr_jax.workdir.log_followers."""

import importlib.util
import json

import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from ptlr_jax.cli import command_line, config_checks
from ptlr_jax.io import storage, tensorboard, wandb_log
from ptlr_jax.runtime import schema
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.workdir import identity, log_followers
from ptlr_jax.workdir.artefacts import Artefacts

KEYS = {"log.tensorboard", "log.wandb"}


def _config(**log):
  config = base.get_config()
  config.log.update(log)
  return FrozenConfigDict(config)


def _old():
  """As a workdir, or a configuration, of before has it."""
  config = ConfigDict(base.get_config().to_dict())
  del config["log"]
  return FrozenConfigDict(config)


@pytest.fixture
def installed(monkeypatch):
  """Sets which of the packages are there."""

  return lambda *packages: monkeypatch.setattr(
    log_followers, "_is_there", lambda name: name in packages
  )


def test_by_default_there_are_event_files_where_tensorboardx_is_installed(
  installed, tmp_path
):
  if importlib.util.find_spec("tensorboardX") is None:
    pytest.skip("the extra tensorboard is absent")
  installed("tensorboardX", "wandb")
  for config in (_config(), schema.completed(_old())):
    (files,) = log_followers.log_followers(config, tmp_path)
    assert isinstance(files, tensorboard.EventFiles)
    assert files.folder == tmp_path / "tensorboard"
  installed()
  assert log_followers.log_followers(_config(), tmp_path) == []
  log_followers.check_followers(_config())
  assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_broken_ends_a_run_only_where_it_is_always_wanted(
  installed, tmp_path, monkeypatch, capsys
):
  def broken(*_, **__):
    raise TypeError("Descriptors cannot\nbe created")

  installed("tensorboardX")
  monkeypatch.setattr(tensorboard, "EventFiles", broken)
  assert log_followers.log_followers(_config(), tmp_path) == []
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith("tensorboardX cannot be imported (Descriptors cannot")
  with pytest.raises(InputError, match="tensorboard=never"):
    log_followers.log_followers(_config(tensorboard="always"), tmp_path)


def test_what_follows_is_what_is_asked_for(installed, tmp_path):
  installed("tensorboardX", "wandb")
  config = _config(tensorboard="never", wandb="team/mine")
  (tracker,) = log_followers.log_followers(config, tmp_path)
  assert isinstance(tracker, wandb_log.Tracker)
  config = _config(tensorboard="never")
  assert log_followers.log_followers(config, tmp_path) == []


@pytest.mark.parametrize(
  ("key", "value", "other", "package"),
  [
    ("tensorboard", "always", "auto", "tensorboardX"),
    ("wandb", "mine", "", "wandb"),
  ],
)
def test_a_package_that_is_asked_for_and_absent_is_one_line(
  key, value, other, package, installed, tmp_path
):
  installed()
  argv = ["main", "--config=configs/simulated.py", f"--workdir={tmp_path}/run"]
  with pytest.raises(InputError) as caught:
    command_line.parse([*argv, f"--config.log.{key}={value}"])
  assert caught.value.lines == (
    f"--config.log.{key}={value}: expected the package {package}, which is not "
    f"installed: pip install 'ptlr-jax[{key}]', or pass "
    f"--config.log.{key}={other}",
  )
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "other", [_old(), _config(tensorboard="never", wandb="mine")]
)
def test_configurations_that_differ_in_their_logs_are_of_one_run(other):
  assert set(identity.NEUTRAL) >= KEYS
  assert identity.differences(other, _config()) == []
  assert identity.config_digest(other) == identity.config_digest(_config())
  config_checks.freeze_config(_old())
  assert all(schema.keys()[key].added for key in KEYS)


def test_an_older_run_can_be_taken_over_from(tmp_path, monkeypatch):
  said = identity.portable(_old())
  storage.write_json(tmp_path / "config.json", said)
  monkeypatch.setattr(Artefacts, "adopt", lambda self, other: ["ilg"])
  ours = Artefacts(FrozenConfigDict(identity.portable(_config())), tmp_path)
  assert ours.adopt_from(tmp_path) == ["ilg"]


def test_no_artefact_names_the_account_of_a_project():
  said = identity.portable(_config(wandb="alice/mine"))
  assert said["log"]["wandb"] == "mine"
  assert "alice" not in json.dumps(said)
  assert identity.portable(_config())["log"]["wandb"] == ""


def test_scores_are_lines_a_row():
  row = {"mAP": {"0.50": 0.5}, "averages": {"0.1:0.7": 0.25}}
  line = {"phase": "evaluate", "mAP/0.50": 0.5, "average/0.1:0.7": 0.25}
  told = log_followers.score_lines({"stages": {"ilg": row, "stage-1": row}})
  assert told == [{**line, "step": 0}, {**line, "step": 1}]
  none = {"stages": {}, "not_evaluated": "none"}
  assert log_followers.score_lines(none) == []
