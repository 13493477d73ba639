"""Proposals and NMS: small numbers by hand, random ones by plain loops."""

import json

import numpy as np
import pytest

from ptlr_jax import proposals as pr


def test_upsample_by_hand():
  # Factor 2: positions -0.25 (held at 0), 0.25, 0.75, 1.25 (held at 1).
  cas = np.array([[0.0, 8.0], [1.0, 4.0]], np.float32)
  up = pr.upsample(cas, 2)
  assert up.dtype == np.float32
  assert up.T.tolist() == [[0, 0.25, 0.75, 1], [8, 7, 5, 4]]
  # Factor 3: positions -1/3, 0, 1/3, 2/3, 1, 4/3, 5/3, 2, 7/3.
  up = pr.upsample(np.array([[0.0], [3.0], [6.0]]), 3)
  np.testing.assert_allclose(up[:, 0], [0, 0, 1, 2, 3, 4, 5, 6, 6], atol=1e-14)
  # One segment has nothing to go to; factor 1 changes nothing.
  assert pr.upsample(np.array([[0.3]])).tolist() == [[0.3]] * 24
  assert pr.upsample(cas, 1).tolist() == cas.tolist()
  assert pr.upsample(np.zeros((0, 5)), 24).shape == (0, 5)


def test_upsample_equals_interp():
  cas = np.random.default_rng(0).normal(size=(17, 3))
  position = (np.arange(17 * 24) + 0.5) / 24 - 0.5
  for c in range(3):
    expected = np.interp(position, np.arange(17), cas[:, c])
    np.testing.assert_allclose(pr.upsample(cas)[:, c], expected, atol=1e-12)


def test_class_proposals_by_hand():
  starts, ends, rows = pr.class_proposals(
    np.array([0.5, 0.1, 0.5, 0.9, 0.2]), [0.2, 0.5, 0.95, 0.0]
  )
  # >= 0.2: 0 and 2-4. >= 0.5: 0 and 2-3. >= 0.95: none. >= 0: the whole video.
  assert rows.tolist() == [0, 0, 1, 1, 3]
  assert starts.tolist() == [0, 2, 0, 2, 0]
  assert ends.tolist() == [1, 5, 1, 4, 5]


def test_outer_inner_contrast_by_hand():
  sequence = np.array([4, 4, 4, 4, 2, 0, 6, 6], np.float32)
  contrast = pr.outer_inner_contrast(
    sequence, np.array([0, 6, 4, 0, 2]), np.array([4, 8, 5, 8, 7])
  )
  expected = [
    4 - 2,  # at the start: 1 position outside, to the right
    6 - 0,  # at the end: half a position, so 1, to the left
    2 - (4 + 0) / 2,
    30 / 8 - 0,  # the whole video: nothing outside
    16 / 5 - (4 + 4 + 6) / 3,  # 1.25, so 2 a side, one of them past the end
  ]
  np.testing.assert_allclose(contrast, expected, atol=1e-14)
  # No ring: the mean inside.
  none = pr.outer_inner_contrast(sequence, np.array([4]), np.array([7]), 0.0)
  np.testing.assert_allclose(none, [8 / 3], atol=1e-14)
  # A ring of 0.1 of 30 is 3 positions, in spite of 0.1 * 30 > 3.
  step = np.repeat([0.0, 1.0, 1.0], [6, 4, 30])
  tenth = pr.outer_inner_contrast(step, np.array([10]), np.array([40]), 0.1)
  np.testing.assert_allclose(tenth, [0.0], atol=1e-14)


def _loop_propose(sequence, thresholds, ring, thresholded):
  """(start, end, contrast) of every run of every threshold, by plain loops."""
  found = []
  for threshold in thresholds:
    on = [value >= threshold for value in sequence]
    values = [
      value if keep or not thresholded else 0.0
      for value, keep in zip(sequence, on, strict=True)
    ]
    start = None
    for i in range(len(on) + 1):
      now = i < len(on) and on[i]
      if now and start is None:
        start = i
      if not now and start is not None:
        width = int(np.ceil(ring * (i - start)))
        outside = values[max(start - width, 0) : start] + values[i : i + width]
        mean = sum(outside) / len(outside) if outside else 0.0
        found.append((start, i, sum(values[start:i]) / (i - start) - mean))
        start = None
  return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("contrast", pr.CONTRASTS)
def test_propose_equals_loops(seed, contrast):
  rng = np.random.default_rng(seed)
  cas = rng.uniform(size=(int(rng.integers(1, 40)), 3))
  scores = rng.uniform(size=3)
  thresholds = np.arange(0, 0.51, 0.025)
  got = pr.propose(
    cas,
    scores,
    [2, 0],
    thresholds=thresholds,
    upsample_factor=4,
    seconds_per_segment=0.64,
    offset=1.5,
    contrast=contrast,
  )
  expected = []
  for label in (2, 0):
    sequence = pr.upsample(cas, 4)[:, label].tolist()
    runs = _loop_propose(sequence, thresholds, 0.25, contrast != "cas")
    if contrast == "cas":
      runs = sorted(set(runs))
    expected += [
      (label, 1.5 + 0.16 * start, 1.5 + 0.16 * end, value + 0.2 * scores[label])
      for start, end, value in runs
    ]
  np.testing.assert_allclose(np.stack(got, 1), expected, atol=1e-9)
  assert [part.dtype for part in got] == [np.int64] + [np.float64] * 3


