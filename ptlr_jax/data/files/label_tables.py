"""Annotations of one's own: CSV tables and JSON of video-level labels."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptlr_jax.data.files.annotations import Entry, parse_entry
from ptlr_jax.data.files.text import (
  by_id,
  canonical_id,
  is_file_name,
  read_json,
  read_text,
)


def read_label_table(
  path: Path, problems: list[str], canonical=canonical_id
) -> dict[str, Entry]:
  """Video-level labels, or segments, of a CSV file with a header.

  Columns: video; label (or labels, with | between them); and, where there are
  any, subset, start, end (seconds), duration, fps. A video may have many lines.
  """
  text = read_text(path, problems)
  if text is None:
    return {}
  expected = "a header with the columns video and label"
  rows = csv.reader(text.splitlines(), strict=True)
  try:
    header = [name.strip().lower() for name in next(rows, [])]
    lines = [(rows.line_num, row) for row in rows if any(map(str.strip, row))]
  except csv.Error as error:
    problems.append(
      f"{path}: line {rows.line_num}: expected comma-separated values, came "
      f"{error}; correct it"
    )
    return {}
  known = {"video", "label", "labels", "subset", "start", "end"}
  known |= {"duration", "fps"}
  unknown = [name for name in header if name not in known]
  once = len(set(header)) == len(header)
  named = "video" in header and len({"label", "labels"} & set(header)) == 1
  if not named or not once or unknown:
    problems.append(
      f"{path}: expected {expected} (and subset, start, end, duration, fps), "
      f"came {','.join(header)!r:.80}; write them into the first line"
    )
    return {}
  collected: dict[str, dict[str, Any]] = {}
  for number, row in lines:
    where = f"{path}: line {number}"
    if len(row) != len(header):
      problems.append(
        f"{where}: expected {len(header)} columns, came {len(row)}; correct it"
      )
      continue
    cell = {k: v.strip() for k, v in zip(header, row, strict=True)}
    if not is_file_name(cell["video"]):
      problems.append(
        f"{where}: expected an id that can be a file's name, came "
        f"{cell['video']!r:.60}; correct it"
      )
      continue
    entry = collected.setdefault(canonical(cell["video"]), {})
    _collect(where, cell, entry, problems)
  return {
    i: parse_entry(i, f"{path}: {i}", raw, problems)
    for i, raw in collected.items()
  }


def _collect(
  where: str,
  cell: Mapping[str, str],
  entry: dict[str, Any],
  problems: list[str],
) -> None:
  """Adds one line of a table to the raw entry of its video."""
  said = cell.get("label") or cell.get("labels") or ""
  names = [name.strip() for name in said.split("|") if name.strip()]
  entry.setdefault("annotations", [])
  entry.setdefault("labels", [])
  entry["labels"] += names
  if cell.get("start") or cell.get("end"):
    segment = [cell.get("start"), cell.get("end")]
    if not names:
      problems.append(f"{where}: expected a label, came none; add it")
    entry["annotations"] += [{"segment": segment, "label": n} for n in names]
  for key in ("subset", "duration", "fps"):
    value = cell.get(key)
    if value and entry.setdefault(key, value) != value:
      problems.append(
        f"{where}: expected the {key} {entry[key]} as in a line before, came "
        f"{value}; correct one of them"
      )


def read_entries(
  path: Path,
  problems: list[str],
  canonical=canonical_id,
  notes: list[str] | None = None,
) -> dict[str, Entry]:
  """The entries of a CSV file, a database, or {VIDEO: labels} in JSON."""
  if path.suffix.lower() == ".csv":
    return read_label_table(path, problems, canonical)
  expected = '{"database": {VIDEO: ...}} or {VIDEO: [CLASS, ...]}'
  before = len(problems)
  parsed = read_json(path, expected, problems)
  if len(problems) > before:
    return {}
  if not isinstance(parsed, dict):
    problems.append(
      f"{path}: expected {expected}, came {type(parsed).__name__}; write it in "
      "this form"
    )
    return {}
  if "database" in parsed:
    parsed = parsed["database"]
  if not isinstance(parsed, dict):
    problems.append(
      f'{path}: expected {expected}, came a "database" that is a '
      f"{type(parsed).__name__}; write it in this form"
    )
    return {}
  entries = by_id(path, parsed, problems, canonical, notes)
  return {
    i: parse_entry(i, f"{path}: {i}", _labelled(raw), problems)
    for i, raw in entries.items()
  }


def _labelled(raw: Any) -> Any:
  """{"labels": [...]} for a bare list of class names, or one of them."""
  names = [raw] if isinstance(raw, str) else raw
  if isinstance(names, list) and all(isinstance(x, str) for x in names):
    return {"labels": names}
  return raw
