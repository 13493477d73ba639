"""Tests of benchmarks/readings.py: two arms of one seed, as small as can be."""

import sys

import pytest
from tiny_config import ROOT

from benchmarks import readings, readings_report
from configs import base
from ptlr_jax.io import storage

SMALL = (
  f"--config={ROOT / 'tests' / 'tiny_config.py'}",
  *("--config.ilg.steps=2", "--config.ots.steps=2", "--config.rts.steps=2"),
  "--config.ptlr.stages=1",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Where they lie; no test changes it."""
  root = tmp_path_factory.mktemp("readings")
  with pytest.MonkeyPatch.context() as patched:
    ways = {"OF_FIRST": ("0.7", "0.5"), "OF_STAGES": ("0.7", "0.5 + own")}
    for name, kept in ways.items():
      own = {k: v for k, v in getattr(readings, name).items() if k in kept}
      patched.setattr(readings, name, own)
    flags = [f"--workdir={root}", "--seeds=1", "--arms=letter;expand", *SMALL]
    patched.setattr(sys, "argv", ["readings.py", *flags])
    readings.main()
  return root


def test_what_arms_have_in_common_is_trained_once(root):
  arms = [root / "seed-0" / name for name in ("letter", "expand")]
  for name in ("checkpoints/ilg/final", "labels/labels-0.npz"):
    paths = [arm / name for arm in arms]
    files = [sorted(p.rglob("*")) if p.is_dir() else [p] for p in paths]
    pairs = [(a, b) for a, b in zip(*files, strict=True) if a.is_file()]
    assert pairs
    assert all(a.samefile(b) for a, b in pairs), name


def test_the_paper_s_reading_is_what_the_run_has_measured(root):
  for arm in ("letter", "expand"):
    folder = root / "seed-0" / arm
    metrics = storage.read_json(folder / "metrics.json")
    found = storage.read_json(folder / "readings.json")
    for row, measured in metrics["stages"].items():
      expected = 100 * measured["averages"][readings.AVERAGE]
      assert found[row][readings.PAPER] == pytest.approx(expected, abs=1e-9)
      assert len(found[row]) == 2


def test_the_report_has_each_row_by_both_readings(root):
  arms = ["letter", "expand", "sum"]
  text = readings_report.report(root, arms, [0, 1], "letter")
  scores, steps, differences, labels = text.split("\n\n")
  rows = [line.split(" | ") for line in scores.splitlines()[2:]]
  assert [row[:2] for row in rows] == [
    *(["| letter", "paper"], ["| letter", "best"]),
    *(["| expand", "paper"], ["| expand", "best"]),
  ]
  found = readings_report.Found(root, "letter", [0])
  paper, best = found.read_by("paper")[0], found.read_by("best")[0]
  assert all((best[row] >= paper[row]).all() for row in found.rows)
  first = paper["stage-1"] - paper["ilg"]
  assert f"| letter | paper | {first[0]:+.1f} (" in steps
  assert differences.startswith("| less letter | reading | own | stage 1 |")
  other = readings_report.Found(root, "expand", [0]).read_by("paper")[0]
  step = f"{(other['stage-1'] - paper['stage-1'])[0]:+.1f}"
  assert differences.splitlines()[2].split(" | ")[:2] == ["| expand", "paper"]
  assert differences.splitlines()[2].split(" | ")[3].startswith(step)
  assert labels.splitlines()[2].startswith("| letter | 0 | ")


def test_a_row_without_stages_leaves_their_cells_empty(root, tmp_path):
  folder = tmp_path / "seed-0" / "ILG"
  folder.mkdir(parents=True)
  seed = root / "seed-0" / "letter"
  read = {"ilg": storage.read_json(seed / "readings.json")["ilg"]}
  storage.write_json(folder / "readings.json", read)
  metrics = storage.read_json(seed / "metrics.json")
  metrics["pseudo_labels"] = metrics["pseudo_labels"][:1]
  storage.write_json(folder / "metrics.json", metrics)
  (tmp_path / "seed-0" / "letter").symlink_to(seed)
  text = readings_report.report(tmp_path, ["letter", "ILG"], [0], "letter")
  scores, _, differences, _ = text.split("\n\n")
  assert scores.splitlines()[4].endswith(" |  |")
  assert scores.splitlines()[4].startswith("| ILG | paper | ")
  assert differences.splitlines()[2].startswith("| ILG | paper | +0.0 (0/1)")


def test_no_finished_seed_is_told(tmp_path):
  text = readings_report.report(tmp_path, ["letter"], [0], "letter")
  assert text == f"{tmp_path}: no finished seed of these arms"


def test_arms_change_the_configuration_as_they_say():
  config = base.get_config()
  plain = readings.configuration(config, 3, "letter")
  assert (plain.seed, plain.data.holdout, plain.data.holdout_seed) == (
    3,
    0.5,
    3,
  )
  both = readings.configuration(config, 3, "sum, expand")
  assert (both.labels.fusion, both.labels.update_rule) == ("sum", "expand")
  other = readings.configuration(config, 3, "Bas-Net, divided, expand")
  assert other.ilg.streams == ("fused",)
  assert (other.ptlr.stages, other.labels.high) == (3, 0.28)
  row = readings.configuration(config, 3, "ILG without cs")
  assert (row.ptlr.stages, row.ilg.loss.alpha, row.ilg.loss.beta) == (0, 0, 0.5)
