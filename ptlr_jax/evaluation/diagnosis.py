"""Error diagnosis: kinds of false positives, and how well instances are found
by their length, coverage and number.

Both after DETAD (Alwassel et al., 2018), whose bins the protocols hold.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptlr_jax.evaluation import average_precision, matching
from ptlr_jax.evaluation.average_precision import Scored
from ptlr_jax.evaluation.instances import Truth
from ptlr_jax.evaluation.protocols import SEGMENTS_PER_SECOND

KINDS = (
  "double detection",
  "wrong label",
  "localisation",
  "confusion",
  "background",
)
LEAST = 0.1  # below it, a detection has nothing to do with an instance


def kinds(scored: Scored, k: int) -> np.ndarray:
  """The kind of each detection at the k-th threshold, i64[P].

  An index of KINDS; -1 for a true positive, or one that does not count. With
  s and o as the best overlap with an instance of its own class and of another
  in its video, a false positive is, the first that holds:

  - double detection: s reaches the threshold; another found that instance;
  - wrong label: o reaches it;
  - localisation: s reaches 0.1;
  - confusion: o reaches 0.1;
  - background: neither does.
  """
  found, truth = scored.found, scored.truth
  tiou = scored.protocol.tious[k]
  pairs = matching.overlapping(found, truth, min(LEAST, tiou), same_label=False)
  own = found.label[pairs.detection] == truth.label[pairs.instance]
  same, other = np.zeros((2, len(found.label)))
  np.maximum.at(same, pairs.detection[own], pairs.overlap[own])
  np.maximum.at(other, pairs.detection[~own], pairs.overlap[~own])
  found_kind = np.select(
    [same >= tiou, other >= tiou, same >= LEAST, other >= LEAST],
    list(range(4)),
    4,
  )
  return np.where(scored.false(k), found_kind, -1)


def profile(scored: Scored, k: int, multiples: int = 10) -> dict[str, Any]:
  """Counts of each kind at the k-th threshold, and what each kind costs.

  `counts` of all detections; `profile`, a row for each of the first `multiples`
  times G detections of every class by score, G its instances, the share of true
  positives and of each kind; `gain`, the mAP at the threshold without the false
  positives of a kind, minus the mAP.
  """
  kind = kinds(scored, k)
  truth, found = scored.truth, scored.found
  names = ("true positive", *KINDS)
  place = np.arange(len(kind)) - np.searchsorted(found.label, found.label)
  block = place // np.maximum(truth.sizes(), 1)[found.label]
  hit = scored.matched[k] >= 0
  inside = (block < multiples) & (hit | scored.false(k))
  table = np.zeros((multiples, len(names)))
  np.add.at(table, (block[inside], kind[inside] + 1), 1)
  total = np.maximum(table.sum(1, keepdims=True), 1)
  gain = {}
  for n, name in enumerate(KINDS):
    rows = np.flatnonzero(kind != n)
    ambiguous = scored.ambiguous
    ap = average_precision.average_precisions(
      truth,
      found.take(rows),
      scored.matched[k : k + 1, rows],
      None if ambiguous is None else ambiguous[rows],
    )
    gain[name] = float(ap.mean() - scored.ap[:, k].mean())
  counts = np.bincount(kind + 1, minlength=len(names))
  counts[0] = hit.sum()
  return {
    "tiou": scored.protocol.tious[k],
    "counts": dict(zip(names, counts.tolist(), strict=True)),
    "profile": [
      dict(zip(names, row, strict=True)) for row in (table / total).tolist()
    ],
    "gain": gain,
  }


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
