"""Every command and snippet of the documentation, run or held to the program.

RUN and SNIPPETS are run as they stand, in a folder where the names they use
(ROOT, DIR, G, D, runs/mine) are there. Every other command of ours, those in
docstrings too, goes through its parser, which knows flags and keys, up to where
work would begin; of commands of others it is checked that the files they name
exist. `main` itself is run at the smallest size by tests/test_end_to_end.py and
tests/test_forks.py, `tables` by tests/test_tables_end_to_end.py.
"""

import ast
import importlib
import itertools
import re
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import trained_fixture
from basnet_fixture import tiny_videos, write_basnet
from documents import (
  NO_COMMANDS,
  ROOT,
  Command,
  blocks,
  commands,
  docstring_commands,
)

from ptlr_jax.cli import command_line
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import InputError

ALL = [*commands(), *docstring_commands()]
RUN = (
  "python -m ptlr_jax.prepare --check --source=ROOT",
  "python -m ptlr_jax.prepare --check --source=mine",
  "python -m ptlr_jax.export --workdir=runs/mine --output=model.safetensors",
  "python -m ptlr_jax.predict --model=model.safetensors --features=DIR",
  "python -m ptlr_jax.evaluate --ground_truth=G --detections=D"
  " --protocol=thumos14 [--subset=S] [--output=metrics.json] [--against=D2]"
  " [--lenient]",
  "python -m ptlr_jax.evaluate --protocol=list",
  "python -m ptlr_jax.report --workdir=runs/mine --output=report.html",
)
# What is not ours, or needs what tests have not: why it is not run.
NOT_OURS = {
  "docker": "needs Docker; tests/test_launch.py reads the Dockerfile",
  "kubectl": "needs a cluster; tests/test_launch.py reads the manifest",
  "sbatch": "needs SLURM; tests/test_slurm.py runs it where there is one",
  "mpirun": "needs Open MPI; what it sets is in tests/test_cluster.py",
  "pip": "installs; its files and extras are checked",
  "tensorboard": "a server",
  "thumos14_sim.py": "a tool outside this repository",
}
MODULES_NOT_OURS = {
  "sphinx": "tests/test_docs_site.py builds the site",
  "ruff": "launch/test.sh runs it",
  "build": "makes an environment of its own; tests/test_packaging.py",
}
# What stands for something: of any value that a parser takes.
STANDS_FOR = {
  "--config=...": "--config=configs/simulated.py",
  "--config=configs/NAME.py": "--config=configs/simulated.py",
  "--config.seed=N": "--config.seed=1",
}


@pytest.fixture(autouse=True)
def _jax_stays_as_it_is(monkeypatch):
  monkeypatch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)


class _ParsedError(Exception):
  """All flags and keys are known."""


def _without_brackets(text: str) -> list[str]:
  """The words, with all flags that may be left out; `...` stands for more."""
  text = re.sub(r"\[[^]]*\.\.\.\]", "", text)
  text = re.sub(r"(?<=\s)\[([^]]*)\]", r"\1", text.partition(" #")[0])
  words = text.split()
  words = [word.strip("'\"") for word in words if word != "..."]
  return [STANDS_FOR.get(word, word) for word in words]


def _parse(module: str, arguments: list[str], monkeypatch) -> None:
  """Runs one of our commands up to where its flags and keys are known."""
  parse, read_flags = command_line.parse, command_line.read_flags

  def parse_all(*args, **kwargs):
    with monkeypatch.context() as within:
      within.setattr(command_line, "read_flags", read_flags)
      parse(*args, **kwargs)
    raise _ParsedError

  def read_all(*args):
    read_flags(*args)
    raise _ParsedError

  monkeypatch.setattr(command_line, "parse", parse_all)
  monkeypatch.setattr(command_line, "read_flags", read_all)
  # Whether an extra is installed is another matter.
  monkeypatch.setattr(
    "ptlr_jax.workdir.log_followers._is_there", lambda package: True
  )
  with pytest.raises(_ParsedError):
    importlib.import_module(module).run_command(["", *arguments])


def _check_main(arguments: list[str], monkeypatch) -> None:
  given = {argument.partition("=")[0] for argument in arguments}
  usual = {"--config": "configs/simulated.py", "--workdir": "DIR"}
  missing = [f"{k}={v}" for k, v in usual.items() if k not in given]
  _parse("ptlr_jax.main", [*missing, *arguments], monkeypatch)


def _check_benchmark(script: str, arguments: list[str], monkeypatch) -> None:
  text = (ROOT / script).read_text()
  ours = [a for a in arguments if re.match(r"--(no)?config\b", a)]
  for argument in set(arguments) - set(ours):
    name = argument.partition("=")[0].removeprefix("--")
    quoted = rf"[\"'](--)?{name}[\"']|\b{name}="
    assert not argument.startswith("--") or re.search(quoted, text), argument
  if ours:
    _check_main(ours, monkeypatch)


