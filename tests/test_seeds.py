"""Several seeds of a configuration at once: ptlr_jax.runs.seeds, their workdirs
and table, and how their batches are stacked."""

import json
import shutil
import types

import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from tiny_config import ROOT

from ptlr_jax import main
from ptlr_jax.io import metrics_log
from ptlr_jax.runs import seeds
from ptlr_jax.runtime.errors import Diverged, InputError
from ptlr_jax.training import trainer
from ptlr_jax.training.stacked_seeds import stacked, unstacked
from ptlr_jax.workdir import phases, run_folder
from tests import tiny_config

SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.networks=('ots',)"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ptlr.stages=1"),
  *("--config.detect.sources=('ots',)", "--config.ilg.steps=4"),
)
BOTH = "--config.seeds=2"


def _start(directory, *overrides):
  config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
  main.run_command(
    ["main", config, f"--workdir={directory}", *SMALL, *overrides]
  )


def _alone(directory, seed):
  """One seed where, and as, `seeds` would have it."""
  _start(directory / f"seed-{seed}", f"--config.seed={seed}")


class Stopped(BaseException):
  """What nothing catches, as a kill."""


def _stopped(monkeypatch, phase, step, begin):
  """Begins a run, and stops it right before a phase logs a step."""
  append = metrics_log.MetricsLog.append

  def stopping(self, name, number, values):
    if (name, number) == (phase, step):
      raise Stopped
    append(self, name, number, values)

  with monkeypatch.context() as context:
    context.setattr(metrics_log.MetricsLog, "append", stopping)
    with pytest.raises(Stopped):
      begin()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """Seeds 0 and 1, each run alone; no test changes them."""
  directory = tmp_path_factory.mktemp("alone")
  _alone(directory, 0)
  _alone(directory, 1)
  return directory


@pytest.fixture(scope="module")
def together(tmp_path_factory):
  """The same at once; no test changes it."""
  directory = tmp_path_factory.mktemp("together")
  _start(directory, BOTH)
  return directory


def _names(directory):
  """What a run leaves, checkpoints as they are called."""
  found = {str(p.relative_to(directory)) for p in directory.glob("*")}
  for kind in ("checkpoints/*/*", "labels/*"):
    found |= {str(p.relative_to(directory)) for p in directory.glob(kind)}
  return found


def _log(directory):
  text = (directory / "metrics.jsonl").read_text()
  apart = ("ptlr_jax", "crc32")
  lines = [json.loads(line) for line in text.splitlines()]
  return [{k: x for k, x in line.items() if k not in apart} for line in lines]


def _assert_alike(one, other):
  """The logs of two runs, but for the labels': those may flip at a rounding."""
  ours, theirs = (
    [line for line in _log(x) if "loss" in line] for x in (one, other)
  )
  assert len(ours) == 5
  for a, b in zip(ours, theirs, strict=True):
    assert a.pop("phase") == b.pop("phase")
    assert a == pytest.approx(b, rel=1e-4)


def _assert_same(one, other):
  for name in ("detections.json", "metrics.json", "metrics.jsonl"):
    assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("seed", ["seed-0", "seed-1"])
def test_each_seed_leaves_what_it_leaves_alone(seed, alone, together):
  assert {p.name for p in together.iterdir()} == {"seed-0", "seed-1"}
  names = _names(together / seed)
  assert names == _names(alone / seed)
  assert names >= {"detections.json", "metrics.json", "metrics.jsonl"}
  assert names >= {"checkpoints/ilg/final", "checkpoints/ots-1/final"}
  assert names >= {"labels/labels-0.npz", "labels/labels-1-ots.npz"}
  assert not [name for name in names if "step-" in name]
  config = (together / seed / "config.json").read_bytes()
  assert config == (alone / seed / "config.json").read_bytes()


@pytest.mark.parametrize("seed", ["seed-0", "seed-1"])
def test_each_seed_learns_what_it_learns_alone(seed, alone, together):
  _assert_alike(together / seed, alone / seed)


def test_the_seeds_are_not_one_run_twice(together):
  first, second = (_log(together / f"seed-{i}")[0]["loss"] for i in (0, 1))
  assert first != pytest.approx(second, rel=1e-3)


def test_finished_seeds_are_shown_again(together, capsys):
  _start(together, BOTH)
  shown = capsys.readouterr().out
  assert f"{together}: finished before; nothing to do" in shown
  (head, *_) = [x for x in shown.splitlines() if x.startswith("0.1:0.5")]
  assert head.split() == ["0.1:0.5", "mean", "sd", "seed", "0", "seed", "1"]


def test_a_seed_that_was_stopped_alone_is_gone_on_with(
  alone, tmp_path, monkeypatch, capsys
):
  """And one that was finished alone is left as it is."""
  _stopped(monkeypatch, "ots-1", 6, lambda: _alone(tmp_path, 1))
  assert [
    p.name for p in (tmp_path / "seed-1/checkpoints/ots-1").iterdir()
  ] == ["step-000004"]
  shutil.copytree(alone / "seed-0", tmp_path / "seed-0")
  _start(tmp_path, BOTH)
  shown = capsys.readouterr().out
  assert "ots-1          goes on from step 4" in shown
  assert shown.count("ilg            done before") == 2
  for seed in ("seed-0", "seed-1"):
    _assert_same(tmp_path / seed, alone / seed)


