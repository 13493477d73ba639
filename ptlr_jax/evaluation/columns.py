"""Lists of annotations or detections as columns, each entry checked."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.files.text import is_name

MAX_SECONDS = 1e9


class Columns(NamedTuple):
  """One row an entry: i64[N] index of its video, label, f64[N] each.

  Times are in seconds; scores are 0 for ground truth.
  """

  video: np.ndarray
  labels: list[str]
  start: np.ndarray
  end: np.ndarray
  score: np.ndarray


def read_columns(
  entries: Mapping[str, Any], scored: bool, where: str, problems: list[str]
) -> Columns:
  """All entries of {VIDEO: [{"label", "segment"[, "score"]}]}.

  Entries that cannot be scored are left out, each with a line in `problems`
  that begins with `where`, the video and the entry's number. Numbers of ground
  truth may be written as text, as BaS-Net's are.
  """
  lists = list(entries.values())
  try:
    found = _at_once(lists, scored)
  except (KeyError, TypeError, ValueError, OverflowError):
    found = None
  if found is None:
    lists, found = _one_by_one(entries, scored, where, problems)
  sizes = np.fromiter(map(len, lists), np.int64, len(lists))
  return Columns(np.repeat(np.arange(len(lists)), sizes), *found)


_Found = tuple[list[str], np.ndarray, np.ndarray, np.ndarray]


def _numbers(values: Sequence[Any], texts: bool) -> np.ndarray:
  """f64[N]; raises where one is no finite number."""
  kinds = set(map(type, values))
  if not kinds <= {int, float} | ({str} if texts else set()):
    raise ValueError
  if str in kinds:
    values = list(map(float, values))
  numbers = np.array(values, np.float64)
  if not (np.abs(numbers) < np.inf).all():
    raise ValueError
  return numbers


def _at_once(lists: Sequence[Any], scored: bool) -> _Found:
  """The fast way, for entries without any fault; raises at the first."""
  if not set(map(type, lists)) <= {list, tuple}:
    raise ValueError
  items = list(chain.from_iterable(lists))
  labels = [item["label"] for item in items]
  segments = [item["segment"] for item in items]
  if not all(map(is_name, set(labels))):
    raise ValueError
  if not set(map(type, segments)) <= {list, tuple}:
    raise ValueError
  if not set(map(len, segments)) <= {2}:
    raise ValueError
  ends = _numbers(list(chain.from_iterable(segments)), not scored).reshape(
    -1, 2
  )
  if not _in_order(ends).all():
    raise ValueError
  score = np.zeros(len(items))
  if scored:
    score = _numbers([item["score"] for item in items], False)
  return labels, ends[:, 0].copy(), ends[:, 1].copy(), score


def _in_order(ends: np.ndarray) -> np.ndarray:
  return (ends[:, 0] <= ends[:, 1]) & (np.abs(ends) < MAX_SECONDS).all(1)


def number(value: Any, texts: bool) -> float:
  """The number that a value is, as text only with `texts`; or NaN."""
  if isinstance(value, bool) or (isinstance(value, str) and not texts):
    return math.nan
  try:
    return float(value)
  except (TypeError, ValueError, OverflowError):
    return math.nan


def checked(
  item: Any, scored: bool
) -> tuple[str, tuple[str, float, float, float]]:
  """What is wrong with an entry, or "", and its label, start, end, score."""
  none = ("", 0.0, 0.0, 0.0)
  keys = ("label", "segment", "score") if scored else ("label", "segment")
  if not isinstance(item, Mapping):
    return f"an object with {', '.join(keys)}, came {item!r:.60}", none
  if lacking := [key for key in keys if key not in item]:
    return f"the key {lacking[0]}, came {list(item)!r:.60}", none
  label, segment = item["label"], item["segment"]
  score = item["score"] if scored else 0.0
  if not is_name(label):
    return f"a class name as label, came {label!r:.60}", none
  if not isinstance(segment, list | tuple) or len(segment) != 2:
    return f"a segment [start, end], came {segment!r:.60}", none
  start, end = (number(value, not scored) for value in segment)
  grade = number(score, False)
  if not abs(start) < MAX_SECONDS or not abs(end) < MAX_SECONDS:
    return f"a segment of two numbers in seconds, came {segment!r:.60}", none
  if end < start:
    return (
      f"a segment that does not end before its start, came {segment!r:.60}",
      none,
    )
  if not math.isfinite(grade):
    return f"a score that is a finite number, came {score!r:.60}", none
  return "", (label, start, end, grade)


def _one_by_one(
  entries: Mapping[str, Any], scored: bool, where: str, problems: list[str]
) -> tuple[list[list[Any]], _Found]:
  """The sound entries of each video, and the same as columns."""
  noun = "detection" if scored else "annotation"
  kept: list[list[Any]] = []
  for video, items in entries.items():
    kept.append([])
    if not isinstance(items, list | tuple):
      problems.append(
        f"{where}: {video}: expected a list of {noun}s, came {items!r:.60}; "
        "write [] for none"
      )
      continue
    for n, item in enumerate(items):
      fault, row = checked(item, scored)
      if fault:
        problems.append(
          f"{where}: {video}: {noun} {n}: expected {fault}; correct it"
        )
      else:
        kept[-1].append(row)
  rows = list(chain.from_iterable(kept))
  labels = [row[0] for row in rows]
  numbers = np.array([row[1:] for row in rows], np.float64).reshape(-1, 3)
  start, end, score = numbers.T.copy()
  return kept, (labels, start, end, score)


def positions(names: Iterable[str]) -> dict[str, int]:
  """{name: index}, each name once, in the order of their first appearance."""
  return {name: n for n, name in enumerate(dict.fromkeys(names))}
