"""Tests of ptlr_jax.data.batches."""

import numpy as np
import pytest
from batch_options import ilg_options

from ptlr_jax.data import batches
from ptlr_jax.data.dataset import Video

LENGTHS = (5, 17, 16, 40, 23, 30)
DRAWN = {"seed": 0, "name": "ots-1"}


def _video(n, length):
  """Features that say where they are from: 1000 n + t, flow negative."""
  where = 1000 * n + np.arange(length, dtype=np.float32)
  features = {"rgb": where[:, None], "flow": -where[:, None]}
  return Video(f"video{n}", features, (n % 3, 3), ())


VIDEOS = tuple(_video(n, length) for n, length in enumerate(LENGTHS, start=1))


def _labels(video):
  """Labels that say where they are from, as the features do."""
  length = video.num_segments
  targets = np.tile(np.arange(length)[:, None] % 2 == 0, (1, 5))
  return targets, np.arange(length) % 3 == 0


def test_video_labels_mark_all_classes_of_a_video():
  labels = batches.video_labels(VIDEOS[:3], 4)
  assert labels.tolist() == [[0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 1]]
  assert labels.dtype == np.float32


def test_an_ilg_batch_is_a_function_of_its_number():
  def batch(i, name="ilg", seed=0):
    return batches.ilg_batches(VIDEOS, 4, ilg_options(), seed=seed, name=name)(
      i
    )

  one, again = batch(3), batch(3)
  assert one.keys() == again.keys()
  np.testing.assert_array_equal(
    one["features"]["rgb"], again["features"]["rgb"]
  )
  assert one["scale"].tolist() == again["scale"].tolist()
  for other in (batch(4), batch(3, name="x"), batch(3, seed=1)):
    assert (one["features"]["rgb"] != other["features"]["rgb"]).any()
    assert one["scale"].tolist() != other["scale"].tolist()


