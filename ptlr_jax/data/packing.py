"""Where the segments of each video lie in a batch.

Videos of very different lengths, each in a row of its own, make a batch that is
mostly padding: with THUMOS14's lengths 61 % of it. Laid one after the other in
a few rows, with masked segments between them, they cost what they are long.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptlr_jax.data.sampling import padded_length

PARTS = 4  # sizes between a power of two and the next


class Layout(NamedTuple):
  """A batch of `rows` x `size` segments; video i begins at places[i], which is
  (row, segment)."""

  rows: int
  size: int
  places: tuple[tuple[int, int], ...]

  def laid(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """An array [length,...] of each video as one [rows,size,...], 0 between."""
    first = arrays[0]
    shape = self.rows, self.size, *first.shape[1:]
    found = np.zeros(shape, first.dtype)
    for (row, start), array in zip(self.places, arrays, strict=True):
      found[row, start : start + len(array)] = array
    return found

  def mask(self, lengths: Sequence[int]) -> np.ndarray:
    """The valid segments, bool[rows,size]."""
    return self.laid([np.ones(length, bool) for length in lengths])

  def share(self, p: int, count: int) -> "Layout":
    """Share p of `count`: as many of the videos, and of the rows they are in.

    Consecutive ones; of `packed` they are in no other rows if it had `count`
    parts.
    """
    rows, videos = self.rows // count, len(self.places) // count
    own = self.places[p * videos : (p + 1) * videos]
    places = tuple((row - p * rows, start) for row, start in own)
    return Layout(rows, self.size, places)


def own_rows(count: int, size: int) -> Layout:
  """Every video in a row of its own, from its first segment on."""
  return Layout(count, size, tuple((row, 0) for row in range(count)))


def packed(
  lengths: Sequence[int], rows: int, align: int, parts: int = 1
) -> Layout:
  """Videos one after the other in `rows` rows of like length.

  Each begins at a multiple of `align`, at least `align` masked segments after
  the one before: 2 to the power of Network-RTS's branches keeps every video on
  its own grid and out of reach of its neighbours, as convolutions read masked
  segments as zeros. The longest come first, each in the row that is shortest;
  the order of the batch stays as it is. Rows are of one of a few lengths, each
  of which is compiled once.

  With `parts` above 1 the videos are so many consecutive runs of as many each,
  and run p lies in rows p x rows/parts to (p + 1) x rows/parts alone.
  """
  ends = [0] * rows
  places = [(0, 0)] * len(lengths)
  for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    first = i // (len(lengths) // parts) * (rows // parts)
    row = min(range(first, first + rows // parts), key=ends.__getitem__)
    places[i] = row, ends[row]
    ends[row] += (-(-lengths[i] // align) + 1) * align
  size = padded_length(max(ends), parts=PARTS)
  return Layout(rows, size, tuple(places))
