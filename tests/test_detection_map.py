"""AP of small cases by hand, random ones by loops, real ones as published."""

import json
import pathlib
import time

import numpy as np
import pytest

from ptlr_jax import detection_map as dm

DETECTIONS = pathlib.Path(__file__).parents[1] / "../shared/data/detections"


def _ap(scores, videos, segments, gt_videos, gt_segments, tious=(0.5,)):
  arrays = (
    np.array(scores, float),
    np.array(videos, int),
    np.array(segments, float).reshape(-1, 2),
    np.array(gt_videos, int),
    np.array(gt_segments, float).reshape(-1, 2),
  )
  return dm.average_precision(*arrays, tious).tolist()


def _loop_ap(scores, videos, segments, gt_videos, gt_segments, tious):
  """The evaluator as plain loops; only without ties."""
  result = []
  for tiou in tious:
    used, flags = set(), []
    for p in sorted(range(len(scores)), key=lambda p: -scores[p]):
      overlaps = []
      for g in range(len(gt_videos)):
        if gt_videos[g] == videos[p]:
          (s, e), (a, b) = segments[p], gt_segments[g]
          inter = max(0.0, min(e, b) - max(s, a))
          overlaps.append((inter / ((b - a) + (e - s) - inter), g))
      flags.append(False)
      for overlap, g in sorted(overlaps, reverse=True):
        if overlap < tiou:
          break
        if g not in used:
          used.add(g)
          flags[-1] = True
          break
    recall, precision, hits = [0.0], [0.0], 0
    for p, flag in enumerate(flags):
      hits += flag
      recall.append(hits / len(gt_videos))
      precision.append(hits / (p + 1))
    recall.append(1.0)
    precision.append(0.0)
    area = 0.0
    for p in range(1, len(recall)):
      area += (recall[p] - recall[p - 1]) * max(precision[p:])
    result.append(area)
  return result


def _random_case(seed):
  rng = np.random.default_rng(seed)
  found, truths = int(rng.integers(1, 60)), int(rng.integers(1, 20))
  start = rng.uniform(0, 20, found)
  gt_start = rng.uniform(0, 20, truths)
  return (
    rng.uniform(size=found),
    rng.integers(0, 4, found),
    np.stack([start, start + rng.uniform(0.5, 8, found)], 1),
    rng.integers(0, 3, truths),
    np.stack([gt_start, gt_start + rng.uniform(0.5, 8, truths)], 1),
  )


def test_average_precision_by_hand():
  # Hit, miss, hit of two: precisions 1, 1/2, 2/3; 1/2 x 1 + 1/2 x 2/3 = 5/6.
  segments = [[0, 10], [50, 60], [20, 30]]
  truths = [[0, 10], [20, 30]]
  assert _ap([0.9, 0.8, 0.7], [0, 0, 0], segments, [0, 0], truths) == (
    pytest.approx([5 / 6], abs=1e-15)
  )
  # Misses first: precisions 0, 1/2, 2/3; the envelope lifts 1/2 to 2/3.
  assert _ap([0.7, 0.9, 0.8], [0, 0, 0], segments, [0, 0], truths) == (
    pytest.approx([2 / 3], abs=1e-15)
  )
  # The same detections in another video are all false.
  assert _ap([0.9, 0.8, 0.7], [1, 1, 1], segments, [0, 0], truths) == [0.0]


def test_second_detection_of_a_ground_truth():
  # Both overlap [0, 10] best (0.9, 0.8). At tIoU 0.1 the second goes on to the
  # free [4, 14] (it overlaps 4 of 14: 0.29): AP 1. At 0.5 it is false: of two
  # ground truths one is found, at precision 1: AP 1/2.
  ap = _ap(
    [0.9, 0.8],
    [0, 0],
    [[0, 9], [0, 8]],
    [0, 0],
    [[0, 10], [4, 14]],
    (0.1, 0.5),
  )
  assert ap == [1.0, 0.5]


def test_overlap_equal_to_the_threshold_is_a_hit():
  assert _ap([1], [0], [[0, 5]], [0], [[0, 10]], (0.5, 0.51)) == [1.0, 0.0]


def test_ties():
  # Equal scores: the first in the input goes first, so hit before miss, not
  # the other way round (1 and not 1/2).
  assert _ap([1, 1], [0, 0], [[0, 1], [5, 6]], [0], [[0, 1]]) == [1.0]
  assert _ap([1, 1], [0, 0], [[5, 6], [0, 1]], [0], [[0, 1]]) == [0.5]
  # [0, 4] overlaps [0, 2] and [2, 4] by 1/2 each. It takes the last, and the
  # second detection finds its own [0, 2]; with the two exchanged it does not.
  found = [1, 0.9], [0, 0], [[0, 4], [0, 2]], [0, 0]
  assert _ap(*found, [[0, 2], [2, 4]]) == [1.0]
  assert _ap(*found, [[2, 4], [0, 2]]) == [0.5]


def test_nothing_and_zero_length():
  assert _ap([], [], [], [0], [[0, 1]]) == [0.0]
  assert np.isnan(_ap([1], [0], [[0, 1]], [], [])).all()
  # No length on either side: no overlap, and no division by zero.
  assert _ap([1], [0], [[3, 3]], [0], [[3, 3]]) == [0.0]
  assert _ap([2, 1], [0, 0], [[3, 3], [0, 9]], [0], [[0, 9]]) == [0.5]
  assert dm.temporal_iou(np.array([[5, 2]]), np.array([[0, 9]])) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_equals_loops(seed):
  case = _random_case(seed)
  tious = (0.1, 0.3, 0.5, 0.75)
  np.testing.assert_allclose(
    dm.average_precision(*case, tious), _loop_ap(*case, tious), atol=1e-12
  )


