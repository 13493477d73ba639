"""NMS: small numbers by hand, random ones by plain loops, both ways of it."""

import json

import numpy as np
import plain_proposals
import pytest

from ptlr_jax.localization import nms as module
from ptlr_jax.localization import proposals as pr
from ptlr_jax.localization.nms import nms


def test_nms_by_hand():
  # IoU with the best [0, 10]: [1, 10] 0.9, [5, 15] 1/3.
  start, end = np.array([5, 0, 1]), np.array([15, 10, 10])
  score = np.array([0.7, 0.9, 0.8])
  assert nms(start, end, score, 0.5).tolist() == [1, 0]
  assert nms(start, end, score, 0.3).tolist() == [1]
  assert nms(start, end, score, 0.95).tolist() == [1, 2, 0]
  # An IoU equal to the threshold (5 of 10) stays; equal scores in input order.
  start, end, score = np.array([0, 0]), np.array([5, 10]), np.array([1, 1])
  assert nms(start, end, score, 0.5).tolist() == [0, 1]
  # [0, 1] and [1, 2] only touch; with the extra second they share 1 of 3.
  start, end = np.array([0, 1]), np.array([1, 2])
  assert nms(start, end, score, 0.3).tolist() == [0, 1]
  assert nms(start, end, score, 0.3, plus_one=True).tolist() == [0]


def _segments(seed, count=150, whole=False):
  """Starts, ends, scores with ties; whole numbers give IoUs equal to others."""
  rng = np.random.default_rng(seed)
  start = rng.uniform(0, 30, count)
  end = start + rng.uniform(0.1, 8, count)
  if whole:
    start, end = np.floor(start), np.floor(start) + np.ceil(end - start)
  return start, end, rng.integers(0, 30, count) / 30


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.4, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("drop_equal", [False, True])
@pytest.mark.parametrize("way", ["rounds", "turn"])
def test_nms_equals_the_plain_loop(
  monkeypatch, threshold, plus_one, drop_equal, way
):
  monkeypatch.setattr(module, "_CROWDED", np.inf if way == "rounds" else -1)
  for seed in range(3):
    start, end, score = _segments(seed, whole=seed == 0)
    expected = plain_proposals.nms(
      np.stack([start, end, score], 1), threshold, plus_one, drop_equal
    )
    got = nms(start, end, score, threshold, plus_one, drop_equal)
    assert got.tolist() == expected


@pytest.mark.parametrize("way", ["rounds", "turn"])
def test_groups_do_not_touch_each_other(monkeypatch, way):
  monkeypatch.setattr(module, "_CROWDED", np.inf if way == "rounds" else -1)
  monkeypatch.setattr(module, "_CHUNK", 50)
  start, end, score = _segments(5)
  group = np.random.default_rng(0).integers(-2, 3, len(start))
  expected = []
  for name in np.unique(group):
    rows = np.flatnonzero(group == name)
    kept = nms(start[rows], end[rows], score[rows], 0.5)
    expected += rows[kept].tolist()
  got = nms(start, end, score, 0.5, group=group)
  assert sorted(got.tolist()) == sorted(expected)
  order = np.argsort(-score, kind="stable").tolist()
  assert got.tolist() == [n for n in order if n in set(expected)]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("drop_equal", [False, True])
@pytest.mark.parametrize("way", ["rounds", "turn"])
def test_segments_without_length_are_as_in_the_plain_loop(
  monkeypatch, threshold, drop_equal, way
):
  monkeypatch.setattr(module, "_CROWDED", np.inf if way == "rounds" else -1)
  start = np.array([3.0, 3.0, 8.0, 0.0, 0.0])
  end = np.array([3.0, 3.0, 8.0, 9.0, 9.0])
  score = np.array([5.0, 4, 3, 2, 1])
  expected = plain_proposals.nms(
    np.stack([start, end, score], 1), threshold, False, drop_equal
  )
  got = nms(start, end, score, threshold, drop_equal=drop_equal)
  assert got.tolist() == expected


def test_a_chain_is_undone_one_by_one():
  # Each overlaps the next by 8 of 12: the first drops the second, so that the
  # third stays, and so on.
  start = 2.0 * np.arange(101)
  got = nms(start, start + 10, -np.arange(101.0), 0.6)
  assert got.tolist() == list(range(0, 101, 2))


def test_thousands_of_nested_segments_stay_small(monkeypatch):
  # All pairs of one long and of many nested ones would be millions.
  built = []
  monkeypatch.setattr(
    module._Rivals, "pairs", lambda self: built.append(self) or iter(())
  )
  half = np.linspace(1, 100, 4000)
  nms(200 - half, 200 + half, np.random.default_rng(0).random(4000), 0.1)
  assert not built


def test_merge_and_results():
  def proposals(*rows):
    columns = list(zip(*rows, strict=True))
    return pr.Proposals(np.array(columns[0]), *np.array(columns[1:], float))

  ots = proposals((1, 0, 10, 0.5), (0, 0, 10, 0.25))
  rts = proposals((1, 0, 9, 0.75), (0, 20, 30, 0.25), (1, 8, 18, 0.125))
  # Class 1 keeps [0, 9] over [0, 10] (IoU 0.9); [8, 18] overlaps it by 1 of 18.
  # Class 0's [0, 10] does not meet class 1's; equal scores in source order.
  merged = pr.merge([ots, rts], 0.7)
  assert pr.to_results(merged, ["Jump", "Run"]) == [
    {"label": "Run", "score": 0.75, "segment": [0, 9]},
    {"label": "Jump", "score": 0.25, "segment": [0, 10]},
    {"label": "Jump", "score": 0.25, "segment": [20, 30]},
    {"label": "Run", "score": 0.125, "segment": [8, 18]},
  ]
  results = pr.to_results(merged, ["Jump", "Run"])
  assert json.loads(json.dumps(results)) == results
