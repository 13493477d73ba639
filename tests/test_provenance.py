"""Tests of ptlr_jax.workdir.provenance: what a run was made with."""

import getpass
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import jax
import pytest
from ml_collections import FrozenConfigDict

from ptlr_jax.data import simulated
from ptlr_jax.io import disk_space, storage
from ptlr_jax.runtime import mesh
from ptlr_jax.runtime.errors import InputError, OtherVersion
from ptlr_jax.workdir import identity, provenance
from tests import tiny_config
from tests.damage import flip


def _made_with(annotations="a" * 64, features: str | None = "f" * 64, seed=0):
  data = {"annotations": annotations, "features": features}
  return {"data": data, "seed": seed, "config": "c"}


def _seeds(directory):
  return [start["seed"] for start in provenance.read_starts(directory)]


@pytest.fixture(autouse=True)
def _asked_anew():
  """The commit is known for as long as a process runs."""
  provenance.commit.cache_clear()
  yield
  provenance.commit.cache_clear()


# What it says.


@pytest.fixture
def config():
  return FrozenConfigDict(tiny_config.get_config())


@pytest.fixture
def made_with(config, monkeypatch):
  """What a run of the tiny configuration is made with."""
  data = simulated.simulate(width=4, **config.data.simulated)
  jax.devices()  # reads the flags only once
  monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_dump_to=/home/me --xla_b")
  return provenance.made_with(config, data, mesh.device_info())


def test_a_run_says_what_it_is_made_with(made_with, config):
  assert made_with.keys() == {
    *("packages", "commit", "device", "data", "config", "seed"),
    *("deterministic", "learned_from"),
  }
  assert made_with["config"] == identity.config_digest(config)
  assert made_with["seed"] == 0
  assert made_with["deterministic"] is False
  assert set(made_with["data"]) == {"annotations", "features"}
  assert made_with["device"]["platform"] == "cpu"
  assert made_with["device"]["xla_flags"] == ["--xla_a=1", "--xla_b"]
  assert json.loads(json.dumps(made_with, allow_nan=False)) == made_with


def test_no_place_of_this_machine_is_said(made_with):
  text = json.dumps(made_with)
  places = {str(Path.home()), os.getcwd(), str(Path(__file__).parents[1])}
  assert not [p for p in places if len(p) > 1 and p in text]
  assert platform.node() not in text
  assert f'"{getpass.getuser()}"' not in text


def test_packages_that_are_not_installed_are_left_out(monkeypatch):
  def version(name):
    if name != "jax":
      raise provenance.importlib.metadata.PackageNotFoundError
    return "1.2.3"

  monkeypatch.setattr(provenance.importlib.metadata, "version", version)
  assert provenance.packages() == {
    "python": platform.python_version(),
    "jax": "1.2.3",
  }


