"""The paper's tables: their figures, rows, and how runs fill them."""

import re
from pathlib import Path

import numpy as np
import pytest

from ptlr_jax.paper_tables import ablations
from ptlr_jax.paper_tables.ablations import TABLES, compare, fill
from ptlr_jax.paper_tables.published import PUBLISHED

PAPER = Path(__file__).absolute().parents[2] / "shared" / "paper"
TIOUS = tuple(f"0.{n}0" for n in range(1, 10))


def metrics(offset=0.0, stages=4, protocol="thumos14", networks=("ots", "rts")):
  """A finished run's figures: each row a point above the one before."""
  tious = TIOUS
  averages = ("0.1:0.5", "0.1:0.7")
  if protocol == "activitynet":
    tious = tuple(f"{n / 100:.2f}" for n in range(50, 100, 5))
    averages = ("0.5:0.95",)
  lines = ["ilg", *(f"stage-{n}" for n in range(1, stages + 1))]
  phases = ["labels-0"]
  for n in range(1, stages + 1):
    phases += [f"labels-{n}-{net}" for net in networks]

  def quality(i):
    return {
      name: (i + offset) / 100 + shift
      for name, shift in zip(
        ablations.LABEL_COLUMNS, (0.5, 0.3, 0.7, 0.1), strict=True
      )
    }

  return {
    "protocol": protocol,
    "mAP": dict.fromkeys(tious, 0.0),
    "averages": dict.fromkeys(averages, 0.0),
    "stages": {
      line: {
        "mAP": {t: (i + offset) / 100 for t in tious},
        "averages": {a: (i + offset + 0.5) / 100 for a in averages},
      }
      for i, line in enumerate(lines)
    },
    "pseudo_labels": [
      {"phase": phase, **quality(i)} for i, phase in enumerate(phases)
    ],
    "simulated": True,
  }


# The paper's figures.


def test_every_row_of_the_paper_is_a_row_of_ours():
  assert list(TABLES) == list(PUBLISHED) == [1, 2, 3, 4, 5, 6]
  for number, table in TABLES.items():
    assert [row.label for row in table.rows] == list(PUBLISHED[number])
  assert [table.roman for table in TABLES.values()] == [
    *("I", "II", "III", "IV", "V", "VI")
  ]


def test_the_figures_are_the_papers():
  assert PUBLISHED[1]["Ours"]["0.50"] == 29.7
  assert PUBLISHED[1]["Bas-Net"]["0.90"] == 0.5
  assert PUBLISHED[2]["Ours"]["0.5:0.95"] == 23.7
  assert PUBLISHED[3]["ILG w/o tm"]["0.60"] == 18.7
  assert PUBLISHED[4]["ILG"] == {"precision": 80.5, "recall": 37.4}
  assert PUBLISHED[5]["PTLR, stage 3"] == PUBLISHED[1]["Ours"]
  assert PUBLISHED[5]["PTLR-RTS, stage 4"]["0.80"] == 4.3
  assert PUBLISHED[6]["Network-RTS, stage 4"]["recall"] == 70.3


def test_the_figures_are_in_the_papers_text_in_that_order():
  texts = list(PAPER.glob("*.txt"))
  if not texts:
    pytest.skip(f"{PAPER} with the paper's text is not here")
  lines = texts[0].read_text().splitlines()
  numbers = [
    [float(n) for n in re.findall(r"(?<![\w.])\d+\.\d+", line)]
    for line in lines
  ]
  here = -1  # the line of the row before: rows do not change places
  for table in PUBLISHED.values():
    for label, row in table.items():
      figures = list(row.values())
      # One line of Table VI has all of its precisions: the scan's mistake.
      mangled = label == "Network-RTS, stage 1"
      same = [
        i
        for i, line in enumerate(numbers)
        if line[-len(figures) :] == figures
        or (mangled and line[-1:] == figures[1:] and figures[0] in line)
      ]
      later = [i for i in same if i > here]
      assert later, label
      here = later[0]
      if label.startswith(("Bas-Net", "Ours", "ILG")):
        name = re.match(r"\W*([^\t\[]+)", lines[here])
        assert name
        assert name[1] == label


