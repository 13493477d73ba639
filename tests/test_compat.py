"""compat="basnet": each quirk of BaSNet-pytorch, and all of them at once."""

import numpy as np
import plain_basnet
import pytest
from ml_collections import ConfigDict

from configs import base, thumos14_basnet
from ptlr_jax.cli import command_line, config_checks
from ptlr_jax.data import sampling
from ptlr_jax.data.dataset import PAPER
from ptlr_jax.localization import detection, interpolation, nms, proposals
from ptlr_jax.method import cas_space
from ptlr_jax.runtime import config_tree
from ptlr_jax.runtime.errors import InputError
from tests.tiny_config import ROOT, start

CLASSES = ("a", "b", "c", "d")


def _options(**changes):
  config = base.get_config()
  config.compat = "basnet"
  config_checks.apply_compat(config)
  options = ConfigDict(config.detect.to_dict())
  options.update(changes)
  return options


def _detect(logits, scores, options, stretch=1.0):
  """Detections of a CAS f[T,C+1] and class scores f[C]."""
  rest = 1 - scores.sum()
  ilg = {
    "logits": {"fused": logits},
    "scores": {"fused": np.append(scores, rest)},
  }
  return detection.detect(
    ilg,
    {},
    CLASSES,
    PAPER,
    options=options,
    fusion={"rgb": 1.0, "flow": 1.5},
    topk_ratio=8,
    stretch=stretch,
  )


@pytest.mark.parametrize("seed", range(6))
def test_all_at_once_are_the_plain_reading(seed):
  rng = np.random.default_rng(seed)
  walk = rng.normal(size=(30 + seed, 5)).cumsum(0)
  logits = walk + rng.normal(size=walk.shape)
  scores = np.array([0.26, 0.3, 0.1, 0.3]) if seed else np.eye(4)[1]
  segments = int(rng.integers(20, 90))
  stretch = segments / len(logits)
  found = _detect(logits, scores, _options(), stretch)
  expected = plain_basnet.detections(logits, scores, segments)
  assert len(found) == len(expected) > 0
  got = [(CLASSES.index(f["label"]), f["score"], *f["segment"]) for f in found]
  key = lambda item: (-round(item[1], 8), item)  # noqa: E731
  np.testing.assert_allclose(
    sorted(got, key=key), sorted(expected, key=key), rtol=0, atol=1e-9
  )


# One quirk at a time: what it changes, worked by hand.


def test_test_videos_are_sampled_uniformly():
  # 6 segments at 4 positions: 0, 1.5, 3, 4.5 rounded down.
  assert sampling.uniform_indexes(6, 4).tolist() == [0, 1, 3, 4]
  logits = np.full((4, 5), -1.0)
  logits[1:3, 1] = 1.0
  options = _options(upsampling=1)
  (plain, *_) = _detect(logits, np.eye(4)[1], options)
  (wide, *_) = _detect(logits, np.eye(4)[1], options, stretch=6 / 4)
  np.testing.assert_allclose(plain["segment"], [0.64, 1.92])
  np.testing.assert_allclose(wide["segment"], [0.96, 2.88])  # times 1.5


def test_the_last_threshold_is_0_225():
  options, ours = _options(), base.get_config().detect
  count = {}
  for name, o in (("basnet", options), ("ours", ours)):
    span = o.threshold_last - o.threshold_first
    count[name] = int(span / o.threshold_step + 1e-6) + 1
  assert count == {"basnet": 10, "ours": 21}
  # A dip to 0.4 splits under 0.45 and not under 0.225.
  dip = np.array([0.0, 1.0, 0.4, 1.0, 0.0])
  dip = interpolation.upsampled(dip[:, None], 1)
  assert len(proposals.find_runs(dip, np.array([0.225])).start) == 1
  assert len(proposals.find_runs(dip, np.array([0.45])).start) == 2


def test_the_contrast_is_taken_on_the_thresholded_cas():
  # Ring of one position a side at 0.2, below the threshold 0.5: it counts as 0.
  cas = np.array([[0.2], [1.0], [1.0], [0.2]])
  how = {"thresholds": [0.5], "upsample_factor": 1, "seconds_per_segment": 1.0}
  cas_score, thresholded = (
    proposals.propose(
      cas, np.zeros(1), [0], contrast=contrast, ring=0.5, **how
    ).score
    for contrast in ("cas", "thresholded")
  )
  np.testing.assert_allclose([cas_score, thresholded], [[0.8], [1.0]])


def test_the_class_score_is_binary():
  logits = np.full((6, 5), -1.0)
  logits[2:4, 1] = 1.0
  found = {
    kind: _detect(
      logits,
      np.array([0.1, 0.4, 0.1, 0.1]),
      _options(class_score=kind, upsampling=1),
    )[0]["score"]
    for kind in ("value", "binary")
  }
  # 1 - 0 inside and outside, then 0.2 x 0.4 or 0.2 x 1.
  assert found == pytest.approx({"value": 1.08, "binary": 1.2})


def test_one_second_is_added_to_every_length_in_nms():
  start, end, score = np.array([0, 1]), np.array([2, 3]), np.array([2, 1])
  # IoU 1/3 without, (1 + 1) / (3 + 3 - 2) = 1/2 with.
  assert nms.nms(start, end, score, 0.4).tolist() == [0, 1]
  assert nms.nms(start, end, score, 0.4, plus_one=True).tolist() == [0]