def _propose(cas, thresholds, **options):
  return pr.propose(
    cas,
    np.array([0.5, 1.0]),
    [1],
    thresholds=thresholds,
    upsample_factor=1,
    seconds_per_segment=2.0,
    **options,
  )


def test_propose_by_hand():
  cas = np.array([[9, 0.4], [9, 0.8], [9, 0.2]])
  # Both thresholds give the second segment: 2 to 4 seconds, kept once.
  # Contrast 0.8 - (0.4 + 0.2) / 2, and 0.2 of the class score 1.
  found = _propose(cas, [0.5, 0.6])
  assert (found.label, found.start, found.end) == ([1], [2], [4])
  np.testing.assert_allclose(found.score, [0.5 + 0.2])
  # Thresholded: what is around it is below 0.5 and 0.6, and counts as 0. Under
  # 0.3 the first two segments are a run of mean 0.6 with 0 to its right.
  found = _propose(cas, [0.5, 0.6, 0.3], contrast="thresholded", offset=1)
  assert found.start.tolist() == [3, 3, 1]
  assert found.end.tolist() == [5, 5, 5]
  np.testing.assert_allclose(found.score, [1.0, 1.0, 0.8])


def test_threshold_zero_is_the_whole_video():
  found = _propose(np.array([[9, 0.1], [9, 0.0], [9, 0.5]]), [0.0])
  assert (found.start, found.end) == ([0], [6])
  np.testing.assert_allclose(found.score, [0.6 / 3 + 0.2])


def test_empty():
  for found in (
    _propose(np.zeros((0, 2)), [0.0, 0.5]),
    _propose(np.zeros((4, 2)), [0.5]),
    _propose(np.zeros((4, 2)), [0.5], contrast="thresholded"),
    pr.merge([], 0.5),
    pr.merge([_propose(np.zeros((4, 2)), [0.5])], 0.5),
  ):
    assert [part.shape for part in found] == [(0,)] * 4
    assert found.label.dtype == np.int64
    assert pr.to_results(found, ["Jump", "Run"]) == []
  none = np.zeros(0)
  assert pr.nms(none, none, none, 0.5).tolist() == []


def test_nms_by_hand():
  # IoU with the best [0, 10]: [1, 10] 0.9, [5, 15] 1/3.
  start, end = np.array([5, 0, 1]), np.array([15, 10, 10])
  score = np.array([0.7, 0.9, 0.8])
  assert pr.nms(start, end, score, 0.5).tolist() == [1, 0]
  assert pr.nms(start, end, score, 0.3).tolist() == [1]
  assert pr.nms(start, end, score, 0.95).tolist() == [1, 2, 0]
  # An IoU equal to the threshold (5 of 10) stays; equal scores in input order.
  start, end, score = np.array([0, 0]), np.array([5, 10]), np.array([1, 1])
  assert pr.nms(start, end, score, 0.5).tolist() == [0, 1]
  # [0, 1] and [1, 2] only touch; with the extra second they share 1 of 3.
  start, end = np.array([0, 1]), np.array([1, 2])
  assert pr.nms(start, end, score, 0.3).tolist() == [0, 1]
  assert pr.nms(start, end, score, 0.3, plus_one=True).tolist() == [0]


@pytest.mark.parametrize("extra", [0, 1])
def test_nms_equals_loops(extra):
  rng = np.random.default_rng(extra)
  start = rng.uniform(0, 30, 200)
  end = start + rng.uniform(0.1, 8, 200)
  score = rng.integers(0, 30, 200) / 30  # with ties
  kept = []
  for i in sorted(range(200), key=lambda i: -score[i]):
    for j in kept:
      inter = max(0, min(end[i], end[j]) - max(start[i], start[j]) + extra)
      both = end[i] - start[i] + end[j] - start[j] + 2 * extra
      if inter / (both - inter) > 0.4:
        break
    else:
      kept.append(i)
  assert pr.nms(start, end, score, 0.4, bool(extra)).tolist() == kept


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


def test_refuses():
  cas = np.zeros((4, 2))
  cas[3, 1] = np.nan
  with pytest.raises(ValueError, match=r"cas .*finite.* \(3, 1\)"):
    _propose(cas, [0.5])
  with pytest.raises(ValueError, match=r"2 axes, got shape \(4,\)"):
    pr.upsample(np.zeros(4))
  with pytest.raises(ValueError, match="factor of 1 or more, got 0"):
    pr.upsample(np.zeros((4, 2)), 0)
  with pytest.raises(ValueError, match=r"among .*thresholded.*got 'raw'"):
    _propose(np.zeros((4, 2)), [0.5], contrast="raw")
  with pytest.raises(ValueError, match=r"each of the 3 classes .* got 2"):
    _propose(np.zeros((4, 3)), [0.5])
  for classes in ([2], [-1], [True, False], [0.5]):
    with pytest.raises(ValueError, match=r"indexes in 0\.\.1"):
      pr.propose(
        np.zeros((4, 2)),
        np.zeros(2),
        np.array(classes),
        thresholds=[0.5],
        upsample_factor=1,
        seconds_per_segment=1.0,
      )
  with pytest.raises(ValueError, match=r"thresholds .*finite"):
    pr.class_proposals(np.zeros(4), [float("nan")])
  with pytest.raises(ValueError, match="0 <= start < end <= 4"):
    pr.outer_inner_contrast(np.zeros(4), np.array([2]), np.array([5]))
  with pytest.raises(ValueError, match="got 2, 1 and 1"):
    pr.nms(np.zeros(2), np.ones(1), np.ones(1), 0.5)
