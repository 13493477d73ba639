"""Sequences between their segments: linear interpolation over time (NumPy).

Upsampled sequences are 24 times as long; what is asked of them, where they pass
a level and what they sum up to, can be had without building them.
"""

import dataclasses

import numpy as np


def finite(name: str, values: np.ndarray, ndim: int) -> np.ndarray:
  """The values as an array, refused unless finite and of that many axes."""
  values = np.asarray(values)
  if values.ndim != ndim:
    raise ValueError(
      f"expected {name} with {ndim} axes, got shape {values.shape}"
    )
  bad = np.argwhere(~np.isfinite(values))
  if len(bad):
    raise ValueError(
      f"expected {name} with finite values, got {len(bad)} that are not, the "
      f"first at {tuple(bad[0].tolist())}"
    )
  return values


@dataclasses.dataclass(frozen=True)
class Upsampled:
  """C sequences, N positions each, as pieces between two segments.

  Position i is the m-th of piece p, where p, m = divmod(i + shift, F), and has
  the value left[p] + weights[m] * step[p]; f64[C,P], f64[C,P], f64[F]. Within
  a piece values only rise or only fall, in floating point too.
  """

  left: np.ndarray
  step: np.ndarray
  weights: np.ndarray
  shift: int
  size: int

  def values(self) -> np.ndarray:
    """All of them, f64[C,N]."""
    piece, m = np.divmod(np.arange(self.size) + self.shift, len(self.weights))
    # This form keeps a constant sequence constant to the last bit.
    return self.left[:, piece] + self.weights[m] * self.step[:, piece]

  def sums(self) -> "Sums":
    """For sums over runs of positions."""
    partial = np.concatenate([[0.0], np.cumsum(self.weights)])
    whole = len(self.weights) * self.left + partial[-1] * self.step
    before = np.zeros_like(whole)
    np.cumsum(whole[:, :-1], axis=1, out=before[:, 1:])
    return Sums(self, before, partial)


@dataclasses.dataclass(frozen=True)
class Sums:
  """Prefix sums: f64[C,P] before each piece, f64[F+1] of the weights."""

  of: Upsampled
  before: np.ndarray
  partial: np.ndarray

  def until(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Sum of what comes before a position, up to a constant of its sequence.

    i64[Q] sequence, i64[Q] in 0..N -> f64[Q].
    """
    factor, pieces = len(self.of.weights), self.of.left.shape[1]
    place = positions + self.of.shift
    # The end of the last piece counts as its F-th place: no other follows.
    piece = np.minimum(place // factor, pieces - 1)
    m = place - piece * factor
    # Much faster flat than in two axes.
    at = rows * pieces + piece
    found = self.before.ravel()[at] + m * self.of.left.ravel()[at]
    return found + self.partial[m] * self.of.step.ravel()[at]


def upsampled(
  cas: np.ndarray, factor: int = 24, grid: str = "centres"
) -> Upsampled:
  """Sequences f[T,C], T of at least 1, at T * factor positions.

  Position i lies, on the grid `centres`, at (i + 0.5) / factor - 0.5, clipped
  to [0, T - 1], as PyTorch's interpolate has it with align_corners=False; on
  the grid `left`, at i / factor, extrapolated past T - 1, as BaSNet-pytorch has
  it.
  """
  cas = finite("cas f[T,C]", cas, 2)
  if factor < 1:
    raise ValueError(
      f"expected an upsampling factor of 1 or more, got {factor}"
    )
  nodes = np.ascontiguousarray(cas.T, np.float64)
  return {"centres": _centred, "left": _from_left}[grid](nodes, factor)


def _from_left(nodes: np.ndarray, factor: int) -> Upsampled:
  step = np.diff(nodes, axis=1)
  # The last piece goes on as the one before.
  last = step[:, -1:] if step.size else np.zeros((len(nodes), 1))
  weights = np.arange(factor) / factor
  size = nodes.shape[1] * factor
  return Upsampled(nodes, np.hstack([step, last]), weights, 0, size)


def _centred(nodes: np.ndarray, factor: int) -> Upsampled:
  """Pieces from centre to centre; an even factor has no position on one."""
  still = np.zeros((len(nodes), 1))
  return Upsampled(
    np.hstack([nodes[:, :1], nodes]),
    np.hstack([still, np.diff(nodes, axis=1), still]),
    (np.arange(factor) + (0.5 if factor % 2 == 0 else 0)) / factor,
    (factor + 1) // 2,
    nodes.shape[1] * factor,
  )


def runs(
  sequences: Upsampled, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """All runs of positions at or above each level, of every sequence.

  f64[K] -> i64[R] row, that is sequence * K + level, i64[R] starts, i64[R] ends
  (half-open); by row, then by start.
  """
  left, step = sequences.left, sequences.step
  factor, size = len(sequences.weights), sequences.size
  # Where each piece begins, and the last position.
  piece, m = divmod(size - 1 + sequences.shift, factor)
  last = left[:, piece] + sequences.weights[m] * step[:, piece]
  above = np.zeros((len(left), len(levels), piece + 4), bool)
  # Below every level before the first piece and after the last.
  np.greater_equal(
    left[:, None, : piece + 1],
    levels[:, None],
    out=above[:, :, 1 : piece + 2],
  )
  above[:, :, piece + 2] = last[:, None] >= levels
  flat = above.ravel()
  row, edge = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), piece + 4)
  # As each row begins and ends below, changes are up and down in turn.
  rising = np.arange(len(row)) % 2 == 0
  at = np.where(edge == 0, 0, size)
  inside = np.flatnonzero((edge > 0) & (edge < piece + 2))
  sequence, level = np.divmod(row[inside], max(len(levels), 1))
  at[inside] = (
    (edge[inside] - 1) * factor
    - sequences.shift
    + _flips(
      sequences, sequence, edge[inside] - 1, levels[level], rising[inside]
    )
  )
  # A dip or a peak between two positions begins and ends at the same one.
  void = (at[1:] == at[:-1]) & (row[1:] == row[:-1])
  if void.any():
    kept = np.ones(len(at), bool)
    kept[:-1] &= ~void
    kept[1:] &= ~void
    row, at = row[kept], at[kept]
  return row[::2], at[::2], at[1::2]


def _flips(
  sequences: Upsampled,
  rows: np.ndarray,
  pieces: np.ndarray,
  levels: np.ndarray,
  rising: np.ndarray,
) -> np.ndarray:
  """The first place of a piece on the other side of a level, i64[Q]; F if none.

  What the formula says is put right by the values themselves, so that rounding
  moves nothing.
  """
  weights = sequences.weights
  factor = len(weights)
  at = rows * sequences.left.shape[1] + pieces
  left, step = sequences.left.ravel()[at], sequences.step.ravel()[at]

  def flipped(m: np.ndarray) -> np.ndarray:
    return (left + weights[m] * step >= levels) == rising

  with np.errstate(over="ignore"):
    m = np.searchsorted(weights, (levels - left) / step)
  while True:
    back = (m > 0) & flipped(np.maximum(m - 1, 0))
    on = ~back & (m < factor) & ~flipped(np.minimum(m, factor - 1))
    if not (back | on).any():
      return m
    m = m - back + on