def _check_pip(arguments: list[str]) -> None:
  declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
  known = declared["project"]["optional-dependencies"]
  for flag, value in itertools.pairwise(arguments):
    if flag in ("-c", "-r"):
      assert (ROOT / value).is_file()
  for argument in arguments:
    if match := re.fullmatch(r"(?:\.|ptlr-jax)\[([\w,]+)\]", argument):
      extras = match[1].split(",")
      assert set(extras) <= set(known)


def _check_script(script: str, arguments: list[str], monkeypatch) -> None:
  assert (ROOT / script).is_file()
  if Path(script).name == "test.sh":
    paths = [a for a in arguments if not a.startswith("-")]
    assert all((ROOT / path).exists() for path in paths)
  elif Path(script).name != "setup.sh":
    _check_main(arguments, monkeypatch)


def _check_others(words: list[str], monkeypatch) -> None:
  """Files of ours that a program of others is told of, and what it starts."""
  scripts = [i for i, word in enumerate(words) if word.startswith("launch/")]
  for i in scripts:
    assert (ROOT / words[i]).is_file()
    if words[0] == "sbatch":
      _check_main(words[i + 1 :], monkeypatch)
  if "-m" in words and words[0] == "mpirun":
    after = words.index("-m")
    assert words[after + 1] == "ptlr_jax.main"
    _check_main(words[after + 2 :], monkeypatch)


def _check(command: Command, monkeypatch) -> None:
  """Fails where the program does not know what the command says, or where
  nothing is known of the command."""
  words = _without_brackets(command.text)
  while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
    del words[0]
  program, *rest = words
  program = program.removeprefix(".venv/bin/")
  if program.startswith("--"):
    _check_main(words, monkeypatch)
  elif program.startswith("launch/"):
    _check_script(program, rest, monkeypatch)
  elif program == "python" and rest[0].startswith("benchmarks/"):
    _check_benchmark(rest[0], rest[1:], monkeypatch)
  elif program == "python" and rest[0] == "-m":
    if rest[1] in MODULES_NOT_OURS:
      return
    assert rest[1].startswith("ptlr_jax."), f"{command}: not known here"
    _parse(rest[1], rest[2:], monkeypatch)
  elif program == "pip":
    _check_pip(rest)
  else:
    assert program in NOT_OURS, (
      f"{command}: is it a command? Give its block the name text, or say in "
      "tests/test_docs.py how it is checked"
    )
    _check_others(words, monkeypatch)


@pytest.mark.parametrize("command", ALL, ids=lambda c: f"{c.page}:{c.line}")
def test_a_command_of_the_documentation_is_known(command, monkeypatch):
  monkeypatch.chdir(ROOT)
  if command.text not in RUN:
    _check(command, monkeypatch)


@pytest.mark.parametrize(
  "wrong",
  [
    "python -m ptlr_jax.main --config=configs/simulated.py --workdir=DIR --x=1",
    "python -m ptlr_jax.main --config=configs/none.py --workdir=DIR",
    "launch/local.sh --config=... --workdir=DIR --config.detect.mns=0.5",
    "python -m ptlr_jax.evaluate --ground_truth=G --detection=D",
    "python benchmarks/growth.py --polt=docs/growth.svg",
    "python benchmarks/gowth.py",
    "sbatch launch/slurm.sbatch --config=configs/simulatde.py",
    "pip install 'ptlr-jax[vidoe]'",
    "kubectl apply -f launch/kubernets.yaml",
    "python -m ptlr_jax.man",
    "make",
  ],
)
def test_a_wrong_command_would_be_noticed(wrong, monkeypatch):
  monkeypatch.chdir(ROOT)
  command = Command("page", 1, wrong, wrong.split())
  with pytest.raises((AssertionError, InputError, OSError, ImportError)):
    _check(command, monkeypatch)


# What is run.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with what the commands name."""
  folder = tmp_path_factory.mktemp("place")
  config = trained_fixture.configuration()
  data = trained_fixture.leave_run(folder / "runs" / "mine", config)
  video = data.test[0]
  for stream in ("rgb", "flow"):
    features = np.asarray(video.features[stream])
    (folder / "DIR" / stream).mkdir(parents=True)
    np.save(folder / "DIR" / stream / "V.npy", features)
    np.save(folder / f"V_{stream}.npy", features)
  truth = {
    video.id: {
      "subset": "S",
      "annotations": [{"segment": [1, 9], "label": data.classes[0]}],
    }
  }
  storage.write_json(folder / "G", {"database": truth})
  detections = folder / "runs" / "mine" / "detections.json"
  for name in ("D", "D2"):
    shutil.copy(detections, folder / name)
  train, test = tiny_videos("train", 4), tiny_videos("test", 2, seed=1)
  write_basnet(folder / "ROOT", train, test, ("Diving", "HighJump"))
  _own_data(folder / "mine")
  return folder


