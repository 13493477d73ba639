"""Overlaps, ranks and matches: small numbers by hand, random ones by loops."""

import numpy as np
import pytest

from ptlr_jax.evaluation import matching
from ptlr_jax.evaluation.instances import Detections, Truth


def truth(rows, videos=("u", "v"), labels=("a", "b"), duration=np.nan):
  """Of rows (video, label, start, end)."""
  video, label, start, end = np.array(rows, float).reshape(-1, 4).T
  durations = np.full(len(videos), duration)
  return Truth(
    videos, labels, video.astype(int), label.astype(int), start, end, durations
  )


def found(rows, videos=("u", "v")):
  """Of rows (video, label, start, end, score)."""
  video, label, start, end, score = np.array(rows, float).reshape(-1, 5).T
  video, label = video.astype(int), label.astype(int)
  return Detections(videos, video, label, start, end, score, {}, {})


def _matches(detections, instances, tious=(0.5,)):
  """Instance of each detection, in the order of rank."""
  ranked = detections.take(matching.rank(detections))
  pairs = matching.overlapping(ranked, instances, min(tious))
  sizes = len(ranked.video), len(instances.video)
  return matching.matches(pairs, tious, *sizes)


def test_overlap_by_hand():
  start, end = np.array([0, 0, 5, 3, 3.0]), np.array([10, 5, 15, 3, 3.0])
  iou = matching.temporal_iou(start, end, np.array(0.0), np.array(10.0))
  assert iou.tolist() == [1.0, 0.5, 5 / 15, 0.0, 0.0]
  # 0 / 0, as in the official code, is above everything.
  assert matching.temporal_iou(start[3:], end[3:], start[3], end[3])[0] == (
    np.inf
  )


def test_equal_scores_go_by_video_then_start_then_end():
  rows = [
    (0, 0, 5, 9, 1),
    (0, 0, 5, 8, 1),
    (1, 0, 0, 9, 1),
    (0, 0, 1, 9, 1),
    (0, 0, 9, 9, 2),
    (0, 1, 0, 9, 3),
  ]
  # Video 0 is called "z", so that video 1 comes first.
  order = matching.rank(found(rows, ("z", "a")))
  assert order.tolist() == [4, 2, 3, 1, 0, 5]
  turned = matching.rank(found(rows, ("z", "a")), ties=matching.REVERSED)
  assert turned.tolist() == [4, 0, 1, 3, 2, 5]


def test_of_equal_overlaps_the_later_instance_is_taken():
  # [0, 4] overlaps [0, 2] and [2, 4] by 1/2 each: it takes the later, and the
  # second finds its own [0, 2].
  for rows in ([(0, 0, 0, 2), (0, 0, 2, 4)], [(0, 0, 2, 4), (0, 0, 0, 2)]):
    ours = _matches(found([(0, 0, 0, 4, 1), (0, 0, 0, 2, 0.9)]), truth(rows))
    assert (ours >= 0).tolist() == [[True, True]]


def test_a_second_detection_goes_on_to_what_is_free():
  # Both overlap [0, 10] best (0.9, 0.8). At 0.1 the second goes on to [4, 14]
  # (4 of 14); at 0.5 it has nothing.
  ours = _matches(
    found([(0, 0, 0, 9, 0.9), (0, 0, 0, 8, 0.8)]),
    truth([(0, 0, 0, 10), (0, 0, 4, 14)]),
    (0.1, 0.5),
  )
  assert ours.tolist() == [[0, 1], [0, -1]]


def test_an_overlap_equal_to_the_threshold_is_a_match():
  ours = _matches(found([(0, 0, 0, 5, 1)]), truth([(0, 0, 0, 10)]), (0.5, 0.51))
  assert ours.tolist() == [[0], [-1]]