def test_an_ilg_batch_keeps_streams_labels_and_time_together():
  batch = batches.ilg_batches(VIDEOS, 4, ilg_options(), seed=0, name="ilg")(0)
  rgb, flow = batch["features"]["rgb"], batch["features"]["flow"]
  assert rgb.shape == flow.shape == (4, 8, 1)
  np.testing.assert_array_equal(rgb, -flow)
  assert batch["mask"].shape == (4, 8)
  assert batch["mask"].all()
  assert batch["scale"].shape == (2,)
  for row, x in enumerate(rgb[:, :, 0]):
    n = int(x[0]) // 1000
    assert set(x.astype(int) // 1000) == {n}
    assert (np.diff(x) >= 0).all()
    assert np.flatnonzero(batch["labels"][row]).tolist() == [n % 3, 3]


def test_uniform_sampling_takes_the_same_segments_every_time():
  options = ilg_options(sampling="uniform", batch_size=len(VIDEOS))
  at = batches.ilg_batches(VIDEOS, 4, options, seed=0, name="ilg")
  rows = [
    {int(x[0]) // 1000: x.tolist() for x in at(i)["features"]["rgb"][:, :, 0]}
    for i in range(2)
  ]
  assert rows[0] == rows[1]
  assert rows[0][4] == [4000 + t for t in (0, 5, 10, 15, 20, 25, 30, 35)]


def test_without_a_transformed_branch_there_is_no_scale():
  off = ilg_options(loss={"beta": 0.0, "gamma": 0.0})
  batch = batches.ilg_batches(VIDEOS, 4, off, **DRAWN)(0)
  assert batch.keys() == {"features", "mask", "labels", "row"}
  on = ilg_options(loss={"beta": 0.0})
  assert "scale_grid" in batches.ilg_batches(VIDEOS, 4, on, **DRAWN)(0)


def test_labelled_windows_keep_targets_with_their_features():
  labels = [_labels(video) for video in VIDEOS]
  at = batches.labelled_batches(VIDEOS, labels, 6, window=16, align=4, **DRAWN)
  starts = set()
  for i in range(30):
    batch = at(i)
    assert batch["mask"].shape == (6, 16)
    for row, valid in enumerate(batch["mask"]):
      where = batch["features"]["rgb"][row, valid, 0].astype(int)
      n, t = where[0] // 1000, where % 1000
      assert valid.sum() == min(LENGTHS[n - 1] - t[0], 16)
      assert valid[: valid.sum()].all()
      assert t.tolist() == list(range(t[0], t[0] + len(t)))
      assert t[0] % 4 == 0
      targets, selected = labels[n - 1]
      np.testing.assert_array_equal(batch["targets"][row, valid], targets[t])
      np.testing.assert_array_equal(batch["selected"][row, valid], selected[t])
      starts.add((int(n), int(t[0])))
  assert {start for n, start in starts if n == 4} == {0, 4, 8, 12, 16, 20, 24}
  assert {start for n, start in starts if n == 1} == {0}


@pytest.mark.parametrize("window", [0, 16])
def test_labelled_videos_can_be_sampled_uniformly(window):
  labels = [_labels(video) for video in VIDEOS]
  at = batches.labelled_batches(
    VIDEOS, labels, 6, window=window, align=4, segments=24, **DRAWN
  )
  for i in range(10):
    batch = at(i)
    assert batch["mask"].shape == (6, window or 24)
    for row in range(6):
      rgb = batch["features"]["rgb"][row, batch["mask"][row], 0].astype(int)
      n, t = rgb[0] // 1000, rgb % 1000
      length = LENGTHS[n - 1]
      sampled = [i * length // 24 for i in range(24)]
      starts = (0, 4, 8) if window else (0,)
      assert t.tolist() in [sampled[k:][: window or 24] for k in starts]
      targets, selected = labels[n - 1]
      valid = batch["mask"][row]
      np.testing.assert_array_equal(batch["targets"][row, valid], targets[t])
      np.testing.assert_array_equal(batch["selected"][row, valid], selected[t])


def test_padding_is_empty_and_never_selected():
  labels = [_labels(video) for video in VIDEOS]
  at = batches.labelled_batches(VIDEOS, labels, 6, window=0, align=4, **DRAWN)
  batch = at(0)
  outside = ~batch["mask"]
  assert batch["mask"].shape == (6, 48)  # the longest, 40, padded
  assert sorted(batch["mask"].sum(1)) == sorted(LENGTHS)
  assert batch["targets"].dtype == np.float32
  assert not batch["selected"][outside].any()
  assert not batch["targets"][outside].any()
  assert not batch["features"]["rgb"][outside].any()
  assert batch["selected"].any()


@pytest.mark.parametrize(
  ("window", "size"), [(0, 48), (16, 16), (20, 20), (39, 39), (64, 48)]
)
def test_a_batch_is_no_longer_than_it_must_be(window, size):
  labels = [_labels(video) for video in VIDEOS]
  at = batches.labelled_batches(
    VIDEOS, labels, 6, window=window, align=4, **DRAWN
  )
  assert at(0)["mask"].shape == (6, size)


@pytest.mark.parametrize("segments", [0, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_prediction_sees_every_video_once(segments, batch_size):
  seen, shapes = [], {}
  for indexes, batch in batches.prediction_batches(
    VIDEOS, batch_size, segments
  ):
    rgb, mask = batch["features"]["rgb"], batch["mask"]
    assert len(rgb) == len(mask) == batch_size
    assert 0 < len(indexes) <= batch_size
    shapes.setdefault(mask.shape, []).append(indexes)
    for row, i in enumerate(indexes):
      where = rgb[row, mask[row], 0].astype(int) - 1000 * (i + 1)
      length = LENGTHS[i]
      own = [i * length // segments for i in range(segments)]
      assert where.tolist() == (own if segments else list(range(length)))
    seen += indexes
  assert sorted(seen) == list(range(len(VIDEOS)))
  assert {width for _, width in shapes} == {8 if segments else 128}


def test_few_lengths_are_predicted_at():
  videos = [_video(n, length) for n, length in enumerate((1, 128, 129, 300))]
  found = batches.prediction_batches(videos, 2)
  shapes = [(indexes, batch["mask"].shape) for indexes, batch in found]
  assert shapes == [([0, 1], (2, 128)), ([2], (2, 256)), ([3], (2, 512))]


def test_features_of_half_precision_come_as_single():
  x = np.ones((5, 1), np.float16)
  video = Video("v", {"rgb": x, "flow": x}, (0,), ())
  ((_, own),) = batches.prediction_batches([video], 1)
  ((_, uniform),) = batches.prediction_batches([video], 1, segments=4)
  for batch in (own, uniform):
    assert batch["features"]["rgb"].dtype == np.float32