# Comparisons.


def test_the_paired_t_test_by_hand():
  above, below = np.array([20.0, 25.0, 30.0]), np.array([21.0, 27.0, 33.0])
  found = compare(above, below)
  # t = 2 / (1 / sqrt 3) = 3.464 with 2 degrees of freedom, where
  # p = 1 - t / sqrt(2 + t^2) = 1 - 3.464 / 3.742 = 0.0742.
  assert found.difference == pytest.approx(2)
  assert found.p == pytest.approx(0.0742, abs=5e-5)
  back = compare(below, above)
  assert back.difference == pytest.approx(-2)
  assert back.p == pytest.approx(found.p)


@pytest.mark.parametrize(
  ("above", "below", "expected"),
  [
    ([20.0], [21.0], (1.0, None)),
    ([20.0, 21.0], [20.0, 21.0], (0.0, 1.0)),
    ([20.0, 21.0], [22.0, 23.0], (2.0, 0.0)),
  ],
)
def test_differences_without_spread(above, below, expected):
  assert compare(np.array(above), np.array(below)) == expected


# Which runs, which columns.


def test_a_protocol_has_its_own_first_table():
  assert ablations.usual("thumos14") == (1, 3, 4, 5, 6)
  assert ablations.usual("activitynet") == (2, 3, 4, 5, 6)


def test_tables_that_share_runs_name_them_once():
  assert ablations.variants([3, 4]) == [
    *("ilg_without_cs_tm", "ilg_without_tm", "ilg_without_cs", "ilg")
  ]
  assert ablations.variants([1, 6, 5]) == [
    *("basnet", "ours", "ptlr", "ptlr_ots", "ptlr_rts")
  ]


def test_columns_are_the_papers_and_the_averages():
  assert ablations.columns(TABLES[1], metrics()) == (
    *TIOUS,
    *("0.1:0.5", "0.1:0.7"),
  )
  other = metrics(protocol="activitynet")
  assert ablations.columns(TABLES[2], other) == (
    *("0.50", "0.75", "0.95"),
    "0.5:0.95",
  )
  assert ablations.columns(TABLES[6], metrics()) == ablations.LABEL_COLUMNS
  assert ablations.main_column(TABLES[1], metrics()) == "0.1:0.7"
  assert ablations.main_column(TABLES[2], other) == "0.5:0.95"
  assert ablations.main_column(TABLES[4], metrics()) == "recall"


def test_a_row_is_the_variant_and_the_line_that_its_label_says():
  where = {n: {row.label: row[1:] for row in TABLES[n].rows} for n in TABLES}
  for number in (1, 2):
    assert where[number] == {
      "Bas-Net": ("basnet", "ilg", ""),
      "Ours": ("ours", "last", ""),
    }
  for number, line in ((3, "ilg"), (4, "labels-0")):
    assert where[number] == {
      "ILG w/o cs & tm": ("ilg_without_cs_tm", line, ""),
      "ILG w/o tm": ("ilg_without_tm", line, ""),
      "ILG w/o cs": ("ilg_without_cs", line, ""),
      "ILG": ("ilg", line, ""),
    }
  for name in ("PTLR-OTS", "PTLR-RTS", "PTLR"):
    variant = name.lower().replace("-", "_")
    for n in (1, 2, 3, 4):
      found = where[5][f"{name}, stage {n}"]
      assert found == (variant, f"stage-{n}", name)
  for net in ("ots", "rts"):
    for n in (1, 2, 3, 4):
      found = where[6][f"Network-{net.upper()}, stage {n}"]
      assert found == ("ptlr", f"labels-{n}-{net}", "")