# The commit.


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A repository of one commit that the package seems to lie in."""
  for name in ("NAME", "EMAIL"):
    for who in ("AUTHOR", "COMMITTER"):
      monkeypatch.setenv(f"GIT_{who}_{name}", "nobody")
  monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
  root = tmp_path / "checkout"
  file = root / "ptlr_jax" / "workdir" / "provenance.py"
  file.parent.mkdir(parents=True)
  file.write_text("")
  monkeypatch.setattr(provenance, "__file__", str(file))
  for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
    subprocess.run(["git", "-C", str(root), *command], check=True)
  return root


def test_the_commit_has_a_plus_once_a_file_of_it_is_changed(checkout):
  found = provenance.commit()
  assert found is not None
  assert len(found) == 40
  (checkout / "new").write_text("not in it")
  provenance.commit.cache_clear()
  assert provenance.commit() == found
  Path(provenance.__file__).write_text("changed")
  provenance.commit.cache_clear()
  assert provenance.commit() == f"{found}+"


def test_outside_a_checkout_of_its_own_there_is_no_commit(
  checkout, monkeypatch
):
  inner = checkout / "vendored" / "ptlr_jax" / "workdir" / "provenance.py"
  monkeypatch.setattr(provenance, "__file__", str(inner))
  inner.parent.mkdir(parents=True)
  assert provenance.commit() is None  # the repository around us
  shutil.rmtree(checkout / ".git")
  assert provenance.commit() is None


@pytest.mark.parametrize(
  "error",
  [
    FileNotFoundError("git"),
    subprocess.TimeoutExpired("git", 10),
    subprocess.CalledProcessError(128, "git"),
  ],
)
def test_without_a_git_that_answers_there_is_no_commit(monkeypatch, error):
  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr(subprocess, "run", fail)
  assert provenance.commit() is None


# The file.


def test_every_start_is_kept_with_its_time(tmp_path):
  assert provenance.read_starts(tmp_path) == []
  for seed in (3, 4, 3):
    provenance.record_start(tmp_path, _made_with(seed=seed))
  starts = provenance.read_starts(tmp_path)
  assert [start["seed"] for start in starts] == [3, 4, 3]
  assert all(start["time"].endswith("+00:00") for start in starts)
  distinct = [_made_with(seed=3), _made_with(seed=4)]
  assert provenance.distinct_starts(tmp_path) == distinct


@pytest.mark.parametrize(
  ("other", "said"),
  [
    (_made_with("b" * 64), "other annotations (SHA-256 aaaaaaaaaaaa.. -> bbb"),
    (_made_with(features="g" * 64), "other features (SHA-256 ffffffffffff.."),
    (_made_with("b" * 64, "g" * 64), "other annotations and features (SHA"),
  ],
)
def test_a_start_on_other_data_is_refused_and_not_kept(tmp_path, other, said):
  provenance.record_start(tmp_path, _made_with())
  before = (tmp_path / provenance.FILE).read_bytes()
  with pytest.raises(InputError) as caught:
    provenance.record_start(tmp_path, other)
  message = str(caught.value)
  assert message.startswith(f"{tmp_path}: this folder holds a run on {said}")
  assert message.endswith("give the same data or a new --workdir")
  assert (tmp_path / provenance.FILE).read_bytes() == before


def test_features_that_one_start_did_not_know_are_held_against_the_others(
  tmp_path,
):
  provenance.record_start(tmp_path, _made_with())
  provenance.record_start(tmp_path, _made_with(features=None))
  with pytest.raises(InputError, match="other features"):
    provenance.record_start(tmp_path, _made_with(features="g" * 64))


def test_a_damaged_file_is_told_and_written_anew_from_what_is_known(
  tmp_path, capsys
):
  provenance.record_start(tmp_path, _made_with(seed=1))
  flip(tmp_path / provenance.FILE, seed=5)
  assert provenance.read_starts(tmp_path) == []
  provenance.mend_provenance(tmp_path, [_made_with(seed=1)])
  said = capsys.readouterr().out
  assert said.startswith(f"{tmp_path / provenance.FILE}: expected it as it was")
  assert "written anew with the 1 kinds of starts" in said
  provenance.record_start(tmp_path, _made_with(seed=2))
  assert _seeds(tmp_path) == [1, 2]
  provenance.mend_provenance(tmp_path, ())  # a sound one stays
  assert _seeds(tmp_path) == [1, 2]
  assert capsys.readouterr().out == ""


def test_a_file_of_another_version_is_refused_and_stays(tmp_path):
  path = tmp_path / provenance.FILE
  path.write_text(json.dumps({"starts": [_made_with()]}))
  before = path.read_bytes()
  with pytest.raises(OtherVersion, match=r"provenance\.json: .* came none"):
    provenance.record_start(tmp_path, _made_with())
  assert path.read_bytes() == before


def test_only_runs_on_data_that_are_known_are_on_the_same(tmp_path):
  for name, features in (("a", "f"), ("b", "f"), ("c", "g"), ("d", None)):
    provenance.record_start(tmp_path / name, _made_with(features=features))
  same = [
    pair
    for pair in ("aa", "ab", "ac", "ad", "cd", "ax", "xx")
    if provenance.same_data(*(tmp_path / name for name in pair))
  ]
  assert same == ["aa", "ab"]


def test_a_write_that_fails_keeps_the_earlier_starts(tmp_path, monkeypatch):
  provenance.record_start(tmp_path, _made_with(seed=1))
  with monkeypatch.context() as patched:
    patched.setattr(disk_space, "free_space", lambda path: 10)
    with pytest.raises(OSError, match=r"provenance\.json: no space left"):
      provenance.record_start(tmp_path, _made_with(seed=2))
  assert _seeds(tmp_path) == [1]
  assert storage.read_json(tmp_path / provenance.FILE).keys() == {"starts"}
