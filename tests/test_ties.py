"""What hangs on ties is found, and nothing else is named."""

import itertools

import numpy as np
import pytest
from evaluation_cases import database, detection, instance, random_case, scored

from ptlr_jax.evaluation import average_precision, mean_ap


def test_a_hit_and_a_miss_of_one_score_hang_on_their_order():
  truth = {"u": [instance("a", 0, 10)]}
  results = {"u": [detection("a", 0, 10, 1), detection("a", 50, 60, 1)]}
  found = average_precision.find_ties(scored(truth, results))
  # Hit first 1, miss first 1/2.
  assert found.low.tolist() == [[0.5] * 9]
  assert found.high.tolist() == [[1.0] * 9]
  assert (found.scores, found.overlaps) == (2, 0)


def test_an_overlap_with_two_instances_hangs_on_which_is_taken():
  truth = {"u": [instance("a", 0, 2), instance("a", 2, 4)]}
  results = {"u": [detection("a", 0, 4, 1), detection("a", 0, 2, 0.9)]}
  found = average_precision.find_ties(scored(truth, results))
  # Up to 0.5 the first takes either; with [0, 2] gone the second has none.
  assert found.high[0].tolist() == [1.0] * 5 + [0.25] * 4
  assert found.low[0].tolist() == [0.5] * 5 + [0.25] * 4
  assert (found.scores, found.overlaps) == (0, 1)
  named = mean_ap.detection_map(database(truth), results, "thumos14")["ties"]
  assert [p["tiou"] for p in named["pairs"]] == [
    "0.10",
    "0.20",
    "0.30",
    "0.40",
    "0.50",
  ]
  assert named["pairs"][0] == {
    "label": "a",
    "tiou": "0.10",
    "ap": 1.0,
    "low": 0.5,
    "high": 1.0,
  }
  assert named["mAP"]["0.50"] == [0.5, 1.0]
  assert "0.60" not in named["mAP"]


def test_what_is_the_same_in_every_respect_is_no_tie():
  truth = {"u": [instance("a", 0, 2)] * 2}
  results = {"u": [detection("a", 0, 2, 1)] * 3, "v": []}
  found = average_precision.find_ties(scored(truth, results))
  assert (found.scores, found.overlaps) == (0, 0)
  assert not found.hanging.any()


def test_equal_scores_that_change_nothing_are_not_named():
  truth = {"u": [instance("a", 0, 10), instance("a", 20, 30)]}
  results = {"u": [detection("a", 0, 10, 1), detection("a", 20, 30, 1)]}
  found = average_precision.find_ties(scored(truth, results))
  assert found.scores == 2
  assert not found.hanging.any()


def test_three_of_one_score_are_bounded_though_turning_round_changes_nothing():
  # Miss, hit, miss either way round; yet hit first gives 1.
  truth = {"v": [instance("a", 0, 10)]}
  results = {name: [detection("a", 0, 10, 1)] for name in ("u", "v", "w")}
  found = average_precision.find_ties(scored(truth, results))
  assert found.high[0, 0] == 1.0
  assert found.low[0, 0] == pytest.approx(1 / 3)


def _every_order(truth, results):
  """Lowest and highest AP over all orders of equal scores, by renaming."""
  low, high = np.inf, -np.inf
  rows = [(v, x) for v, items in results.items() for x in items]
  for order in itertools.permutations(range(len(rows))):
    # A score a little higher for what comes first decides the tie.
    moved = {v: [] for v in results}
    for place, n in enumerate(order):
      video, x = rows[n]
      moved[video].append({**x, "score": x["score"] - 1e-6 * place})
    ap = scored(truth, moved).ap
    low, high = np.minimum(low, ap), np.maximum(high, ap)
  return low, high


def _tied_case(seed, videos):
  rng = np.random.default_rng(seed)
  truth = {
    v: [instance("a", 12 * n, 12 * n + 10) for n in range(3)] for v in videos
  }
  results = {v: [] for v in videos}
  for n in range(5):
    start = float(rng.integers(0, 30)) + 0.1 * rng.uniform()
    found = detection("a", start, start + 9, float(rng.integers(1, 3)))
    results[videos[n % len(videos)]].append(found)
  return truth, results


@pytest.mark.parametrize("seed", range(8))
def test_bounds_are_those_of_every_order_of_equal_scores(seed):
  truth, results = _tied_case(seed, "uvwxy")
  found = average_precision.find_ties(scored(truth, results))
  low, high = _every_order(truth, results)
  np.testing.assert_allclose(found.low, low, atol=1e-12)
  np.testing.assert_allclose(found.high, high, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_bounds_are_reached_where_one_video_has_several(seed):
  truth, results = _tied_case(seed, "uv")
  found = average_precision.find_ties(scored(truth, results))
  low, high = _every_order(truth, results)
  assert (found.low >= low - 1e-12).all()
  assert (found.high <= high + 1e-12).all()
  np.testing.assert_array_equal(found.hanging, high - low > 1e-9)


def test_rivals_of_one_score_for_one_instance_are_not_named():
  # Whichever comes first is the hit.
  truth = {"u": [instance("a", 0, 10)]}
  results = {"u": [detection("a", 0, 9.5, 1), detection("a", 0.5, 10, 1)]}
  found = average_precision.find_ties(scored(truth, results))
  assert found.scores == 2
  assert not found.hanging.any()


@pytest.mark.parametrize("seed", range(10))
def test_ambiguous_detections_are_bounded_too(seed):
  truth, results = random_case(seed, whole=True)
  plain = scored(truth, results)
  chosen = np.random.default_rng(seed).random(len(plain.found.video)) < 0.3
  ours = scored(truth, results, ambiguous=chosen)
  found = average_precision.find_ties(ours)
  assert (found.low <= ours.ap + 1e-12).all()
  assert (found.high >= ours.ap - 1e-12).all()
  assert (ours.ap >= 0).all()
