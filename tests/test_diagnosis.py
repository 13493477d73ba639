"""Kinds of false positives, sensitivity, recall and oracles, by hand."""

import numpy as np
import pytest
from evaluation_cases import detection, instance, random_case, scored

from ptlr_jax.evaluation import average_precision, diagnosis, upper_bounds
from ptlr_jax.evaluation.instances import detections_of, truth_of
from ptlr_jax.evaluation.protocols import PROTOCOLS

HALF = 4  # the index of 0.5 in thumos14


def _kinds(truth, results, ambiguous=None):
  ours = scored(truth, results, ambiguous=ambiguous)
  names = ("true positive", *diagnosis.KINDS)
  kinds = diagnosis.kinds(ours, HALF)
  return {
    float(score): names[kind + 1]
    for score, kind in zip(ours.found.score, kinds, strict=True)
  }


def test_each_kind_of_false_positive():
  truth = {
    "u": [instance("a", 0, 10), instance("b", 100, 110)],
    "v": [instance("a", 50, 60)],
  }
  results = {
    "u": [
      detection("a", 0, 10, 9),
      detection("a", 1, 10, 8),  # 0.9 with what 9 has found
      detection("a", 101, 110, 7),  # on an instance of b
      detection("a", 0, 3, 6),  # 0.3 with its own class
      detection("a", 100, 104, 5),  # 0.4 with b
      detection("a", 40, 50, 4),
      detection("b", 95, 105, 3),  # 5 of 15: 1/3 with its own class
    ],
    "v": [detection("b", 0, 1, 2)],
    "w": [detection("a", 0, 10, 1)],  # a video that is not scored
  }
  assert _kinds(truth, results) == {
    9: "true positive",
    8: "double detection",
    7: "wrong label",
    6: "localisation",
    5: "confusion",
    4: "background",
    3: "localisation",
    2: "background",
    1: "background",
  }


def test_the_profile_counts_and_says_what_each_kind_costs():
  truth = {"u": [instance("a", 0, 10), instance("a", 20, 30)]}
  results = {
    "u": [
      detection("a", 50, 60, 9),  # background
      detection("a", 0, 10, 8),
      detection("a", 0, 9, 7),  # double
      detection("a", 20, 30, 6),
    ]
  }
  found = diagnosis.profile(scored(truth, results), HALF, multiples=3)
  assert found["tiou"] == 0.5
  assert found["counts"] == {
    "true positive": 2,
    "double detection": 1,
    "wrong label": 0,
    "localisation": 0,
    "confusion": 0,
    "background": 1,
  }
  # Two instances: the first 2 detections, the next 2, then none.
  assert [row["background"] for row in found["profile"]] == [0.5, 0, 0]
  assert [row["true positive"] for row in found["profile"]] == [0.5, 0.5, 0]
  # Hits at 2 and 4: 1/2. Without the first miss at 1 and 3: (1 + 2/3) / 2;
  # without the second one at 2 and 3: 2/3.
  assert found["gain"]["background"] == pytest.approx(5 / 6 - 1 / 2)
  assert found["gain"]["double detection"] == pytest.approx(2 / 3 - 1 / 2)
  assert found["gain"]["confusion"] == 0.0


def test_ambiguous_false_positives_are_of_no_kind():
  truth = {"u": [instance("a", 0, 10)]}
  results = {"u": [detection("a", 50, 60, 2), detection("a", 0, 10, 1)]}
  flags = np.array([True, True])
  assert set(_kinds(truth, results, flags).values()) == {"true positive"}
  ours = scored(truth, results, ambiguous=flags)
  assert ours.ap[0, HALF] == 1.0  # the miss before it does not count
  counts = diagnosis.profile(ours, HALF)["counts"]
  assert counts["true positive"] == 1
  assert sum(counts.values()) == 1


@pytest.mark.parametrize("seed", range(8))
def test_kinds_share_out_all_detections_and_no_gain_is_a_loss(seed):
  ours = scored(*random_case(seed))
  found = diagnosis.profile(ours, HALF)
  assert sum(found["counts"].values()) == len(ours.found.video)
  assert found["counts"]["true positive"] == (ours.matched[HALF] >= 0).sum()
  assert min(found["gain"].values()) >= -1e-12


def test_bins_are_those_of_detad():
  assert diagnosis.bins((3, 6, 12, 18), " s") == [
    "XS (0, 3] s",
    "S (3, 6] s",
    "M (6, 12] s",
    "L (12, 18] s",
    "XL > 18 s",
  ]
  assert diagnosis.bins((1, 40, 80), "")[-1] == "L > 80"


def test_sensitivity_by_hand():
  # Lengths 2, 4 and 20 s of videos of 100 s: coverage 0.02, 0.04, 0.2.
  truth = {
    "u": [instance("a", 0, 2), instance("a", 10, 14)],
    "v": [instance("b", 0, 20)],
  }
  results = {
    "u": [
      detection("a", 10, 14, 3),
      detection("a", 60, 70, 2),
      detection("a", 0, 2, 1),
    ]
  }
  found = diagnosis.table(scored(truth, results), HALF)
  rows = {
    name: {row["bin"]: row for row in rows if row["instances"]}
    for name, rows in found.items()
  }
  assert list(rows["length"]) == ["XS (0, 3] s", "S (3, 6] s", "XL > 18 s"]
  assert list(rows["coverage"]) == [
    "XS (0, 0.02]",
    "S (0.02, 0.04]",
    "XL > 0.08",
  ]
  assert rows["count"]["XS (0, 1]"]["instances"] == 1
  assert rows["count"]["S (1, 40]"]["recall"] == 1.0
  # Of the 4 s one: a hit before any miss, 1. Of the 2 s one: a miss before it,
  # N = 3 / 2: 1.5 / (1.5 + 1). The hit of the other counts for nothing.
  assert rows["length"]["S (3, 6] s"]["normalised_mAP"] == 1.0
  assert rows["length"]["XS (0, 3] s"]["normalised_mAP"] == pytest.approx(0.6)
  assert rows["length"]["XL > 18 s"] == {
    "bin": "XL > 18 s",
    "instances": 1,
    "recall": 0.0,
    "normalised_mAP": 0.0,
  }
  assert rows["all"]["all"]["recall"] == pytest.approx(2 / 3)