def test_videos_and_classes_do_not_meet():
  rows = [(1, 0, 0, 9, 1), (0, 1, 0, 9, 1)]
  assert (_matches(found(rows), truth([(0, 0, 0, 9)])) < 0).all()
  pairs = matching.overlapping(
    found(rows), truth([(0, 0, 0, 9)]), 0.5, same_label=False
  )
  assert pairs.detection.tolist() == [1]


def _greedy(detections, instances, tiou):
  """The rule as loops, detections as they come."""
  taken, result = set(), []
  columns = detections.video, detections.label, detections.start, detections.end
  for video, label, start, end in zip(*columns, strict=True):
    best = []
    for g in range(len(instances.video)):
      if (instances.video[g], instances.label[g]) == (video, label):
        a, b = instances.start[g], instances.end[g]
        overlap = matching.temporal_iou(start, end, a, b)
        best.append((float(overlap), a, b, g))
    best.sort(reverse=True)
    chosen = -1
    for overlap, *_, g in best:
      if overlap >= tiou and g not in taken:
        taken.add(g)
        chosen = g
        break
    result.append(chosen)
  return result


@pytest.mark.parametrize("seed", range(40))
def test_matches_equal_the_greedy_loops(seed):
  # Few places and lengths, so that instances are fought over, ties abound and
  # some have no length.
  rng = np.random.default_rng(seed)
  d, g = int(rng.integers(1, 60)), int(rng.integers(1, 25))
  start, at = rng.integers(0, 12, d), rng.integers(0, 12, g)
  detections = found(
    np.stack(
      [
        rng.integers(0, 2, d),
        rng.integers(0, 2, d),
        start,
        start + rng.integers(0, 9, d),
        rng.integers(0, 9, d),
      ],
      1,
    )
  )
  instances = truth(
    np.stack(
      [
        rng.integers(0, 2, g),
        rng.integers(0, 2, g),
        at,
        at + rng.integers(0, 9, g),
      ],
      1,
    )
  )
  tious = (0.05, 0.3, 0.5, 0.75, 1.0)
  ranked = detections.take(matching.rank(detections))
  for k, row in enumerate(_matches(detections, instances, tious)):
    expected = _greedy(ranked, instances, tious[k])
    # Which of two instances written twice is taken does not matter.
    spans = [
      (instances.start[i], instances.end[i]) if i >= 0 else None for i in row
    ]
    assert spans == [
      (instances.start[i], instances.end[i]) if i >= 0 else None
      for i in expected
    ]


def test_a_chain_of_instances_that_is_pushed_along_ends():
  # Detection n overlaps instance n best and n + 1 next; the first in rank takes
  # the last place, so that each round sends one further.
  n = 200
  rows = [(0, 0, 10 * i + 4, 10 * i + 14, n - i) for i in range(n)]
  rows.append((0, 0, 4, 14, 2 * n))
  ours = _matches(
    found(rows),
    truth([(0, 0, 10 * i, 10 * i + 10) for i in range(n + 1)]),
    (0.2,),
  )
  assert sorted(ours[0].tolist()) == list(range(n + 1))


def test_pairs_come_in_parts_as_in_one(monkeypatch):
  rng = np.random.default_rng(0)
  start = rng.uniform(0, 50, 300)
  rows = np.stack(
    [rng.integers(0, 2, 300), rng.integers(0, 2, 300), start, start + 9, start],
    1,
  )
  instances = truth(rows[:40, :4])
  whole = matching.overlapping(found(rows), instances, 0.1)
  monkeypatch.setattr(matching, "_CHUNK", 7)
  for ours, expected in zip(
    matching.overlapping(found(rows), instances, 0.1), whole, strict=True
  ):
    np.testing.assert_array_equal(ours, expected)


def test_nothing_meets_nothing():
  for detections, instances in (
    (found([]), truth([(0, 0, 0, 1)])),
    (found([(0, 0, 0, 1, 1)]), truth([])),
    (found([(1, 0, 0, 1, 1)]), truth([(0, 0, 0, 1)])),
  ):
    assert (_matches(detections, instances) < 0).all()
