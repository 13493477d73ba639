"""What is installed, as far as it can be known without building it.

A wheel and an sdist are built, installed and run by hand before a release:
python -m build, then the demo from another folder (CONTRIBUTING.md).
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from documents import ROOT

import ptlr_jax
from configs import base, simulated
from ptlr_jax import __main__
from ptlr_jax.cli import command_line
from ptlr_jax.runtime import config_files

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = DECLARED["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_a_wheel_has_the_package_with_configs_inside():
  wheel = DECLARED["tool"]["hatch"]["build"]["targets"]["wheel"]
  assert wheel["only-include"] == ["ptlr_jax", "configs"]
  assert wheel["sources"] == {"configs": "ptlr_jax/configs"}
  assert (ROOT / "ptlr_jax" / "py.typed").exists()


@pytest.mark.parametrize(
  "extra",
  [
    *("cuda12", "cuda13", "video", "beam", "predict", "report"),
    *("tensorboard", "wandb", "docs", "test"),
  ],
)
def test_an_extra_is_declared(extra):
  assert EXTRAS[extra]


def test_an_extra_that_is_part_of_another_is_declared():
  for name, needs in EXTRAS.items():
    for parts in re.findall(r"ptlr-jax\[([\w,]+)\]", " ".join(needs)):
      assert set(parts.split(",")) <= set(EXTRAS) - {name}


def test_the_pins_are_of_what_is_declared():
  """Every package that is declared, but for beam and the GPUs', is pinned."""
  pinned = set()
  for file in ("requirements.txt", "requirements-test.txt"):
    lines = (ROOT / "launch" / file).read_text().splitlines()
    pinned |= {_name(line) for line in lines if re.match(r"\w", line)}
  build = DECLARED["build-system"]["requires"]  # setup.sh builds without pip's
  wanted = [*build, *PROJECT["dependencies"], *EXTRAS["test"]]
  for parts in re.findall(r"ptlr-jax\[([\w,]+)\]", " ".join(EXTRAS["test"])):
    wanted += [need for part in parts.split(",") for need in EXTRAS[part]]
  declared = {_name(line) for line in wanted}
  assert declared - {"ptlr-jax"} <= pinned


def _name(requirement: str) -> str:
  found = re.match(r"[\w.-]+", requirement.strip())
  assert found
  return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_one_version_is_said_everywhere():
  cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  assert cited["version"] == ptlr_jax.__version__
  assert cited["license"] == PROJECT["license"] == "Apache-2.0"
  (paper,) = cited["references"]
  title = " ".join((ROOT / "README.md").read_text().split())
  assert paper["title"] in title
  assert f"## {cited['version']} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_licence_is_whole():
  text = (ROOT / "LICENSE").read_text()
  assert "Version 2.0, January 2004" in text
  assert [f"   {n}. " in text for n in range(1, 10)] == [True] * 9
  assert "END OF TERMS AND CONDITIONS" in text


def test_the_forms_for_issues_are_forms():
  folder = ROOT / ".github" / "ISSUE_TEMPLATE"
  for name in ("bug", "question"):
    form = yaml.safe_load((folder / f"{name}.yml").read_text())
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert "provenance" in ids
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
      assert field["type"] in ("textarea", "dropdown", "input")
      assert field["attributes"]["label"]


# The configurations of the package, from any folder.


def test_configurations_are_found_from_another_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  argv = ["", "--config=configs/simulated.py", "--workdir=run"]
  config = command_line.parse(argv).config
  assert config.to_dict() == simulated.get_config().to_dict()
  argv = ["", "--config", "configs/ablations/ilg.py:simulated", "--workdir=run"]
  assert command_line.parse(argv).config.ptlr.stages == 0


def test_a_file_in_the_folder_comes_before_the_packages(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "simulated.py").write_text(
    "from configs import base\n\n"
    "def get_config():\n"
    "  config = base.get_config()\n"
    "  config.seed = 7\n"
    "  return config\n"
  )
  argv = ["", "--config=configs/simulated.py", "--workdir=run"]
  assert command_line.parse(argv).config.seed == 7
  argv = ["", "--config=configs/own.py", "--workdir=run"]
  assert command_line.parse(argv).config.seed == base.get_config().seed


