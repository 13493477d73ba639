"""Pseudo labels by hand; class a, class b, background."""

import itertools
import math

import numpy as np
import pytest

from ptlr_jax.method import cas_space, label_quality
from ptlr_jax.method import pseudo_labels as pl
from ptlr_jax.method.pseudo_labels import PseudoLabels

BOTH, ONLY_A, ONLY_B = (
  np.array(row) for row in ([True, True], [True, False], [False, True])
)
A, B, AB, BG, NONE = ([1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0])


def labels_of(*rows):
  labels = np.array(rows, bool)
  return PseudoLabels(labels, np.asarray(labels.any(1)))


def assert_labels(got, *rows):
  assert got.labels.astype(int).tolist() == list(rows)
  assert got.labels.dtype == got.selected.dtype == bool
  assert got.selected.tolist() == [any(row) for row in rows]


# Column 2 is the background score, which initial_labels does not read.
CAS = np.array(
  [
    [0.90, 0.00, 1.0],  # a
    [0.72, 0.80, 0.0],  # both above 0.7, b the higher
    [0.05, 0.04, 0.0],  # the sum 0.09 < 0.1: background
    [0.05, 0.06, 1.0],  # 0.11: neither
    [0.50, 0.60, 0.0],  # the sum alone passes 0.7: neither
    [0.00, 0.90, 0.0],  # b
  ]
)


def test_initial_labels_by_hand():
  assert_labels(pl.initial_labels(CAS, BOTH), A, B, BG, NONE, NONE, B)


def test_initial_labels_multi_hot():
  got = pl.initial_labels(CAS, BOTH, several="multi_hot")
  assert_labels(got, A, AB, BG, NONE, NONE, B)


def test_initial_labels_of_the_videos_own_classes():
  # The 0.1 sum, too, runs over these alone.
  assert_labels(pl.initial_labels(CAS, ONLY_A), A, A, BG, BG, NONE, BG)
  assert_labels(pl.initial_labels(CAS, ONLY_B), BG, B, BG, BG, NONE, B)


def test_background_sums_over_every_class_if_asked():
  # Frame 3 sums to 0.05 over a alone, and to 0.11 over both.
  got = pl.initial_labels(CAS, ONLY_A, background_sum="all")
  assert_labels(got, A, A, BG, NONE, NONE, NONE)
  with pytest.raises(KeyError, match="x"):
    pl.initial_labels(CAS, BOTH, background_sum="x")


def test_initial_labels_thresholds_are_strict():
  cas = np.array([[0.75, 0, 0], [0.125, 0, 0]])
  got = pl.initial_labels(cas, BOTH, high=0.75, low=0.125)
  assert_labels(got, NONE, NONE)
  got = pl.initial_labels(cas, BOTH, high=0.74, low=0.126)
  assert_labels(got, A, BG)


PROBABILITIES = np.array(
  [
    [0.80, 0.10, 0.10],  # a
    [0.10, 0.15, 0.75],  # background by its own column
    [0.05, 0.35, 0.60],  # neither
    [0.05, 0.70, 0.25],  # exactly theta_p: neither
    [0.10, 0.80, 0.10],  # b
  ],
  np.float32,
)


def test_network_labels_by_hand():
  got = pl.network_labels(PROBABILITIES, BOTH, threshold=0.7)
  assert_labels(got, A, BG, NONE, NONE, B)
  got = pl.network_labels(PROBABILITIES, BOTH, threshold=0.55)
  assert_labels(got, A, BG, BG, B, B)
  # A foreign class does not turn into background.
  got = pl.network_labels(PROBABILITIES, ONLY_A, threshold=0.7)
  assert_labels(got, A, BG, NONE, NONE, NONE)


def test_network_labels_of_two_classes():
  # Two probabilities pass only below 1/2; an action goes before background.
  cas = np.array([[0.4, 0.45, 0.15], [0.35, 0.15, 0.5]])
  got = pl.network_labels(cas, BOTH, threshold=0.3)
  assert_labels(got, B, A)
  got = pl.network_labels(cas, BOTH, threshold=0.3, several="multi_hot")
  assert_labels(got, AB, A)


