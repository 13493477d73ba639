"""A filled table as text, Markdown, CSV and LaTeX."""

import csv
import io

import numpy as np
import pytest
from test_ablations import metrics

from ptlr_jax.paper_tables import formats
from ptlr_jax.paper_tables.ablations import (
  TABLES,
  Cell,
  Comparison,
  Filled,
  fill,
)

A, B = "ILG w/o cs & tm", "ILG"


@pytest.fixture
def filled():
  """Two rows, three columns; the second row lacks a seed."""
  return Filled(
    TABLES[3],
    ("0.50", "0.90", "0.1:0.7"),
    "0.1:0.7",
    {A: [0, 1], B: [0]},
    {
      (A, "0.50"): Cell(np.array([20.0, 22.0]), 26.2),
      (A, "0.90"): Cell(np.array([0.5, 0.5]), 0.5),
      (A, "0.1:0.7"): Cell(np.array([30.0, 31.0]), None),
      (B, "0.50"): Cell(np.array([24.04]), 27.9),
      (B, "0.90"): Cell(np.array([0.25]), 0.4),
      (B, "0.1:0.7"): Cell(np.array([33.0]), None),
    },
    {
      (B, "0.50"): Comparison(3.04, 0.25),
      (B, "0.90"): Comparison(-0.25, None),
      (B, "0.1:0.7"): Comparison(2.5, 0.0004),
    },
  )


CAPTION = (
  "Table III. mAP of the ILG and its variants (%), mean and standard deviation "
  "over seeds 0, 1; fewer seeds so far for ILG: 1"
)


def test_the_caption_names_rows_that_lack_a_seed(filled):
  assert formats.caption(filled) == CAPTION
  whole = filled._replace(seeds={A: [3, 5], B: [3, 5]})
  assert formats.caption(whole).endswith("deviation over seeds 3, 5")
  # As many each, and none has all.
  apart = filled._replace(seeds={A: [0, 1], B: [1, 2]})
  said = f"seeds 0, 1, 2; fewer seeds so far for {A}: 2, {B}: 2"
  assert formats.caption(apart).endswith(said)


def test_text_has_deviations_and_the_papers_figures_below(filled):
  assert formats.table_text(filled) == (
    f"{CAPTION}\n"
    "                  0.5  0.9  0.1:0.7  Δ 0.1:0.7       p\n"
    "ILG w/o cs & tm  21.0  0.5     30.5\n"
    "  ±               1.4  0.0      0.7\n"
    "  paper          26.2  0.5\n"
    "ILG              24.0  0.2     33.0       +2.5  <0.001\n"
    "  paper          27.9  0.4\n"
  )


def test_markdown_is_a_row_a_line(filled):
  assert formats.markdown(filled) == (
    f"{CAPTION}.\n\n"
    "|  | 0.5 | 0.9 | 0.1:0.7 | Δ 0.1:0.7 | p |\n"
    "|---|---|---|---|---|---|\n"
    "| ILG w/o cs & tm | 21.0 ± 1.4 (26.2) | 0.5 ± 0.0 (0.5) | 30.5 ± 0.7 |  |"
    "  |\n"
    "| ILG | 24.0 (27.9) | 0.2 (0.4) | 33.0 | +2.5 | <0.001 |\n\n"
    "Δ and p: against the row above, by 0.1:0.7, paired t-test over seeds; in "
    "brackets the paper's figure.\n"
  )


def test_csv_is_a_cell_a_line(filled):
  lines = formats.as_csv(filled).splitlines()
  assert lines[0] == (
    "table,row,column,mean,deviation,paper,seeds,values,difference,p"
  )
  assert lines[1] == (
    "3,ILG w/o cs & tm,0.50,21.000000,1.414214,26.200000,0 1,"
    "20.000000 22.000000,,"
  )
  assert lines[4:] == [
    "3,ILG,0.50,24.040000,,27.900000,0,24.040000,3.040000,0.250000",
    "3,ILG,0.90,0.250000,,0.400000,0,0.250000,-0.250000,",
    "3,ILG,0.1:0.7,33.000000,,,0,33.000000,2.500000,0.000400",
  ]