def test_a_seed_that_was_begun_with_others_is_finished_alone(
  together, tmp_path, monkeypatch, capsys
):
  _stopped(monkeypatch, "ots-1", 6, lambda: _start(tmp_path, BOTH))
  capsys.readouterr()
  _alone(tmp_path, 1)
  shown = capsys.readouterr().out
  assert "ilg            done before" in shown
  assert "ots-1          goes on from step 4" in shown
  assert not (tmp_path / "seed-0" / "metrics.json").exists()
  _start(tmp_path, BOTH)
  shown = capsys.readouterr().out
  assert "ots-1          goes on from step 4" in shown  # seed 0's
  assert "seed 0  seed 1" in shown
  for seed in ("seed-0", "seed-1"):
    assert _names(tmp_path / seed) == _names(together / seed)
    _assert_alike(tmp_path / seed, together / seed)


def test_a_seed_that_diverges_is_named_and_leaves_the_others_finished(
  together, tmp_path, monkeypatch, capsys
):
  batches_of = trainer.Trainer.batches

  def poisoned(self, start):
    batch_at = batches_of(self, start)
    if (self.settings.seed, self.phase.name) != (1, "ots-1"):
      return batch_at
    return lambda i: {
      k: {s: x * np.nan for s, x in v.items()} if k == "features" else v
      for k, v in batch_at(i).items()
    }

  monkeypatch.setattr(trainer.Trainer, "batches", poisoned)
  with pytest.raises(Diverged) as caught:
    _start(tmp_path, BOTH)
  message = str(caught.value)
  assert message.startswith("seed 1: ots-1: ")
  assert "not finite at step 1 " in message
  assert "seed 0" not in message
  assert "each seed goes on alone" in capsys.readouterr().out
  assert _names(tmp_path / "seed-0") == _names(together / "seed-0")
  _assert_alike(tmp_path / "seed-0", together / "seed-0")
  left = _names(tmp_path / "seed-1")
  assert "checkpoints/ilg/final" in left
  assert not left & {"metrics.json", "detections.json"}
  assert not [name for name in left if name.startswith("checkpoints/ots-1/")]


class FakeRun:
  """A run that notes what it does and diverges at given phases."""

  done: dict[int, list[str]]
  bad: set[tuple[int, str]]

  def __init__(self, config, data, path):
    self.config, self.path = config, path

  def record(self):
    """What a run is made with is of no interest here."""

  def close(self):
    """Nothing follows its log."""

  def is_done(self, phase):
    return phase.name in self.done[self.config.seed]

  def trainer(self, phase):
    return types.SimpleNamespace(run=self, phase=phase)

  def finish(self, phase):
    if (self.config.seed, phase.name) in self.bad:
      raise Diverged(f"seed {self.config.seed}: {phase.name}: loss")
    if not self.is_done(phase):
      self.done[self.config.seed].append(phase.name)


def _fake_run(monkeypatch, count, bad, done=()):
  """What each seed has finished, and what is said at the end."""

  def run_together(trainings):
    for one in trainings:
      if (one.run.config.seed, one.phase.name) in bad:
        raise Diverged(f"{one.phase.name}: loss")
    for one in trainings:
      one.run.finish(one.phase)

  monkeypatch.setattr(seeds, "Run", FakeRun)
  monkeypatch.setattr(
    seeds.space_estimate, "check_disk_space", lambda runs: None
  )
  monkeypatch.setattr(seeds.stacked_seeds, "train_seeds", run_together)
  FakeRun.bad = bad
  FakeRun.done = {i: list(done) for i in range(count)}
  config = tiny_config.get_config()
  config.seeds = count
  configs = run_folder.runs_of(FrozenConfigDict(config), ROOT)
  said = ""
  try:
    seeds.run_seeds(configs, None)  # type: ignore[arg-type]
  except Diverged as error:
    said = str(error)
  return FakeRun.done, said


ORDER = [phase.name for phase in phases.phases(tiny_config.get_config())]


def test_all_phases_come_in_order_for_every_seed(monkeypatch):
  done, said = _fake_run(monkeypatch, 3, set())
  assert done == {0: ORDER, 1: ORDER, 2: ORDER}
  assert said == ""


def test_seeds_that_diverge_one_after_the_other_are_all_named(monkeypatch):
  done, said = _fake_run(monkeypatch, 3, {(2, "ots-1"), (0, "rts-1")})
  assert said == "seed 2: ots-1: loss; seed 0: rts-1: loss"
  assert done[1] == ORDER
  assert done[2] == ORDER[: ORDER.index("ots-1")]
  assert done[0] == ORDER[: ORDER.index("rts-1")]


