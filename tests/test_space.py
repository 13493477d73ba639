"""Room on the disk: the estimate against what runs really write."""

import shutil

import jax
import pytest
from ml_collections import FrozenConfigDict
from small_disk import CONFIG, PAGE, SMALL

from ptlr_jax import main
from ptlr_jax.cli import command_line
from ptlr_jax.io import checkpoints, disk_space, metrics_log, storage
from ptlr_jax.runs import pipeline, space_estimate
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime.errors import NoSpace
from ptlr_jax.workdir import phases

LARGER = ("--config.ots.model.width=768",)
LONGER = ("--config.ptlr.stages=4", "--config.data.simulated.test_videos=1")
STATE = 3  # parameters and Adam's two moments


def _argv(directory, *overrides):
  return ["main", CONFIG, f"--workdir={directory}", *SMALL, *overrides]


def _run(directory, *overrides):
  """The run that a command begins, or goes on with."""
  config = FrozenConfigDict(command_line.parse(_argv(directory, *overrides))[0])
  return pipeline.Run(
    config, load_dataset(config.data, config.evaluate), directory
  )


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
  main.run_command(_argv(directory))
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
  estimate = space_estimate.needed_bytes(run)
  main.run_command(_argv(directory, *overrides))
  assert peak > _params(run, "ots") * STATE * checkpoints.KEEP
  assert peak <= estimate
  shown = len(run.data.test) * len(phases.table_rows(run.config))
  assert (
    estimate
    < 3 * peak + space_estimate._REST + shown * space_estimate._DETECTIONS
  )


def test_what_is_finished_counts_no_more(copied, tmp_path):
  run = _run(copied)
  assert space_estimate.needed_bytes(run) == 0
  kept = space_estimate._REST
  (copied / "metrics.json").unlink()
  assert space_estimate.needed_bytes(run) == kept
  (copied / "detections.json").unlink()
  kept += 4 * 2 * space_estimate._DETECTIONS
  assert space_estimate.needed_bytes(run) == kept
  (copied / "labels/labels-1-ots.npz").unlink()
  # 4 columns are packed into a byte; a byte says whether a frame is selected.
  kept += 2 * sum(video.num_segments for video in run.data.train)
  assert space_estimate.needed_bytes(run) == kept
  shutil.rmtree(copied / "checkpoints/ots-1/final")
  states = (checkpoints.KEEP + 1) * STATE
  assert space_estimate.needed_bytes(run) == kept + (1 + states) * _params(
    run, "ots"
  )
  shutil.rmtree(copied)
  assert space_estimate.needed_bytes(run) == space_estimate.needed_bytes(
    _run(tmp_path / "new")
  )


def test_a_damaged_artefact_counts_as_one_that_is_to_be_written(copied):
  final = copied / "checkpoints/ots-1/final"
  files = [path for path in final.rglob("*") if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:-1])
  run = _run(copied)
  assert not run.files.is_sound(final)
  assert space_estimate.needed_bytes(run) > _params(run, "ots")


def test_a_run_that_was_stopped_needs_no_more_room_than_it_left(
  tmp_path, monkeypatch
):
  class Stopped(BaseException):
    pass

  def stopping(self, phase, step, values, append=metrics_log.MetricsLog.append):
    if (phase, step) == ("ots-1", 10):
      raise Stopped
    append(self, phase, step, values)

  before = space_estimate.needed_bytes(_run(tmp_path / "run"))
  with monkeypatch.context() as context:
    context.setattr(metrics_log.MetricsLog, "append", stopping)
    with pytest.raises(Stopped):
      main.run_command(_argv(tmp_path / "run"))
  run = _run(tmp_path / "run")
  assert checkpoints.steps(run.files.checkpoint_dir("ots-1")) == [4, 8]
  assert space_estimate.needed_bytes(run) + _taken(run.workdir) <= before


def test_several_seeds_need_the_sum(tmp_path, monkeypatch, capsys):
  runs = [
    _run(tmp_path / f"seed-{seed}", f"--config.seed={seed}")
    for seed in (0, 1, 2)
  ]
  one = space_estimate.needed_bytes(runs[0])
  monkeypatch.setattr(disk_space, "free_space", lambda path: int(2.5 * one))
  space_estimate.check_disk_space(runs[:1])
  assert capsys.readouterr().out == ""
  space_estimate.check_disk_space(runs[:2])
  said = disk_space.size_in_words(2 * one)
  assert f"up to {said} are to be written" in capsys.readouterr().out
  with pytest.raises(NoSpace, match=r"seed-0: no space left") as caught:
    space_estimate.check_disk_space(runs)
  assert f": {disk_space.size_in_words(3 * one)} are to be" in str(caught.value)
  assert f" {disk_space.size_in_words(2.5 * one)} are free" in str(caught.value)