def test_an_overlap_equal_to_the_threshold_is_dropped():
  start, end, score = np.array([0, 0]), np.array([4, 2]), np.array([2, 1])
  assert nms.nms(start, end, score, 0.5).tolist() == [0, 1]
  assert nms.nms(start, end, score, 0.5, drop_equal=True).tolist() == [0]


@pytest.mark.parametrize(
  ("scores", "ours", "basnets"),
  [
    ([0.6, 0.1], [0], []),  # class 0 alone is lost
    ([0.1, 0.6], [1], [1]),
    ([0.3, 0.3], [0, 1], [0, 1]),
    ([0.2, 0.1], [0], []),  # none passes: ours takes the best
  ],
)
def test_class_0_is_dropped_when_alone_and_nothing_stands_in(
  scores, ours, basnets
):
  scores = np.array(scores)
  kept = detection.kept_classes(scores, 0.25, True)
  assert kept.tolist() == ours
  kept = detection.kept_classes(scores, 0.25, False, lone_first=False)
  assert kept.tolist() == basnets


def test_runs_need_values_above_0():
  # Under 0 everything passes here, and there only what is positive.
  cas = np.array([[1.0], [0.0], [0.5], [-0.5]])
  how = {"thresholds": [0.0], "upsample_factor": 1, "seconds_per_segment": 1.0}
  ours = proposals.propose(cas, np.zeros(1), [0], **how)
  theirs = proposals.propose(cas, np.zeros(1), [0], positive_runs=True, **how)
  assert (ours.start.tolist(), ours.end.tolist()) == ([0], [3])
  assert (theirs.start.tolist(), theirs.end.tolist()) == ([0, 2], [1, 3])
  # The very first position, alone under its threshold, is no run.
  how["thresholds"] = [0.7]
  assert len(proposals.propose(cas, np.zeros(1), [0], **how).start) == 1
  lost = proposals.propose(cas, np.zeros(1), [0], positive_runs=True, **how)
  assert len(lost.start) == 0


def test_the_ring_is_rounded_towards_the_start():
  # A run of 2 and a ring of 0.25: half a position a side. Up on both sides is
  # 0.3 and 0.1; towards the start it is 0.3 alone.
  cas = np.array([0.0, 0.3, 1.0, 1.0, 0.1, 0.0])
  sums, zero = interpolation.upsampled(cas[:, None], 1).sums(), np.array([0])
  run = sums, proposals.Runs(zero, zero, np.array([2]), np.array([4]))
  up = proposals.outer_inner_contrast(*run)
  start_wards = proposals.outer_inner_contrast(*run, rounding="towards_start")
  np.testing.assert_allclose([up[0], start_wards[0]], [0.8, 0.7])


def _upsampled(cas, grid):
  return interpolation.upsampled(cas, 2, grid).values()[0]


def test_upsampling_places_output_i_at_i_over_24():
  cas = np.array([[0.0], [1.0]])
  # Twice: at 0, 0.5, 1, 1.5 (extrapolated), not at -0.25 (held), 0.25, ...
  left = _upsampled(cas, "left")
  assert left.tolist() == [0.0, 0.5, 1.0, 1.5]
  assert _upsampled(cas, "centres").tolist() == [0.0, 0.25, 0.75, 1.0]
  assert _upsampled(cas[:1] + 3, "left").tolist() == [3, 3]


def test_min_and_max_count_from_0_up():
  cas = np.array([[-1.0, -3.0, 2.0], [3.0, -1.0, 4.0]])
  np.testing.assert_allclose(
    cas_space.relu_minmax(cas), [[-1 / 3, -3, 0], [1, -1, 1]]
  )
  np.testing.assert_allclose(cas_space.minmax(cas), [[0, 0, 0], [1, 1, 1]])


def test_the_mil_loss_is_a_plain_mean():
  assert config_checks.COMPAT["basnet"]["ilg.loss.reference_classes"] == 0


# The switch.


def _parsed(*overrides):
  argv = ["", f"--config={ROOT / 'configs' / 'thumos14_basnet.py'}"]
  return command_line.parse([*argv, "--workdir=run", *overrides]).config


def test_the_switch_sets_its_keys_and_nothing_else():
  plain = config_tree.flatten(thumos14_basnet.get_config())
  changed = config_tree.flatten(_parsed("--config.compat=basnet"))
  expected = {**config_checks.COMPAT["basnet"], "compat": "basnet"}
  assert {k: v for k, v in changed.items() if plain[k] != v} == expected
  assert _parsed().compat == ""


def test_a_key_that_contradicts_the_switch_is_refused_in_a_line():
  with pytest.raises(InputError) as caught:
    _parsed("--config.compat=basnet", "--config.detect.nms_plus_one=False")
  (line,) = caught.value.lines
  assert line.startswith("--config.detect.nms_plus_one: expected True")
  assert "leave one of the two out" in line
  same = _parsed("--config.compat=basnet", "--config.detect.nms_plus_one=True")
  assert same.detect.nms_plus_one
  assert _parsed("--config.compat=basnet", "--config.detect.ring=0.5")


def test_an_unknown_switch_is_refused():
  with pytest.raises(InputError, match=r"--config\.compat: expected one of"):
    _parsed("--config.compat=basenet")


def test_a_run_with_the_switch_ends_with_detections(cache, tmp_path):
  done = start(
    tmp_path / "run",
    cache,
    "--config.compat=basnet",
    "--config.ptlr.stages=0",
    "--config.ilg.streams=('fused',)",
  )
  assert done.returncode == 0, done.stderr
  assert "ilg" in done.stdout
