"""Tests of ptlr_jax.data.sampling."""

import numpy as np
import pytest

from ptlr_jax.data.sampling import (
  draw_scale,
  draw_window,
  epoch_order,
  generator,
  padded_length,
  part_bounds,
  perturbed_indexes,
  scale_grid_size,
  uniform_indexes,
)

DRAWN = {"seed": 3, "name": "ilg"}
SCALE = {"min": 0.5, "max": 2.0, "lengths": 4, "shared": True}


@pytest.mark.parametrize(("videos", "batch"), [(7, 3), (5, 5), (3, 8), (1, 2)])
def test_every_epoch_sees_every_video_once(videos, batch):
  order = np.concatenate(
    [epoch_order(videos, batch, i, **DRAWN) for i in range(videos * 2)]
  )
  epochs = order.reshape(-1, videos)
  assert len(epochs) == 2 * batch
  for epoch in epochs:
    assert sorted(epoch) == list(range(videos))


def test_the_order_is_a_function_of_seed_name_and_step():
  def order(step, seed=3, name="ilg"):
    return epoch_order(50, 20, step, seed=seed, name=name).tolist()

  assert order(4) == order(4)
  assert order(4) != order(5)
  assert order(4) != order(4, seed=4)
  assert order(4) != order(4, name="ots-1")
  # Two epochs, of which the second is not the first again.
  first, second = np.concatenate([order(i) for i in range(5)]).reshape(2, 50)
  assert first.tolist() != second.tolist()


def test_parts_are_consecutive_and_as_even_as_can_be():
  assert part_bounds(10, 1) == [(0, 10)]
  assert part_bounds(10, 4) == [(0, 2), (2, 5), (5, 7), (7, 10)]
  assert part_bounds(3, 3) == [(0, 1), (1, 2), (2, 3)]
  with pytest.raises(ValueError, match="at most one for each of 3 videos"):
    part_bounds(3, 4)


@pytest.mark.parametrize(("videos", "batch", "parts"), [(13, 6, 3), (7, 4, 2)])
def test_a_batch_takes_as_many_of_each_part(videos, batch, parts):
  how = {**DRAWN, "parts": parts}
  drawn = np.stack([epoch_order(videos, batch, i, **how) for i in range(60)])
  count, orders = batch // parts, []
  assert drawn.dtype == np.int64
  for k, (start, stop) in enumerate(part_bounds(videos, parts)):
    own = drawn[:, k * count : (k + 1) * count].ravel()
    whole = own[: len(own) // (stop - start) * (stop - start)]
    for epoch in whole.reshape(-1, stop - start):
      assert sorted(epoch) == list(range(start, stop))
    orders.append((own[: stop - start] - start).tolist())
  # Each has a permutation of its own.
  assert len({tuple(order[:3]) for order in orders}) > 1


def test_one_part_is_what_there_was_without_parts():
  first = generator(3, "ilg", 0).permutation(7).tolist()
  second = generator(3, "ilg", 1).permutation(7).tolist()
  found = epoch_order(7, 14, 0, **DRAWN, parts=1)
  assert found.tolist() == first + second


def test_generators_differ_by_seed_name_and_counters():
  keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 1)]
  drawn = [generator(*key).integers(2**60) for key in keys]
  assert len(set(drawn)) == 5
  assert drawn == [generator(*key).integers(2**60) for key in keys]


def test_perturbed_indexes_take_one_segment_of_each_part():
  # 10 segments in 4 parts, their edges rounded down: 0-1, 2-4, 5-6, 7-9.
  rng = np.random.default_rng(0)
  drawn = np.stack([perturbed_indexes(10, 4, rng) for _ in range(200)])
  assert drawn.dtype == np.int64
  taken = [sorted(set(part.tolist())) for part in drawn.T]
  assert taken == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


def test_perturbed_indexes_repeat_the_segments_of_a_short_video_in_order():
  # Edges of 3 segments in 5 parts: 0 .6 1.2 1.8 2.4 3, rounded down; a part of
  # no segment takes the one it begins with.
  for seed in range(20):
    rng = np.random.default_rng(seed)
    assert perturbed_indexes(3, 5, rng).tolist() == [0, 0, 1, 1, 2]
    assert perturbed_indexes(1, 4, rng).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("length", [1, 2, 31, 750, 1000, 4001])