# Inside a wheel, in a process without a checkout: what else lies in the folder
# of the command, and its --config.
OTHERS_BASE = "def get_config():\n  raise ValueError('of others')\n"
MINE = (
  "from configs import base\n\ndef get_config():\n  return base.get_config()\n"
)


@pytest.mark.parametrize(
  ("files", "config"),
  [
    ({}, "configs/simulated.py"),
    ({}, "configs/ablations/ptlr_ots.py:thumos14"),
    ({"configs/theirs.py": OTHERS_BASE}, "configs/simulated.py"),
    ({"mine.py": MINE}, "mine.py"),
    ({"configs/mine.py": MINE}, "configs/mine.py"),
  ],
)
def test_a_wheel_has_its_configurations(files, config, tmp_path):
  site = tmp_path / "site" / "ptlr_jax"
  site.parent.mkdir()
  # As an installation lays them: configs/ inside the package.
  site.mkdir()
  for path in (ROOT / "ptlr_jax").iterdir():
    (site / path.name).symlink_to(path)
  (site / "configs").symlink_to(ROOT / "configs")
  here = tmp_path / "here"
  for name, text in files.items():
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / name).write_text(text)
  here.mkdir(exist_ok=True)
  code = (
    "import sys\n"
    "from ptlr_jax.cli import command_line\n"
    "from ptlr_jax.runtime import config_files\n"
    "found = command_line.parse(sys.argv).config\n"
    "print(found.seed, config_files.folder())\n"
    "print([p for p in sys.path if p.endswith('ptlr_jax')])"
  )
  done = subprocess.run(
    [sys.executable, "-S", "-c", code, f"--config={config}", "--workdir=run"],
    cwd=here,
    env={"PYTHONPATH": f"{site.parent}:{_libraries()}"},
    capture_output=True,
    text=True,
  )
  assert done.stderr == ""
  assert done.stdout == f"0 {site / 'configs'}\n[]\n"


def _libraries() -> Path:
  """Where packages are, without what makes ptlr_jax editable."""
  return Path(pytest.__file__).parents[1]


def test_the_folder_of_a_checkout_is_its_own():
  assert config_files.folder() == ROOT / "configs"


# What runs elsewhere.


def test_the_hooks_have_the_pinned_ruff():
  hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
  (repository,) = hooks["repos"]
  pins = (ROOT / "launch" / "requirements-test.txt").read_text().split("\n")
  assert f"ruff=={repository['rev'].removeprefix('v')}" in pins
  assert {h["id"] for h in repository["hooks"]} == {"ruff-check", "ruff-format"}


def test_the_workflow_runs_the_gate():
  path = ROOT / ".github" / "workflows" / "test.yml"
  steps = yaml.safe_load(path.read_text())["jobs"]["test"]["steps"]
  assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


# The console command.


def test_the_console_command_is_declared_and_names_every_command(capsys):
  assert PROJECT["scripts"] == {"ptlr-jax": "ptlr_jax.__main__:main"}
  commands = {
    path.stem
    for path in (ROOT / "ptlr_jax").glob("*.py")
    if not path.stem.startswith("_") and path.stem != "api"
  }
  assert {*commands, "features.beam"} == set(__main__.MODULES.values())


def _said(monkeypatch, capsys, *argv: str) -> str:
  monkeypatch.setattr("sys.argv", ["ptlr-jax", *argv])
  __main__.main()
  return capsys.readouterr().out


def test_the_console_command_lists_commands_and_configurations(
  monkeypatch, capsys
):
  text = _said(monkeypatch, capsys, "--help")
  for name in (*__main__.MODULES, "configs"):
    assert re.search(rf"^  {name} +[A-Z].*\.$", text, re.M), name
  lines = _said(monkeypatch, capsys, "configs").splitlines()
  files = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "configs").rglob("*.py")
    if path.name != "__init__.py"
  }
  assert {line.split()[0] for line in lines} == files
  assert all(len(line.split()) > 3 for line in lines)


def test_a_command_of_the_console_gets_its_flags(monkeypatch, capsys):
  text = _said(monkeypatch, capsys, "train", "--help")
  assert "python -m ptlr_jax.main --config=" in text
  monkeypatch.setattr("sys.argv", ["ptlr-jax", "trian"])
  with pytest.raises(SystemExit) as caught:
    __main__.main()
  assert caught.value.code == 2
  assert "got trian; did you mean train?" in capsys.readouterr().err
