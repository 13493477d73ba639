"""What an annotation file says of a video; `label_tables` has CSV.

Every function appends to `problems` what a user has to put right, one line
each, and goes on without it.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.data.files.text import canonical_id, is_name, read_text

# What "subset" may call the videos of a split, in lower case.
SUBSETS = {
  "train": ("train", "training", "validation"),
  "test": ("test", "testing", "val", "validation"),
}

MAX_SECONDS = 1e7  # of a video, some months

Event = tuple[float, float, str]  # start, end (seconds), class name


@dataclasses.dataclass(frozen=True)
class Entry:
  """What annotations say of a video; `where` begins every line about it.

  `events` come sorted; `labels` are video-level labels that are listed apart
  from them, sorted. `fps` is the video's own. A `faulty` one has problems that
  were told already.
  """

  id: str
  where: str
  subset: str = ""
  events: tuple[Event, ...] = ()
  labels: tuple[str, ...] = ()
  duration: float | None = None
  fps: float | None = None
  ambiguous: tuple[tuple[float, float], ...] = ()
  faulty: bool = False


def _positive(
  where: str, entry: Mapping[str, Any], keys: Sequence[str], problems: list[str]
) -> float | None:
  """The first of `keys` that the entry has: a number above 0, or None."""
  value = next((entry[k] for k in keys if entry.get(k) is not None), None)
  if value is None:
    return None
  try:
    number = float(value) if not isinstance(value, bool) else math.nan
  except (TypeError, ValueError, OverflowError):
    number = math.nan
  if 0 < number < MAX_SECONDS:
    return number
  problems.append(
    f"{where}: expected a {keys[0]} above 0, came {value!r:.60}; correct it or "
    "leave it out"
  )


def parse_entry(
  video_id: str, where: str, raw: Any, problems: list[str]
) -> Entry:
  """One entry of a database: events, duration, fps, subset.

  {"subset", "annotations": [{"segment": [start, end], "label"}], "duration",
  "fps", "labels"}, seconds, numbers or strings.
  """
  before = len(problems)
  raw = raw if isinstance(raw, dict) else {"annotations": raw}
  subset = raw.get("subset", "")
  if not isinstance(subset, str):
    problems.append(
      f"{where}: expected a subset's name, came {subset!r:.60}; correct it"
    )
    subset = ""
  listed = _label_list(where, raw.get("labels", []), problems)
  annotations = raw.get("annotations", [] if "labels" in raw else None)
  if not isinstance(annotations, list):
    problems.append(
      f'{where}: expected a list "annotations", came {annotations!r:.60}; '
      'write "annotations": [{"segment": [start, end], "label": CLASS}]'
    )
    annotations = []
  events = []
  for n, annotation in enumerate(annotations):
    annotation = annotation if isinstance(annotation, dict) else {}
    event = parse_event(
      f"{where}: annotation {n}",
      annotation.get("segment"),
      annotation.get("label"),
      problems,
    )
    if event:
      events.append(event)
  duration = _positive(where, raw, ("duration", "duration_second"), problems)
  fps = _positive(where, raw, ("fps",), problems)
  return Entry(
    video_id,
    where,
    subset.lower(),
    tuple(sorted(events)),
    listed,
    duration,
    fps,
    faulty=len(problems) > before,
  )


def _label_list(where: str, said: Any, problems: list[str]) -> tuple[str, ...]:
  if isinstance(said, str):
    said = [said]
  if isinstance(said, list) and all(map(is_name, said)):
    return tuple(sorted(set(said)))
  problems.append(
    f'{where}: expected "labels" to be a list of class names, came '
    f"{said!r:.60}; correct it"
  )
  return ()


def parse_event(
  where: str, segment: Any, label: Any, problems: list[str]
) -> Event | None:
  """(start, end, class name) of one annotation, or None and a problem."""
  start, end = _two_numbers(segment)
  if not is_name(label):
    fault = f"a class name as label, came {label!r:.60}"
  elif not (math.isfinite(start) and math.isfinite(end)):
    fault = f"a segment of two finite numbers, came {segment!r:.60}"
  elif start < 0:
    fault = f"a segment that starts at 0 s or later, came {segment!r:.60}"
  elif end < start:  # ActivityNet's official files hold zero-length ones
    fault = f"a segment that ends at its start or later, came {segment!r:.60}"
  else:
    return start, end, label
  problems.append(f"{where}: expected {fault}; correct it")


def _two_numbers(segment: Any) -> tuple[float, float]:
  """[start, end] of numbers or strings, in seconds; NaN when it is not that."""
  if not isinstance(segment, list) or bool in map(type, segment):
    return math.nan, math.nan
  try:
    start, end = map(float, segment)
  except (TypeError, ValueError, OverflowError):
    return math.nan, math.nan
  return start, end


def splits_by_subset(
  subsets: Collection[str], train: str = "", test: str = ""
) -> dict[str, str]:
  """Which subset trains and which is tested, {"train": .., "test": ..}.

  Named by the user, or by custom: where there is a training subset, validation
  is tested (ActivityNet, whose test set has no public annotation); else
  validation trains and test is tested (THUMOS14). Names in lower case; "" for
  a split without videos.
  """
  there = {name.lower() for name in subsets}
  own = next((s for s in ("training", "train") if s in there), "")
  held = next((s for s in ("validation", "val") if s in there), "")
  last = next((s for s in ("testing", "test") if s in there), "")
  usual = (own, held or last) if own else (held if last else "", last or held)
  return {
    "train": train.lower() or usual[0],
    "test": test.lower() or usual[1],
  }


Stretches = dict[str, list[tuple[float, float]]]


def read_stretches(path: Path, problems: list[str]) -> Stretches:
  """The rule `ambiguous`: {id: [(start, end)]} of lines "VIDEO start end"."""
  found: Stretches = {}
  for number, line in enumerate((read_text(path, problems) or "").split("\n")):
    cells = line.split()
    if not cells:
      continue
    try:
      name, start, end = cells[0], *map(float, cells[1:])
      if not (math.isfinite(start) and start <= end < math.inf):
        raise ValueError
    except ValueError:
      problems.append(
        f"{path}: line {number + 1}: expected VIDEO START END in seconds, came "
        f"{line.strip()!r:.60}; correct it"
      )
      continue
    found.setdefault(canonical_id(name), []).append((start, end))
  return found
