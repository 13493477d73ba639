"""Damage in the workdir of a run: it is said, and made good, and no more.

The tiny configuration runs once; each test spoils a copy and starts it again.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ptlr_jax import main
from ptlr_jax.io import metrics_log
from ptlr_jax.runtime.errors import InputError, OtherVersion
from ptlr_jax.workdir import provenance
from tests import damage
from tests.damage import cut, flip, flip_list, lose
from tests.tiny_config import ROOT

SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.networks=('ots',)"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ptlr.stages=1"),
  *("--config.detect.sources=('ots',)", "--config.ilg.steps=4"),
  "--config.train.checkpoint_every=2",
)
ILG, OTS = "checkpoints/ilg/final", "checkpoints/ots-1/final"
LABELS = ("labels/labels-0.npz", "labels/labels-1-ots.npz")
JSON = ("detections.json", "detections/ilg.json", "metrics.json")
MADE = (ILG, OTS, *LABELS, *JSON)  # what a phase leaves


def _start(directory, *overrides):
  config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
  main.run_command(
    ["main", config, f"--workdir={directory}", *SMALL, *overrides]
  )


@pytest.fixture(scope="module", autouse=True)
def _same_commit():
  """Whoever commits meanwhile changes no run."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(provenance, "commit", lambda: "0" * 40)
    yield


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """A finished run; no test changes it."""
  directory = tmp_path_factory.mktemp("done") / "run"
  _start(directory)
  return directory


@pytest.fixture
def run(done, tmp_path):
  """A copy of it to spoil."""
  return Path(shutil.copytree(done, tmp_path / "run"))


def _written(directory):
  """{file: what changes when it is written again}."""
  found = {p: p.stat() for p in damage.files(directory)}
  return {p: (stat.st_ino, stat.st_mtime_ns) for p, stat in found.items()}


def _made_again(directory, before):
  """The artefacts with a file that is not the one before."""
  after = _written(directory)
  names = {
    str(p.relative_to(directory))
    for p in before.keys() | after.keys()
    if before.get(p) != after.get(p)
  }
  folders = (ILG, OTS)
  return {next((f for f in folders if n.startswith(f)), n) for n in names}


def _restored(path):
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(path.absolute())


def _assert_as_before(directory, done):
  """That a run has what it had, and nothing else."""
  for name in (*LABELS, *JSON, "config.json"):
    assert (directory / name).read_bytes() == (done / name).read_bytes(), name
  for name in (ILG, OTS):
    ours, theirs = _restored(directory / name), _restored(done / name)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  ours, theirs = (
    {str(p.relative_to(x)) for p in x.rglob("*") if p.parent.name != "d"}
    for x in (directory, done)
  )
  assert ours == theirs


def _log(directory):
  """The lines of the log, whatever order the phases came in."""
  return sorted((directory / "metrics.jsonl").read_text().splitlines())


def test_a_finished_run_is_not_touched(run, done, capsys):
  before = _written(run)
  _start(run)
  assert "finished before; nothing to do" in capsys.readouterr().out
  assert _made_again(run, before) == set()
  _assert_as_before(run, done)


@pytest.mark.parametrize(
  ("name", "change"),
  [
    *((name, flip) for name in MADE),
    *((name, cut) for name in (LABELS[1], "detections.json")),
    *((OTS, change) for change in (lose, flip_list)),
  ],
)
def test_a_damaged_artefact_is_said_and_made_again_alone(
  name, change, run, done, capsys
):
  change(run / name)
  before = _written(run)
  _start(run)
  said = capsys.readouterr().out
  (line, *_) = [x for x in said.splitlines() if x.startswith(f"{run / name}")]
  assert "expected it as it was written, " in line
  assert line.endswith("; it is made again")
  _assert_as_before(run, done)
  assert _log(run) == _log(done)
  logged = {"metrics.jsonl"} if name in (ILG, OTS, *LABELS) else set()
  assert _made_again(run, before) == {name, "provenance.json"} | logged
  _start(run)
  assert "finished before; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("change", [flip, lose])
def test_a_run_that_lost_all_that_was_made_is_made_again(
  change, run, done, capsys
):
  for name in MADE:
    change(run / name)
  _start(run)
  said = capsys.readouterr().out
  flipped = {name for name in MADE if f"{run / name}: expected it" in said}
  assert flipped == (set(MADE) if change is flip else {ILG, OTS})
  _assert_as_before(run, done)
  assert _log(run) == _log(done)


@pytest.mark.parametrize("change", [flip, cut, lose])
def test_a_damaged_config_json_is_said_and_written_again_alone(
  change, run, done, capsys
):
  change(run / "config.json")
  before = _written(run)
  _start(run)
  said = capsys.readouterr().out
  assert f"{run / 'config.json'}: expected it as it was written, " in said
  assert "provenance.json knows this configuration: written anew" in said
  _assert_as_before(run, done)
  assert _made_again(run, before) == {"config.json"}