def random_cas(seed, count=200):
  """Softmaxes over 4 classes that often come near 0 and 1."""
  logits = 4 * np.random.default_rng(seed).normal(size=(count, 4))
  return cas_space.softmax(logits.astype(np.float32))


@pytest.mark.parametrize("several", ["highest", "multi_hot"])
def test_raising_a_threshold_never_adds_a_label(several):
  # From theta_p = 1/2 on: below it background can pass where an action fails.
  cas, allowed = random_cas(0), np.array([True, True, False])
  how = {"several": several}
  steps = []
  for threshold in (0.5, 0.55, 0.6, 0.65, 0.7, 0.9):
    initial = pl.initial_labels(cas, allowed, high=threshold, **how)
    network = pl.network_labels(cas, allowed, threshold=threshold, **how)
    steps.append((initial.labels, network.labels))
  for lower, higher in itertools.pairwise(steps):
    for before, after in zip(lower, higher, strict=True):
      assert not (after & ~before).any()
  # And each falls.
  for first, last in zip(steps[0], steps[-1], strict=True):
    assert 0 < last.sum() < first.sum()


@pytest.mark.parametrize("several", ["highest", "multi_hot"])
def test_labels_never_name_a_class_outside_the_videos_own(several):
  for seed, own in enumerate([(0,), (1, 2), (0, 1, 2), ()]):
    allowed = np.isin(np.arange(3), own)
    cas = random_cas(seed)
    for got in (
      pl.initial_labels(cas, allowed, several=several),
      pl.network_labels(cas, allowed, threshold=0.4, several=several),
    ):
      assert not got.labels[:, :-1][:, ~allowed].any()
      assert pl.has_action(got) == bool(own)
      # Selected frames, and they alone, have labels; background is alone.
      assert (got.labels.any(1) == got.selected).all()
      assert not (got.labels[:, -1] & got.labels[:, :-1].any(1)).any()
      if several == "highest":
        assert got.labels.sum(1).max() <= 1


def test_update_replaces():
  old, new = labels_of(A, BG, NONE, B), labels_of(NONE, A, BG, NONE)
  got = pl.update(old, new, keep_empty=True, rule="replace")
  assert_labels(got, NONE, A, BG, NONE)


def test_update_merges():
  old, new = labels_of(A, BG, NONE, B), labels_of(NONE, A, BG, NONE)
  got = pl.update(old, new, keep_empty=True, rule="merge")
  assert_labels(got, A, A, BG, B)


def test_update_expands():
  """A labelled frame keeps its label; what is new joins."""
  old, new = labels_of(A, BG, NONE, B), labels_of(NONE, A, BG, A)
  got = pl.update(old, new, keep_empty=True, rule="expand")
  assert_labels(got, A, BG, BG, B)


@pytest.mark.parametrize(
  ("rule", "without"),
  [("replace", (BG, NONE)), ("merge", (BG, BG)), ("expand", (A, BG))],
)
def test_update_keeps_the_old_labels_of_a_video_left_without_action(
  rule, without
):
  old, new = labels_of(A, BG), labels_of(BG, NONE)
  assert_labels(pl.update(old, new, keep_empty=True, rule=rule), A, BG)
  assert_labels(pl.update(old, new, keep_empty=False, rule=rule), *without)


def test_quality_by_hand():
  labels = [
    # right, wrong class, wrongly background, right background, not selected
    labels_of(A, B, BG, BG, NONE),
    # no action frame; one right background, one wrong
    labels_of(BG, BG),
    # one class of a frame with two true ones; both labels of which one is true
    labels_of(B, AB),
  ]
  truths = [
    np.array([A, A, A, BG, B], bool),
    np.array([BG, B], bool),
    np.array([AB, B], bool),
  ]
  got = label_quality.counts_quality(label_quality.counts(labels, truths))
  assert got == {
    "precision": 5 / 8,  # right: 2 + 1 + 2 of 8 selected frames
    "recall": 5 / 9,
    "action_precision": 3 / 4,  # right: 1 + 0 + 2 of 2 + 0 + 2
    "action_recall": 3 / 7,  # action frames: 4 + 1 + 2
    "selected": 8 / 9,
    "videos_without_action": 1,
  }


