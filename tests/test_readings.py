"""Tests of benchmarks/readings.py: two arms of one seed, as small as can be."""

import sys

import numpy as np
import pytest
from tiny_config import ROOT

from benchmarks import readings
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
    flags = [f"--workdir={root}", "--seeds=0", "--arms=letter;expand", *SMALL]
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
  text = readings.report(root, ["letter", "expand", "sum"], [0, 1])
  first, steps, labels = text.split("\n\n")
  rows = [line.split(" | ") for line in first.splitlines()[2:]]
  assert [row[:2] for row in rows] == [
    *(["| letter", "paper"], ["| letter", "best"]),
    *(["| expand", "paper"], ["| expand", "best"]),
  ]
  found = readings.Found(root, "letter", [0])
  best = [found.scores(row, found.best(row)).mean() for row in found.rows]
  paper = [found.scores(row, readings.PAPER).mean() for row in found.rows]
  assert (np.array(best) >= paper).all()
  assert f"{paper[1] - paper[0]:+.1f}" in steps
  assert labels.splitlines()[2].startswith("| letter | 0 | ")


def test_arms_change_the_configuration_as_they_say():
  config = readings.base.get_config()
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
