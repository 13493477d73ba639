"""How well instances are found by their length, coverage and number.

After DETAD (Alwassel et al., 2018), whose bins the protocols hold.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptlr_jax.evaluation.instances import Truth
from ptlr_jax.evaluation.precision import Scored
from ptlr_jax.evaluation.protocols import SEGMENTS_PER_SECOND

SIZES = ("XS", "S", "M", "L", "XL")


def characteristics(scored: Scored) -> dict[str, np.ndarray]:
  """Of each instance, f64[G]: length in seconds, share of the video, number.

  The coverage is NaN where the ground truth has no duration of the video; the
  number is that of the instances of its class in its video.
  """
  truth = scored.truth
  length = truth.end - truth.start
  if scored.protocol.snapped:
    length = length / SEGMENTS_PER_SECOND
  return {
    "length": length,
    "coverage": length / truth.duration[truth.video],
    "count": _count(truth).astype(float),
  }


def _count(truth: Truth) -> np.ndarray:
  group = truth.video * len(truth.labels) + truth.label
  _, inverse, counts = np.unique(group, return_inverse=True, return_counts=True)
  return counts[inverse]


def bins(ends: Sequence[float], unit: str) -> list[str]:
  """Names of the bins with these upper ends: XS (0, 3] s, ... XL > 18 s."""
  names, lows = SIZES[: len(ends) + 1], (0, *ends)
  said = [
    f"{name} ({low:g}, {high:g}]{unit}"
    for name, low, high in zip(names, lows, ends, strict=False)
  ]
  return [*said, f"{names[-1]} > {ends[-1]:g}{unit}"]


def table(scored: Scored, k: int) -> dict[str, list[dict[str, Any]]]:
  """At the k-th threshold, for each characteristic a row a bin.

  `instances`, the share of them that is found (`recall`), and the normalised
  mAP: detections of other instances left out, and precision as if every class
  had the mean number of instances, since AP falls with their number.
  """
  protocol = scored.protocol
  ends = {
    "length": (protocol.lengths, " s"),
    "coverage": (protocol.coverages, ""),
    "count": (protocol.counts, ""),
  }
  found = {}
  for name, value in characteristics(scored).items():
    upper, unit = ends[name]
    index = np.searchsorted(np.array(upper, float), value, side="left")
    unknown = np.isnan(value)
    index[unknown] = -1
    rows = [
      {"bin": said, **_row(scored, k, index == n)}
      for n, said in enumerate(bins(upper, unit))
    ]
    if unknown.any():
      rows.append({"bin": "not known", **_row(scored, k, unknown)})
    found[name] = rows
  everything = np.ones(len(scored.truth.label), bool)
  found["all"] = [{"bin": "all", **_row(scored, k, everything)}]
  return found


def _row(scored: Scored, k: int, chosen: np.ndarray) -> dict[str, Any]:
  instances = int(chosen.sum())
  matched = scored.matched[k]
  hit = matched[matched >= 0]
  return {
    "instances": instances,
    "recall": float(chosen[hit].sum() / instances) if instances else None,
    "normalised_mAP": normalised_map(scored, k, chosen),
  }


def normalised_map(scored: Scored, k: int, chosen: np.ndarray) -> float | None:
  """mAP_N over the classes that have a chosen instance, bool[G]; or None.

  With R the recall among the chosen and F the false positives so far, the
  precision is N R / (N R + F), N the mean number of instances of a class.
  """
  truth, found = scored.truth, scored.found
  sizes = np.bincount(truth.label[chosen], minlength=len(truth.labels))
  if not sizes.any():
    return None
  mean = len(truth.label) / len(truth.labels)
  matched = scored.matched[k]
  hit = matched >= 0
  ours = np.zeros(len(matched), bool)
  ours[hit] = chosen[matched[hit]]
  misses = np.concatenate([[0], np.cumsum(scored.false(k))])
  first = np.searchsorted(found.label, np.arange(len(sizes) + 1))
  ap = []
  for label in np.flatnonzero(sizes):
    a, b = first[label], first[label + 1]
    at = a + np.flatnonzero(ours[a:b])
    recall = np.arange(1, len(at) + 1) / sizes[label]
    precision = mean * recall / (mean * recall + misses[at] - misses[a])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    ap.append(envelope.sum() / sizes[label])
  return float(np.mean(ap))
