"""I3D in Flax against I3D in PyTorch, on real clips where they are at hand.

The values of the weights are random, their names and shapes the published
ones; both networks get the same and nothing else in common.
"""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from i3d_reference import (
  BLOCKS,
  Reference,
  channels_first,
  network_of,
  outputs,
  random_state,
  torch,
)

from ptlr_jax.features import i3d, published_names

VIDEOS = Path(__file__).parents[2] / "shared" / "data" / "videos"
TOLERANCE = 1e-4  # of features, absolute; logits are of the same size
STREAMS = pytest.mark.parametrize("stream", i3d.CHANNELS)


def _variables(state) -> dict[str, Any]:
  """The variables of the Flax network for a state dict."""
  arrays = {name: value.numpy() for name, value in state.items()}
  return unflatten_dict(
    published_names.recognised("state", arrays).arrays, sep="/"
  )


@pytest.fixture(scope="module")
def states():
  return {s: random_state(n, seed=n) for s, n in i3d.CHANNELS.items()}


@pytest.fixture(scope="module")
def variables(states):
  return {stream: _variables(state) for stream, state in states.items()}


def _noise(count, length, size, channels, seed=0):
  """Clips of smooth noise in [-1, 1], as different as two scenes."""
  draw = np.random.default_rng(seed)
  coarse = draw.uniform(-1, 1, (count, length, 4, 4, channels))
  grid = np.kron(coarse, np.ones((1, 1, size // 4, size // 4, 1)))
  return (0.8 * grid + draw.uniform(-0.2, 0.2, grid.shape)).astype(np.float32)


def _frames(name):
  """The first 16 frames of a video of ../shared as f32[1,16,H,W,3] in [0, 1];
  None where it is not at hand."""
  try:
    import av
  except ImportError:
    return None
  if not (VIDEOS / name).is_file():
    return None
  with av.open(str(VIDEOS / name)) as file:
    frames = itertools.islice(file.decode(video=0), i3d.FRAMES)
    found = np.stack([f.to_ndarray(format="rgb24") for f in frames])
  return found[None] / np.float32(255)


def _clip(stream):
  """A clip of a real video, or where it is not at hand a made-up one."""
  frames = _frames(f"v_CricketShot_g04_c01_{stream}.gif")
  if frames is None:
    return _noise(1, i3d.FRAMES, i3d.SIZE, i3d.CHANNELS[stream])
  if stream == "flow":
    # The picture shows flow + 0.5; red is to the right, green down.
    return frames[..., :2] - np.float32(0.5)
  return 2 * frames - 1


def _small_clips():
  """Two clips of odd length and size: of another video, and made up."""
  clips = _noise(2, 9, 80, 3)[:, :, :50, :67]
  frames = _frames("women_long_jump.mp4")
  if frames is not None:
    clips[:1] = 2 * frames[:, :9, 100:150, 100:167] - 1
  return clips


@STREAMS
def test_a_clip_of_full_size_has_the_reference_s_features(
  variables, states, stream
):
  clips = _clip(stream)
  assert clips.shape == (1, 16, 224, 224, i3d.CHANNELS[stream])
  assert np.abs(clips).max() > 0.2
  features, logits = outputs(states[stream], clips)
  # Far from 0 and from each other, so that 1e-4 says something.
  assert np.abs(features).mean() > 0.2
  assert features.std() > 0.2
  came, came_logits = i3d.outputs(variables[stream], clips)
  assert came.dtype == jnp.float32
  assert came.shape == (1, i3d.WIDTH)
  assert np.abs(came - features).max() < TOLERANCE
  assert np.abs(came_logits - logits).max() < TOLERANCE


def test_odd_lengths_and_sizes_are_padded_as_by_the_reference(
  variables, states
):
  clips = _small_clips()
  last = network_of(states["rgb"]).mixed_5c(channels_first(clips))
  assert last.shape == (2, i3d.WIDTH, 2, 2, 3)
  expected = last.mean((2, 3, 4)).numpy()
  assert np.abs(expected).mean() > 0.3
  assert np.abs(expected[0] - expected[1]).max() > 1000 * TOLERANCE
  for method in ("direct", "framewise"):
    came = i3d.features(variables["rgb"], clips, method=method)
    assert np.abs(came - expected).max() < TOLERANCE


def test_the_average_is_the_published_one_at_16_frames_and_not_beyond():
  for length, steps in ((16, 2), (24, 3)):
    with torch.device("meta"):
      clip = torch.empty(1, 3, length, i3d.SIZE, i3d.SIZE)
      assert Reference().mixed_5c(clip).shape == (1, i3d.WIDTH, steps, 7, 7)
  last = torch.rand(2, 8, 3, 7, 7, generator=torch.Generator().manual_seed(0))

  def published(x):
    windows = torch.nn.functional.avg_pool3d(x, (2, 7, 7), 1)
    return windows.mean((2, 3, 4))

  two = last[:, :, :2]
  assert (published(two) - two.mean((2, 3, 4))).abs().max() < 1e-6
  assert (published(last) - last.mean((2, 3, 4))).abs().max() > 1e-3


def test_a_clip_s_features_do_not_hang_on_the_other_clips(variables):
  clips = _small_clips()
  changed = np.stack([clips[0], np.zeros_like(clips[1])])
  expected = i3d.features(variables["rgb"], clips, method="framewise")
  came = i3d.features(variables["rgb"], changed, method="framewise")
  np.testing.assert_array_equal(came[0], expected[0])
  assert np.abs(came[1] - expected[1]).max() > 0.1


def test_shapes_are_those_of_the_network_s_arrays(variables):
  for stream, tree in variables.items():
    flat: Any = flatten_dict(tree, sep="/")
    assert i3d.shapes(stream) == {n: a.shape for n, a in flat.items()}
    assert len(flat) == 5 * (3 + 6 * len(BLOCKS)) + 2


def test_pooling_takes_maxima_as_xla_does():
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 8, 3)).astype(np.float32)
  for windows, strides in (
    ((3, 3, 3), (1, 1, 1)),
    ((1, 3, 3), (1, 2, 2)),
    ((2, 2, 2), (2, 2, 2)),
    ((3, 3, 3), (2, 2, 2)),
  ):
    expected = jax.lax.reduce_window(
      x, -jnp.inf, jax.lax.max, (1, *windows, 1), (1, *strides, 1), "SAME"
    )
    np.testing.assert_array_equal(
      i3d.max_pool(jnp.asarray(x), windows, strides), expected
    )


def test_clips_of_the_other_stream_and_unknown_methods_are_refused(variables):
  with pytest.raises(
    ValueError, match=r"\[N,L,H,W,2\], got \[1, 16, 32, 32, 3"
  ):
    i3d.features(variables["flow"], _noise(1, 16, 32, 3))
  with pytest.raises(ValueError, match="framewise, got 'sideways'"):
    i3d.features(variables["rgb"], _noise(1, 16, 32, 3), method="sideways")
