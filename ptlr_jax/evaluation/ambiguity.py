"""What is done with detections over ambiguous stretches."""

from collections.abc import Mapping, Sequence

import numpy as np

from ptlr_jax.evaluation import matching
from ptlr_jax.evaluation.instances import Detections, Truth
from ptlr_jax.evaluation.protocols import Protocol, whole_segments

RULES = {
  "kit": "the THUMOS kit's: no false positive, but it may find an instance",
  "wtalc": "W-TALC's: it is left out before anything is matched",
}


def applied(
  found: Detections,
  stretches: Mapping[str, Sequence[tuple[float, float]]],
  protocol: Protocol,
  rule: str,
) -> tuple[Detections, np.ndarray | None, int]:
  """Detections that are left, which of them `average_precision.score` takes as
  ambiguous, bool[P] or None, and how many lie over stretches."""
  ambiguous = over(found, stretches, protocol)
  number = int(ambiguous.sum())
  if rule == "wtalc":
    return found.take(np.flatnonzero(~ambiguous)), None, number
  return found, ambiguous, number


def over(
  found: Detections,
  stretches: Mapping[str, Sequence[tuple[float, float]]],
  protocol: Protocol,
) -> np.ndarray:
  """Which detections share time with a stretch of their video, bool[P].

  {VIDEO: [(start, end)]}, seconds.
  """
  index = {video: n for n, video in enumerate(found.videos)}
  rows = [
    (index[video], start, end)
    for video, spans in stretches.items()
    if video in index
    for start, end in spans
  ]
  video, start, end = np.array(rows, float).reshape(-1, 3).T
  if protocol.snapped:
    start, end = whole_segments(start), whole_segments(end)
  spans = Truth(
    videos=found.videos,
    labels=("",),
    video=video.astype(np.int64),
    label=np.zeros(len(video), np.int64),
    start=start,
    end=end,
    duration=np.full(len(found.videos), np.nan),
  )
  pairs = matching.overlapping(found, spans, np.finfo(float).tiny, False)
  shared = pairs.detection[np.isfinite(pairs.overlap)]
  return np.isin(np.arange(len(found.video)), shared)
