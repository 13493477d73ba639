"""What a workdir must not hold, and what must never be run from it."""

import ast
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import tiny_videos, write_basnet
from tiny_config import ROOT, start

from ptlr_jax.data.files import sealing
from ptlr_jax.io import label_files, storage
from ptlr_jax.runtime.errors import Damaged

SECRET = "hunter2-a-token-of-the-environment"
PLACE = "where-alice-keeps-her-features"
SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.stages=0"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ilg.steps=2"),
  "--config.data.width=4",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A workdir of a run on features in a telling place; no test changes it."""
  base = tmp_path_factory.mktemp("base") / PLACE
  train = tiny_videos("train", 4, num_segments=20)
  test = tiny_videos("test", 2, num_segments=20, seed=1)
  root = write_basnet(base / "root", train, test, ("Diving", "HighJump"))
  cache = base / "cache"
  cache.mkdir()
  workdir = tmp_path_factory.mktemp("here") / "run"
  with pytest.MonkeyPatch.context() as context:
    context.setenv("API_TOKEN", SECRET)
    context.setenv("XLA_FLAGS", f"--xla_dump_to={base}/dump")
    done = start(
      workdir,
      cache,
      *("--config.data.layout=auto", f"--config.data.root={root}"),
      f"--config.compile_cache={cache}",
      *SMALL,
    )
  assert done.returncode == 0, done.stderr
  return workdir


def _contents(workdir):
  """{name: bytes}, of an npz what is in it too."""
  for path in workdir.rglob("*"):
    if path.is_file():
      data = path.read_bytes()
      yield str(path), data
      if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
          for name in archive.namelist():
            yield f"{path}/{name}", archive.read(name)


def test_no_artefact_names_a_place_a_user_or_a_secret(run):
  names = list(_contents(run))
  assert len(names) > 15
  words = {SECRET, PLACE, str(run), str(Path.home()), str(ROOT)} - {"/"}
  for name, data in names:
    for word in words:
      assert word.encode() not in data, (name, word)
      wide = word.encode("utf-32-le")  # as NumPy has text
      assert wide not in data, (name, word)


def test_the_place_of_the_data_is_known_by_its_last_name(run):
  config = storage.read_json(run / "config.json")
  assert config["data"]["root"] == "root"
  assert config["compile_cache"] == "cache"


def test_provenance_and_metrics_name_what_the_run_was_made_with(run):
  (begun,) = storage.read_json(run / "provenance.json")["starts"]
  (made_with,) = storage.read_json(run / "metrics.json")["made_with"]
  assert begun.pop("time")
  assert begun == made_with
  assert made_with["seed"] == 0
  assert made_with["deterministic"] is False
  assert {"jax", "jaxlib", "flax", "numpy", "python"} <= set(
    made_with["packages"]
  )
  assert made_with["device"]["platform"] == "cpu"
  assert made_with["device"]["xla_flags"] == []
  assert {len(x) for x in made_with["data"].values()} == {64}


EXPLODED: list[str] = []


class Bomb:
  """Tells when it is unpickled."""

  def __reduce__(self):
    return _explode, ("yes",)


def _explode(word):
  EXPLODED.append(word)


def test_a_pickle_in_a_workdir_is_not_loaded(tmp_path):
  path = tmp_path / "labels-0.npz"
  path.write_bytes(pickle.dumps(Bomb()))
  with pytest.raises(Damaged):
    label_files.read_labels(path, ["a"], [1])
  buffer = io.BytesIO()
  np.savez(buffer, ids=np.array([Bomb()], object), lengths=np.array([1]))
  with zipfile.ZipFile(buffer, "a") as archive:  # as if we had written it
    archive.comment = label_files._COMMENT + sealing.PLACE
  path.write_bytes(sealing.seal(buffer.getvalue()))
  with pytest.raises(ValueError, match="allow_pickle=False"):
    label_files.read_labels(path, ["a"], [1])
  assert not EXPLODED


def test_a_config_on_disk_is_data(tmp_path):
  """JSON that looks like code stays what it is: text."""
  path = tmp_path / "config.json"
  storage.write_json(path, {"seed": "__import__('os').abort()"})
  assert storage.read_json(path) == {"seed": "__import__('os').abort()"}


@pytest.mark.parametrize(
  "path",
  sorted((ROOT / "ptlr_jax").rglob("*.py")),
  ids=lambda path: str(path.relative_to(ROOT / "ptlr_jax")),
)
def test_no_module_unpickles_or_runs_text(path):
  tree = ast.parse(path.read_text())
  for node in ast.walk(tree):
    if isinstance(node, ast.Import | ast.ImportFrom):
      names = {alias.name for alias in node.names}
      names.add(getattr(node, "module", None) or "")
      names -= {"pickle"} if path.name == "pickled.py" else set()
      assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
      assert node.attr.isupper() or node.attr == "_Unpickler"  # no load
    if isinstance(node, ast.Call):
      name = getattr(node.func, "id", getattr(node.func, "attr", ""))
      assert not (isinstance(node.func, ast.Name) and name in ("eval", "exec"))
      for keyword in node.keywords:
        if keyword.arg == "allow_pickle":
          assert isinstance(keyword.value, ast.Constant)
          assert keyword.value.value is False
      if ast.unparse(node.func) in ("np.load", "numpy.load"):
        assert "allow_pickle" in {k.arg for k in node.keywords}, node.lineno


def test_the_log_has_a_version_in_every_line(run):
  lines = (run / "metrics.jsonl").read_text().splitlines()
  assert {json.loads(line)["ptlr_jax"] for line in lines} == {sealing.VERSION}
