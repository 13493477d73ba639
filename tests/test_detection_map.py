"""AP of small cases by hand, real ones as published, tables."""

import json
import pathlib

import numpy as np
import pytest

from ptlr_jax.evaluation import mean_ap as dm
from ptlr_jax.evaluation.protocols import PROTOCOLS

DETECTIONS = pathlib.Path(__file__).parents[1] / "../shared/data/detections"


def _ap(scores, videos, segments, gt_videos, gt_segments, tiou="0.50"):
  """AP of the only class; videos are numbers."""
  truth: dict = {f"{n}": {"annotations": []} for n in {*gt_videos}}
  for n, segment in zip(gt_videos, gt_segments, strict=True):
    truth[f"{n}"]["annotations"].append({"label": "a", "segment": segment})
  found: dict = {}
  for score, n, segment in zip(scores, videos, segments, strict=True):
    found.setdefault(f"{n}", []).append(
      {"label": "a", "segment": segment, "score": score}
    )
  return dm.detection_map(truth, found, "thumos14")["per_class"]["a"][tiou]


def test_average_precision_by_hand():
  # Hit, miss, hit of two: precisions 1, 1/2, 2/3; 1/2 x 1 + 1/2 x 2/3 = 5/6.
  segments = [[0, 10], [50, 60], [20, 30]]
  truths = [[0, 10], [20, 30]]
  assert _ap([0.9, 0.8, 0.7], [0, 0, 0], segments, [0, 0], truths) == (
    pytest.approx(5 / 6, abs=1e-15)
  )
  # Misses first: precisions 0, 1/2, 2/3; the envelope lifts 1/2 to 2/3.
  assert _ap([0.7, 0.9, 0.8], [0, 0, 0], segments, [0, 0], truths) == (
    pytest.approx(2 / 3, abs=1e-15)
  )
  # The same detections in another video are all false.
  assert _ap([0.9, 0.8, 0.7], [1, 1, 1], segments, [0, 0], truths) == 0.0


def test_a_detection_without_length_as_in_the_official_code():
  # 0 / 0 passes every threshold, wherever the two are.
  assert _ap([1], [0], [[3, 3]], [0], [[7, 7]], "0.90") == 1.0
  # Against an instance with length it overlaps by 0, and comes first here.
  assert _ap([2, 1], [0, 0], [[3, 3], [0, 9]], [0], [[0, 9]]) == 0.5
  assert _ap([1], [0], [[0, 9]], [0], [[3, 3]], "0.10") == 0.0


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
  assert result["without_detections"] == {"classes": ["Run"], "videos": ["v"]}
  assert result["counts"] == {
    "videos": 2,
    "classes": 2,
    "instances": 2,
    "detections": 2,
  }
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
  result = dm.detection_map(truth, found, "activitynet")
  assert result["mAP"]["0.50"] == 0.5
  assert result["written_twice"] == 1


def test_thumos14_leaves_the_two_disputed_videos_out():
  here = {"annotations": [_truth("Jump", 0, 10)]}
  truth = {"video_test_0000270": here, "video_test_0001496": here, "u": here}
  found = {v: [{**_truth("Jump", 0, 10), "score": 1}] for v in truth}
  counts = {}
  for name in ("thumos14", "thumos14-212", "thumos14-snippet"):
    result = dm.detection_map(truth, found, name)
    counts[name] = result["counts"]["instances"], result["mAP"]["0.50"]
  # Detections there are false positives, as in any video that is not scored;
  # by the rule of ties the two disputed ones come after "u".
  assert counts["thumos14-212"] == counts["thumos14-snippet"] == (3, 1.0)
  assert counts["thumos14"] == (1, 1.0)
  assert list(dm.detection_map(truth, found, "thumos14")["unknown_videos"]) == [
    "video_test_0000270",
    "video_test_0001496",
  ]


