"""Tests of ptlr_jax.data.annotations and ptlr_jax.errors."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import tiny_videos

from ptlr_jax.data import annotations
from ptlr_jax.data.annotations import Dataset, Instance, Video, read_entry
from ptlr_jax.errors import InputError

SHARED = Path(__file__).parents[2] / "shared"


def _video(instances, num_segments=5):
  features = {"rgb": np.zeros((num_segments, 3), np.float32)}
  labels = annotations.unique_labels(instances)
  return Video("v", features, labels, tuple(instances))


def _dataset(videos):
  return Dataset(("a", "b", "c"), tuple(videos), tiny_videos("test", 3), 0.64)


def test_input_error_holds_one_line_per_problem():
  error = InputError("first", "sec\nond")
  assert str(error) == "first\nsec ond"
  assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_input_error_prints_twenty_lines():
  lines = InputError(*(f"p{n}" for n in range(23))).lines
  assert lines[:20] == tuple(f"p{n}" for n in range(20))
  assert lines[20:] == ("and 3 more",)
  assert len(InputError(*"x" * 20).lines) == 20


def test_frame_truth_by_centres():
  # Centres at 0.5, 1.5, 2.5, 3.5, 4.5 s.
  video = _video([Instance(0.5, 2.5, 0), Instance(1.6, 3.6, 1)])
  truth = annotations.frame_truth(video, 2, 1.0)
  expected = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
  assert truth.dtype == bool
  np.testing.assert_array_equal(truth, np.array(expected, bool))


def test_frame_truth_with_offset_and_two_classes_at_once():
  # Centres at 11, 13, 15 s.
  video = _video([Instance(12, 14, 0), Instance(12, 99, 1)], num_segments=3)
  truth = annotations.frame_truth(video, 2, 2.0, 10.0)
  expected = [[0, 0, 1], [1, 1, 0], [0, 1, 0]]
  np.testing.assert_array_equal(truth, np.array(expected, bool))


def test_frame_truth_between_two_centres_is_background():
  truth = annotations.frame_truth(_video([Instance(0.6, 1.4, 0)]), 1, 1.0)
  assert truth[:, 1].all()
  assert not truth[:, 0].any()


def test_ground_truth_database():
  video = _video([Instance(1, 2.5, 1)])
  assert annotations.ground_truth_database([video], ("a", "b"), "test") == {
    "v": {
      "subset": "test",
      "annotations": [{"segment": [1.0, 2.5], "label": "b"}],
    }
  }


def test_holdout_splits_the_training_videos_by_class():
  videos = tiny_videos("v", 30, num_classes=3)
  split = annotations.holdout(_dataset(videos), 0.3, seed=0)
  train, test = ({v.id for v in part} for part in (split.train, split.test))
  assert not train & test
  assert train | test == {v.id for v in videos}
  for label in range(3):
    assert sum(v.labels == (label,) for v in split.test) == 3
  assert (split.classes, split.seconds_per_segment) == (("a", "b", "c"), 0.64)


def test_holdout_depends_on_seed_and_not_on_order():
  videos = tiny_videos("v", 30, num_classes=3)
  ids = [
    [v.id for v in annotations.holdout(_dataset(order), 0.3, seed).test]
    for order, seed in ((videos, 0), (videos[::-1], 0), (videos, 1))
  ]
  assert ids[0] == ids[1] != ids[2]


def test_holdout_balances_uneven_classes():
  videos = [
    *tiny_videos("many", 20, num_classes=1),
    *(_video([Instance(0, 1, 1)]) for _ in range(1)),
  ]
  split = annotations.holdout(_dataset(videos), 0.25, seed=0)
  assert len(split.test) == 5
  assert {v.labels for v in split.test} == {(0,)}


def test_holdout_of_nothing_changes_nothing():
  dataset = _dataset(tiny_videos("v", 4))
  assert annotations.holdout(dataset, 0, seed=0) is dataset


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, math.nan])
def test_holdout_refuses_other_fractions(fraction):
  with pytest.raises(InputError, match=rf"< 1, came {fraction}; pass"):
    annotations.holdout(_dataset(tiny_videos("v", 4)), fraction, seed=0)


@pytest.mark.parametrize(
  ("fraction", "came"), [(0.1, "4 and 0"), (0.9, "0 and 4")]
)
def test_holdout_refuses_an_empty_part(fraction, came):
  with pytest.raises(InputError, match=rf"{fraction} to leave .* came {came}"):
    annotations.holdout(_dataset(tiny_videos("v", 4)), fraction, seed=0)


def test_activitynets_official_annotations_are_sound():
  path = SHARED / "data" / "activitynet13" / "val_gt.json"
  if not path.is_file():
    pytest.skip(f"{path} is not here")
  problems = []
  database = json.loads(path.read_text())["database"]
  events = [read_entry(i, e, "test", problems) for i, e in database.items()]
  assert not problems
  assert sum(map(len, events)) == 7654
