"""Tests of the files in configs/."""

import importlib
import re
from pathlib import Path

import pytest
from ml_collections import FrozenConfigDict

from configs import base
from ptlr_jax.cli import command_line
from ptlr_jax.evaluation.protocols import PROTOCOLS
from ptlr_jax.paper_tables import ablations
from ptlr_jax.runtime import config_tree
from ptlr_jax.workdir import identity, phases

ROOT = Path(__file__).parents[1]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("[a-z]*.py"))
OWN = [name for name in NAMES if name != "base"]
ROWS = sorted(p.stem for p in (ROOT / "configs" / "ablations").glob("*.py"))


def _config(name):
  return importlib.import_module(f"configs.{name}").get_config()


def test_all_are_here():
  assert {"base", "thumos14", "activitynet", "simulated"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_loads_from_the_command_line(name, tmp_path):
  path = ROOT / "configs" / f"{name}.py"
  argv = ["main", f"--config={path}", f"--workdir={tmp_path / 'run'}"]
  config, workdir, _ = command_line.parse(argv)
  assert isinstance(config, FrozenConfigDict)
  assert config.to_dict() == _config(name).to_dict()
  assert workdir == tmp_path / "run"
  assert not workdir.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_has_the_keys_and_types_of_the_base(name):
  known = config_tree.flatten(base.get_config())
  flat = config_tree.flatten(_config(name))
  assert flat.keys() == known.keys()
  for key, value in flat.items():
    assert type(value) is type(known[key]), key


@pytest.mark.parametrize("name", OWN)
def test_a_docstring_gives_the_command_that_runs_it(name):
  module = importlib.import_module(f"configs.{name}")
  text = " ".join((module.__doc__ or "").replace("\\\n", " ").split())
  assert f"python -m ptlr_jax.main --config=configs/{name}.py" in text
  assert re.search(r"--workdir=runs/" + name + r"\b", text)


@pytest.mark.parametrize("name", [n for n in OWN if n.endswith("_basnet")])
def test_the_baseline_is_one_stream_without_losses_or_stages(name):
  config = _config(name)
  assert config.ilg.streams == ("fused",)
  assert {config.ilg.loss[k] for k in ("alpha", "beta", "gamma")} == {0}
  names = [phase.name for phase in phases.phases(config)]
  assert names == ["ilg", "labels-0", "detect", "evaluate"]
  other = _config(name.removesuffix("_basnet"))
  changed = identity.differences(other, config)
  keys = {line.partition(":")[0] for line in changed}
  assert keys == {
    *(f"ilg.loss.{k}" for k in ("alpha", "beta", "gamma")),
    *("ilg.streams", "ptlr.stages"),
  }


def test_thumos14_is_the_papers():
  config = _config("thumos14")
  assert len(config.data.classes) == 20
  assert (config.ilg.segments, config.ilg.batch_size) == (750, 16)
  assert (config.ilg.steps, config.ilg.learning_rate) == (1500, 1e-4)
  assert config.ots.learning_rate == config.rts.learning_rate == 1e-3
  assert (config.labels.high, config.labels.low) == (0.7, 0.1)
  assert config.ptlr.thresholds[: config.ptlr.stages] == (0.7, 0.65, 0.6)
  assert (config.fusion.flow, config.fusion.rgb) == (1.5, 1.0)


def test_activitynet_has_its_own_protocol_and_settings():
  config = _config("activitynet")
  assert config.evaluate.protocol in PROTOCOLS
  assert config.evaluate.protocol == "activitynet"
  assert (config.ilg.segments, config.ilg.batch_size) == (100, 64)
  assert config.detect.class_threshold == 0.1


def test_the_phases_are_algorithm_1():
  config = base.get_config()
  config.ptlr.stages = 2
  assert [phase.name for phase in phases.phases(config)] == [
    *("ilg", "labels-0"),
    *("ots-1", "labels-1-ots", "rts-1", "labels-1-rts"),
    *("ots-2", "labels-2-ots", "rts-2", "labels-2-rts"),
    *("detect", "evaluate"),
  ]


# The rows of the paper's tables, and choices that go on top of a configuration.

DELTAS = [*(f"ablations/{row}" for row in ROWS), "thumos14_letter"]


def test_every_row_of_the_tables_that_needs_a_delta_has_one():
  needed = ablations.variants(list(ablations.TABLES))
  assert set(needed) - {ablations.OURS} == set(ROWS)


@pytest.mark.parametrize(
  "name", ["simulated", "thumos14", "thumos14_small", "activitynet"]
)
@pytest.mark.parametrize("delta", DELTAS)
def test_a_delta_loads_on_any_configuration(delta, name):
  path = f"{ROOT / 'configs' / delta}.py:{name}"
  config = command_line.parse(["", f"--config={path}", "--workdir=run"]).config
  module = importlib.import_module(f"configs.{delta.replace('/', '.')}")
  assert config.to_dict() == module.change(_config(name)).to_dict()
  changed = identity.differences(_config(name), config)
  assert 0 < len(changed) < 10
  types = {
    k: type(v) for k, v in config_tree.flatten(base.get_config()).items()
  }
  flat = config_tree.flatten(config)
  assert {key: type(value) for key, value in flat.items()} == types


@pytest.mark.parametrize("delta", DELTAS)
def test_a_delta_is_of_thumos14_by_itself(delta):
  module = importlib.import_module(f"configs.{delta.replace('/', '.')}")
  known = config_tree.flatten(base.get_config())
  flat = config_tree.flatten(module.get_config())
  assert flat == config_tree.flatten(module.change(_config("thumos14")))
  assert {k: type(v) for k, v in flat.items()} == {
    k: type(v) for k, v in known.items()
  }


@pytest.mark.parametrize("row", ROWS)
def test_a_row_says_which_table_and_the_command(row):
  module = importlib.import_module(f"configs.ablations.{row}")
  text = " ".join((module.__doc__ or "").replace("\\\n", " ").split())
  named = re.match(r'Tables? ([IV]+(?: and [IV]+)?), "([^"]+)": ', text)
  assert named
  tables = [
    table
    for table in ablations.TABLES.values()
    if row in {line.variant for line in table.rows}
  ]
  assert named[1] == " and ".join(table.roman for table in tables)
  labels = {
    line.label.partition(",")[0]
    for line in tables[0].rows
    if line.variant == row
  }
  assert labels == {named[2]}
  command = f"--config=configs/ablations/{row}.py:thumos14 "
  assert f"python -m ptlr_jax.main {command}" in text


def test_the_letter_differs_in_what_the_docs_say():
  changed = identity.differences(
    _config("thumos14"), _config("thumos14_letter")
  )
  assert [line.partition(":")[0] for line in changed] == [
    *("detect.nms", "detect.sources"),
    *("labels.cas", "labels.fusion", "labels.update_rule"),
  ]
