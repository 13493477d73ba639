"""Room on the disk: the estimate against what runs really write."""

import shutil

import jax
import pytest
from ml_collections import FrozenConfigDict
from small_disk import CONFIG, PAGE, SMALL

from ptlr_jax import (
  checkpoints,
  command_line,
  main,
  phases,
  pipeline,
  space,
  storage,
  writers,
)
from ptlr_jax.data.loading import load
from ptlr_jax.errors import NoSpace

LARGER = ("--config.ots.model.width=768",)
LONGER = ("--config.ptlr.stages=4", "--config.data.simulated.test_videos=1")
STATE = 3  # parameters and Adam's two moments


def _argv(directory, *overrides):
  return ["main", CONFIG, f"--workdir={directory}", *SMALL, *overrides]


def _run(directory, *overrides):
  """The run that a command begins, or goes on with."""
  config = FrozenConfigDict(command_line.parse(_argv(directory, *overrides))[0])
  return pipeline.Run(config, load(config.data, config.evaluate), directory)


def _taken(directory):
  """Bytes that a folder takes on a disk, in pages."""
  sizes = [p.stat().st_size for p in directory.rglob("*") if p.is_file()]
  return sum(-(-size // PAGE) * PAGE for size in sizes)


def _params(run, network):
  """Bytes of the parameters of a network."""
  key = jax.random.key(0)
  return checkpoints.nbytes(run.networks.initial_params(network, key))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A finished run; no test changes it."""
  directory = tmp_path_factory.mktemp("finished") / "run"
  main.run(_argv(directory))
  return directory


@pytest.fixture
def copied(finished, tmp_path):
  """The same, to be changed."""
  directory = tmp_path / "run"
  shutil.copytree(finished, directory)
  return directory


@pytest.mark.parametrize("overrides", [(), LARGER, LONGER])
def test_the_estimate_is_what_a_run_writes_at_its_peak(
  overrides, tmp_path, monkeypatch
):
  directory, peak = tmp_path / "run", 0

  def followed(write):
    def then_measured(*args):
      nonlocal peak
      write(*args)
      peak = max(peak, _taken(directory))

    return then_measured

  # seal_folder ends right before a checkpoint gets its name, and older ones go.
  for name in ("write_bytes", "seal_folder"):
    write = followed(getattr(storage, name))
    monkeypatch.setattr(storage, name, write)
  run = _run(directory, *overrides)
  estimate = space.needed(run)
  main.run(_argv(directory, *overrides))
  assert peak > _params(run, "ots") * STATE * checkpoints.KEEP
  assert peak <= estimate
  shown = len(run.data.test) * len(phases.rows(run.config))
  assert estimate < 3 * peak + space._REST + shown * space._DETECTIONS


def test_what_is_finished_counts_no_more(copied, tmp_path):
  run = _run(copied)
  assert space.needed(run) == 0
  kept = space._REST
  (copied / "metrics.json").unlink()
  assert space.needed(run) == kept
  (copied / "detections.json").unlink()
  kept += 4 * 2 * space._DETECTIONS
  assert space.needed(run) == kept
  (copied / "labels/labels-1-ots.npz").unlink()
  # 4 columns are packed into a byte; a byte says whether a frame is selected.
  kept += 2 * sum(video.num_segments for video in run.data.train)
  assert space.needed(run) == kept
  shutil.rmtree(copied / "checkpoints/ots-1/final")
  states = (checkpoints.KEEP + 1) * STATE
  assert space.needed(run) == kept + (1 + states) * _params(run, "ots")
  shutil.rmtree(copied)
  assert space.needed(run) == space.needed(_run(tmp_path / "new"))


def test_a_damaged_artefact_counts_as_one_that_is_to_be_written(copied):
  final = copied / "checkpoints/ots-1/final"
  files = [path for path in final.rglob("*") if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:-1])
  run = _run(copied)
  assert not run.files.is_sound(final)
  assert space.needed(run) > _params(run, "ots")


def test_a_run_that_was_stopped_needs_no_more_room_than_it_left(
  tmp_path, monkeypatch
):
  class Stopped(BaseException):
    pass

  def stopping(self, phase, step, values, append=writers.MetricsLog.append):
    if (phase, step) == ("ots-1", 10):
      raise Stopped
    append(self, phase, step, values)

  before = space.needed(_run(tmp_path / "run"))
  with monkeypatch.context() as context:
    context.setattr(writers.MetricsLog, "append", stopping)
    with pytest.raises(Stopped):
      main.run(_argv(tmp_path / "run"))
  run = _run(tmp_path / "run")
  assert checkpoints.steps(run.files.checkpoint_dir("ots-1")) == [4, 8]
  assert space.needed(run) + _taken(run.workdir) <= before


def test_several_seeds_need_the_sum(tmp_path, monkeypatch, capsys):
  runs = [
    _run(tmp_path / f"seed-{seed}", f"--config.seed={seed}")
    for seed in (0, 1, 2)
  ]
  one = space.needed(runs[0])
  monkeypatch.setattr(storage, "free_space", lambda path: int(2.5 * one))
  space.check(runs[:1])
  assert capsys.readouterr().out == ""
  space.check(runs[:2])
  said = storage.in_words(2 * one)
  assert f"up to {said} are to be written" in capsys.readouterr().out
  with pytest.raises(NoSpace, match=r"seed-0: no space left") as caught:
    space.check(runs)
  assert f": {storage.in_words(3 * one)} are to be" in str(caught.value)
  assert f" {storage.in_words(2.5 * one)} are free" in str(caught.value)
