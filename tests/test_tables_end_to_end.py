"""Tables from real runs, at the smallest size."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from test_tables import CONFIG, DELTAS, read_csv
from tiny_config import KILLED, ROOT, start

from ptlr_jax.paper_tables import ablations

ALL = "--table=all"
SMALL = (
  *("--config.ilg.steps=4", "--config.ots.steps=2", "--config.rts.steps=2"),
  # Of these labels every loss of the ILG changes some, after four updates.
  *("--config.labels.cas=softmax_minmax", "--config.labels.fusion=average"),
)
CODE = "from ptlr_jax import tables; tables.main()"


def command(directory, cache, *args, code=CODE):
  return start(directory, cache, *SMALL, *args, code=code)


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
  """All tables of one seed, and what was printed; no test changes it."""
  directory = tmp_path_factory.mktemp("tables") / "all"
  done = command(directory, cache, ALL, "--seeds=1")
  assert done.returncode == 0, done.stderr
  return directory, done.stdout


def contents(directory):
  """Every file but tables and what a start leaves, by its path."""
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in sorted(directory.glob("seed-*/**/*"))
    if path.is_file() and path.name not in ("metrics.jsonl", "provenance.json")
  }


def trained_in(text):
  """{(variant, phase)} of the lines that say that a phase was trained."""
  found, variant = set(), ""
  for line in text.splitlines():
    if match := re.match(r"seed \d+, (\w+) ", line):
      variant = match[1]
    elif match := re.match(r"([a-z]+(?:-\d)?) +\d+/\d+ +loss", line):
      found.add((variant, match[1]))
  return found


def test_what_runs_have_in_common_is_trained_once(finished):
  directory, shown = finished
  stages = [f"{net}-{n}" for n in (3, 4) for net in ("ots", "rts")]
  assert trained_in(shown) == {
    *((name, "ilg") for name in DELTAS if name.startswith("ilg_")),
    *(("basnet", "ilg"), ("ours", "ilg")),
    *(("ours", f"{net}-{n}") for n in (1, 2) for net in ("ots", "rts")),
    *(("ptlr", phase) for phase in stages),
    *(("ptlr_ots", f"ots-{n}") for n in (2, 3, 4)),  # the first is PTLR's
    *(("ptlr_rts", f"rts-{n}") for n in (1, 2, 3, 4)),
  }
  seed = directory / "seed-0"
  assert {p.name for p in seed.iterdir()} == DELTAS.keys()
  labels = {
    name: (seed / name / "labels" / "labels-0.npz").read_bytes()
    for name in DELTAS
  }
  same = {name for name in DELTAS if labels[name] == labels["ours"]}
  assert same == {"ours", "ilg", "ptlr", "ptlr_ots", "ptlr_rts"}


def test_the_tables_are_what_the_runs_measured(finished):
  directory, shown = finished
  rows = {
    (row["table"], row["row"], row["column"]): row
    for row in read_csv(directory / "tables" / "tables.csv")
  }
  assert {number for number, _, _ in rows} == set("13456")
  for number, table in ablations.TABLES.items():
    for row in table.rows if number != 2 else ():
      path = directory / "seed-0" / row.variant / "metrics.json"
      measured = json.loads(path.read_text())
      for column in ablations.columns(table, measured):
        found = float(rows[str(number), row.label, column]["mean"])
        expected = ablations.value(measured, row, column)
        assert found == pytest.approx(expected, abs=1e-6)
  assert float(rows["1", "Ours", "0.50"]["paper"]) == 29.7
  text = (directory / "tables" / "tables.txt").read_text()
  assert text.partition("\n")[2].strip() in shown
  assert "Simulated features" in shown


def test_finished_tables_are_written_again_without_jax(finished):
  directory, shown = finished
  before = contents(directory)
  code = (
    "import sys; from ptlr_jax import tables; tables.main(); "
    "sys.exit('jax' in sys.modules)"
  )
  done = subprocess.run(
    [
      *(sys.executable, "-c", code, CONFIG, f"--workdir={directory}"),
      *(*SMALL, "--table=3,5", "--seeds=1"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, "")
  table = shown[shown.index("Table III.") : shown.index("Table IV.")].strip()
  assert table in done.stdout
  assert contents(directory) == before


def test_more_seeds_run_what_is_missing_and_are_compared(
  finished, cache, tmp_path
):
  directory = tmp_path / "more"
  shutil.copytree(finished[0], directory)
  before = contents(directory)
  shutil.rmtree(directory / "seed-0" / "ilg")
  done = command(directory, cache, "--table=4", "--seeds=2")
  assert done.returncode == 0, done.stderr
  first, _, second = done.stdout.partition("seed 1, ")
  assert not trained_in(first)  # the ILG is that of other runs of seed 0
  assert len(trained_in("seed 1, " + second)) == 4
  after = contents(directory)
  assert {k: after[k] for k in before} == before
  assert "over seeds 0, 1" in done.stdout
  assert "±" in done.stdout


def test_killed_in_a_run_it_ends_with_the_same_tables(
  finished, cache, tmp_path
):
  directory = shutil.copytree(finished[0], tmp_path / "killed")
  shutil.rmtree(directory / "seed-0" / "ilg_without_tm")
  shutil.rmtree(directory / "tables")
  code = KILLED.format(moment="labels-0.npz").replace(
    "main.main()", "from ptlr_jax import tables; tables.main()"
  )
  killed = command(directory, cache, "--table=3", "--seeds=1", code=code)
  assert killed.returncode == -9, killed.stderr
  done = command(directory, cache, "--table=3", "--seeds=1")
  assert done.returncode == 0, done.stderr
  whole = contents(finished[0])
  found = contents(directory)
  assert len(found) > 20
  for name, data in found.items():
    if name.endswith((".npz", "detections.json", "metrics.json")):
      assert data == whole[name], name


def test_a_folder_of_another_configuration_is_refused(finished):
  done = subprocess.run(
    [
      *(sys.executable, "-m", "ptlr_jax.tables", CONFIG, *SMALL),
      *(f"--workdir={finished[0]}", "--config.detect.nms=0.4", "--table=3"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert "this folder holds a run of another configuration" in done.stderr
  assert "detect.nms: " in done.stderr
  assert done.stderr.count("\n") == 1
