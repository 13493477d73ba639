"""Stretches that show an action in part only, as THUMOS14 lists them."""

import math
from pathlib import Path

from ptlr_jax.data.text_files import (
  canonical_id,
  read_text,
)

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