def test_coverage_without_durations_is_said_to_be_unknown():
  chosen = PROTOCOLS["thumos14"]
  truth = truth_of(
    {
      "u": {"annotations": [instance("a", 0, 2)], "duration": 40},
      "v": {"annotations": [instance("a", 0, 2)]},
    },
    chosen,
    "",
    [],
  )
  found = detections_of({}, truth, chosen, "", [])
  rows = diagnosis.table(average_precision.score(truth, found, chosen), HALF)
  here = {r["bin"]: r["instances"] for r in rows["coverage"] if r["instances"]}
  assert here == {"M (0.04, 0.06]": 1, "not known": 1}


def test_snippets_are_measured_in_seconds():
  truth = {"u": [instance("a", 0, 6.4)]}
  ours = scored(truth, {}, "thumos14-snippet")
  assert diagnosis.characteristics(ours)["length"].tolist() == [6.4]


def test_recall_with_more_proposals_by_hand():
  truth = {"u": [instance("a", 0, 10)], "v": [instance("b", 0, 10)]}
  results = {
    "u": [
      detection("a", 50, 60, 3),
      detection("b", 0, 9, 2),  # right place, wrong class
      detection("a", 0, 6, 1),
    ],
    "v": [],
    "w": [detection("a", 0, 1, 1)] * 9,
  }
  curves = upper_bounds.recall_curve(scored(truth, results))
  any_label, own = curves["any_label"], curves["own_label"]
  assert [row["proposals"] for row in any_label] == [1, 2, 3]
  assert [row["mean_proposals"] for row in any_label] == [0.5, 1.0, 1.5]
  assert [row["0.50"] for row in any_label] == [0, 0.5, 0.5]
  assert [row["0.50"] for row in own] == [0, 0, 0.5]
  assert [row["0.90"] for row in own] == [0, 0, 0]
  # 0.6 of the instance: found at 6 of 9 thresholds, half of the instances.
  assert own[2]["average"] == pytest.approx(6 / 9 / 2)


def test_a_grid_is_met_where_instances_lie_on_it():
  truth = {"u": [instance("a", 0, 6.4), instance("a", 12.8, 19.2)]}
  ours = scored(truth, {})
  assert upper_bounds.caps(ours, 0.64)["grid"]["0.90"] == 1.0
  # 1.0 to 2.0 s on a grid of 0.64: 0.64 to 1.92 overlaps 0.92 of 1.36, 1.28 to
  # 1.92 0.64 of 1 and 1.28 to 2.56 0.72 of 1.56: the best is 0.676.
  cap = upper_bounds.caps(scored({"u": [instance("a", 1.0, 2.0)]}, {}), 0.64)
  assert cap["grid"]["0.60"] == 1.0
  assert cap["grid"]["0.70"] == 0.0


def test_the_grids_segment_is_the_best_there_is():
  rng = np.random.default_rng(0)
  for _ in range(50):
    start = float(rng.uniform(0, 5))
    end = start + float(rng.uniform(0.05, 4))
    ours = scored({"u": [instance("a", start, end)]}, {})
    got = upper_bounds.on_grid(ours.truth, 0.64).score[0]
    best = 0.0
    for a in range(16):
      for b in range(a + 1, 17):
        low, high = 0.64 * a, 0.64 * b
        inter = max(0.0, min(high, end) - max(low, start))
        best = max(best, inter / (high - low + end - start - inter))
    assert got == pytest.approx(best)


def test_oracles_of_scores_labels_and_segments():
  truth = {"u": [instance("a", 0, 10), instance("b", 20, 30)]}
  results = {
    "u": [
      detection("a", 50, 60, 3),
      detection("b", 0, 10, 2),  # right place, wrong class
      detection("b", 20, 24, 1),  # 0.4
    ]
  }
  ours = scored(truth, results)
  caps = upper_bounds.caps(ours, 0.64)
  assert ours.mean[HALF] == 0.0
  assert caps["scores"]["0.50"] == 0.0
  # b: a miss, then a hit; alone the hit counts.
  assert (ours.mean[3], caps["scores"]["0.40"]) == (0.25, 0.5)
  # The second becomes a: a has a miss and a hit, 1/2; b finds nothing.
  assert caps["labels"]["0.50"] == 0.25
  # The third is moved onto its instance; the second is b's miss before it.
  assert caps["segments"]["0.90"] == 0.25
  assert set(caps["grid"]) == set(caps["scores"]) >= {"0.1:0.7", "0.90"}


@pytest.mark.parametrize("seed", range(8))
def test_oracles_are_never_below_what_there_is(seed):
  ours = scored(*random_case(seed, separate=True))
  caps = upper_bounds.caps(ours, 0.64)
  keys = [f"{t:.2f}" for t in ours.protocol.tious]
  for name in ("scores", "segments"):
    found = np.array([caps[name][key] for key in keys])
    if name == "scores":
      assert (found >= ours.mean - 1e-12).all()
    assert (np.diff(found) <= 1e-12).all()
