"""Proposals and NMS: small numbers by hand, random ones by plain loops."""

import numpy as np
import plain_proposals
import pytest

from ptlr_jax.localization import proposals as pr
from ptlr_jax.localization.interpolation import upsampled
from ptlr_jax.localization.nms import nms


def upsample(cas, *options):
  """f[T,C] -> f[T*factor,C]."""
  return upsampled(cas, *options).values().T


def _runs(sequence, levels):
  """Starts, ends and level of the runs of one sequence."""
  found = pr.find_runs(upsampled(np.reshape(sequence, (-1, 1)), 1), levels)
  return found.start, found.end, found.row


def _contrast(sequence, starts, ends, *options):
  zero = np.zeros(len(starts), np.int64)
  found = pr.Runs(zero, zero, starts, ends)
  sums = upsampled(np.reshape(sequence, (-1, 1)), 1).sums()
  return pr.outer_inner_contrast(sums, found, *options)


def test_upsample_by_hand():
  # Factor 2: positions -0.25 (held at 0), 0.25, 0.75, 1.25 (held at 1).
  cas = np.array([[0.0, 8.0], [1.0, 4.0]], np.float32)
  up = upsample(cas, 2)
  assert up.T.tolist() == [[0, 0.25, 0.75, 1], [8, 7, 5, 4]]
  # Factor 3: positions -1/3, 0, 1/3, 2/3, 1, 4/3, 5/3, 2, 7/3.
  up = upsample(np.array([[0.0], [3.0], [6.0]]), 3)
  np.testing.assert_allclose(up[:, 0], [0, 0, 1, 2, 3, 4, 5, 6, 6], atol=1e-14)
  # One segment has nothing to go to; factor 1 changes nothing.
  assert upsample(np.array([[0.3]])).tolist() == [[0.3]] * 24
  assert upsample(cas, 1).tolist() == cas.tolist()


def test_upsample_equals_interp():
  cas = np.random.default_rng(0).normal(size=(17, 3))
  position = (np.arange(17 * 24) + 0.5) / 24 - 0.5
  for c in range(3):
    expected = np.interp(position, np.arange(17), cas[:, c])
    np.testing.assert_allclose(upsample(cas)[:, c], expected, atol=1e-12)


def test_class_proposals_by_hand():
  starts, ends, rows = _runs(
    np.array([0.5, 0.1, 0.5, 0.9, 0.2]), [0.2, 0.5, 0.95, 0.0]
  )
  # >= 0.2: 0 and 2-4. >= 0.5: 0 and 2-3. >= 0.95: none. >= 0: the whole video.
  assert rows.tolist() == [0, 0, 1, 1, 3]
  assert starts.tolist() == [0, 2, 0, 2, 0]
  assert ends.tolist() == [1, 5, 1, 4, 5]


