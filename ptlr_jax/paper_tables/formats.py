"""A filled table as text, Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable, Sequence

from ptlr_jax.paper_tables.ablations import Comparison, Filled


def _name(column: str) -> str:
  """0.50 -> 0.5, action_recall -> action recall."""
  if column[0].isdigit() and ":" not in column:
    return f"{float(column):g}"
  return column.replace("_", " ")


def _number(value: float | None) -> str:
  return "" if value is None else f"{value:.1f}"


def _p(comparison: Comparison | None) -> tuple[str, str]:
  """The difference to the row above and its p."""
  if comparison is None:
    return "", ""
  difference = f"{comparison.difference:+.1f}"
  if comparison.p is None:
    return difference, ""
  return difference, "<0.001" if comparison.p < 1e-3 else f"{comparison.p:.3f}"


def caption(filled: Filled) -> str:
  """One line: which table, of what, over which seeds."""
  seeds = sorted({s for found in filled.seeds.values() for s in found})
  said = ", ".join(map(str, seeds))
  text = (
    f"Table {filled.table.roman}. {filled.table.title} (%), mean and standard "
    f"deviation over seeds {said}"
  )
  lacking = [
    f"{label}: {len(found)}"
    for label, found in filled.seeds.items()
    if len(found) < len(seeds)
  ]
  if lacking:
    text += f"; fewer seeds so far for {', '.join(lacking)}"
  return text


def _body(filled: Filled) -> list[tuple[str, list[str]]]:
  """Three lines a row: means, deviations, the paper's figures.

  Only the first has the two cells of the comparison, else they are empty.
  """
  lines, none = [], ["", ""]
  for label in filled.seeds:
    cells = [filled.cells[label, column] for column in filled.columns]
    means = [_number(cell.mean) for cell in cells]
    means += _p(filled.compared.get((label, filled.main)))
    lines.append((label, means))
    if any(cell.deviation is not None for cell in cells):
      lines.append(("  ±", [*(_number(c.deviation) for c in cells), *none]))
    if any(cell.published is not None for cell in cells):
      lines.append(("  paper", [*(_number(c.published) for c in cells), *none]))
  return lines


def _heads(filled: Filled) -> list[str]:
  return [*map(_name, filled.columns), f"Δ {_name(filled.main)}", "p"]


def table_text(filled: Filled) -> str:
  """For a terminal: under each row its deviations and the paper's figures."""
  heads, body = _heads(filled), _body(filled)
  first = max(len(label) for label, _ in body)
  widths = [
    max(len(head), *(len(row[i]) for _, row in body))
    for i, head in enumerate(heads)
  ]

  def line(label, row):
    cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return f"{label.ljust(first)}  {'  '.join(cells)}".rstrip()

  rows = [line("", heads), *(line(label, row) for label, row in body)]
  return "\n".join([caption(filled), *rows, ""])


def markdown(filled: Filled) -> str:
  """A row a line: mean ± deviation (the paper's figure)."""

  def cell(label, column):
    found = filled.cells[label, column]
    if found.published is None:
      return found.spread
    return f"{found.spread} ({found.published:.1f})"

  heads = ["", *_heads(filled)]
  lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
  for label in filled.seeds:
    row = [cell(label, column) for column in filled.columns]
    row += _p(filled.compared.get((label, filled.main)))
    lines.append(f"| {label} | {' | '.join(row)} |")
  note = (
    f"Δ and p: against the row above, by {_name(filled.main)}, paired t-test "
    "over seeds; in brackets the paper's figure."
  )
  return "\n".join([f"{caption(filled)}.", "", *lines, "", note, ""])


def latex(filled: Filled) -> str:
  """A booktabs table, the paper's figures below each row."""
  escape = str.maketrans({"&": r"\&", "%": r"\%", "±": r"$\pm$", "_": r"\_"})
  heads = [h.replace("Δ", r"$\Delta$") for h in _heads(filled)]
  lines = [
    r"\begin{table}",
    r"\centering",
    rf"\caption{{{caption(filled).translate(escape)}}}",
    rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
    r"\toprule",
    " & ".join(["", *heads]) + r" \\",
    r"\midrule",
  ]
  for label, row in _body(filled):
    name = label.strip().translate(escape)
    name = rf"\quad {name}" if label.startswith(" ") else name
    row = [cell.replace("<", "$<$").replace("-", "$-$") for cell in row]
    lines.append(" & ".join([name, *row]) + r" \\")
  lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
  return "\n".join(lines)


def as_csv(filled: Filled) -> str:
  """A line a cell, with the figure of every seed."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(
    [
      *("table", "row", "column", "mean", "deviation", "paper"),
      *("seeds", "values", "difference", "p"),
    ]
  )

  def exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"

  for (label, column), cell in filled.cells.items():
    against = filled.compared.get((label, column))
    writer.writerow(
      [
        *(filled.table.number, label, column),
        *(exact(cell.mean), exact(cell.deviation), exact(cell.published)),
        " ".join(map(str, filled.seeds[label])),
        " ".join(map(exact, cell.values)),
        exact(against and against.difference),
        exact(against and against.p),
      ]
    )
  return buffer.getvalue()


FORMATS: dict[str, Callable[[Filled], str]] = {
  "txt": table_text,
  "md": markdown,
  "csv": as_csv,
  "tex": latex,
}


def joined(tables: Sequence[Filled], form: str) -> str:
  """Several tables in one file; a CSV keeps one head."""
  parts = [FORMATS[form](filled) for filled in tables]
  if form == "csv":
    heads = parts[0].partition("\n")[0]
    return (
      "\n".join([heads, *(p.partition("\n")[2].strip() for p in parts)]) + "\n"
    )
  return "\n".join(parts)