def test_csv_reads_back_to_every_seeds_figure(filled):
  rows = list(csv.DictReader(io.StringIO(formats.as_csv(filled))))
  assert len(rows) == 6
  first, last = rows[0], rows[-1]
  assert (first["table"], first["row"], first["column"]) == ("3", A, "0.50")
  assert first["values"] == "20.000000 22.000000"
  assert first["seeds"] == "0 1"
  assert [float(first[k]) for k in ("mean", "paper")] == [21, 26.2]
  assert float(first["deviation"]) == pytest.approx(2**0.5, abs=1e-6)
  assert first["difference"] == first["p"] == ""
  assert (last["deviation"], last["paper"]) == ("", "")
  assert [float(last[k]) for k in ("difference", "p")] == [2.5, 0.0004]
  assert (rows[4]["difference"], rows[4]["p"]) == ("-0.250000", "")


def test_latex_is_a_table_with_its_signs_escaped(filled):
  assert formats.latex(filled).splitlines() == [
    r"\begin{table}",
    r"\centering",
    rf"\caption{{{CAPTION.replace('%', chr(92) + '%')}}}",
    r"\begin{tabular}{lrrrrr}",
    r"\toprule",
    r" & 0.5 & 0.9 & 0.1:0.7 & $\Delta$ 0.1:0.7 & p \\",
    r"\midrule",
    r"ILG w/o cs \& tm & 21.0 & 0.5 & 30.5 &  &  \\",
    r"\quad $\pm$ & 1.4 & 0.0 & 0.7 &  &  \\",
    r"\quad paper & 26.2 & 0.5 &  &  &  \\",
    r"ILG & 24.0 & 0.2 & 33.0 & +2.5 & $<$0.001 \\",
    r"\quad paper & 27.9 & 0.4 &  &  &  \\",
    r"\bottomrule",
    r"\end{tabular}",
    r"\end{table}",
  ]


def test_a_fall_has_a_minus_in_latex_and_a_figure_of_p(filled):
  fell = filled._replace(main="0.90")
  assert "$-$0.2 &  " in formats.latex(fell)
  rose = filled._replace(main="0.50")
  assert "| +3.0 | 0.250 |" in formats.markdown(rose)


def test_label_columns_have_names(filled):
  columns = ("precision", "action_recall")
  cells = {
    (label, column): Cell(np.array([50.0]), None)
    for label in (A, B)
    for column in columns
  }
  labels = filled._replace(
    table=TABLES[4], columns=columns, main="precision", cells=cells, compared={}
  )
  head = formats.markdown(labels).splitlines()[2]
  assert head == "|  | precision | action recall | Δ precision | p |"


@pytest.mark.parametrize("form", formats.FORMATS)
def test_joined_tables_are_all_there_with_a_line_between(filled, form):
  other = filled._replace(table=TABLES[4])
  text = formats.joined([filled, other], form)
  if form == "csv":
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["table"] for row in rows] == ["3"] * 6 + ["4"] * 6
    assert text.endswith("0.000400\n")
  else:
    render = formats.FORMATS[form]
    assert text == f"{render(filled)}\n{render(other)}"


# The paper's tables as they come, every row over two seeds.


@pytest.fixture(params=TABLES)
def real(request):
  table = TABLES[request.param]
  runs = {
    row.variant: {n: metrics(n, protocol=table.dataset) for n in (0, 3)}
    for row in table.rows
  }
  found = fill(table, runs)
  assert found
  return found


def _cells(line, sign):
  return len(line.replace(rf"\{sign}", "").split(sign))


def test_every_line_of_a_table_has_as_many_columns(real):
  many = 1 + len(real.columns) + 2
  rows = len(real.table.rows)
  lines = formats.markdown(real).splitlines()
  lines = [line for line in lines if line.startswith("|")]
  assert [_cells(line, "|") for line in lines] == [many + 2] * (2 + rows)
  text = formats.latex(real)
  assert rf"\begin{{tabular}}{{l{'r' * (many - 1)}}}" in text
  lines = [line for line in text.splitlines() if line.endswith(r" \\")]
  with_paper = any(cell.published for cell in real.cells.values())
  assert [_cells(ln, "&") for ln in lines] == [many] * (
    1 + (2 + with_paper) * rows
  )
  assert text.isascii()


def test_csv_gives_back_every_row_whatever_its_label_holds(real):
  read = list(csv.DictReader(io.StringIO(formats.as_csv(real))))
  assert len(read) == len(real.table.rows) * len(real.columns)
  for line in read:
    cell = real.cells[line["row"], line["column"]]
    assert float(line["mean"]) == pytest.approx(cell.mean, abs=1e-6)
    values = [float(value) for value in line["values"].split()]
    assert values == pytest.approx(list(cell.values), abs=1e-6)