def test_snippets_are_rounded_and_detections_are_not():
  # 0.9 to 6.2 s is 1.41 to 9.69 segments: 1 to 10. A detection of 1 to 10
  # segments fits exactly; one of 0.9 to 6.2 s overlaps 8.28 of 9.
  truth = {"u": {"annotations": [_truth("Jump", 0.9, 6.2)]}}
  for segment, last in (([0.64, 6.4], 0.9), ([0.9, 6.2], 0.9)):
    found = {"u": [{"label": "Jump", "segment": segment, "score": 1}]}
    result = dm.detection_map(truth, found, "thumos14-snippet")
    assert result["mAP"][f"{last:.2f}"] == 1.0
  # Half a segment rounds to the even one: 2.5 segments to 2, as Python does.
  truth = {"u": {"annotations": [_truth("Jump", 0, 1.6)]}}
  found = {"u": [{**_truth("Jump", 0, 1.28), "score": 1}]}
  assert dm.detection_map(truth, found, "thumos14-snippet")["mAP"]["0.90"] == 1
  # 0.2 s is no segment at all; it cannot be found, and counts.
  truth = {
    "u": {"annotations": [_truth("Jump", 0, 1.6), _truth("Jump", 5, 5.2)]}
  }
  result = dm.detection_map(truth, found, "thumos14-snippet")
  assert result["mAP"]["0.10"] == 0.5
  assert result["zero_length"] == {"instances": {"u": 1}, "detections": {}}


def test_refuses():
  truth = {"u": {"annotations": [_truth("Jump", 0, 1)]}}
  with pytest.raises(ValueError, match=r"\['activitynet', 'thumos14'"):
    dm.detection_map(truth, {}, "kinetics")
  with pytest.raises(ValueError, match="its 'database'"):
    dm.detection_map({"database": truth}, {}, "thumos14")
  with pytest.raises(ValueError, match="its 'results'"):
    dm.detection_map(truth, {"results": {"u": []}}, "thumos14")
  nan = [{**_truth("Jump", 0, 1), "score": float("nan")}]
  with pytest.raises(ValueError, match=r"u: detection 0: .*finite"):
    dm.detection_map(truth, {"u": nan}, "thumos14")
  with pytest.raises(ValueError, match="1 videos with none"):
    dm.detection_map({"u": {"annotations": []}}, {}, "thumos14")
  result = dm.detection_map(truth, {}, "thumos14")
  with pytest.raises(ValueError, match=r"ours: expected .*activitynet"):
    dm.format_table([("ours", result)], "activitynet")


@pytest.mark.skipif(
  not DETECTIONS.is_dir(), reason=f"no real detections at {DETECTIONS}"
)
@pytest.mark.parametrize(
  ("name", "protocol", "differ"),
  [
    ("anet13_montes2016", "activitynet", set()),
    ("thumos14_autoloc", "thumos14", set()),
    (
      "thumos14_stpn",
      "thumos14",
      {("Billiards", "0.10")}
      | {("CliffDiving", f"0.{k}0") for k in (1, 2, 3, 4)},
    ),
  ],
)
def test_published_detections_have_the_official_figures(name, protocol, differ):
  def read(file):
    return json.loads((DETECTIONS / name / file).read_text())

  expected = read("expected.json")
  truth, found = read("gt.json")["database"], read("pred.json")["results"]
  result = dm.detection_map(truth, found, protocol)
  assert expected["tiou"] == list(PROTOCOLS[protocol].tious)
  assert list(result["per_class"]) == expected["classes"]
  ap = np.array([list(ap.values()) for ap in result["per_class"].values()])
  error = np.abs(ap - np.transpose(expected["official_AP_tiou_by_class"]))
  hanging = {(p["label"], p["tiou"]) for p in result["ties"]["pairs"]}
  keys = list(result["mAP"])
  off = {
    (expected["classes"][c], keys[k]) for c, k in np.argwhere(error > 1e-9)
  }
  # The official order of ties is arbitrary; all that differs hangs on one.
  assert off == differ <= hanging
  for pair in result["ties"]["pairs"]:
    c = expected["classes"].index(pair["label"])
    official = expected["official_AP_tiou_by_class"][keys.index(pair["tiou"])][
      c
    ]
    assert pair["low"] - 1e-9 <= official <= pair["high"] + 1e-9
  means = np.abs(np.array([*result["mAP"].values()]) - expected["official_mAP"])
  assert means.max() < (3e-4 if differ else 1e-9)
