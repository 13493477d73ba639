"""mAP of temporal action detections under named protocols (NumPy only).

The average precision is that of the official ActivityNet evaluator.  What it
does, and what is kept here on purpose:

- Detections of a class are taken by decreasing score over all videos.
- A video without ground truth of that class makes every detection of it in
  that video a false positive, whether or not the ground truth knows the video.
- Ground truths written twice are two instances: both count, both can be found.
- The mAP is over the classes of the ground truth; one never detected has AP 0.
- A detection without length finds an instance without length, wherever it is.

Ties, where the official code is arbitrary: see `evaluation.matching`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax.evaluation import ambiguity, average_precision, protocols
from ptlr_jax.evaluation.average_precision import Scored
from ptlr_jax.evaluation.instances import (
  Detections,
  Truth,
  detections_of,
  truth_of,
)
from ptlr_jax.evaluation.protocols import average_key, protocol, tiou_key


def detection_map(
  ground_truth: Mapping[str, Any],
  detections: Mapping[str, Any],
  name: str,
  stretches: Mapping[str, Sequence[tuple[float, float]]] | None = None,
  rule: str = "kit",
) -> dict[str, Any]:
  """mAP at every tIoU, its averages and the AP of every class, in 0..1.

  {VIDEO: {"annotations": [{"segment", "label"}]}} (a `database` of the test
  videos alone), {VIDEO: [{"label", "score", "segment"}]} (`results`), seconds,
  the protocol's name -> what `summary` returns.  Ambiguous `stretches`
  {VIDEO: [(start, end)]} are treated by `rule`, see `evaluation.ambiguity`.

  Raises:
    ValueError: an entry cannot be scored, or there is no ground truth.
  """
  chosen = protocol(name)
  problems: list[str] = []
  truth = truth_of(ground_truth, chosen, "ground truth", problems)
  if problems:
    raise ValueError(
      f"{problems[0]}; pass the inner dict of the file, its 'database'"
    )
  if not truth.labels:
    raise ValueError(
      "expected a ground truth with at least one annotation, got "
      f"{len(ground_truth)} videos with none"
    )
  found = detections_of(detections, truth, chosen, "detections", problems)
  if problems:
    raise ValueError(
      f"{problems[0]}; pass the inner dict of the file, its 'results'"
    )
  ambiguous = None
  if stretches:
    found, ambiguous, _ = ambiguity.applied(found, stretches, chosen, rule)
  return summary(average_precision.score(truth, found, chosen, ambiguous))


def summary(scored: Scored) -> dict[str, Any]:
  """The figures of scored detections, and what was odd about them, for JSON.

  `protocol`, `mAP` {tIoU: mAP}, `averages` {range: mAP}, `per_class` {label:
  {tIoU: AP}}, all in 0..1, and

  - `ignored`: detections by class that the ground truth does not have; they are
    in no figure;
  - `unknown_videos`: detections of known classes by video that the ground truth
    does not have; these are false positives, as in the official evaluator;
  - `without_detections`: classes and videos of the ground truth;
  - `zero_length`: instances and detections without length, counted by video;
  - `written_twice`: instances that stand in the ground truth before;
  - `counts`: of videos, classes, instances, and detections of known classes;
  - `ties`: see `_ties`.
  """
  truth, found = scored.truth, scored.found
  keys = list(map(tiou_key, scored.protocol.tious))
  averages = protocols.averages(scored.protocol, scored.mean)
  detected = np.bincount(found.label, minlength=len(truth.labels))
  seen = np.bincount(found.video, minlength=len(found.videos))
  return {
    "protocol": scored.protocol.name,
    "mAP": dict(zip(keys, scored.mean.tolist(), strict=True)),
    "averages": {key: float(value) for key, value in averages.items()},
    "per_class": {
      label: dict(zip(keys, ap, strict=True))
      for label, ap in zip(truth.labels, scored.ap.tolist(), strict=True)
    },
    "ignored": dict(found.ignored),
    "unknown_videos": dict(found.unknown),
    "without_detections": {
      "classes": [truth.labels[n] for n in np.flatnonzero(detected == 0)],
      "videos": [
        truth.videos[n] for n in np.flatnonzero(seen[: len(truth.videos)] == 0)
      ],
    },
    "zero_length": {
      "instances": _by_video(truth, truth.videos),
      "detections": _by_video(found, found.videos),
    },
    "written_twice": _repeated(truth),
    "counts": {
      "videos": len(truth.videos),
      "classes": len(truth.labels),
      "instances": len(truth.label),
      "detections": len(found.label),
    },
    "ties": _ties(scored, keys),
  }


def _by_video(
  rows: Truth | Detections, videos: Sequence[str]
) -> dict[str, int]:
  """How many rows without length each video has, where it has any."""
  count = np.bincount(rows.video[rows.start == rows.end], minlength=len(videos))
  return {videos[n]: int(count[n]) for n in np.flatnonzero(count).tolist()}


def _repeated(truth: Truth) -> int:
  rows = np.stack([truth.video, truth.label, truth.start, truth.end])
  return len(truth.video) - np.unique(rows, axis=1).shape[1]


def _ties(scored: Scored, keys: Sequence[str]) -> dict[str, Any]:
  """What hangs on ties, named.

  `scores`: detections whose score others of their class have too; `overlaps`:
  detections that overlap two instances equally; `pairs`: each label and tIoU
  whose AP another order would move, its AP here, and the lowest and the highest
  of the orders that `find_ties` tries; `mAP` {tIoU: [low, high]}.
  """
  found = average_precision.find_ties(scored)
  pairs = [
    {
      "label": scored.truth.labels[c],
      "tiou": keys[k],
      "ap": float(scored.ap[c, k]),
      "low": float(found.low[c, k]),
      "high": float(found.high[c, k]),
    }
    for c, k in np.argwhere(found.hanging)
  ]
  moved = np.flatnonzero(found.hanging.any(0))
  low, high = found.low.mean(0), found.high.mean(0)
  return {
    "scores": found.scores,
    "overlaps": found.overlaps,
    "pairs": pairs,
    "mAP": {keys[k]: [float(low[k]), float(high[k])] for k in moved.tolist()},
  }


def format_table(
  rows: Sequence[tuple[str, Mapping[str, Any]]], name: str
) -> str:
  """A plain table in percent: a row a result, mAP at each tIoU, the averages.

  [(name, what `detection_map` returned)], the protocol's name -> text without a
  final newline.
  """
  chosen = protocol(name)
  averages = list(map(average_key, chosen.averages))
  lines = [["tIoU", *(f"{tiou:g}" for tiou in chosen.tious), *averages]]
  for row, result in rows:
    if result["protocol"] != chosen.name:
      raise ValueError(
        f"{row}: expected a result under {chosen.name!r}, got one under "
        f"{result['protocol']!r}"
      )
    values = [result["mAP"][tiou_key(tiou)] for tiou in chosen.tious]
    values += [result["averages"][average] for average in averages]
    lines.append([row, *(f"{100 * value:.1f}" for value in values)])
  return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
  """Cells as columns, the first to the left, the others to the right."""
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    line[0].ljust(widths[0])
    + "".join(
      f"  {cell:>{width}}"
      for cell, width in zip(line[1:], widths[1:], strict=True)
    )
    for line in lines
  )
