"""A run goes on with the data that it began with, wherever they lie now."""

import json
import os
import shutil

import numpy as np
import pytest
from basnet_fixture import read_root, tiny_videos, write_basnet
from tiny_config import ROOT

from ptlr_jax import main
from ptlr_jax.data import digest
from ptlr_jax.io import lock
from ptlr_jax.runtime.errors import InputError, OtherVersion
from ptlr_jax.workdir import provenance

SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.stages=0"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ilg.steps=2"),
  *("--config.data.layout=basnet", "--config.data.width=4"),
)


def _start(directory, root, *more):
  config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
  where = f"--config.data.root={root}"
  main.run_command(
    ["main", config, f"--workdir={directory}", where, *SMALL, *more]
  )


@pytest.fixture
def root(tmp_path):
  train = tiny_videos("train", 4, num_segments=20)
  test = tiny_videos("test", 2, num_segments=20, seed=1)
  return write_basnet(tmp_path / "data", train, test, ("Diving", "HighJump"))


@pytest.fixture
def begun(root, tmp_path):
  """A run that has all but its metrics."""
  directory = tmp_path / "run"
  _start(directory, root)
  (directory / "metrics.json").rename(tmp_path / "metrics.json")
  return directory


def test_data_that_were_moved_are_the_same(begun, root, tmp_path):
  shutil.move(root, tmp_path / "elsewhere")
  _start(begun, tmp_path / "elsewhere")
  before, after = (d / "metrics.json" for d in (tmp_path, begun))
  assert before.read_bytes() == after.read_bytes()


def test_data_that_are_streamed_are_the_same(begun, root, tmp_path):
  _start(begun, root, "--config.data.memory_gb=0.0")
  before, after = (d / "metrics.json" for d in (tmp_path, begun))
  assert before.read_bytes() == after.read_bytes()
  starts = [start["data"] for start in provenance.read_starts(begun)]
  assert len(starts) == 2
  assert starts[0] == starts[1]
  assert starts[0]["features"]


def test_a_feature_that_is_another_is_refused(begun, root):
  path = next((root / "features" / "test" / "flow").glob("*.npy"))
  x = np.load(path)
  x[3, 1] += 1
  np.save(path, x)
  with pytest.raises(InputError) as caught:
    _start(begun, root)
  (line,) = caught.value.problems
  assert line.startswith(f"{begun}: this folder holds a run on other features ")
  assert line.endswith("give the same data or a new --workdir")
  assert not (begun / "metrics.json").exists()


def test_an_annotation_that_is_another_is_refused(begun, root):
  content = json.loads((root / "gt.json").read_text())
  content["database"]["test0000"]["annotations"][0]["segment"][1] += "1"
  (root / "gt.json").write_text(json.dumps(content))
  with pytest.raises(InputError, match="a run on other annotations "):
    _start(begun, root)


def test_without_a_look_at_all_features_only_annotations_are_compared(root):
  unread = read_root(root, memory_gb=0.0, check_finite=False)
  read = read_root(root, memory_gb=0.0)
  here = read_root(root)
  known = [digest.data_digest(data) for data in (unread, read, here)]
  assert known[0]["features"] is None
  assert known[1] == known[2]
  assert not digest.contradict(known[0], known[1])


def test_a_job_that_slurm_requeues_goes_on(begun, root, tmp_path, monkeypatch):
  """Its first host was lost with the lock in the folder."""
  monkeypatch.setenv("SLURM_JOB_ID", "77")
  first = {**lock._us(), "host": "node-1", "boot": "of node-1"}
  (begun / lock.FILE).write_text(json.dumps(first))
  with pytest.raises(InputError, match=r"on node-1 .SLURM job 77. is at it"):
    _start(begun, root)
  monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
  _start(begun, root)
  before, after = (d / "metrics.json" for d in (tmp_path, begun))
  assert before.read_bytes() == after.read_bytes()
  assert not (begun / lock.FILE).exists()


def test_a_single_run_and_seeds_do_not_share_a_folder(begun, root, tmp_path):
  with pytest.raises(InputError, match="came one with a single run"):
    _start(begun, root, "--config.seeds=2")
  many = tmp_path / "many"
  shutil.copytree(begun, many / "seed-0")
  with pytest.raises(InputError, match=r"came one with a run a seed"):
    _start(many, root)
  assert not (many / "config.json").exists()


def test_what_another_run_has_alike_is_reused(begun, root, tmp_path, capsys):
  new = tmp_path / "new"
  _start(new, root, f"--reuse={begun}", "--config.detect.nms=0.7")
  said = capsys.readouterr().out
  assert f"{begun}: ilg, labels-0 taken over from there" in said
  ours, theirs = (
    d / "checkpoints/ilg/final/digests.json" for d in (new, begun)
  )
  assert os.path.samefile(ours, theirs)


def test_what_is_no_run_is_not_reused(root, tmp_path):
  with pytest.raises(InputError, match=r"--reuse=.*expected the workdir of a"):
    _start(tmp_path / "new", root, f"--reuse={root}")


def test_a_folder_of_another_version_is_not_touched(root, tmp_path):
  """Neither where there is a finished run nor where there is but a log."""
  directory = tmp_path / "old"
  directory.mkdir()
  (directory / "config.json").write_text('{"seed": 0}')
  (directory / "metrics.jsonl").write_text('{"phase": "ilg", "step": 2}\n')
  for _ in range(2):
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    with pytest.raises(OtherVersion, match="came none; use the ptlr_jax that"):
      _start(directory, root)
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == before
    (directory / "config.json").unlink(missing_ok=True)


def test_detections_that_are_left_bind_a_folder_to_its_run(begun, root):
  for name in ("checkpoints", "labels"):
    shutil.rmtree(begun / name)
  (begun / "detections").mkdir()
  (begun / "detections.json").rename(begun / "detections" / "ilg.json")
  with pytest.raises(InputError, match=r"detect.nms: 0.5 -> 0.7"):
    _start(begun, root, "--config.detect.nms=0.7")