def test_order_of_input_does_not_matter_without_ties():
  scores, videos, segments, gt_videos, gt_segments = _random_case(7)
  rng = np.random.default_rng(0)
  expected = _ap(scores, videos, segments, gt_videos, gt_segments, (0.1, 0.5))
  for _ in range(5):
    p = rng.permutation(len(scores))
    g = rng.permutation(len(gt_videos))
    found = scores[p], videos[p], segments[p], gt_videos[g], gt_segments[g]
    assert _ap(*found, (0.1, 0.5)) == expected


def _truth(label, start, end):
  return {"label": label, "segment": [start, end]}


def test_detection_map_by_hand():
  truth = {
    "u": {"annotations": [_truth("Jump", "0", "10"), _truth("Run", 0, 4)]},
    "v": {"annotations": []},
  }
  found = {
    # 8 of 10 seconds: a hit up to tIoU 0.8; then 1 of 1, 0 above.
    "u": [
      {**_truth("Jump", 0, 8), "score": 2.0},
      {**_truth("Swim", 0, 8), "score": 9.0},
    ],
    # Before it a false one in a video the ground truth does not have: 1/2.
    "w": [{**_truth("Jump", 0, 8), "score": 3.0}],
  }
  result = dm.detection_map(truth, found, "thumos14")
  half = {f"0.{i}0": 0.5 if i <= 8 else 0.0 for i in range(1, 10)}
  assert result["per_class"] == {"Jump": half, "Run": dict.fromkeys(half, 0.0)}
  assert result["mAP"] == {tiou: ap / 2 for tiou, ap in half.items()}
  assert result["averages"] == pytest.approx(
    # 8 of 9 thresholds at 1/4.
    {"0.1:0.5": 0.25, "0.3:0.7": 0.25, "0.1:0.7": 0.25, "0.1:0.9": 2 / 9}
  )
  assert result["ignored"] == {"Swim": 1}
  assert result["unknown_videos"] == {"w": 1}
  assert json.loads(json.dumps(result)) == result
  assert dm.format_table([("ours", result)], "thumos14").splitlines() == [
    "tIoU   0.1   0.2   0.3   0.4   0.5   0.6   0.7   0.8  0.9"
    "  0.1:0.5  0.3:0.7  0.1:0.7  0.1:0.9",
    "ours  25.0  25.0  25.0  25.0  25.0  25.0  25.0  25.0  0.0"
    "     25.0     25.0     25.0     22.2",
  ]


def test_a_ground_truth_written_twice_counts_twice():
  # As the official evaluator: one detection finds one of the two.
  truth = {"u": {"annotations": [_truth("Jump", 0, 10)] * 2}}
  found = {"u": [{**_truth("Jump", 0, 10), "score": 1}]}
  assert dm.detection_map(truth, found, "activitynet")["mAP"]["0.50"] == 0.5


def test_refuses():
  truth = {"u": {"annotations": [_truth("Jump", 0, 1)]}}
  with pytest.raises(ValueError, match=r"\['activitynet', 'thumos14'\]"):
    dm.detection_map(truth, {}, "kinetics")
  with pytest.raises(ValueError, match="its 'database'"):
    dm.detection_map({"database": truth}, {}, "thumos14")
  with pytest.raises(ValueError, match="its 'results'"):
    dm.detection_map(truth, {"results": {"u": []}}, "thumos14")
  nan = [{**_truth("Jump", 0, 1), "score": float("nan")}]
  with pytest.raises(ValueError, match=r"u: .*not finite"):
    dm.detection_map(truth, {"u": nan}, "thumos14")
  with pytest.raises(ValueError, match="1 videos with none"):
    dm.detection_map({"u": {"annotations": []}}, {}, "thumos14")
  result = dm.detection_map(truth, {}, "thumos14")
  with pytest.raises(ValueError, match=r"ours: expected .*activitynet"):
    dm.format_table([("ours", result)], "activitynet")


def _per_class(result, classes):
  return np.array(
    [[result["per_class"][c][k] for c in classes] for k in result["mAP"]]
  )


@pytest.mark.skipif(
  not DETECTIONS.is_dir(), reason=f"no real detections at {DETECTIONS}"
)
@pytest.mark.parametrize(
  ("name", "protocol", "tied"),
  [
    ("anet13_montes2016", "activitynet", 0),
    ("thumos14_autoloc", "thumos14", 0),
    ("thumos14_stpn", "thumos14", 5),
  ],
)
def test_published_detections(name, protocol, tied):
  def read(file):
    return json.loads((DETECTIONS / name / file).read_text())

  expected = read("expected.json")
  truth, found = read("gt.json")["database"], read("pred.json")["results"]
  begin = time.perf_counter()
  result = dm.detection_map(truth, found, protocol)
  # About 0.12 s for 20,000 detections; far from it, something is quadratic.
  assert time.perf_counter() - begin < 2
  assert expected["tiou"] == list(dm.PROTOCOLS[protocol].tious)
  assert list(result["per_class"]) == expected["classes"]
  ap = _per_class(result, expected["classes"])
  error = np.abs(ap - expected["official_AP_tiou_by_class"])
  # The official order of equal overlaps is arbitrary. What hangs on it shows
  # when the ground truths come in the opposite order.
  turned = {
    video: {"annotations": entry["annotations"][::-1]}
    for video, entry in truth.items()
  }
  other = dm.detection_map(turned, found, protocol)
  ties = np.abs(ap - _per_class(other, expected["classes"])) > 1e-9
  assert ties.sum() == tied
  assert error[~ties].max() < 1e-9
  assert error.max() < (0.01 if tied else 1e-9)
  means = np.abs(np.array([*result["mAP"].values()]) - expected["official_mAP"])
  assert means.max() < (3e-4 if tied else 1e-9)
