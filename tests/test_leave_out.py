"""What a prediction leaves out is neither computed nor missed."""

from typing import Any

import jax
import numpy as np
import pytest
from basnet_fixture import tiny_videos
from stage_batches import WIDTHS, C, params_of, stage

from ptlr_jax.data.dataset import Video
from ptlr_jax.training import prediction


@pytest.fixture(scope="module")
def videos():
  """Two of one padded length and one of another."""
  found = []
  for i, length in enumerate((12, 16, 130)):
    (video,) = tiny_videos(f"v{i}", 1, num_segments=length, seed=i)
    features = {s: video.features[s][:, :w] for s, w in WIDTHS.items()}
    found.append(Video(video.id, features, video.labels, ()))
  return found


def _predict(name, videos, **how) -> list[dict[str, Any]]:
  how = {"batch_size": 2, **how}
  return prediction.predict_videos(stage(name), params_of(name), videos, **how)


@pytest.mark.parametrize("name", ["ots", "rts"])
def test_the_cas_has_the_same_bits_without_logits(name, videos):
  whole = _predict(name, videos)
  spared = _predict(name, videos, leave_out=("logits",))
  for video, one, other in zip(videos, whole, spared, strict=True):
    assert one.keys() == {"cas", "logits"}
    assert other.keys() == {"cas"}
    assert other["cas"].shape == (video.num_segments, C + 1)
    np.testing.assert_array_equal(one["cas"], other["cas"])


def test_any_entry_may_be_left_out_and_the_next_call_has_all(videos):
  first, *_ = _predict("ots", videos[:1], leave_out=("cas",))
  assert first.keys() == {"logits"}
  first, *_ = _predict("ots", videos[:1], leave_out=("cas", "logits"))
  assert first == {}
  first, *_ = _predict("ots", videos[:1])
  assert first.keys() == {"cas", "logits"}


def test_what_is_left_out_is_no_part_of_the_program(videos):
  batch = {
    "features": {
      s: np.zeros((1, 16, w), np.float32) for s, w in WIDTHS.items()
    },
    "mask": np.ones((1, 16), bool),
  }
  results = [
    jax.eval_shape(
      prediction._jitted(stage("rts"), left), params_of("rts"), batch
    )
    for left in ((), ("logits",))
  ]
  assert [len(jax.tree.leaves(result)) for result in results] == [2, 1]
