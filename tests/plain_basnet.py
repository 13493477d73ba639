"""BaSNet-pytorch's way from a CAS to detections, read as plain loops."""

import math


def detections(logits, scores, segments, seconds=0.64):
  """[(class, score, start, end)] of one video of that many segments.

  f[S,C+1] at S uniform positions, class scores f[C], seconds a segment.
  """
  size = len(logits)
  passing = [c for c in range(len(scores)) if scores[c] >= 0.25]
  if sum(passing) == 0:  # nothing, or class 0 alone
    return []
  found = []
  for c in passing:
    column = [float(x) for x in logits[:, c]]
    low, high = max(0, min(column)), max(0, max(column))
    span = high - low if high > low else 1
    column = [(x - low) / span for x in column]
    fine = []
    for i in range(24 * size):
      left = min(i // 24, size - 2)
      weight = i / 24 - left
      fine.append(column[left] + weight * (column[left + 1] - column[left]))
    candidates = []
    for level in range(10):
      kept = [x if x >= level * 0.025 else 0.0 for x in fine]
      places = [i for i, x in enumerate(kept) if x > 0]
      if not any(places):
        continue
      runs, begun = [], places[0]
      for i, place in enumerate(places):
        if i + 1 == len(places) or places[i + 1] != place + 1:
          runs.append((begun, place))
          begun = places[i + 1] if i + 1 < len(places) else None
      for first, last in runs:
        length = last - first + 1
        before = max(0, int(first - 0.25 * length))
        after = min(len(fine) - 1, int(last + 0.25 * length))
        ring = kept[before:first] + kept[last + 1 : after + 1]
        inside = math.fsum(kept[first : last + 1]) / length
        outside = math.fsum(ring) / len(ring) if ring else 0.0
        unit = seconds * segments / (24 * size)
        score = inside - outside + 0.2
        candidates.append((c, score, first * unit, (last + 1) * unit))
    candidates.sort(key=lambda item: -item[1])
    while candidates:
      best = candidates.pop(0)
      found.append(best)

      def overlap(item, best=best):
        both = min(best[3], item[3]) - max(best[2], item[2]) + 1
        both = max(0.0, both)
        lengths = best[3] - best[2] + 1 + item[3] - item[2] + 1
        return both / (lengths - both)

      candidates = [item for item in candidates if overlap(item) < 0.7]
  return sorted(found, key=lambda item: -item[1])
