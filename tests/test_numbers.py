"""Numbers that go wrong: what is said, what is kept, what trains all the same.

Whole runs at the smallest size, in this process.
"""

import dataclasses

import numpy as np
import pytest
from basnet_fixture import read_root, tiny_videos, write_basnet
from tiny_config import ROOT

from ptlr_jax import main
from ptlr_jax.data import simulated
from ptlr_jax.io import checkpoints, metrics_log, storage
from ptlr_jax.method import label_quality
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runs import label_phases
from ptlr_jax.runtime.errors import Diverged
from ptlr_jax.training import train_loop, train_step, trainer

SMALL = (
  "--config.ptlr.stages=1",
  *(f"--config.{net}.steps=4" for net in ("ilg", "ots", "rts")),
  "--config.train.checkpoint_every=2",
)


EARLY = (  # one stream, and no other branch: it compiles in no time
  *("--config.ilg.streams=('fused',)", "--config.ptlr.stages=0"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  "--config.ilg.loss.gamma=0.0",
)


def _start(directory, *overrides):
  config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
  main.run_command(
    ["main", config, f"--workdir={directory}", *SMALL, *overrides]
  )


def _features(monkeypatch, change):
  """Runs see simulated features that are changed."""
  simulate = simulated.simulate

  def changed(videos):
    return tuple(
      dataclasses.replace(
        video,
        features={s: np.float32(change(x)) for s, x in video.features.items()},
      )
      for video in videos
    )

  def simulate_changed(**options):
    data = simulate(**options)
    return dataclasses.replace(
      data, train=changed(data.train), test=changed(data.test)
    )

  monkeypatch.setattr(simulated, "simulate", simulate_changed)


@pytest.mark.parametrize(
  "change",
  [
    lambda x: 1e4 * x,
    lambda x: np.full_like(x, 1e4),
    np.zeros_like,
    np.ones_like,
  ],
  ids=["1e4 times", "1e4 everywhere", "zeros", "ones"],
)
def test_extreme_features_train_to_finite_numbers(
  change, monkeypatch, tmp_path
):
  _features(monkeypatch, change)
  _start(tmp_path)
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl").read()
  values = [x for line in log for x in line.values() if not isinstance(x, str)]
  assert len(values) > 50
  assert np.isfinite(values).all()
  results = storage.read_json(tmp_path / "detections.json")["results"]
  scores = [d["score"] for found in results.values() for d in found]
  assert np.isfinite(scores).all()


def test_features_too_large_for_float32_stop_with_their_videos(
  monkeypatch, tmp_path
):
  _features(monkeypatch, lambda x: np.sign(x) * 1e38)
  with pytest.raises(Diverged) as caught:
    _start(tmp_path)
  said = str(caught.value)
  assert said.startswith("seed 0: ilg: ")
  assert "not finite at step 1 (checked at the end of steps 1 to 2)" in said
  assert "videos of step 1: simulated_train_" in said
  assert "last good checkpoint: none yet; look at their features" in said


def _spoilt(monkeypatch, seed, step):
  """Features of a batch of a seed are NaN, as from a disk that goes bad."""
  begin = trainer.Trainer.batches

  def spoilt(self, start):
    batch_at = begin(self, start)

    def at(i):
      batch = batch_at(i)
      bad = (self.settings.seed, i + 1) == (seed, step)
      for x in batch["features"].values():
        x *= np.nan if bad else 1
      return batch

    return at

  monkeypatch.setattr(trainer.Trainer, "batches", spoilt)


def test_nan_stops_with_interval_videos_and_the_last_good_checkpoint(
  monkeypatch, tmp_path
):
  _spoilt(monkeypatch, 0, 3)
  drawn, drew = [], trainer.batches.drawn

  def noted(*args, **how):
    drawn.extend(drew(*args, **how))
    return drawn

  monkeypatch.setattr(trainer.batches, "drawn", noted)
  with pytest.raises(Diverged) as caught:
    _start(tmp_path)
  said = str(caught.value)
  assert "at step 3 (checked at the end of steps 3 to 4)" in said
  ids = [video.id for video in drawn]
  assert len(ids) == 4
  assert f"videos of step 3: {', '.join(ids)}; last good checkpoint: " in said
  good = tmp_path / "checkpoints" / "ilg" / "step-000002"
  assert str(good) in said
  assert good.is_dir()
  assert checkpoints.steps(good.parent) == [2]


def test_of_seeds_at_once_the_one_that_is_not_finite_is_named(
  monkeypatch, tmp_path, capsys
):
  _spoilt(monkeypatch, 1, 3)
  with pytest.raises(Diverged) as caught:
    _start(tmp_path, "--config.seeds=2", *EARLY)
  assert str(caught.value).startswith("seed 1: ilg: ")
  said = capsys.readouterr().out
  assert "seed 0: ilg" not in said
  assert said.count("seed 1: ilg: ") == 2  # together, then alone
  assert (tmp_path / "seed-0" / "metrics.json").exists()


def test_a_parameter_that_is_not_finite_is_never_saved(monkeypatch, tmp_path):
  """Its losses were finite: the last update itself went wrong."""
  fit = train_loop.run_updates

  def last_update_wrong(state, step_fn, *args, **how):
    def step(state, batch, key):
      state, terms = step_fn(state, batch, key)
      bad = jax_where_last(state.step == 4, state.params)
      return state.replace(params=bad), terms

    return fit(state, step, *args, **how)

  def jax_where_last(last, params):
    return train_step.jax.tree.map(
      lambda x: train_step.jnp.where(last, train_step.jnp.inf, x), params
    )

  monkeypatch.setattr(train_loop, "run_updates", last_update_wrong)
  with pytest.raises(Diverged, match=r"parameters, or moments .* at step 4"):
    _start(tmp_path)
  assert checkpoints.steps(tmp_path / "checkpoints" / "ilg") == [2]


def test_of_seeds_at_once_the_one_with_such_a_parameter_is_named(
  monkeypatch, tmp_path, capsys
):
  check, calls = train_loop.check_state, []

  def second_is_bad(state, step):
    calls.append(step)
    if len(calls) >= 2:
      raise Diverged(f"parameters not finite at step {step}", step)
    check(state, step)

  monkeypatch.setattr(train_loop, "check_state", second_is_bad)
  with pytest.raises(Diverged):
    _start(tmp_path, "--config.seeds=2", *EARLY)
  together, *_ = [
    x for x in capsys.readouterr().out.splitlines() if "goes on alone" in x
  ]
  assert together.startswith("seed 1: ilg: parameters not finite at step 2")
  assert "seed 0: ilg" not in together


def _labels(frames, columns=3):
  """Labels of a video from its frames' columns, None where not selected."""
  labels = np.zeros((len(frames), columns), bool)
  for row, column in zip(labels, frames, strict=True):
    row[[] if column is None else [column]] = True
  return PseudoLabels(labels, np.array([c is not None for c in frames]))


def gaps(labels, data):
  tally = label_quality.tally_labels(labels, data.train, len(data.classes))
  return label_quality.label_gaps(tally, data)


def test_what_labels_leave_without_a_frame_is_said():
  data = simulated.simulate(
    width=2,
    seed=0,
    num_classes=2,
    train_videos=2,
    test_videos=1,
    min_segments=20,
    max_segments=20,
  )
  assert {c for video in data.train for c in video.labels} == {0, 1}
  rest = [None] * 17
  full = [_labels([0, 2, None, *rest]), _labels([1, 2, 2, *rest])]
  assert gaps(full, data) == []
  some = [_labels([0, 0, None, *rest]), _labels([None] * 20)]
  assert gaps(some, data) == [
    "1 of 2 videos have no labelled frame",
    f"no frame is labelled {data.classes[1]}",
    "no frame is labelled background",
  ]
  none = [_labels([None] * 20)] * 2
  assert gaps(none, data) == ["no frame of any video is labelled"]


def test_a_run_without_any_label_says_so_and_trains_nothing(tmp_path, capsys):
  nothing = ("--config.labels.high=3.0", "--config.labels.low=0.0")
  _start(tmp_path, *nothing)
  said = capsys.readouterr().out
  assert "labels-0       no frame of any video is labelled" in said
  for phase in ("ots-1", "rts-1"):
    assert f"{phase}          no video has a labelled frame: nothing to" in said
    assert (tmp_path / "checkpoints" / phase / "final").is_dir()
  phases = {
    x["phase"]
    for x in metrics_log.MetricsLog(tmp_path / "metrics.jsonl").read()
  }
  assert not phases & {"ots-1", "rts-1"}
  assert (tmp_path / "metrics.json").exists()


def test_batches_without_a_labelled_frame_are_counted_and_said(
  monkeypatch, tmp_path, capsys
):
  """One video of six is labelled, and a batch is one video."""
  initial, calls = label_phases.initial_labels, []

  def of_one(*args):
    calls.append(args)
    (found,) = initial(*args)
    return [
      found if len(calls) == 1 else PseudoLabels(*map(np.zeros_like, found))
    ]

  monkeypatch.setattr(label_phases, "initial_labels", of_one)
  one = (f"--config.{net}.batch_size=1" for net in ("ots", "rts"))
  _start(tmp_path, *one, "--config.ots.steps=6", "--config.rts.steps=6")
  said = capsys.readouterr().out
  assert "labels-0       5 of 6 videos have no labelled frame" in said
  for phase in ("ots-1", "rts-1"):
    assert f"{phase}          5 batches had no labelled frame: they" in said
  lines = metrics_log.MetricsLog(tmp_path / "metrics.jsonl").read()
  losses = [x["loss"] for x in lines if x["phase"] in ("ots-1", "rts-1")]
  assert len(losses) == 6
  assert np.isfinite(losses).all()


def test_features_that_are_alike_in_every_segment_are_told(tmp_path):
  train_videos, test = tiny_videos("train", 4), tiny_videos("test", 2, seed=1)
  train_videos[2].features["rgb"][:] = 7
  root = write_basnet(tmp_path, train_videos, test, ("Diving", "HighJump"))
  notes = "\n".join(read_root(root).notes)
  assert "all segments have the same features, in which nothing can" in notes
  assert "train0002" in notes
  assert "(1 such files)" in notes
