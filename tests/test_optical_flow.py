"""Tests of features.optical_flow: motion, its scale and sign, and how near it
comes to what I3D's authors published."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV computes flow: the extra video")

from video_fixture import moving

from ptlr_jax.features.optical_flow import CLAMP, TvL1, use_threads

VIDEOS = Path(__file__).parents[2] / "shared" / "data" / "videos"


def _textured(shift, down=0, size=64):
  """A smooth texture, moved to the right and down."""
  rng = np.random.default_rng(1)
  wide = np.kron(rng.integers(0, 256, (24, 24)), np.ones((8, 8)))
  for axis in (0, 1):
    wide = np.mean([np.roll(wide, n, axis) for n in range(-2, 3)], axis=0)
  x = wide[40 - down : 40 - down + size, 40 - shift : 40 - shift + size]
  return np.repeat(x.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-4, 1)])
def test_flow_is_motion_in_pixels_by_the_clamp(right, down):
  flow = TvL1().between(_textured(0), _textured(right, down))
  assert flow.shape == (64, 64, 2)
  assert flow.dtype == np.float32
  middle = np.median(flow[12:-12, 12:-12], axis=(0, 1)) * CLAMP
  np.testing.assert_allclose(middle, [right, down], atol=0.25)


def test_flow_ends_at_the_clamp():
  solved = np.array([[[25, -30], [10, -5]]], np.float32)
  flow = TvL1()
  flow._solver = SimpleNamespace(calc=lambda *_: solved)
  found = flow.between(moving(0), moving(1))
  np.testing.assert_array_equal(found, [[[1, -1], [0.5, -0.25]]])


def test_a_frame_shown_again_moves_nothing():
  frame = moving(0)
  assert not TvL1().between(frame, frame).any()
  assert not TvL1().between(frame, frame.copy()).any()


def test_flow_is_the_same_with_more_threads():
  use_threads(1)
  one = TvL1().between(moving(0), moving(1))
  use_threads(2)
  np.testing.assert_array_equal(one, TvL1().between(moving(0), moving(1)))


def _gif(name):
  """The pictures of a gif: u8[T,H,W,3]."""
  av = pytest.importorskip("av", reason="PyAV reads gifs: the extra video")
  path = VIDEOS / f"v_CricketShot_g04_c01_{name}.gif"
  if not path.exists():
    pytest.skip(f"{path} is not here")
  with av.open(str(path)) as container:
    return np.stack([x.to_ndarray(format="rgb24") for x in container.decode()])


@pytest.mark.parametrize("kind", ["tvl1", "tvl1_fast"])
def test_flow_is_near_the_one_that_i3ds_authors_published(kind):
  """Their gif shows 0.5 + flow / 20 as red (to the right) and green (down).

  Over all 78 pairs of frames r is 0.926 and 0.847 (`tvl1`): they computed on
  whole pictures in full colour, of which the gifs have the middle in 256.
  """
  frames, published = _gif("rgb"), _gif("flow")
  assert frames.shape == published.shape == (79, 224, 224, 3)
  assert set(np.unique(published[..., 2])) == {127}
  near, far = [], []
  for i in (20, 47) if kind == "tvl1" else (3, 20, 40, 47, 60):
    ours = TvL1(kind).between(frames[i], frames[i + 1])[..., :2]
    for channel in (0, 1):
      theirs = published[i : i + 2, ..., channel] / 255 - 0.5
      x = np.clip(ours[..., channel], -0.5, 0.5).ravel()
      near.append(np.corrcoef(x, theirs[0].ravel())[0, 1])
      far.append(np.corrcoef(x, theirs[1].ravel())[0, 1])
      slope = np.polyfit(x, theirs[0].ravel(), 1)[0]
      if kind == "tvl1":
        assert slope == pytest.approx(1, abs=0.35)  # the same sign and scale
  assert np.mean(near[::2]) > 0.88
  assert np.mean(near[1::2]) > 0.75
  # Flow t is from frame t to t + 1.
  assert np.mean(near) > np.mean(far) + 0.05