def test_another_configuration_does_not_pass_for_a_damaged_one(run):
  flip(run / "config.json")
  before = _written(run)
  with pytest.raises(InputError, match=r"config\.json: expected it as it was"):
    _start(run, "--config.seed=3")
  flip(run / "provenance.json")
  (run / "metrics.json").unlink()  # which knows it too
  with pytest.raises(InputError, match=r"config\.json: expected it as it was"):
    _start(run)
  assert "config.json" not in _made_again(run, before)


def test_config_and_provenance_are_put_right_by_the_metrics(run, done):
  flip(run / "config.json")
  flip(run / "provenance.json")
  _start(run)
  _assert_as_before(run, done)


@pytest.mark.parametrize("gone", [(), ("metrics.json",)])
def test_a_damaged_provenance_json_is_said(gone, run, done, capsys):
  flip(run / "provenance.json")
  for name in gone:
    (run / name).unlink()
  before = _written(run)
  _start(run)
  said = capsys.readouterr().out
  assert f"{run / 'provenance.json'}: expected it as it was written, " in said
  assert len(provenance.read_starts(run)) == 1
  _assert_as_before(run, done)
  assert _made_again(run, before) == {"provenance.json", *gone}


def test_a_damaged_line_of_the_log_is_said_and_left_out(run, done, capsys):
  path = run / "metrics.jsonl"
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(damage.flipped(lines[0], 200) + b"".join(lines[1:]))
  before = _written(run)
  _start(run)
  said = capsys.readouterr().out
  assert f"{path}: 1 lines are not as written; left out" in said
  assert path.read_bytes() == b"".join(lines[1:])
  _assert_as_before(run, done)
  assert _made_again(run, before) == {"metrics.jsonl"}


@pytest.mark.parametrize(
  "name",
  [
    "config.json",
    "metrics.json",
    "detections.json",
    "metrics.jsonl",
    LABELS[0],
  ],
)
def test_an_artefact_of_an_older_release_stops_the_run_and_stays(name, run):
  """What `json.dump` and `np.savez` wrote, without version and digest."""
  path = run / name
  if path.suffix == ".npz":
    with np.load(path) as file:
      np.savez_compressed(path, **dict(file))
  else:
    text = path.read_text()
    parts = text.splitlines() if path.suffix == ".jsonl" else [text]
    values = [json.loads(part) for part in parts]
    for value in values:
      for key in ("ptlr_jax", "sha256", "crc32"):
        value.pop(key, None)
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
  before = path.read_bytes()
  with pytest.raises(OtherVersion, match="came none") as caught:
    _start(run)
  assert str(caught.value).startswith(
    f"{path}: expected an artefact of version"
  )
  assert path.read_bytes() == before


# A phase that is under way.


class Stopped(BaseException):
  """What nothing catches, as a kill."""


@pytest.fixture(scope="module")
def stopped(done, tmp_path_factory):
  """The run, stopped when ots-1 had saved steps 2 and 4; no test changes it."""
  directory = tmp_path_factory.mktemp("stopped") / "run"
  shutil.copytree(done, directory)
  for name in ("checkpoints/ots-1", LABELS[1], *JSON):
    path = directory / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  append = metrics_log.MetricsLog.append

  def stopping(self, name, number, values):
    if (name, number) == ("ots-1", 6):
      raise Stopped
    append(self, name, number, values)

  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(metrics_log.MetricsLog, "append", stopping)
    with pytest.raises(Stopped):
      _start(directory)
  return directory


@pytest.mark.parametrize(
  ("bad", "change"),
  [
    *(((4,), change) for change in (flip, lose, flip_list)),
    ((2,), flip),
    ((2, 4), cut),
  ],
)
def test_a_damaged_checkpoint_of_a_phase_falls_back_to_the_one_before(
  bad, change, stopped, done, tmp_path, capsys
):
  run = Path(shutil.copytree(stopped, tmp_path / "run"))
  paths = [run / f"checkpoints/ots-1/step-00000{step}" for step in bad]
  assert damage.names(run / "checkpoints/ots-1") == [
    "step-000002",
    "step-000004",
  ]
  for path in paths:
    change(path)
  capsys.readouterr()
  _start(run)
  said = capsys.readouterr().out
  tried = [path for path in paths if bad != (2,)]  # the newer one is sound
  for path in tried:
    (line,) = [x for x in said.splitlines() if x.startswith(str(path))]
    assert line.endswith("; going on from the one before")
  start = {(4,): 2, (2,): 4, (2, 4): 0}[bad]
  assert ("goes on from step" in said) == bool(start)
  assert f"goes on from step {start}" in said or not start
  assert "labels-0       done before" in said
  _assert_as_before(run, done)
  assert _log(run) == _log(done)
