"""From CASs to detections as public code does it: NumPy, a run at a time."""

import numpy as np


def upsample(column, factor, grid="centres"):
  """One sequence f[T] at T * factor positions."""
  size = len(column)
  if grid == "centres":
    position = (np.arange(size * factor) + 0.5) / factor - 0.5
    return np.interp(position, np.arange(size), column)
  position = np.arange(size * factor) / factor
  longer = np.append(column, 2 * column[-1] - column[-2 if size > 1 else -1])
  return np.interp(position, np.arange(size + 1), longer)


def group(places):
  """Runs of consecutive places, each as (first, last)."""
  parts = np.split(places, np.where(np.diff(places) != 1)[0] + 1)
  return [(part[0], part[-1]) for part in parts if len(part)]


def outer_inner(sequence, first, last, ring=0.25, down_after=False):
  """Mean of first..last minus mean of the ring around it."""
  length = last - first + 1
  before = int(np.ceil(ring * length - 1e-9))
  after = int(np.floor(ring * length + 1e-9)) if down_after else before
  outer = np.concatenate(
    [
      sequence[max(first - before, 0) : first],
      sequence[last + 1 : last + 1 + after],
    ]
  )
  inner = sequence[first : last + 1].mean()
  return inner - (outer.mean() if len(outer) else 0.0)


def propose(
  cas,
  class_scores,
  classes,
  *,
  thresholds,
  upsample_factor,
  seconds_per_segment,
  offset=0.0,
  ring=0.25,
  class_weight=0.2,
  contrast="cas",
  grid="centres",
  ring_rounding="up",
  positive_runs=False,
):
  """[(class, start, end, score)] of one video, before NMS."""
  found = []
  for c in classes:
    sequence = upsample(cas[:, c].astype(np.float64), upsample_factor, grid)
    seen = set()
    for threshold in thresholds:
      kept = np.where(sequence >= threshold, sequence, 0.0)
      places = np.where(kept > 0 if positive_runs else sequence >= threshold)[0]
      if positive_runs and not places.any():  # none, or the very first alone
        continue
      for first, last in group(places):
        if contrast == "cas" and (first, last) in seen:
          continue
        seen.add((first, last))
        value = outer_inner(
          sequence if contrast == "cas" else kept,
          first,
          last,
          ring,
          ring_rounding == "towards_start",
        )
        unit = seconds_per_segment / upsample_factor
        found.append(
          (
            c,
            first * unit + offset,
            (last + 1) * unit + offset,
            value + class_weight * class_scores[c],
          )
        )
  return found


def nms(segments, threshold, plus_one=False, drop_equal=False):
  """[(start, end, score)] -> indexes that are kept, by decreasing score."""
  start, end, score = np.array(segments, np.float64).reshape(-1, 3).T
  extra = 1.0 if plus_one else 0.0
  length = end - start + extra
  order = np.argsort(-score, kind="stable")
  kept = []
  while order.size:
    best, others = order[0], order[1:]
    kept.append(best)
    low = np.maximum(start[best], start[others])
    high = np.minimum(end[best], end[others])
    inter = np.maximum(high - low + extra, 0.0)
    union = length[best] + length[others] - inter
    if drop_equal:
      order = others[inter < threshold * union]
    else:
      order = others[inter <= threshold * union]
  return kept


def merge(found, threshold, plus_one=False, drop_equal=False):
  """[(class, start, end, score)] after NMS per class, by decreasing score."""
  kept = []
  for c in sorted({row[0] for row in found}):
    rows = [row for row in found if row[0] == c]
    chosen = nms([row[1:] for row in rows], threshold, plus_one, drop_equal)
    kept += [rows[n] for n in chosen]
  return sorted(kept, key=lambda row: -row[3])