def test_where_every_seed_diverges_nothing_more_is_done(monkeypatch):
  done, said = _fake_run(monkeypatch, 2, {(0, "ilg"), (1, "ilg")})
  assert said == "seed 0: ilg: loss; seed 1: ilg: loss"
  assert done == {0: [], 1: []}


def test_a_seed_has_a_workdir_of_its_own():
  config = tiny_config.get_config()
  config.update({"seed": 5, "seeds": 2})
  found = run_folder.runs_of(FrozenConfigDict(config), ROOT)
  assert list(found) == [ROOT / "seed-5", ROOT / "seed-6"]
  assert [own.seed for own in found.values()] == [5, 6]
  assert {own.seeds for own in found.values()} == {1}
  config.seeds = 1
  frozen = FrozenConfigDict(config)
  assert run_folder.runs_of(frozen, ROOT) == {ROOT: frozen}


def test_no_seed_is_refused_in_a_line(tmp_path):
  with pytest.raises(InputError) as caught:
    _start(tmp_path, "--config.seeds=0")
  problems = ("--config.seeds: expected an integer of at least 1, got 0",)
  assert caught.value.problems == problems
  assert list(tmp_path.iterdir()) == []


def test_shorter_batches_are_padded_with_what_their_masks_leave_out():
  one = {
    "features": {"rgb": np.full((1, 2, 1), 3, np.float32)},
    "mask": np.array([[True, True]]),
    "scale": np.array([0.5], np.float32),
    "scale_grid": np.zeros(1, np.float32),
    "rows": np.array([[4, 5]], np.int32),
  }
  other = {
    "features": {"rgb": np.full((1, 3, 1), 7, np.float32)},
    "mask": np.array([[True, True, False]]),
    "scale": np.array([2.0], np.float32),
    "scale_grid": np.zeros(4, np.float32),
    "rows": np.array([[6, 7, 0]], np.int32),
  }
  found = stacked([one, other])
  assert found["features"]["rgb"][..., 0].tolist() == [[[3, 3, 0]], [[7, 7, 7]]]
  mask = [[[True, True, False]], [[True, True, False]]]
  assert found["mask"].tolist() == mask
  assert found["mask"].dtype == bool
  assert found["scale"].tolist() == [[0.5], [2.0]]
  assert found["scale_grid"].shape == (2, 4)
  assert found["rows"].tolist() == [[[4, 5, 0]], [[6, 7, 0]]]
  assert found["rows"].dtype == np.int32
  assert "rows" in one  # what was stacked stays
  assert one["mask"].shape == (1, 2)


def test_unstacking_is_the_way_back():
  trees = [{"a": np.array([i, 2]), "b": {"c": np.array(i)}} for i in range(3)]
  joined = {
    "a": np.array([[0, 2], [1, 2], [2, 2]]),
    "b": {"c": np.arange(3)},
  }
  for tree, own in zip(trees, unstacked(joined, 3), strict=True):
    assert own["a"].tolist() == tree["a"].tolist()
    assert own["b"]["c"] == tree["b"]["c"]


def _metrics(seed, ilg, stage, **changes):
  """Those of a finished run, with one average."""
  rows = {"ilg": ilg, "stage-1": stage}
  return {
    "protocol": "thumos14",
    "mAP": {"0.50": stage},
    "averages": {"0.1:0.7": stage},
    "stages": {
      name: {
        "protocol": "thumos14",
        "mAP": {f"{i / 10:.2f}": value for i in range(1, 10)},
        "averages": dict.fromkeys(
          ("0.1:0.5", "0.3:0.7", "0.1:0.7", "0.1:0.9"), value
        ),
      }
      for name, value in rows.items()
    },
    "seed": seed,
    "simulated": True,
    **changes,
  }


def test_the_table_of_seeds_has_mean_and_deviation_by_hand():
  metrics = [_metrics(3, 0.10, 0.2), _metrics(4, 0.13, 0.2)]
  metrics += [_metrics(5, 0.16, 0.5)]
  assert run_folder.seeds_table(metrics) == (
    "\nmAP (%), protocol thumos14\n"
    "0.1:0.7  mean    sd  seed 3  seed 4  seed 5\n"
    "ilg      13.0   3.0    10.0    13.0    16.0\n"
    "stage-1  30.0  17.3    20.0    20.0    50.0\n"
    f"{run_folder.SIMULATED}\n"
  )
  for values in metrics:
    values["simulated"] = False
  assert run_folder.SIMULATED not in run_folder.seeds_table(metrics)


def test_the_table_of_one_seed_is_the_full_one():
  metrics = _metrics(3, 0.1, 0.2)
  assert run_folder.seeds_table([metrics]) == run_folder.map_table(metrics)


def test_seeds_that_cannot_be_scored_say_so_each():
  bad = [_metrics(i, 0.0, 0.0, not_evaluated="no test video") for i in (0, 1)]
  text = run_folder.seeds_table(bad)
  assert text.count("no test video; the detections are in") == 2
  assert "seed 0" in text
  assert "seed 1" in text
