"""Batches of features that stay on disk, read ahead of training by grain.

What a batch holds is a function of its number (`batches`), so that streaming
changes when it is made, never what it is, and resuming is starting later.
"""

from collections.abc import Callable

import grain

from ptlr_jax.data.batches import Batch

BUFFER = 2  # batches ready ahead of the one that is trained on


def read_ahead(
  batch_at: Callable[[int], Batch],
  start: int,
  stop: int,
  threads: int = 2,
) -> Callable[[int], Batch]:
  """`batch_at` for the updates from `start` to `stop`, to be asked in order.

  Videos are read from ArrayRecord shards, or from feature files, in `threads`
  threads; at most `BUFFER` batches wait.
  """
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=max(BUFFER, threads)
  )
  numbered = grain.MapDataset.range(start, stop).map(
    lambda i: (int(i), batch_at(int(i)))
  )
  batches = iter(numbered.to_iter_dataset(options))

  def following(i: int) -> Batch:
    number, batch = next(batches)
    if number != i:
      raise ValueError(f"batches are streamed in order: {number}, not {i}")
    return batch

  return following