def test_perturbed_indexes_are_sorted_and_inside_the_video(length):
  drawn = perturbed_indexes(length, 750, np.random.default_rng(length))
  assert drawn.shape == (750,)
  assert (np.diff(drawn) >= 0).all()
  assert drawn[0] >= 0
  assert drawn[-1] < length


def test_uniform_indexes_are_the_starts_of_equal_parts():
  assert uniform_indexes(10, 4).tolist() == [0, 2, 5, 7]  # 0, 2.5, 5, 7.5
  assert uniform_indexes(3, 5).tolist() == [0, 0, 1, 1, 2]  # 0, .6, 1.2, ...
  assert uniform_indexes(7, 7).tolist() == list(range(7))
  assert uniform_indexes(1, 3).tolist() == [0, 0, 0]


def test_padded_length_is_the_next_power_of_two_or_half_as_much_again():
  sizes = sorted(
    [2**k for k in range(4, 14)] + [3 * 2**k for k in range(3, 13)]
  )
  assert sizes[:6] == [16, 24, 32, 48, 64, 96]
  for length in range(1, 5000):
    assert padded_length(length) == min(s for s in sizes if s >= length)


def test_scale_grid_size_rounds_up_to_the_next_of_its_steps():
  # 100 segments, s in [0.5, 2] in 4 steps: 88 (87.5), 125, 163 (162.5), 200.
  def size(scale):
    return scale_grid_size(100, scale, SCALE)

  assert size(0.5) == 88
  assert size(0.88) == 88
  assert size(0.89) == 125
  assert size(1.25) == 125
  assert size(1.26) == 163
  assert size(1.63) == 163
  assert size(1.64) == 200
  assert size(2.0) == 200
  assert scale_grid_size(100, 1.0, {"min": 1, "max": 1, "lengths": 4}) == 100


@pytest.mark.parametrize("segments", [8, 10, 16, 100, 750])
def test_the_scale_grid_holds_every_scaled_segment(segments):
  options = {"min": 0.3, "max": 1.6, "lengths": 3}
  sizes = set()
  for scale in [*np.linspace(0.3, 1.6, 301), np.float32(0.3), np.float32(1.6)]:
    size = scale_grid_size(segments, float(scale), options)
    assert size >= int(segments * float(scale))
    sizes.add(size)
  assert len(sizes) == 3


def test_a_shared_scale_is_one_and_others_are_drawn_for_each_stream():
  def draw(shared, seed):
    options = {**SCALE, "shared": shared}
    return draw_scale(np.random.default_rng(seed), 100, 2, options)["scale"]

  for seed in range(20):
    one, two = draw(True, seed), draw(False, seed)
    assert one.shape == two.shape == (2,)
    assert one.dtype == two.dtype == np.float32
    assert one[0] == one[1]
    assert two[0] != two[1]
    assert 0.5 <= min(*one, *two) <= max(*one, *two) <= 2.0


def test_the_grid_fits_the_larger_of_two_scales():
  options = {**SCALE, "shared": False}
  for seed in range(50):
    drawn = draw_scale(np.random.default_rng(seed), 100, 2, options)
    size = scale_grid_size(100, float(drawn["scale"].max()), options)
    assert drawn["scale_grid"].shape == (size,)
    assert size >= 100 * drawn["scale"].max() - 1


def test_scales_fill_the_range_evenly():
  rng = np.random.default_rng(0)
  drawn = [draw_scale(rng, 100, 1, SCALE)["scale"][0] for _ in range(2000)]
  counts, _ = np.histogram(drawn, bins=3, range=(0.5, 2.0))
  assert counts.sum() == 2000
  assert counts.min() > 600


def test_windows_begin_at_a_multiple_of_align_and_reach_the_end():
  rng = np.random.default_rng(0)
  drawn = [draw_window(37, 16, 8, rng) for _ in range(200)]
  starts_and_stops = {(w.start, w.stop) for w in drawn}
  assert starts_and_stops == {(0, 16), (8, 24), (16, 32), (24, 37)}


@pytest.mark.parametrize(("length", "window"), [(16, 16), (9, 16), (40, 0)])
def test_a_video_that_fits_comes_whole(length, window):
  rng = np.random.default_rng(0)
  assert draw_window(length, window, 8, rng) == slice(0, length)
