"""Resampled videos: the weighted AP is that of copies, intervals behave."""

import numpy as np
import pytest
from evaluation_cases import detection, instance, random_case, scored

from ptlr_jax.evaluation import bootstrap


def _copies(videos, weights):
  """Each video as often as it was drawn, under other names."""
  return {
    f"{video} {n}": items
    for (video, items), weight in zip(videos.items(), weights, strict=True)
    for n in range(weight)
  }


def _flags(truth, results, ambiguous):
  """The flag of each detection of a class that the truth has."""
  labels = {x["label"] for items in truth.values() for x in items}
  found = [
    x["flag"]
    for items in results.values()
    for x in items
    if x["label"] in labels
  ]
  return np.array(found) if ambiguous else None


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("ambiguous", [False, True])
def test_weights_are_copies_of_videos(seed, ambiguous):
  # Distinct scores: copies tie among themselves only.
  truth, results = random_case(seed)
  rng = np.random.default_rng(seed)
  for items in results.values():
    for item in items:
      item["flag"] = bool(rng.random() < 0.3)
  ours = scored(truth, results, ambiguous=_flags(truth, results, ambiguous))
  weights = rng.integers(0, 4, len(truth))
  if not any(w and truth[v] for v, w in zip(truth, weights, strict=True)):
    weights[:] = 1
  copies, found = _copies(truth, weights), _copies(results, weights)
  flags = _flags(copies, found, ambiguous)
  expected = scored(copies, found, ambiguous=flags).mean
  got = bootstrap.resampled_map(ours, weights[None].astype(np.uint16))
  np.testing.assert_allclose(got[0], expected, atol=1e-12)


def test_once_each_is_the_map_itself_in_any_parts(monkeypatch):
  truth, results = random_case(3)
  ours = scored(truth, results)
  ones = np.ones((5, len(ours.found.videos)), np.uint16)
  np.testing.assert_allclose(
    bootstrap.resampled_map(ours, ones), np.tile(ours.mean, (5, 1)), atol=1e-12
  )
  draws = bootstrap.draws(len(ours.found.videos), 40, 1)
  whole = bootstrap.resampled_map(ours, draws)
  monkeypatch.setattr(bootstrap, "_CHUNK", 3)
  np.testing.assert_allclose(
    bootstrap.resampled_map(ours, draws), whole, atol=1e-12
  )


def test_draws_take_as_many_videos_and_hang_on_the_seed_alone():
  draws = bootstrap.draws(50, 20, 7)
  assert (draws.sum(1) == 50).all()
  np.testing.assert_array_equal(draws, bootstrap.draws(50, 20, 7))
  assert (draws != bootstrap.draws(50, 20, 8)).any()


def test_interval_of_a_normal_figure_and_of_a_constant():
  values = np.random.default_rng(0).normal(2, 1, 20_000)
  low, high = bootstrap.interval(values, 2.0)
  assert (low, high) == pytest.approx((0.04, 3.96), abs=0.06)
  # However far off the resamples lie, the figure is in the middle.
  assert bootstrap.interval(values + 9, 2.0) == pytest.approx([low, high])
  assert bootstrap.interval(np.full(100, 0.3), 0.3) == pytest.approx([0.3, 0.3])
  assert bootstrap.interval(np.append(values, np.nan), 2.0)[0] < 0.1


def test_resamples_of_few_videos_a_class_lie_high_and_intervals_do_not():
  # 40 classes, a video or two each: copies lift the mAP of resamples.
  truth, results = random_case(0, videos=60, classes=40)
  ours = scored(truth, results)
  weights = bootstrap.draws(len(ours.found.videos), 200, 0)
  maps = bootstrap.resampled_map(ours, weights)
  assert maps.mean(0)[0] > ours.mean[0]
  found = list(bootstrap.intervals(ours, maps).values())
  for figure, (low, high) in zip(ours.mean, found, strict=False):
    assert 0 <= low <= figure <= high <= 1


def test_intervals_hold_the_figure_and_shrink_with_more_videos():
  widths = []
  for videos in (20, 320):
    truth, results = random_case(5, videos=videos)
    ours = scored(truth, results)
    weights = bootstrap.draws(len(ours.found.videos), 300, 0)
    found = bootstrap.intervals(ours, bootstrap.resampled_map(ours, weights))
    assert list(found)[:1] == ["0.10"]
    assert list(found)[-1] == "0.1:0.9"
    low, high = found["0.50"]
    assert low <= ours.mean[4] <= high
    widths.append(high - low)
  assert widths[1] < 0.5 * widths[0]


def test_a_file_compared_with_itself_and_with_a_better_one():
  truth, results = random_case(6, videos=200)
  # Nothing in three of four videos, and one where only this file has any.
  worse = {v: results[v] if n % 4 == 0 else [] for n, v in enumerate(results)}
  worse["elsewhere"] = [detection("c0", 0, 1, 0.5)]
  first, second = bootstrap.together(
    scored(truth, results), scored(truth, worse)
  )
  assert first.found.videos == second.found.videos
  weights = bootstrap.draws(len(first.found.videos), 300, 0)
  maps = [bootstrap.resampled_map(x, weights) for x in (first, second)]
  same = bootstrap.compare(first, first, maps[0], maps[0])
  assert same["0.50"] == {
    "difference": 0.0,
    "interval": [0.0, 0.0],
    "first_better": 0.0,
  }
  found = bootstrap.compare(first, second, *maps)["0.1:0.7"]
  assert found["difference"] == pytest.approx(
    (first.mean - second.mean)[:7].mean()
  )
  low, high = found["interval"]
  assert 0 < low < found["difference"] < high
  assert found["first_better"] > 0.95


def test_a_class_without_instances_in_a_resample_is_not_in_its_mean():
  truth = {"u": [instance("a", 0, 9)], "v": [instance("b", 0, 9)]}
  results = {"u": [detection("a", 0, 9, 1)]}
  ours = scored(truth, results)
  weights = np.array([[1, 1], [2, 0], [0, 2]], np.uint16)
  got = bootstrap.resampled_map(ours, weights)[:, 0]
  assert got.tolist() == [0.5, 1.0, 0.0]
