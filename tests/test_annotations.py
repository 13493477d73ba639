"""Tests of ptlr_jax.data.dataset and ptlr_jax.runtime.errors."""

import math
import pickle

import numpy as np
import pytest
from basnet_fixture import tiny_videos

from ptlr_jax.data import dataset as dataset_module
from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.runtime.errors import InputError

SECOND = Geometry(fps=16.0)  # a segment a second


def _video(instances, num_segments=5, geometry=SECOND):
  features = {"rgb": np.zeros((num_segments, 3), np.float32)}
  labels = tuple(sorted({i.label for i in instances}))
  return Video("v", features, labels, tuple(instances), geometry)


def _dataset(videos):
  return Dataset(
    ("a", "b", "c"),
    tuple(videos),
    tiny_videos("test", 3),
    notes=("a note",),
    on_disk=True,
    simulated=True,
  )


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
  truth = dataset_module.frame_truth(video, 2)
  expected = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
  assert truth.dtype == bool
  np.testing.assert_array_equal(truth, np.array(expected, bool))


def test_frame_truth_with_offset_and_two_classes_at_once():
  # 16 frames every 16 at 8 a second, from frame 80 on: centres at 11, 13, 15 s.
  geometry = Geometry(fps=8.0, offset=80.0)
  instances = [Instance(12, 14, 0), Instance(12, 99, 1)]
  truth = dataset_module.frame_truth(_video(instances, 3, geometry), 2)
  expected = [[0, 0, 1], [1, 1, 0], [0, 1, 0]]
  np.testing.assert_array_equal(truth, np.array(expected, bool))


def test_frame_truth_by_the_middles_of_overlapping_windows():
  # 12 frames every 4 at 4 a second: windows [0, 3), [1, 4), [2, 5) s.
  geometry = Geometry(fps=4.0, stride=4.0, window=12.0)
  truth = dataset_module.frame_truth(
    _video([Instance(2.4, 2.6, 0)], 3, geometry), 1
  )
  assert truth[:, 0].tolist() == [False, True, False]


def test_frame_truth_between_two_centres_is_background():
  truth = dataset_module.frame_truth(_video([Instance(0.6, 1.4, 0)]), 1)
  assert truth[:, 1].all()
  assert not truth[:, 0].any()


def test_ground_truth_database():
  video = _video([Instance(1, 2.5, 1)])
  assert dataset_module.ground_truth_database([video], ("a", "b"), "test") == {
    "v": {
      "subset": "test",
      "annotations": [{"segment": [1.0, 2.5], "label": "b"}],
    }
  }


def test_holdout_splits_the_training_videos_by_class():
  videos = tiny_videos("v", 30, num_classes=3)
  split = dataset_module.holdout(_dataset(videos), 0.3, seed=0)
  train, test = ({v.id for v in part} for part in (split.train, split.test))
  assert not train & test
  assert train | test == {v.id for v in videos}
  for label in range(3):
    assert sum(v.labels == (label,) for v in split.test) == 3
  assert (split.classes, split.notes) == (("a", "b", "c"), ("a note",))
  assert split.on_disk
  assert split.simulated


def test_holdout_depends_on_seed_and_not_on_order():
  videos = tiny_videos("v", 30, num_classes=3)
  ids = [
    [v.id for v in dataset_module.holdout(_dataset(order), 0.3, seed).test]
    for order, seed in ((videos, 0), (videos[::-1], 0), (videos, 1))
  ]
  assert ids[0] == ids[1] != ids[2]


def test_holdout_balances_uneven_classes():
  videos = [
    *tiny_videos("many", 20, num_classes=1),
    *(_video([Instance(0, 1, 1)]) for _ in range(1)),
  ]
  split = dataset_module.holdout(_dataset(videos), 0.25, seed=0)
  assert len(split.test) == 5
  assert {v.labels for v in split.test} == {(0,)}


def test_holdout_of_nothing_changes_nothing():
  dataset = _dataset(tiny_videos("v", 4))
  assert dataset_module.holdout(dataset, 0, seed=0) is dataset


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, math.nan])
def test_holdout_refuses_other_fractions(fraction):
  with pytest.raises(InputError, match=rf"< 1, came {fraction}; pass"):
    dataset_module.holdout(_dataset(tiny_videos("v", 4)), fraction, seed=0)


@pytest.mark.parametrize(
  ("fraction", "came"), [(0.1, "4 and 0"), (0.9, "0 and 4")]
)
def test_holdout_refuses_an_empty_part(fraction, came):
  with pytest.raises(InputError, match=rf"{fraction} to leave .* came {came}"):
    dataset_module.holdout(_dataset(tiny_videos("v", 4)), fraction, seed=0)


def test_what_can_be_scored():
  bare = _video([])
  told = "none of the 2 test videos has a temporal annotation"
  for test, said in (
    ((), "there is no test video"),
    ((bare, bare), told),
    ((bare, _video([Instance(0, 1, 0)])), ""),
  ):
    fault = Dataset(("a",), (), test).not_scorable()
    assert fault.startswith(said)
    assert bool(fault) == bool(said)


def test_streams_are_those_of_the_features():
  both, flow = tiny_videos("v", 1), tiny_videos("v", 1, streams=("flow",))
  assert Dataset(("a",), both, ()).streams == ("rgb", "flow")
  assert Dataset(("a",), flow, ()).streams == ("flow",)
  assert Dataset(("a",), (), both).streams == ()


def test_features_are_loaded_from_wherever_they_are():
  class Elsewhere(dict):
    num_segments = 7

    def load(self):
      return {"rgb": "loaded"}

  video = Video("v", Elsewhere(rgb=np.zeros((9, 1))), (), ())
  assert (video.num_segments, video.load()) == (7, {"rgb": "loaded"})
  here = _video([], num_segments=3)
  assert (here.num_segments, here.load()) == (3, here.features)
