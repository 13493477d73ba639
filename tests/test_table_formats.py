"""A filled table as text, Markdown, CSV and LaTeX."""

import csv
import io

import numpy as np
import pytest

from ptlr_jax import table_formats
from ptlr_jax.ablations import TABLES, Cell, Comparison, Filled

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


def test_text_has_deviations_and_the_papers_figures_below(filled):
  assert table_formats.text(filled) == (
    f"{CAPTION}\n"
    "                  0.5  0.9  0.1:0.7  Δ 0.1:0.7       p\n"
    "ILG w/o cs & tm  21.0  0.5     30.5\n"
    "  ±               1.4  0.0      0.7\n"
    "  paper          26.2  0.5\n"
    "ILG              24.0  0.2     33.0       +2.5  <0.001\n"
    "  paper          27.9  0.4\n"
  )


def test_markdown_is_a_row_a_line(filled):
  assert table_formats.markdown(filled) == (
    f"{CAPTION}.\n\n"
    "|  | 0.5 | 0.9 | 0.1:0.7 | Δ 0.1:0.7 | p |\n"
    "|---|---|---|---|---|---|\n"
    "| ILG w/o cs & tm | 21.0 ± 1.4 (26.2) | 0.5 ± 0.0 (0.5) | 30.5 ± 0.7 |  |"
    "  |\n"
    "| ILG | 24.0 (27.9) | 0.2 (0.4) | 33.0 | +2.5 | <0.001 |\n\n"
    "Δ and p: against the row above, by 0.1:0.7, paired t-test over seeds; in "
    "brackets the paper's figure.\n"
  )


def test_csv_reads_back_to_every_seeds_figure(filled):
  rows = list(csv.DictReader(io.StringIO(table_formats.as_csv(filled))))
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


def test_latex_is_escaped_and_every_line_has_its_columns(filled):
  text = table_formats.latex(filled)
  assert r"\begin{tabular}{lrrrrr}" in text
  body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
  lines = [line for line in body.splitlines() if line.endswith(r" \\")]
  assert len(lines) == 1 + 3 + 2
  for line in lines:
    assert line.replace(r"\&", "").count("&") == 5
  assert r"ILG w/o cs \& tm & 21.0 & 0.5 & 30.5 &  &  \\" in lines
  assert r"\quad $\pm$ & 1.4 & 0.0 & 0.7 &  &  \\" in lines
  assert r"ILG & 24.0 & 0.2 & 33.0 & +2.5 & $<$0.001 \\" in lines
  assert r"its variants (\%), mean" in text
  assert text.count(r"\begin") == text.count(r"\end") == 2


def test_a_fall_has_a_minus_in_latex_and_a_figure_of_p(filled):
  fell = filled._replace(main="0.90")
  assert "$-$0.2 &  " in table_formats.latex(fell)
  rose = filled._replace(main="0.50")
  assert "| +3.0 | 0.250 |" in table_formats.markdown(rose)


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
  head = table_formats.markdown(labels).splitlines()[2]
  assert head == "|  | precision | action recall | Δ precision | p |"


@pytest.mark.parametrize("form", table_formats.FORMATS)
def test_joined_tables_are_all_there(filled, form):
  other = filled._replace(table=TABLES[4])
  text = table_formats.joined([filled, other], form)
  if form == "csv":
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["table"] for row in rows] == ["3"] * 6 + ["4"] * 6
  else:
    assert "Table III." in text
    assert "Table IV." in text
