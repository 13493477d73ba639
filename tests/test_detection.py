"""Tests of ptlr_jax.localization.detection, on CASs written by hand."""

import numpy as np
import pytest

from configs import base
from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.localization import detection
from ptlr_jax.runs import detection_phase

FUSION = {"rgb": 1.0, "flow": 1.5}
CLASSES = ("Diving", "HighJump")


def _options(**changes):
  options = base.get_config().detect
  options.update({"upsampling": 1, "ring": 0.5, "sources": ("ots", "rts")})
  options.update(changes)
  return options


def _ilg(first=0.6, second=0.1, length=12):
  """Class scores, and logits in which class 0 acts in segments 8 and 9."""
  scores = np.array([first, second, 1 - first - second])
  logits = np.tile([-4.0, -4.0, 4.0], (length, 1))
  logits[8:10] = [4.0, -4.0, -4.0]
  streams = ("rgb", "flow")
  return {
    "scores": dict.fromkeys(streams, scores),
    "logits": dict.fromkeys(streams, logits),
  }


def _cas(start, end, label, length=12):
  """Probability 1 of a class in [start, end), of the background elsewhere."""
  cas = np.zeros((length, 3))
  cas[:, 2] = 1
  cas[start:end] = np.eye(3)[label]
  return cas


# Half a second a segment.
PLAIN = Geometry(fps=32.0, stride=16.0, window=16.0)


def _detect(ilg, networks, *, geometry=PLAIN, **changes):
  return detection.detect(
    ilg,
    networks,
    CLASSES,
    geometry,
    options=_options(**changes),
    fusion=FUSION,
    topk_ratio=4,
  )


def _best(found):
  return found[0]["label"], found[0]["segment"], found[0]["score"]


def test_a_clear_action_is_found_at_its_place_in_seconds():
  found = _detect(_ilg(), {"ots": _cas(2, 6, 0)})
  label, segment, score = _best(found)
  assert label == "Diving"
  assert segment == [1.0, 3.0]
  # All inside, none around, and 0.2 x the class score.
  assert score == pytest.approx(1 + 0.2 * 0.6)
  scores = [item["score"] for item in found]
  assert scores == sorted(scores, reverse=True)
  assert {item["label"] for item in found} == {"Diving"}


def test_segments_begin_at_the_offset_of_the_data():
  geometry = Geometry(fps=32.0, stride=16.0, window=16.0, offset=8.0)
  found = _detect(_ilg(), {"ots": _cas(2, 6, 0)}, geometry=geometry)
  assert _best(found)[1] == [1.25, 3.25]


def test_segments_lie_around_the_middles_of_their_windows():
  # 24 frames every 8 at 16 a second: segment 2 sees frames 16 to 40, around
  # 28, and stands for 24 to 32: from 1.5 s on.
  geometry = Geometry(fps=16.0, stride=8.0, window=24.0)
  found = _detect(_ilg(), {"ots": _cas(2, 6, 0)}, geometry=geometry)
  assert _best(found)[1] == [1.5, 3.5]


def test_upsampling_does_not_move_an_action():
  (start, end) = _best(_detect(_ilg(), {"ots": _cas(2, 6, 0)}, upsampling=24))[
    1
  ]
  assert start == pytest.approx(1.0, abs=0.25)
  assert end == pytest.approx(3.0, abs=0.25)


def test_proposals_of_all_networks_are_joined():
  networks = {"ots": _cas(1, 3, 0), "rts": _cas(6, 10, 0)}
  found = [item["segment"] for item in _detect(_ilg(), networks)]
  assert [0.5, 1.5] in found
  assert [3.0, 5.0] in found


def test_sources_say_whose_proposals_count():
  networks = {"ots": _cas(1, 3, 0), "rts": _cas(6, 7, 0)}

  def segments(*sources):
    found = _detect(_ilg(), networks, sources=sources)
    return [item["segment"] for item in found if item["score"] > 0.9]

  assert segments("ots") == [[0.5, 1.5]]
  assert segments("rts") == [[3.0, 3.5]]
  assert segments("ilg") == [[4.0, 5.0]]
  assert sorted(segments("ots", "ilg")) == [[0.5, 1.5], [4.0, 5.0]]


def test_without_networks_the_ilg_detects():
  label, segment, _ = _best(_detect(_ilg(), {}))
  assert (label, segment) == ("Diving", [4.0, 5.0])


@pytest.mark.parametrize(
  "space", ["softmax_minmax", "minmax", "raw_minmax", "softmax"]
)
def test_the_ilg_detects_in_every_space(space):
  found = _detect(_ilg(), {}, ilg_cas=space)
  assert _best(found)[:2] == ("Diving", [4.0, 5.0])