def _own_data(folder: Path) -> None:
  """The table of docs/OWN_DATA.md, with features of its videos."""
  (table,) = (b.text for b in blocks() if b.text.startswith("video,label\n"))
  (folder / "features").mkdir(parents=True)
  (folder / "labels.csv").write_text(table)
  draw = np.random.default_rng(0)
  for video in {line.partition(",")[0] for line in table.split()[1:]}:
    for stream in ("rgb", "flow"):
      (folder / "features" / stream).mkdir(exist_ok=True)
      path = folder / "features" / stream / f"{video}.npy"
      np.save(path, draw.normal(size=(9, 4)).astype(np.float32))


def _run(text: str, monkeypatch) -> None:
  words = _without_brackets(text)
  monkeypatch.setattr(sys, "argv", [words[2], *words[3:]])
  importlib.import_module(words[2]).main()


def test_commands_that_are_run_are_in_the_documentation():
  assert set(RUN) <= {command.text for command in ALL}


@pytest.mark.parametrize("text", RUN)
def test_a_command_does_what_it_says(text, place, monkeypatch, capsys):
  monkeypatch.chdir(place)
  if "ptlr_jax.report " in text:
    pytest.importorskip("plotly", reason="the extra report is not installed")
  _run(text, monkeypatch)
  said = capsys.readouterr().out
  leaves = {
    "export": "model.safetensors",
    "predict": "predictions/V.png",
    "report": "report.html",
  }
  for module, path in leaves.items():
    if f"ptlr_jax.{module} " in text:
      assert (place / path).stat().st_size > 1000
      assert Path(path).parts[0] in said
  assert said


# Snippets, by a line of theirs: what they find there, and what has to come.
SNIPPETS = {
  "found.plot()": (),
  "with safe_open(": (),
  "result = detection_map(": ("database", "results"),
  'np.savez(f"DIR/': ("outputs",),
}
NOT_RUN = {
  "tfds.builder_from_directory": "tests/test_prepare.py reads such a set",
  "extraction.load_towers": "needs weights of I3D; tests/test_extraction.py",
  "tf.train.load_checkpoint": "needs TensorFlow",
  "weights.load_weights": "needs weights of I3D; tests/test_i3d_weights.py",
  "ptlr_jax.train(": "tests/test_api.py runs docs/PYTHON.md",
  "ptlr_jax.load_run(": "tests/test_api.py runs docs/PYTHON.md",
  "found = model.detect(rgb=rgb": "tests/test_api.py runs docs/PYTHON.md",
  "ptlr_jax.score(": "tests/test_api.py runs docs/PYTHON.md",
  "def jensen_shannon(": "a part of tests/forks/js_consistency/loss.py",
}
PYTHON = [block for block in blocks() if block.kind == "python"]


def _known_names(code: str) -> None:
  """Imports of ours, and what is taken of them, are there."""
  modules = {}
  tree = ast.parse(code)
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.module:
      if node.module.split(".")[0] != "ptlr_jax":
        continue
      for alias in node.names:
        modules[alias.asname or alias.name] = _named(node.module, alias.name)
    elif isinstance(node, ast.Import):
      for alias in node.names:
        if alias.name.split(".")[0] == "ptlr_jax":
          modules[alias.name] = importlib.import_module(alias.name)
  for node in ast.walk(tree):
    if (
      isinstance(node, ast.Attribute)
      and isinstance(node.value, ast.Name)
      and node.value.id in modules
    ):
      assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)


def _named(module: str, name: str):
  found = importlib.import_module(module)
  if not hasattr(found, name):
    return importlib.import_module(f"{module}.{name}")
  return getattr(found, name)


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: f"{b.page}:{b.line}")
def test_a_snippet_names_what_there_is(block):
  kinds = [key for key in (*SNIPPETS, *NOT_RUN) if key in block.text]
  assert kinds, "say in tests/test_docs.py whether it is run"
  _known_names(block.text)


@pytest.mark.parametrize("line", SNIPPETS)
def test_a_snippet_runs(line, place, monkeypatch):
  monkeypatch.chdir(place)
  if not Path("model.safetensors").exists():
    _run(RUN[2], monkeypatch)
  given = {
    "outputs": {"W": (np.zeros((4, 3)), np.ones(4), np.ones(3))},
    "database": storage.read_json(Path("G"))["database"],
    "results": storage.read_json(Path("D"))["results"],
  }
  found = [block.text for block in PYTHON if line in block.text]
  assert found
  code = found[-1]
  if line == "result = detection_map(":
    given["database"] = {
      name: {**entry, "subset": "test"}
      for name, entry in given["database"].items()
    }
  exec(compile(code, line, "exec"), {n: given[n] for n in SNIPPETS[line]})


def test_every_block_says_what_it_is():
  kinds = {block.kind for block in blocks()}
  assert kinds <= {"", *NO_COMMANDS}