def test_outer_inner_contrast_by_hand():
  sequence = np.array([4, 4, 4, 4, 2, 0, 6, 6], np.float32)
  contrast = _contrast(
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
  none = _contrast(sequence, np.array([4]), np.array([7]), 0.0)
  np.testing.assert_allclose(none, [8 / 3], atol=1e-14)
  # A ring of 0.55 of 100 is 55 positions, in spite of 0.55 * 100 > 55.
  step = np.repeat([0.0, 1.0, 1.0], [45, 55, 100])
  before = _contrast(step, np.array([100]), np.array([200]), 0.55)
  np.testing.assert_allclose(before, [0.0], atol=1e-14)
  # Down to the right, 0.29 of 100 is 29, in spite of 0.29 * 100 < 29.
  step = np.repeat([1.0, 0.0, 29.0, 0.0], [100, 28, 1, 9])
  after = _contrast(step, np.array([0]), np.array([100]), 0.29, "towards_start")
  np.testing.assert_allclose(after, [1 - 29 / 29], atol=1e-14)


def _walk(rng, length, classes):
  return rng.normal(size=(length, classes)).cumsum(0)


def _normed(cas):
  low, high = cas.min(0), cas.max(0)
  return (cas - low) / np.where(high > low, high - low, 1)


# Values on thresholds, plateaus, dips and peaks between two positions.
SHAPES = {
  "smooth": lambda rng, t: _normed(_walk(rng, t, 3)),
  "noise": lambda rng, t: rng.uniform(size=(t, 3)),
  "on thresholds": lambda rng, t: rng.integers(0, 9, (t, 3)) / 8,
  "plateaus": lambda rng, t: np.repeat(
    rng.integers(0, 5, (t // 4 + 1, 3)) / 4, 4, axis=0
  )[:t],
  "constant": lambda rng, t: np.full((t, 3), rng.integers(0, 3) / 4),
  "zigzag": lambda rng, t: (
    0.25 + (-1.0) ** np.arange(t)[:, None] * (rng.uniform(0, 0.02, (t, 3)))
  ),
  "below 0": lambda rng, t: _walk(rng, t, 3) / 4,
}
OPTIONS = {
  "default": {},
  "thresholded": {"contrast": "thresholded"},
  "left": {"grid": "left", "ring_rounding": "towards_start", "ring": 0.1},
  "basnet": {
    "contrast": "thresholded",
    "grid": "left",
    "ring_rounding": "towards_start",
    "positive_runs": True,
  },
  "positive": {"positive_runs": True, "ring": 1.0},
}


# Where a third or a fifth of the way lies on a threshold, rounding decides.
CASES = [
  (shape, factor)
  for shape in SHAPES
  for factor in (1, 2, 3, 4, 5, 24)
  if shape not in ("on thresholds", "plateaus") or factor in (1, 2, 4)
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("shape", "factor"), CASES)
def test_proposals_and_nms_are_those_of_the_plain_reading(
  shape, options, factor
):
  for seed, length in enumerate([1, 2, 7, 30]):
    rng = np.random.default_rng([seed, factor])
    cas, scores = SHAPES[shape](rng, length), rng.uniform(size=3)
    how = {
      # Eighths are hit exactly; 0.3 and 0.7 are not.
      "thresholds": [0.0, 0.125, 0.25, 0.3, 0.5, 0.7, 1.0],
      "upsample_factor": factor,
      "seconds_per_segment": 0.64,
      "offset": 1.5,
      **OPTIONS[options],
    }
    if shape == "below 0":
      how["thresholds"] = [-0.5, -0.1, 0.0, 0.01, 0.5]
    got = pr.propose(cas, scores, [2, 0], **how)
    expected = plain_proposals.propose(cas, scores, [2, 0], **how)
    rows = np.stack(got, 1)
    assert len(rows) == len(expected)
    if not len(expected):
      continue
    if "contrast" not in how:  # by class, start and end; [2, 0] is the order
      expected.sort(key=lambda row: (-row[0], row[1], row[2]))
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-9)
    # Equal scores up to rounding may come in another order after NMS; what is
    # kept of the others may not differ. So the scores of one are given to both.
    merged = pr.merge([got], 0.5)
    plain = plain_proposals.merge([tuple(row) for row in rows], 0.5)
    np.testing.assert_allclose(np.stack(merged, 1), plain, rtol=0, atol=1e-12)
  assert [part.dtype for part in got] == [np.int64] + [np.float64] * 3


@pytest.mark.parametrize("grid", ["centres", "left"])
@pytest.mark.parametrize("factor", [1, 2, 3, 24])
def test_runs_and_sums_are_those_of_the_sequence_itself(grid, factor):
  rng = np.random.default_rng(factor)
  for _ in range(30):
    cas = rng.integers(0, 7, (int(rng.integers(1, 30)), 2)) / 8
    cas += rng.choice([0, 1e-17, 1e-9, 0.1]) * rng.normal(size=cas.shape)
    whole = upsampled(cas, factor, grid)
    values = whole.values()
    levels = np.append(rng.choice(values.ravel(), 5), [0, 0.5])
    found = pr.find_runs(whole, levels)
    on = np.zeros((2 * len(levels), whole.size), bool)
    for _, row, start, end in zip(*found, strict=True):
      assert not on[row, max(start - 1, 0) : end].any()  # apart from others
      on[row, start:end] = True
    above = values[:, None] >= levels[:, None]
    np.testing.assert_array_equal(on.reshape(above.shape), above)
    sums = whole.sums()
    a, b = np.sort(rng.integers(0, whole.size + 1, (2, 20)), axis=0)
    for c in (0, 1):
      row = np.full(20, c)
      np.testing.assert_allclose(
        sums.until(row, b) - sums.until(row, a),
        [values[c, i:j].sum() for i, j in zip(a, b, strict=True)],
        atol=1e-11,
      )


@pytest.mark.parametrize("options", OPTIONS)
def test_a_class_among_others_is_the_class_alone_to_the_last_bit(options):
  # Else what other classes and thresholds sum up to costs digits.
  rng = np.random.default_rng(0)
  cas, scores = 1e3 * rng.uniform(size=(80, 12)), rng.uniform(size=12)
  how = {
    "thresholds": np.arange(21) * 40.0,
    "upsample_factor": 24,
    "seconds_per_segment": 0.64,
    **OPTIONS[options],
  }
  every = pr.propose(cas, scores, np.arange(12), **how)
  for c in range(12):
    alone = pr.propose(cas, scores, [c], **how)
    for one, all_of_them in zip(alone, every, strict=True):
      np.testing.assert_array_equal(one, all_of_them[every.label == c])


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
    pr.propose(
      np.zeros((4, 2)),
      np.zeros(2),
      [],
      thresholds=[0.0],
      upsample_factor=1,
      seconds_per_segment=1.0,
    ),
  ):
    assert [part.shape for part in found] == [(0,)] * 4
    assert found.label.dtype == np.int64
    assert pr.to_results(found, ["Jump", "Run"]) == []
  none = np.zeros(0)
  assert nms(none, none, none, 0.5).tolist() == []


def test_refuses():
  cas = np.zeros((4, 2))
  cas[3, 1] = np.nan
  with pytest.raises(ValueError, match=r"cas .*finite.* \(3, 1\)"):
    _propose(cas, [0.5])
  with pytest.raises(ValueError, match=r"2 axes, got shape \(4,\)"):
    upsample(np.zeros(4))
  with pytest.raises(ValueError, match="factor of 1 or more, got 0"):
    upsample(np.zeros((4, 2)), 0)
  with pytest.raises(KeyError, match="raw"):
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
    _runs(np.zeros(4), [float("nan")])
  with pytest.raises(ValueError, match="0 <= start < end <= 4"):
    _contrast(np.zeros(4), np.array([2]), np.array([5]))
  with pytest.raises(ValueError, match="got 2, 1 and 1"):
    nms(np.zeros(2), np.ones(1), np.ones(1), 0.5)
