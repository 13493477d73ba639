"""Batches of several processes: each makes its own rows of the whole batch,
and they are those that one process would have made."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
from batch_options import ilg_options
from stage_batches import QUICK, batch_of, leaves, params_of, stage

from ptlr_jax.data import batches, packing
from ptlr_jax.data.dataset import Video
from ptlr_jax.data.sampling import part_bounds

LENGTHS = (5, 17, 16, 40, 23, 30, 9, 61, 12, 33, 7, 28)
BATCH, CLASSES = 8, 3
ALL = range(len(LENGTHS))
DRAWN: dict[str, Any] = {"seed": 0, "name": "ots-1"}


class _Elsewhere(Mapping):
  """Features of another process: their length is known, and no more."""

  def __init__(self, num_segments):
    self.num_segments = num_segments

  def __getitem__(self, stream):
    raise AssertionError(f"{stream} of another process's video was read")

  def __iter__(self):
    raise AssertionError("another process's video was read")

  def __len__(self):
    return 2

  def load(self):
    """As features on disk are read."""
    raise AssertionError("another process's video was read")


@functools.cache
def _features(n):
  rng = np.random.default_rng(n)
  return {
    name: rng.normal(size=(LENGTHS[n], width)).astype(np.float32)
    for name, width in (("rgb", 3), ("flow", 2))
  }


def _videos(own=ALL):
  """All videos; the features of the `own` alone can be read."""
  return [
    Video(
      f"video{n}",
      _features(n) if n in own else _Elsewhere(length),
      (n % CLASSES,),
      (),
    )
    for n, length in enumerate(LENGTHS)
  ]


def _labels(own=ALL) -> Any:
  """Pseudo labels of the `own` videos alone."""
  found = {}
  for n in own:
    rng, shape = np.random.default_rng(100 + n), LENGTHS[n]
    targets = np.eye(CLASSES + 1, dtype=bool)[rng.integers(0, 4, shape)]
    found[n] = targets, rng.random(shape) < 0.6
  return found


def _own(process, processes):
  """The videos of a process, which are consecutive."""
  return range(*part_bounds(len(LENGTHS), processes)[process])


def _ilg(own=ALL, **how):
  options = ilg_options(batch_size=BATCH)
  return batches.ilg_batches(_videos(own), CLASSES, options, **DRAWN, **how)


def _labelled(own=ALL, **how):
  shape = {"window": 32, "align": 4}
  return batches.labelled_batches(
    _videos(own), _labels(own), BATCH, **shape, **DRAWN, **how
  )


def _shares(make, processes, parts, **how):
  """The batch functions of all processes, of which each has its own part."""
  return [
    make(_own(p, processes), parts=parts, share=(p, processes), **how)
    for p in range(processes)
  ]


def _joined(each):
  """The batches of all processes as one; what is common must be the same."""
  first, found = each[0], {}
  for name in first:
    values = [batch[name] for batch in each]
    if name in ("scale", "scale_grid"):
      for value in values:
        np.testing.assert_array_equal(value, values[0])
      found[name] = values[0]
    else:
      found[name] = jax.tree.map(lambda *x: np.concatenate(x), *values)
  return found


def _assert_same(one, other):
  assert one.keys() == other.keys()
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(leaves(one), leaves(other), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


SHARES = [(2, 2), (2, 4), (4, 4)]  # processes, parts of the videos


@pytest.mark.parametrize(("processes", "parts"), SHARES)
@pytest.mark.parametrize("make", [_ilg, _labelled])
def test_shares_one_after_the_other_are_the_whole(make, processes, parts):
  """No features and no labels of the other processes are read."""
  whole, shares = make(parts=parts), _shares(make, processes, parts)
  for i in range(12):
    each = [batch_at(i) for batch_at in shares]
    assert {len(batch["mask"]) for batch in each} == {BATCH // processes}
    _assert_same(_joined(each), whole(i))


@pytest.mark.parametrize(("processes", "parts"), SHARES)
def test_packed_shares_are_the_whole_laid_in_rows_of_their_own(
  processes, parts
):
  whole = _labelled(parts=parts)
  shares = _shares(_labelled, processes, parts, packed_rows=4)
  for i in range(12):
    plain, found = whole(i), _joined([batch_at(i) for batch_at in shares])
    assert len(found["mask"]) == 4
    lengths = plain["mask"].sum(1).tolist()
    layout = packing.packed(lengths, 4, 4, processes)

    def laid(x, plain=plain, layout=layout):
      return layout.laid(
        [row[valid] for row, valid in zip(x, plain["mask"], strict=True)]
      )

    _assert_same(found, jax.tree.map(laid, plain))


def test_one_process_packs_as_it_did():
  one, plain = _labelled(packed_rows=2)(3), _labelled()(3)
  lengths = plain["mask"].sum(1).tolist()
  layout = packing.packed(lengths, 2, 4)
  np.testing.assert_array_equal(one["mask"], layout.mask(lengths))


@pytest.mark.parametrize("make", [_ilg, _labelled])
def test_rows_of_resident_features_are_the_share_s(make):
  first = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
  whole = make(parts=2, first=first)
  shares = _shares(make, 2, 2, first=first)
  for i in range(4):
    _assert_same(_joined([batch_at(i) for batch_at in shares]), whole(i))


@pytest.mark.parametrize(("processes", "parts"), SHARES)
def test_a_share_is_of_the_process_s_own_part_of_the_videos(processes, parts):
  for i in range(20):
    drawn = batches.drawn(_videos(), BATCH, i, **DRAWN, parts=parts)
    seen = [int(video.id.removeprefix("video")) for video in drawn]
    count = BATCH // processes
    for p in range(processes):
      assert set(seen[p * count : (p + 1) * count]) <= set(_own(p, processes))


def test_numbers_and_videos_count_over_the_whole_batch():
  second = _shares(_labelled, 2, 2)[1](0)
  assert sorted(set(second["video"][second["mask"]])) == [4, 5, 6, 7]
  first = _shares(_labelled, 2, 2)[0](0)
  assert second["number"][second["mask"]].min() == first["mask"].sum()
  rows = [batch_at(0)["row"] for batch_at in _shares(_ilg, 2, 2)]
  assert [row.tolist() for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7]]
  assert {row.dtype for row in rows} == {np.dtype(np.int32)}


def test_a_longer_grid_draws_no_other_dropout():
  """Seeds at once have the longest of their grids."""
  loss = stage("ilg", ("streams", ("rgb",)), ("loss.alpha", 0.0)).loss
  params = params_of("ilg", ("streams", ("rgb",)), ("loss.alpha", 0.0))
  program = jax.jit(jax.value_and_grad(loss, has_aux=True))

  def run(grid):
    arguments = params, batch_of(grid=grid), jax.random.key(0)
    return program.lower(*arguments).compile(QUICK)(*arguments)

  for a, b in zip(leaves(run(26)), leaves(run(40)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
