"""Pairs of rows with what each has several of, part by part (NumPy only)."""

from collections.abc import Iterator

import numpy as np


def expanded(
  counts: np.ndarray, limit: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(row, nth) of all that each row has, nth from 0 to its count - 1.

  i64[R] counts -> i64[N] and i64[N], by row, then by nth, in parts of at most
  `limit` pairs, or of one row that has more.
  """
  until = np.cumsum(counts)
  a = 0
  while a < len(until):
    before = until[a] - counts[a]
    b = int(np.searchsorted(until, before + limit, side="right"))
    b = max(b, a + 1)
    row = np.repeat(np.arange(a, b), counts[a:b])
    first = until[a:b] - counts[a:b] - before  # of each row in this part
    yield row, np.arange(len(row)) - np.repeat(first, counts[a:b])
    a = b
