"""The imports of the package, held to the contract between its folders."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ptlr_jax"

# From the top down: a folder imports only what stands below its line, never a
# neighbour. The commands are the modules of the root.
CONTRACT = (
  {"commands"},
  {"reporting"},
  {"inference"},
  {"runs", "paper_tables", "features"},
  {"training", "cli"},
  {"workdir"},
  {"localization", "io", "evaluation"},
  {"method"},
  {"data"},
  {"models", "runtime"},
)
# Packages that only some modules may import, at the top or in a function.
ONLY_IN = {
  "orbax": {"io.checkpoints"},
  "grain": {"data.streaming"},
  "tensorflow_datasets": {
    *("data.tfds.builders", "data.tfds.examples", "data.tfds.prepared"),
  },
  # A checkpoint in their form is read by them, where they are installed.
  "tensorflow": {"features.checkpoint_formats"},
  "torch": {"features.checkpoint_formats"},
  "safetensors": {"features.checkpoint_formats", "inference.model_file"},
  "matplotlib": {"inference.timeline"},
  "av": {"features.video"},
  "cv2": {"features.optical_flow"},
  "apache_beam": {"features.beam"},
}
# Folders that are arrays, numbers and files alone.
NO_JAX = ("localization", "evaluation", "data", "paper_tables", "cli")
MEETS_JAX = {"cli.startup", "cli.compile_cache", "runtime.processes"}  # late
NO_CONFIG = ("method", "models", "localization", "evaluation")


def _name(path):
  *folders, last = path.relative_to(PACKAGE).with_suffix("").parts
  return ".".join([*folders, last] if last != "__init__" else folders)


FILES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _folder(module):
  top = module.partition(".")[0]
  return top if top and (PACKAGE / top).is_dir() else "commands"


def _level(module):
  return next(i for i, line in enumerate(CONTRACT) if _folder(module) in line)


@functools.cache
def _imports(name, top_level=False):
  """(modules of the package, other packages) that a module imports."""
  tree = ast.parse(FILES[name].read_text())
  own, others = set(), set()
  for node in tree.body if top_level else ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
      assert not [n for n in names if n.startswith("ptlr_jax")], (
        f"{name}: modules are imported by `from ptlr_jax.folder import module`"
      )
      others |= {n.partition(".")[0] for n in names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{name}: expected no relative import"
      package, _, inside = (node.module or "").partition(".")
      if package != "ptlr_jax":
        others.add(package)
        continue
      for alias in node.names:
        full = f"{inside}.{alias.name}".strip(".")
        own.add(full if full in FILES else inside)
  return own - {name}, others - sys.stdlib_module_names


def _all_below(name):
  """All modules that importing one needs, those in functions included."""
  seen, todo = set(), [name]
  while todo:
    for other in _imports(todo.pop())[0] - seen:
      seen.add(other)
      todo.append(other)
  return seen


def test_every_folder_has_its_line():
  folders = {_folder(name) for name in FILES}
  lines = [folder for line in CONTRACT for folder in line]
  assert sorted(lines) == sorted(folders)


@pytest.mark.parametrize("folder", sorted(set().union(*CONTRACT)))
def test_a_folder_imports_only_what_stands_below_it(folder):
  wrong = [
    f"{name} imports {other}"
    for name in FILES
    if _folder(name) == folder
    for other in _imports(name)[0]
    if _folder(other) != folder and _level(other) <= _level(name)
  ]
  assert not wrong


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package):
  assert {n for n in FILES if package in _imports(n)[1]} == ONLY_IN[package]


def test_arrays_and_files_need_no_jax_and_the_method_no_configuration():
  for name in FILES:
    if _folder(name) in NO_JAX:
      behind = {name, *_all_below(name)} - MEETS_JAX
      assert not [n for n in behind if "jax" in _imports(n)[1]], name
    if _folder(name) in NO_CONFIG:
      assert not _imports(name)[1] & {"ml_collections", "absl"}, name
  for name in FILES:
    text = FILES[name].read_text()
    assert "jax.distributed" not in text or _folder(name) in ("cli", "runtime")


def test_no_module_imports_itself_through_others():
  assert not [name for name in FILES if name in _all_below(name)]


def test_main_fits_a_page_and_imports_jax_only_when_it_must():
  assert len(FILES["main"].read_text().splitlines()) <= 80
  top, others = _imports("main", top_level=True)
  behind = top.union(*map(_all_below, top)) - {"cli.compile_cache"}
  packages = others.union(*(_imports(name)[1] for name in behind))
  assert not packages & {"flax", "orbax"}


def _modules_after(code):
  """The names of sys.modules after running `code` in a process of its own."""
  done = subprocess.run(
    [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return set(done.stdout.split())


def test_the_command_line_and_the_workdir_load_no_jax():
  loaded = _modules_after("from ptlr_jax import main")
  assert {"ptlr_jax.cli.command_line", "ptlr_jax.workdir.run_folder"} <= loaded
  assert not loaded & {"jax", "flax", "orbax", "tensorflow"}
  assert not loaded & {"grain", "tensorflow_datasets"}


def test_the_whole_pipeline_loads_no_tensorflow():
  loaded = _modules_after("from ptlr_jax.runs import dataset, pipeline")
  assert {"jax", "orbax.checkpoint"} <= loaded
  assert not loaded & {"tensorflow", "torch", "clu"}
  assert not loaded & {"grain", "tensorflow_datasets"}


def test_what_prepares_and_streams_loads_no_tensorflow():
  loaded = _modules_after(
    "from ptlr_jax import prepare\n"
    "from ptlr_jax.data import streaming\n"
    "from ptlr_jax.data.tfds import builders\n"
  )
  assert {"tensorflow_datasets", "grain"} <= loaded
  assert not loaded & {"tensorflow", "torch"}
