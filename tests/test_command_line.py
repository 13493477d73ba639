"""Tests of ptlr_jax.cli.command_line."""

import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import FrozenConfigDict

from ptlr_jax.cli import command_line
from ptlr_jax.runtime.errors import Diverged, InputError

ROOT = Path(__file__).parents[1]
CONFIG = f"--config={ROOT / 'configs' / 'simulated.py'}"
WORKDIR = "--workdir=run"


def _parse(*args):
  return command_line.parse(["main", *args])


def _line(*args):
  """The one line that these arguments are refused with."""
  with pytest.raises(InputError) as caught:
    _parse(*args)
  (line,) = caught.value.lines
  assert "\n" not in line
  return line


def test_overrides_change_the_file_and_nothing_else():
  plain, workdir, _ = _parse(CONFIG, WORKDIR)
  config, _, _ = _parse(
    CONFIG,
    WORKDIR,
    "--config.ilg.steps=3",
    "--config.detect.cas",
    "minmax",
    "--config.ptlr.warm_start",
    "--noconfig.rts.model.centred",
    "--config.ptlr.thresholds=(0.6, 0.5)",
    "--config.ptlr.stages=2",
  )
  assert str(workdir) == "run"
  assert isinstance(config, FrozenConfigDict)
  expected = plain.to_dict()
  expected["ilg"]["steps"] = 3
  expected["detect"]["cas"] = "minmax"
  expected["ptlr"] |= {"warm_start": True, "stages": 2}
  expected["ptlr"]["thresholds"] = (0.6, 0.5)
  expected["rts"]["model"]["centred"] = False
  assert config.to_dict() == expected


def test_the_last_of_several_values_counts():
  key = "--config.ilg.steps"
  assert _parse(CONFIG, WORKDIR, f"{key}=3", f"{key}=4").config.ilg.steps == 4


def test_the_arguments_are_those_given_not_the_processs(monkeypatch):
  monkeypatch.setattr(sys, "argv", ["pytest", "--config.ilg.steps=9"])
  assert _parse(CONFIG, WORKDIR).config.ilg.steps == 400


