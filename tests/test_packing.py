"""Videos laid one after the other: where they lie, and what it leaves alone."""

from typing import Any

import jax
import numpy as np
import pytest
from stage_batches import QUICK

from configs import base
from ptlr_jax.data import batches, packing
from ptlr_jax.data.dataset import Video
from ptlr_jax.method.registry import STAGES

LENGTHS = (1, 7, 8, 9, 16, 40, 25)
CLASSES, ALIGN = 3, 8


def test_videos_are_laid_longest_first_into_the_shortest_row_by_hand():
  layout = packing.packed([3, 9, 8], rows=2, align=4)
  # 9 to row 0; 8 to row 1; 3 to row 1, whose end is 12 where row 0's is 16.
  assert layout.places == ((1, 12), (0, 0), (1, 0))
  assert (layout.rows, layout.size) == (2, 20)
  found = layout.laid([np.array([n] * n) for n in (3, 9, 8)])
  assert found[0].tolist() == [9] * 9 + [0] * 11
  assert found[1].tolist() == [8] * 8 + [0] * 4 + [3] * 3 + [0] * 5
  np.testing.assert_array_equal(layout.mask([3, 9, 8]), found > 0)


def test_rows_of_their_own_begin_at_their_first_segment():
  layout = packing.own_rows(2, 4)
  assert layout.laid([np.array([1, 2]), np.array([3.0])]).tolist() == [
    [1, 2, 0, 0],
    [3, 0, 0, 0],
  ]


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("align", [2, 4, 8])
def test_videos_are_aligned_and_out_of_each_others_reach(rows, align):
  rng = np.random.default_rng(0)
  for _ in range(20):
    lengths = rng.integers(1, 60, 9).tolist()
    layout = packing.packed(lengths, rows, align)
    taken = np.zeros((layout.rows, layout.size), int)
    for (row, start), length in zip(layout.places, lengths, strict=True):
      assert start % align == 0
      assert start + length <= layout.size
      taken[row, start : start + length + align] += 1
    assert taken.max() == 1


def test_what_is_padded_on_thumos14_like_lengths_is_little():
  rng = np.random.default_rng(0)
  padded = valid = 0
  sizes = set()
  for _ in range(200):
    lengths = np.minimum(rng.lognormal(5.3, 1, 16).astype(int) + 1, 750)
    layout = packing.packed(lengths.tolist(), 1, 8)
    padded += layout.rows * layout.size
    valid += lengths.sum()
    sizes.add(layout.size)
  assert padded < 1.25 * valid
  assert len(sizes) < 12


def _videos():
  rng = np.random.default_rng(1)
  return [
    Video(
      f"video{i}",
      {
        name: rng.normal(size=(length, width)).astype(np.float32)
        for name, width in (("rgb", 3), ("flow", 2))
      },
      (0,),
      (),
    )
    for i, length in enumerate(LENGTHS)
  ]


def _labels():
  rng = np.random.default_rng(2)
  return [
    (
      np.eye(CLASSES + 1, dtype=bool)[rng.integers(0, CLASSES + 1, length)],
      rng.random(length) < 0.6,
    )
    for length in LENGTHS
  ]


def _batch(rows: int) -> dict[str, Any]:
  drawn = {"window": 32, "align": ALIGN, "seed": 0, "name": "ots-1"}
  count = len(LENGTHS)
  at = batches.labelled_batches(
    _videos(), _labels(), count, packed_rows=rows, **drawn
  )
  return at(0)


def test_numbers_count_the_segments_video_after_video():
  for rows in (0, 1, 3):
    batch = _batch(rows)
    valid, number = batch["mask"], batch["number"]
    assert number.dtype == np.int32
    assert sorted(number[valid]) == list(range(valid.sum()))
    assert not number[~valid].any()
    order = np.argsort(number[valid])
    assert (np.diff(batch["video"][valid][order]) >= 0).all()
    # Neighbours in a video are neighbours in their row.
    inside = valid[:, 1:] & valid[:, :-1]
    assert (np.diff(number, axis=1)[inside] == 1).all()


def test_parts_of_a_packed_batch_have_rows_of_their_own_by_hand():
  # 3 and 9 in rows 0 and 1, 8 and 5 in rows 2 and 3, all rows of one size.
  layout = packing.packed([3, 9, 8, 5], rows=4, align=4, parts=2)
  assert layout.places == ((1, 0), (0, 0), (2, 0), (3, 0))
  assert layout.share(0, 2) == packing.Layout(2, 16, ((1, 0), (0, 0)))
  assert layout.share(1, 2) == packing.Layout(2, 16, ((0, 0), (1, 0)))
  # One row each: the longer part sets the size.
  layout = packing.packed([3, 9, 80, 5], rows=2, align=4, parts=2)
  assert layout.places == ((0, 16), (0, 0), (1, 0), (1, 84))
  assert layout.share(0, 2).size == layout.size == 96


def test_a_packed_batch_holds_what_the_padded_one_holds():
  padded, one = _batch(0), _batch(1)
  assert one["mask"].shape[0] == 1
  assert one["mask"].size < padded["mask"].size
  for i in range(len(LENGTHS)):
    ours = one["mask"] & (one["video"] == i)
    theirs = padded["mask"] & (padded["video"] == i)
    assert ours.sum() == theirs.sum()
    for name in ("targets", "selected", "number"):
      np.testing.assert_array_equal(one[name][ours], padded[name][theirs])
    for stream in ("rgb", "flow"):
      np.testing.assert_array_equal(
        one["features"][stream][ours], padded["features"][stream][theirs]
      )


CHANGES = [
  ("ots", {}),
  ("ots", {"loss_average": "video", "class_balance": True}),
  ("rts", {}),
  (
    "rts",
    {"loss_average": "video", "class_balance": True, "model.centred": False},
  ),
  ("rts", {"model.convolution": "winograd2"}),
]


@pytest.mark.parametrize(("name", "changes"), CHANGES, ids=str)
def test_packing_changes_neither_the_loss_nor_its_gradient(name, changes):
  """With dropout, which knows a segment by its number."""
  options = base.get_config()[name]
  if name == "rts":
    options.model.branches = 2  # less to compile
  options.update_from_flattened_dict(
    {"model.width": 4, "model.dropout": 0.5, **changes}
  )
  stage = STAGES[name](CLASSES, options)
  made = jax.eval_shape(
    lambda: stage.init(jax.random.key(0), {"rgb": 3, "flow": 2})
  )
  rng = np.random.default_rng(3)
  params = jax.tree.map(
    lambda x: rng.uniform(-0.9, 0.9, x.shape).astype(x.dtype), made
  )

  def results(rows, seed=0):
    arguments = params, _batch(rows), jax.random.key(seed)
    gradient = jax.jit(jax.value_and_grad(stage.loss, has_aux=True))
    return gradient.lower(*arguments).compile(QUICK)(*arguments)

  (value, _), gradients = results(0)
  for rows in (1, 3):
    (other, _), packed = results(rows)
    np.testing.assert_allclose(other, value, rtol=1e-5)
    for a, b in zip(
      jax.tree.leaves(packed), jax.tree.leaves(gradients), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
