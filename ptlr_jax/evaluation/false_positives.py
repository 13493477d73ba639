"""What the false positives are: the kinds of Alwassel et al. (DETAD, 2018)."""

from typing import Any

import numpy as np

from ptlr_jax.evaluation import matching, precision
from ptlr_jax.evaluation.precision import Scored

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
    ap = precision.average_precisions(
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