WRONG = {
  "nothing": ((), ("--config: expected a file, got none", "usage:")),
  "no config": ((WORKDIR,), ("--config: expected a file", "usage:")),
  "config without value": (("--config",), ("--config: expected a file",)),
  "config of nothing": (("--config=",), ("--config: expected a file",)),
  "config missing": (
    ("--config=configs/simulatde.py", WORKDIR),
    ("--config", "configs/simulatde.py is none"),
  ),
  "config a folder": ((f"--config={ROOT}", WORKDIR), (f"{ROOT} is none",)),
  "no workdir": ((CONFIG,), ("--workdir: expected a folder, got none",)),
  "empty workdir": ((CONFIG, "--workdir="), ("--workdir: expected a folder",)),
  "misspelt key": (
    (CONFIG, WORKDIR, "--config.ilg.stepz=3"),
    ("--config.ilg.stepz", "did you mean --config.ilg.steps?"),
  ),
  "misspelt section": (
    (CONFIG, WORKDIR, "--config.detct.nms=0.5"),
    ("--config.detct.nms", "did you mean --config.detect.nms?"),
  ),
  "section left out": (
    (CONFIG, WORKDIR, "--config.nms", "0.5"),
    ("--config.nms", "did you mean --config.detect.nms?"),
  ),
  "misspelt switch": (
    (CONFIG, WORKDIR, "--noconfig.ptlr.warm_strat"),
    ("did you mean --config.ptlr.warm_start?",),
  ),
  "key like no other": (
    (CONFIG, WORKDIR, "--config.xyzzy=1"),
    ("--config.xyzzy: there is no such key", "--help_config"),
  ),
  "key below a key": (
    (CONFIG, WORKDIR, "--config.ilg.steps.x=1"),
    ("--config.ilg.steps.x: there is no such key",),
  ),
  "text for a number": (
    (CONFIG, WORKDIR, "--config.ilg.steps=many"),
    ("--config.ilg.steps", "'many'"),
  ),
  "fraction for a count": (
    (CONFIG, WORKDIR, "--config.ilg.steps=1.5"),
    ("--config.ilg.steps", "'1.5'"),
  ),
  "text for a switch": (
    (CONFIG, WORKDIR, "--config.ptlr.warm_start=maybe"),
    ("--config.ptlr.warm_start", "maybe"),
  ),
  "number for a section": (
    (CONFIG, WORKDIR, "--config.ilg=3"),
    ("--config.ilg", "'3'"),
  ),
  "words for numbers": (
    (CONFIG, WORKDIR, "--config.ptlr.thresholds=('a','b','c')"),
    ("--config.ptlr.thresholds: expected numbers", "'a', 'b', 'c'"),
  ),
  "half a tuple": (
    (CONFIG, WORKDIR, "--config.ptlr.thresholds=(0.7,0.6"),
    ("--config.ptlr.thresholds", "(0.7,0.6"),
  ),
  "no such choice": (
    (CONFIG, WORKDIR, "--config.labels.cas=sofmax"),
    ("--config.labels.cas", "one of softmax_minmax", "'sofmax'"),
  ),
  "not finite": (
    (CONFIG, WORKDIR, "--config.ilg.learning_rate=nan"),
    ("--config.ilg.learning_rate: expected a number of at least 0",),
  ),
  "unknown flag": (
    (CONFIG, WORKDIR, "--wrkdir=x"),
    ("wrkdir", "workdir"),
  ),
  "no flag": ((CONFIG, WORKDIR, "extra"), ("expected flags only", "'extra'")),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_refused_in_one_line(name):
  args, said = WRONG[name]
  line = _line(*args)
  assert not [part for part in said if part not in line], line


def test_every_unknown_key_has_its_line():
  with pytest.raises(InputError) as caught:
    _parse(CONFIG, WORKDIR, "--config.ilg.stepz=1", "--config.ots.stepz=1")
  assert [line.split(":")[0] for line in caught.value.lines] == [
    "--config.ilg.stepz",
    "--config.ots.stepz",
  ]


BROKEN = {
  "syntax error": ("def get_config(:\n", "SyntaxError"),
  "no get_config": ("x = 1\n", "get_config"),
  "failing import": ("import nowhere_at_all\n", "nowhere_at_all"),
  "name error": ("def get_config():\n  return undefined\n", "undefined"),
  "type error": ("def get_config():\n  return 1 + ''\n", "TypeError"),
  "no config": ("def get_config():\n  return {'seed': 0}\n", "ConfigDict"),
  "nothing": ("def get_config():\n  pass\n", "ConfigDict"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_is_named_in_one_line(
  name, tmp_path, monkeypatch
):
  # ml_collections loads the next configuration on top of the one before.
  monkeypatch.delitem(sys.modules, "config_config", raising=False)
  text, said = BROKEN[name]
  path = tmp_path / "broken.py"
  path.write_text(text)
  line = _line(f"--config={path}", WORKDIR)
  assert line.startswith(f"{path}: ")
  assert said in line


def test_a_configuration_without_the_bases_keys_is_refused(tmp_path):
  path = tmp_path / "short.py"
  path.write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config():\n  return ConfigDict({'seed': 1})\n"
  )
  line = _line(f"--config={path}", WORKDIR)
  assert "more; begin from configs/base.py" in line


def test_the_module_prints_the_line_and_exits_with_2(tmp_path):
  done = subprocess.run(
    [
      *(sys.executable, "-m", "ptlr_jax.main", CONFIG),
      *(f"--workdir={tmp_path / 'run'}", "--config.ilg.stepz=3"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stdout == ""
  assert done.stderr == (
    "ptlr_jax: --config.ilg.stepz: there is no such key; did you mean "
    "--config.ilg.steps?\n"
  )
  assert not (tmp_path / "run").exists()


# Commands beside `main`.

TABLE = {"table": "all", "seeds": "5"}


def test_a_command_has_flags_of_its_own():
  def others(*args):
    argv = ["tables", CONFIG, WORKDIR, *args]
    return command_line.parse(argv, "usage: x", TABLE).others

  assert _parse(CONFIG, WORKDIR).others == {}
  assert others() == TABLE
  assert others("--table=3", "--seeds", "0,7") == {"table": "3", "seeds": "0,7"}
  assert "'table'" in _line(CONFIG, WORKDIR, "--table=3")
  with pytest.raises(InputError, match=r"seeds.*; usage: x"):
    others("--seeds")


def test_a_mistake_shows_the_commands_own_usage():
  with pytest.raises(InputError) as caught:
    command_line.parse(["tables", CONFIG], "usage: of tables", TABLE)
  assert caught.value.lines[0].endswith("got none; usage: of tables")


@pytest.mark.parametrize(
  ("error", "status", "shown"),
  [
    (
      InputError("a: wrong", "b: too"),
      2,
      "ptlr_jax: a: wrong\nptlr_jax: b: too",
    ),
    (Diverged("loss is nan"), 1, "ptlr_jax: loss is nan"),
  ],
)
def test_an_error_of_ours_is_lines_and_a_status(
  error, status, shown, monkeypatch, capsys
):
  def run(argv):
    assert argv == ["tables", CONFIG]
    raise error

  monkeypatch.setattr("sys.argv", ["tables", CONFIG])
  with pytest.raises(SystemExit) as caught:
    command_line.execute(run, "", "")
  assert caught.value.code == status
  assert capsys.readouterr() == ("", f"{shown}\n")


def _divide(argv):
  raise ZeroDivisionError(argv)


def test_an_error_of_the_code_keeps_its_traceback(monkeypatch):
  monkeypatch.setattr("sys.argv", ["tables"])
  with pytest.raises(ZeroDivisionError):
    command_line.execute(_divide, "", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_shown_and_nothing_is_run(flag, monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["tables", flag])
  command_line.execute(_divide, "What it does.", "usage: tables")
  shown = capsys.readouterr().out
  assert shown.startswith("What it does.\nusage: tables\n")