def test_quality_of_the_papers_example_of_8_frames():
  # All 8 frames are of the action; OTS selects 4, RTS 6, see test_models.
  truth = np.array([A] * 8, bool)
  ots = labels_of(A, NONE, NONE, NONE, A, NONE, A, A)
  rts = labels_of(A, A, NONE, NONE, A, A, A, A)
  for labels, recall in ((ots, 0.5), (rts, 0.75)):
    got = label_quality.counts_quality(label_quality.counts([labels], [truth]))
    assert (got["precision"], got["recall"]) == (1, recall)


def test_quality_of_nothing_selected_is_zero():
  got = label_quality.counts_quality(
    label_quality.counts([labels_of(NONE, NONE)], [np.array([A, BG], bool)])
  )
  assert got == {
    "precision": 0,
    "recall": 0,
    "action_precision": 0,
    "action_recall": 0,
    "selected": 0,
    "videos_without_action": 1,
  }


def test_quality_needs_a_truth_for_every_video():
  with pytest.raises(ValueError, match="zip"):
    label_quality.counts([labels_of(A)], [])


LN3 = math.log(3)
LOGITS = {
  "rgb": np.array([[LN3, 0], [0, 0]]),  # softmax (3/4, 1/4), (1/2, 1/2)
  "flow": np.array([[0, 0], [LN3, 0]]),
}
WEIGHTS = {"rgb": 1.0, "flow": 1.5, "fused": 1.0}


@pytest.mark.parametrize(
  ("space", "expected"),
  [
    # (3/4 + 3/2 x 1/2) / 2.5, (1/2 + 3/2 x 3/4) / 2.5
    ("softmax", [[0.6, 0.4], [0.65, 0.35]]),
    ("softmax_minmax", [[0, 1], [1, 0]]),
    # Class 0 is 1, 0 in rgb and 0, 1 in flow; class 1 is constant.
    ("minmax", [[0.4, 0], [0.6, 0]]),
    # Class 0 the same, class 1 the other way round.
    ("softmax_stream_minmax", [[0.4, 0.6], [0.6, 0.4]]),
    ("raw", [[0.4 * LN3, 0], [0.6 * LN3, 0]]),
  ],
)
def test_fused_cas_by_hand(space, expected):
  got = cas_space.fused_cas(LOGITS, WEIGHTS, space)
  np.testing.assert_allclose(got, expected, atol=1e-12)


def test_streams_can_be_summed():
  space = "softmax_stream_minmax"
  got = cas_space.fused_cas(LOGITS, WEIGHTS, space, normalise=False)
  np.testing.assert_allclose(got, [[1, 1.5], [1.5, 1]], atol=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_single_stream_is_fused_with_itself(normalise):
  logits = {"fused": LOGITS["rgb"]}
  got = cas_space.fused_cas(logits, WEIGHTS, "softmax", normalise)
  np.testing.assert_allclose(got, [[0.75, 0.25], [0.5, 0.5]])


def test_minmax_of_a_constant_class_is_zero():
  got = cas_space.minmax(np.array([[2.0, 7.0], [4.0, 7.0], [3.0, 7.0]]))
  assert got.tolist() == [[0, 0], [1, 0], [0.5, 0]]


def test_softmax_of_huge_logits_is_finite():
  assert cas_space.softmax(np.array([[1e4, 0.0]])).tolist() == [[1, 0]]


def test_unknown_choices_are_refused():
  with pytest.raises(KeyError, match="x"):
    cas_space.fused_cas(LOGITS, WEIGHTS, "x")
  with pytest.raises(KeyError, match="x"):
    pl.initial_labels(CAS, BOTH, several="x")
  with pytest.raises(ValueError, match=r"merge, expand, got 'x'"):
    pl.update(labels_of(A), labels_of(A), keep_empty=True, rule="x")
