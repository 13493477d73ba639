"""The official evaluation as plain loops, ties by the rule of `matching`."""


def _overlap(start, end, low, high):
  """Intersection over union; 0 / 0 is above everything, as NaN sorts last."""
  inter = max(min(end, high) - max(start, low), 0.0)
  union = (high - low) + (end - start) - inter
  return inter / union if union else float("inf")


def average_precisions(ground_truth, detections, tious):
  """{label: [AP at each tIoU]} of a database and of results."""
  truths: dict = {}
  for video, entry in ground_truth.items():
    for item in entry["annotations"]:
      start, end = map(float, item["segment"])
      of_label = truths.setdefault(item["label"], {})
      of_label.setdefault(video, []).append((start, end))
  return {
    label: [_ap(label, of_label, detections, tiou) for tiou in tious]
    for label, of_label in truths.items()
  }


def _ap(label, truths, detections, tiou):
  rows = sorted(
    (-item["score"], video, *map(float, item["segment"]))
    for video, items in detections.items()
    for item in items
    if item["label"] == label
  )
  taken, hits = set(), []
  for _, video, start, end in rows:
    # Downwards by overlap, then the later start, then the later end.
    rivals = sorted(
      (
        (_overlap(start, end, low, high), low, high, n)
        for n, (low, high) in enumerate(truths.get(video, ()))
      ),
      reverse=True,
    )
    hits.append(False)
    for overlap, *_, n in rivals:
      if overlap < tiou:
        break
      if (video, n) not in taken:
        taken.add((video, n))
        hits[-1] = True
        break
  total = sum(map(len, truths.values()))
  recall, precision = [0.0], [0.0]
  for n in range(len(hits)):
    recall.append(sum(hits[: n + 1]) / total)
    precision.append(sum(hits[: n + 1]) / (n + 1))
  recall.append(1.0)
  precision.append(0.0)
  for n in reversed(range(len(precision) - 1)):
    precision[n] = max(precision[n], precision[n + 1])
  return sum(
    (recall[n] - recall[n - 1]) * precision[n] for n in range(1, len(recall))
  )