def test_a_figure_is_read_from_its_line_in_percent():
  run = metrics(offset=2, stages=3)
  rows = {row.label: row for n in (1, 3, 5, 6) for row in TABLES[n].rows}
  read = [
    ablations.value(run, rows[label], column)
    for label, column in [
      ("Bas-Net", "0.50"),
      ("Ours", "0.50"),  # the last stage, whichever it is
      ("PTLR, stage 2", "0.1:0.7"),
      ("Network-RTS, stage 1", "recall"),
    ]
  ]
  assert read == pytest.approx([2, 5, 4.5, 34])


# Filling.


def test_a_table_before_its_first_run_is_none():
  assert fill(TABLES[3], {}) is None
  assert fill(TABLES[3], {"ilg": {}, "ours": {0: metrics()}}) is None


def test_rows_without_a_run_are_left_out_and_neighbours_compared():
  runs = {
    "ilg_without_cs_tm": {0: metrics(0), 1: metrics(2)},
    "ilg": {0: metrics(3), 1: metrics(6), 2: metrics(90)},
  }
  filled = fill(TABLES[3], runs)
  assert filled
  assert filled.seeds == {"ILG w/o cs & tm": [0, 1], "ILG": [0, 1, 2]}
  cell = filled.cells["ILG", "0.50"]
  assert (cell.mean, cell.published) == (pytest.approx(33), 27.9)
  assert cell.deviation == pytest.approx(49.386, abs=1e-3)  # of 3, 6, 90
  assert filled.cells["ILG w/o cs & tm", "0.1:0.7"].published is None
  # Seeds 0 and 1, which both have: 3 - 0 and 6 - 2.
  found = filled.compared["ILG", "0.50"]
  assert found.difference == pytest.approx(3.5)
  # t = 3.5 / (0.7071 / sqrt 2) = 7 with one degree of freedom.
  assert found.p == pytest.approx(2 / np.pi * np.arctan(1 / 7))
  assert ("ILG w/o cs & tm", "0.50") not in filled.compared


def test_rows_that_share_no_seed_are_not_compared():
  runs = {"ilg_without_tm": {0: metrics()}, "ilg_without_cs": {1: metrics()}}
  filled = fill(TABLES[4], runs)
  assert filled
  assert not filled.compared
  assert filled.cells["ILG w/o cs", "recall"].deviation is None


def test_seeds_are_paired_by_their_number():
  runs = {
    "ilg_without_tm": {0: metrics(90), 1: metrics(0), 2: metrics(2)},
    "ilg_without_cs": {2: metrics(6), 1: metrics(3), 5: metrics(90)},
  }
  filled = fill(TABLES[3], runs)
  assert filled
  assert filled.seeds == {"ILG w/o tm": [0, 1, 2], "ILG w/o cs": [1, 2, 5]}
  # 3 - 0 and 6 - 2, as above.
  found = filled.compared["ILG w/o cs", "0.50"]
  assert found.difference == pytest.approx(3.5)
  assert found.p == pytest.approx(2 / np.pi * np.arctan(1 / 7))


def test_the_methods_of_table_v_are_not_compared_with_each_other():
  runs = {
    "ptlr_ots": {0: metrics()},
    "ptlr_rts": {0: metrics()},
    "ptlr": {0: metrics()},
  }
  filled = fill(TABLES[5], runs)
  assert filled
  assert len(filled.seeds) == 12
  compared = {label for label, _ in filled.compared}
  first = {f"{name}, stage 1" for name in ("PTLR-OTS", "PTLR-RTS", "PTLR")}
  assert compared == filled.seeds.keys() - first
  assert filled.compared["PTLR, stage 2", "0.50"] == (pytest.approx(1), None)


def test_the_papers_figures_stand_beside_its_own_data_set_only():
  runs = {"ilg": {0: metrics(protocol="activitynet")}}
  filled = fill(TABLES[3], runs)
  assert filled
  assert all(cell.published is None for cell in filled.cells.values())
  both = {"basnet": {0: metrics(protocol="activitynet", stages=0)}}
  filled = fill(TABLES[2], both)
  assert filled
  assert filled.cells["Bas-Net", "0.75"].published == 22.5
