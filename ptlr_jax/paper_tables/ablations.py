"""The paper's Tables I to VI: their rows, and where each row's figures are.

A row is the line of a run's metrics (`runs.pipeline`); a run is a variant, a
delta of the configuration given, in configs/ablations.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.paper_tables.published import PUBLISHED

STAGES = 4  # of Tables V and VI
OURS = "ours"  # the configuration itself, which needs no delta


class Row(NamedTuple):
  """`line`: of metrics["stages"] (`last`: the result), or of the phases of
  metrics["pseudo_labels"]; `group`: rows that are compared with each other."""

  label: str
  variant: str
  line: str
  group: str = ""


class Table(NamedTuple):
  """`kind`: map or labels; `dataset`: the protocol of the paper's figures."""

  number: int
  title: str
  kind: str
  dataset: str
  rows: tuple[Row, ...]

  @property
  def roman(self) -> str:
    """The paper's numeral."""
    return ("I", "II", "III", "IV", "V", "VI")[self.number - 1]


_AGAINST_BASELINE = (Row("Bas-Net", "basnet", "ilg"), Row("Ours", OURS, "last"))
_ILGS = {
  "ILG w/o cs & tm": "ilg_without_cs_tm",
  "ILG w/o tm": "ilg_without_tm",
  "ILG w/o cs": "ilg_without_cs",
  "ILG": "ilg",
}
_PTLRS = {"PTLR-OTS": "ptlr_ots", "PTLR-RTS": "ptlr_rts", "PTLR": "ptlr"}
_NUMBERS = range(1, STAGES + 1)

TABLES = {
  table.number: table
  for table in (
    Table(1, "mAP on THUMOS14", "map", "thumos14", _AGAINST_BASELINE),
    Table(2, "mAP on ActivityNet", "map", "activitynet", _AGAINST_BASELINE),
    Table(
      3,
      "mAP of the ILG and its variants",
      "map",
      "thumos14",
      tuple(Row(label, name, "ilg") for label, name in _ILGS.items()),
    ),
    Table(
      4,
      "Initial pseudo labels of the ILG and its variants",
      "labels",
      "thumos14",
      tuple(Row(label, name, "labels-0") for label, name in _ILGS.items()),
    ),
    Table(
      5,
      "mAP of the refinement by stage",
      "map",
      "thumos14",
      tuple(
        Row(f"{label}, stage {n}", name, f"stage-{n}", label)
        for label, name in _PTLRS.items()
        for n in _NUMBERS
      ),
    ),
    Table(
      6,
      "Pseudo labels of the refinement by stage",
      "labels",
      "thumos14",
      tuple(
        Row(f"Network-{net.upper()}, stage {n}", "ptlr", f"labels-{n}-{net}")
        for n in _NUMBERS
        for net in ("ots", "rts")
      ),
    ),
  )
}

# Beside the paper's two, which cannot see a collapse to background.
LABEL_COLUMNS = ("precision", "recall", "action_precision", "action_recall")


def usual(protocol: str) -> tuple[int, ...]:
  """The tables that make sense under a protocol: all but the other's own."""
  other = {"thumos14": 2, "activitynet": 1}
  return tuple(n for n in TABLES if n != other.get(protocol))


def variants(numbers: Sequence[int]) -> list[str]:
  """The runs that tables need, those that share most first."""
  needed = [row.variant for n in numbers for row in TABLES[n].rows]
  return list(dict.fromkeys(needed))


def columns(table: Table, metrics: Mapping[str, Any]) -> tuple[str, ...]:
  """Names of a table's columns, as `value` reads them."""
  if table.kind == "labels":
    return LABEL_COLUMNS
  tious, averages = metrics["mAP"], metrics["averages"]
  if metrics["protocol"] == "activitynet":
    tious = ("0.50", "0.75", "0.95")
  return (*tious, *averages)


def main_column(table: Table, metrics: Mapping[str, Any]) -> str:
  """The column by which adjacent rows are compared."""
  if table.kind == "labels":
    return "recall"
  averages = list(metrics["averages"])
  return "0.1:0.7" if "0.1:0.7" in averages else averages[-1]


def value(metrics: Mapping[str, Any], row: Row, column: str) -> float:
  """A figure of a run, in percent."""
  if row.line.startswith("labels-"):
    entries = metrics["pseudo_labels"]
    entry = next(e for e in entries if e["phase"] == row.line)
    return 100 * entry[column]
  last = list(metrics["stages"])[-1]
  entry = metrics["stages"][last if row.line == "last" else row.line]
  return 100 * {**entry["mAP"], **entry["averages"]}[column]


class Cell(NamedTuple):
  """Figures of a row and column over seeds, f[n] in percent."""

  values: np.ndarray
  published: float | None

  @property
  def mean(self) -> float:
    """Mean over seeds."""
    return float(self.values.mean())

  @property
  def deviation(self) -> float | None:
    """Standard deviation over seeds (n - 1); None of one seed."""
    return float(self.values.std(ddof=1)) if len(self.values) > 1 else None

  @property
  def spread(self) -> str:
    """Mean ± standard deviation, or the one figure."""
    if self.deviation is None:
      return f"{self.mean:.1f}"
    return f"{self.mean:.1f} ± {self.deviation:.1f}"


class Comparison(NamedTuple):
  """A row against the one above: mean difference and p of a paired t-test
  over the seeds that both have; None with fewer than two."""

  difference: float
  p: float | None


class Filled(NamedTuple):
  """A table with what the finished runs measured."""

  table: Table
  columns: tuple[str, ...]
  main: str
  seeds: dict[str, list[int]]  # of each row
  cells: dict[tuple[str, str], Cell]  # of (row label, column)
  compared: dict[tuple[str, str], Comparison]


def compare(above: np.ndarray, below: np.ndarray) -> Comparison:
  """Two-sided paired t-test. f[n], f[n] -> difference below - above, p."""
  import scipy.stats

  difference = below - above
  mean = float(difference.mean())
  if len(difference) < 2:
    return Comparison(mean, None)
  noise = 1e-9  # percent, far below what a mAP can differ by
  if np.ptp(difference) < noise:  # certain, or no difference at all
    return Comparison(mean, 0.0 if abs(mean) > noise else 1.0)
  return Comparison(mean, float(scipy.stats.ttest_rel(below, above).pvalue))


def fill(
  table: Table, runs: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> Filled | None:
  """The table of {variant: {seed: metrics}}; None before the first run.

  A row none of whose runs is there yet is left out.
  """
  found = [(row, runs.get(row.variant, {})) for row in table.rows]
  found = [(row, by_seed) for row, by_seed in found if by_seed]
  if not found:
    return None
  metrics = next(iter(found[0][1].values()))
  names = columns(table, metrics)
  same = metrics["protocol"] == table.dataset
  published = PUBLISHED[table.number] if same else {}
  cells, compared, above = {}, {}, None
  for row, by_seed in found:
    seeds = sorted(by_seed)
    for name in names:
      values = {seed: value(by_seed[seed], row, name) for seed in seeds}
      cells[row.label, name] = Cell(
        np.array(list(values.values())),
        published.get(row.label, {}).get(name),
      )
      if above and above[0].group == row.group:
        both = [seed for seed in seeds if seed in above[1]]
        if both:
          compared[row.label, name] = compare(
            np.array([value(above[1][s], above[0], name) for s in both]),
            np.array([values[s] for s in both]),
          )
    above = row, by_seed
  return Filled(
    table,
    names,
    main_column(table, metrics),
    {row.label: sorted(by_seed) for row, by_seed in found},
    cells,
    compared,
  )
