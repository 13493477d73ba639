"""What is installed, as far as it can be known without building it.

A wheel and an sdist are built, installed and run by hand before a release:
python -m build, then the demo from another folder (CONTRIBUTING.md).
"""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import ROOT

import ptlr_jax
from configs import base, simulated
from ptlr_jax.cli import command_line
from ptlr_jax.runtime import config_files

DECLARED = configparser.ConfigParser()
DECLARED.read(ROOT / "setup.cfg")
EXTRAS = DECLARED["options.extras_require"]


def test_every_folder_with_modules_is_in_the_wheel():
  folders = {
    path.parent.relative_to(ROOT).as_posix()
    for path in (ROOT / "ptlr_jax").rglob("*.py")
  }
  packages = {folder.replace("/", ".") for folder in folders}
  configs = {"ptlr_jax.configs", "ptlr_jax.configs.ablations"}
  assert set(DECLARED["options"]["packages"].split()) == packages | configs
  said = DECLARED["options"]["package_dir"].split()
  assert said == ["ptlr_jax.configs", "=", "configs"]


def test_what_is_no_module_is_declared_as_data():
  """Else it would be missing in a wheel."""
  data = DECLARED["options.package_data"]
  for folder in ("ptlr_jax", "configs"):
    for path in (ROOT / folder).rglob("*"):
      if path.is_file() and path.suffix not in (".py", ".pyc"):
        package = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        assert f"*{path.suffix}" in re.split(r"[\s,]+", data[package]), path


@pytest.mark.parametrize(
  "extra",
  [
    *("cuda12", "cuda13", "video", "beam", "predict", "report"),
    *("tensorboard", "wandb", "docs", "test"),
  ],
)
def test_an_extra_is_declared(extra):
  assert EXTRAS[extra].split()


def test_an_extra_that_is_part_of_another_is_declared():
  for name, text in EXTRAS.items():
    for parts in re.findall(r"ptlr-jax\[([\w,]+)\]", text):
      assert set(parts.split(",")) <= set(EXTRAS) - {name}


def test_the_pins_are_of_what_is_declared():
  """Every package that is declared, but for beam and the GPUs', is pinned."""
  pinned = set()
  for file in ("requirements.txt", "requirements-test.txt"):
    lines = (ROOT / "launch" / file).read_text().splitlines()
    pinned |= {_name(line) for line in lines if re.match(r"\w", line)}
  wanted = DECLARED["options"]["install_requires"] + EXTRAS["test"]
  for parts in re.findall(r"ptlr-jax\[([\w,]+)\]", EXTRAS["test"]):
    wanted += "".join(EXTRAS[part] for part in parts.split(","))
  declared = {_name(line) for line in wanted.split("\n") if line.strip()}
  assert declared - {"ptlr-jax"} <= pinned


def _name(requirement: str) -> str:
  found = re.match(r"[\w.-]+", requirement.strip())
  assert found
  return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_one_version_is_said_everywhere():
  cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  assert cited["version"] == ptlr_jax.__version__
  assert cited["license"] == DECLARED["metadata"]["license"] == "Apache-2.0"
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
