"""Tests of ptlr_jax.data.simulated."""

import numpy as np
import pytest

from ptlr_jax.data import simulated
from ptlr_jax.data.dataset import frame_truth
from ptlr_jax.data.simulated import SECONDS_PER_SEGMENT, simulate

SIZE = {
  "num_classes": 5,
  "train_videos": 30,
  "test_videos": 20,
  "width": 8,
  "min_segments": 80,
  "max_segments": 120,
}


@pytest.fixture(scope="module")
def data():
  return simulate(seed=1, **SIZE)


def _arrays(dataset):
  videos = dataset.train + dataset.test
  return [video.features[s] for video in videos for s in ("rgb", "flow")]


def test_the_same_seed_gives_the_same_bits(data):
  again = simulate(seed=1, **SIZE)
  for one, other in zip(_arrays(data), _arrays(again), strict=True):
    np.testing.assert_array_equal(one, other)
  for split in ("train", "test"):
    one, other = getattr(data, split), getattr(again, split)
    assert [v.instances for v in one] == [v.instances for v in other]
  assert data.classes == again.classes


def test_another_seed_gives_other_videos(data):
  other = simulate(seed=2, **SIZE)
  assert [v.instances for v in data.train] != [v.instances for v in other.train]
  for one, two in zip(_arrays(data), _arrays(other), strict=True):
    assert one.shape != two.shape or (one != two).mean() > 0.99


def test_a_video_does_not_depend_on_how_many_there_are(data):
  fewer = simulate(seed=1, **{**SIZE, "train_videos": 3, "test_videos": 2})
  for one, other in zip(fewer.train, data.train, strict=False):
    assert one.id == other.id
    np.testing.assert_array_equal(one.features["rgb"], other.features["rgb"])


def test_sizes_are_those_asked_for(data):
  assert (len(data.train), len(data.test), len(data.classes)) == (30, 20, 5)
  for video in data.train + data.test:
    rgb, flow = video.features["rgb"], video.features["flow"]
    assert rgb.shape == flow.shape == (video.num_segments, 8)
    assert rgb.dtype == flow.dtype == np.float32
    assert np.isfinite(rgb).all()
    assert np.isfinite(flow).all()
    assert 80 <= video.num_segments <= 120
    assert video.geometry.seconds_per_segment == SECONDS_PER_SEGMENT
    assert video.geometry.start == 0


def test_instances_lie_inside_their_video_and_apart(data):
  for video in data.train + data.test:
    assert video.instances
    end_before = 0.0
    for start, end, _ in sorted(video.instances):
      assert end_before <= start < end
      end_before = end
    assert end_before <= video.num_segments * SECONDS_PER_SEGMENT


def test_labels_are_those_of_the_instances(data):
  for video in data.train + data.test:
    assert video.labels == tuple(sorted({i.label for i in video.instances}))
    truth = frame_truth(video, 5)
    assert np.flatnonzero(truth[:, :-1].any(0)).tolist() == list(video.labels)
    assert truth[:, -1].any()


def test_every_class_is_in_both_splits_and_some_videos_hold_two(data):
  for videos in (data.train, data.test):
    assert {c for video in videos for c in video.labels} == set(range(5))
    assert {len(video.labels) for video in videos} == {1, 2}


def test_no_video_is_in_both_splits(data):
  train, test = ({v.id for v in part} for part in (data.train, data.test))
  assert (len(train), len(test)) == (30, 20)
  assert not train & test
  seen = {video.features["rgb"][:40].tobytes() for video in data.train}
  assert not any(v.features["rgb"][:40].tobytes() in seen for v in data.test)


def test_a_class_shows_more_in_its_own_frames(data):
  # Along the direction from other frames to those of a class in the training
  # videos, the class's frames of the test videos lie further out as well.
  def split(videos, c):
    inside, outside = [], []
    for video in videos:
      x = np.concatenate([video.features["rgb"], video.features["flow"]], 1)
      own = frame_truth(video, 5)[:, c]
      inside.append(x[own])
      outside.append(x[~own])
    return np.concatenate(inside), np.concatenate(outside)

  for c in range(5):
    inside, outside = split(data.train, c)
    direction = inside.mean(0) - outside.mean(0)
    inside, outside = split(data.test, c)
    assert (inside @ direction).mean() > (outside @ direction).mean()


def test_the_data_set_says_that_it_is_simulated(data):
  assert data.simulated


def test_the_docstring_says_that_it_is_no_evidence():
  text = " ".join((simulated.__doc__ or "").split())
  assert "It is no evidence about THUMOS14" in text