def test_only_classes_of_the_video_are_looked_for():
  cas = _cas(2, 6, 1)
  cas[8:10] = np.eye(3)[0]
  found = _detect(_ilg(0.6, 0.1), {"ots": cas})
  assert {item["label"] for item in found} == {"Diving"}
  found = _detect(_ilg(0.5, 0.4), {"ots": cas})
  assert {item["label"] for item in found} == set(CLASSES)


def test_a_video_of_no_clear_class_falls_back_to_the_best():
  networks = {"ots": _cas(2, 6, 1)}
  found = _detect(_ilg(0.1, 0.2), networks)
  assert {item["label"] for item in found} == {"HighJump"}
  assert _detect(_ilg(0.1, 0.2), networks, class_fallback=False) == []


def test_kept_classes_are_those_at_or_above_the_threshold():
  scores = np.array([0.2, 0.25, 0.9])
  assert detection.kept_classes(scores, 0.25, True).tolist() == [1, 2]
  assert detection.kept_classes(scores, 0.95, True).tolist() == [2]
  assert detection.kept_classes(scores, 0.95, False).tolist() == []


def test_class_scores_of_the_ilg_are_its_streams_weighted():
  ilg = _ilg()
  ilg["scores"] = {"rgb": np.array([0.5, 0.1, 0.4]), "flow": np.zeros(3)}
  scores = detection.video_scores(
    ilg, {}, source="ilg", fusion=FUSION, topk_ratio=4
  )
  np.testing.assert_allclose(scores, [0.2, 0.04])


def test_class_scores_of_ptlr_are_top_means_of_its_networks():
  # 12 segments, the 12 // 4 = 3 highest of each class: 1, 1, 0 and 1, 1, 1.
  networks = {"ots": _cas(2, 4, 0), "rts": _cas(2, 8, 1)}
  scores = detection.video_scores(
    _ilg(), networks, source="ptlr", fusion=FUSION, topk_ratio=4
  )
  np.testing.assert_allclose(scores, [(2 / 3 + 0) / 2, (0 + 1) / 2])
  found = _detect(_ilg(0.9, 0.0), {"ots": _cas(2, 6, 1)}, class_scores="ptlr")
  assert {item["label"] for item in found} == {"HighJump"}


def test_minmax_stretches_a_faint_action():
  cas = 0.1 * _cas(2, 6, 0)
  plain = _detect(_ilg(), {"ots": cas})
  stretched = _detect(_ilg(), {"ots": cas}, cas="minmax")
  assert _best(plain)[2] == pytest.approx(0.1 + 0.12)
  assert _best(stretched)[2] == pytest.approx(1 + 0.12)


def test_the_thresholded_contrast_does_not_see_what_is_below():
  cas = np.zeros((12, 3))
  cas[:, 0] = 0.2
  cas[4:8, 0] = 0.8

  def best(contrast):
    found = _detect(_ilg(), {"ots": cas}, contrast=contrast)
    return next(i["score"] for i in found if i["segment"] == [2.0, 4.0])

  assert best("cas") == pytest.approx(0.8 - 0.2 + 0.12)
  assert best("thresholded") == pytest.approx(0.8 + 0.12)


def test_evaluate_scores_each_row_under_the_ids_of_the_data():
  video = Video("one", {}, (0,), (Instance(1.0, 3.0, 0),))
  exact = {"label": "Diving", "score": 0.9, "segment": [1.0, 3.0]}
  half = {"label": "Diving", "score": 0.9, "segment": [1.0, 2.0]}
  rows = {"a": {"one": [exact]}, "b": {"one": [half]}, "c": {"v_one": [exact]}}
  found = detection_phase.evaluate_detections(
    rows, Dataset(CLASSES, (), (video,)), "thumos14"
  )
  assert set(found["a"]["mAP"].values()) == {1.0}
  assert found["b"]["mAP"]["0.50"] == 1.0
  assert found["b"]["mAP"]["0.60"] == 0.0
  assert set(found["c"]["mAP"].values()) == {0.0}


def test_evaluate_treats_ambiguous_stretches_by_the_rule():
  video = Video(
    "one",
    {},
    (0,),
    (Instance(1.0, 3.0, 0),),
    ambiguous=((2.5, 4.0), (8.0, 9.0)),
  )
  exact = {"label": "Diving", "score": 0.8, "segment": [1.0, 3.0]}
  over = {"label": "Diving", "score": 0.9, "segment": [8.0, 9.5]}
  data = Dataset(CLASSES, (), (video,))
  ap = {
    rule: detection_phase.evaluate_detections(
      {"": {"one": [exact, over]}}, data, "thumos14", rule
    )
    for rule in ("", "kit", "wtalc")
  }
  # A miss, then a hit; the miss does not count; neither is there.
  assert {rule: found[""]["mAP"]["0.50"] for rule, found in ap.items()} == {
    "": 0.5,
    "kit": 1.0,
    "wtalc": 0.0,
  }
