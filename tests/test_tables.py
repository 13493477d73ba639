"""python -m ptlr_jax.tables: what it trains, shares, resumes and writes."""

import csv
import dataclasses
import shutil

import pytest
from basnet_fixture import tiny_videos, write_basnet
from ml_collections import FrozenConfigDict
from test_ablations import metrics
from tiny_config import ROOT

from configs import base, thumos14
from ptlr_jax import tables
from ptlr_jax.cli import command_line
from ptlr_jax.io import storage
from ptlr_jax.paper_tables import ablations
from ptlr_jax.runtime import config_tree
from ptlr_jax.runtime.errors import Diverged, InputError
from ptlr_jax.workdir import identity

CONFIG = f"--config={ROOT / 'tests' / 'tiny_config.py'}"


def refused(call, *args):
  """The one line that it is refused with."""
  with pytest.raises(InputError) as caught:
    call(*args)
  (line,) = caught.value.lines
  assert "\n" not in line
  return line


def read_csv(path):
  """The lines of a table, a dictionary each."""
  return list(csv.DictReader(path.read_text().splitlines()))


# What was asked for.


@pytest.mark.parametrize(
  ("said", "protocol", "numbers"),
  [
    ("all", "thumos14", [1, 3, 4, 5, 6]),
    ("all", "activitynet", [2, 3, 4, 5, 6]),
    ("3", "thumos14", [3]),
    ("6,4,4", "thumos14", [4, 6]),
    ("2", "activitynet", [2]),
  ],
)
def test_tables_are_named_by_their_numbers(said, protocol, numbers):
  assert tables.numbers_of(said, protocol) == numbers


@pytest.mark.parametrize("said", ["7", "0", "III", "3,", "", "3 4", "²", "-3"])
def test_what_is_no_table_is_refused(said):
  line = refused(tables.numbers_of, said, "thumos14")
  assert line.startswith("--table: expected 1 to 6 or all, got ")


def test_a_table_of_the_other_data_set_is_refused():
  line = refused(tables.numbers_of, "1,2", "thumos14")
  assert "Table II is mAP on ActivityNet" in line
  assert "evaluate.protocol is thumos14" in line
  assert "--config of activitynet" in line


@pytest.mark.parametrize(
  ("said", "first", "seeds"),
  [
    ("5", 0, [0, 1, 2, 3, 4]),
    ("2", 7, [7, 8]),
    ("0,7", 3, [0, 7]),
    ("7,", 3, [7]),
    ("3,1,3", 0, [1, 3]),
  ],
)
def test_seeds_are_a_count_or_a_list(said, first, seeds):
  assert tables.seeds_of(said, first) == seeds


@pytest.mark.parametrize(
  "said",
  ["0", "", "-1", "a", "1,b", "2.5", ",", "00", "1,,2", ",1", "²", "٣", "1 2"],
)
def test_what_are_no_seeds_is_refused(said):
  assert refused(tables.seeds_of, said, 0).startswith("--seeds: expected")


# A row's configuration.

LOSS = "ilg.loss."
DELTAS = {
  "ours": set(),
  "basnet": {
    *(f"{LOSS}alpha", f"{LOSS}beta", f"{LOSS}gamma"),
    *("ilg.streams", "ptlr.stages"),
  },
  "ilg_without_cs_tm": {
    *(f"{LOSS}alpha", f"{LOSS}beta", f"{LOSS}gamma"),
    "ptlr.stages",
  },
  "ilg_without_tm": {f"{LOSS}beta", f"{LOSS}gamma", "ptlr.stages"},
  "ilg_without_cs": {f"{LOSS}alpha", "ptlr.stages"},
  "ilg": {"ptlr.stages"},
  "ptlr_ots": {"ptlr.networks", "ptlr.stages"},
  "ptlr_rts": {"ptlr.networks", "ptlr.stages"},
  "ptlr": {"ptlr.stages"},
}


def test_every_row_has_its_delta():
  assert set(ablations.variants(list(ablations.TABLES))) == DELTAS.keys()


@pytest.mark.parametrize("name", DELTAS)
def test_a_delta_changes_what_its_row_is_about(name):
  config = FrozenConfigDict(thumos14.get_config())
  changed = tables.variant(config, name, seed=11)
  keys = {
    line.partition(":")[0]
    for line in identity.differences(config.to_dict(), changed.to_dict())
  }
  assert keys == DELTAS[name] | {"seed"}
  assert changed.seed == 11
  flat = config_tree.flatten(changed)
  for key in keys & {f"{LOSS}{x}" for x in ("alpha", "beta", "gamma")}:
    assert flat[key] == 0
  if name.startswith("ptlr"):
    assert changed.ptlr.stages == ablations.STAGES
    assert (
      changed.ptlr.networks
      == {
        "ptlr_ots": ("ots",),
        "ptlr_rts": ("rts",),
        "ptlr": ("ots", "rts"),
      }[name]
    )


def test_a_row_that_cannot_run_is_named_before_any_is_trained(
  pretend, tmp_path
):
  three = "--config.ptlr.thresholds=(0.7, 0.65, 0.6)"
  line = refused(
    tables.run_command, ["", CONFIG, f"--workdir={tmp_path}", three]
  )
  assert line == (
    "ptlr_ots: --config.ptlr.thresholds: expected one for each of the 4 "
    "stages, got (0.7, 0.65, 0.6)"
  )
  assert not pretend
  assert not list(tmp_path.iterdir())


def test_a_delta_that_is_not_there_is_named():
  config = FrozenConfigDict(base.get_config())
  line = refused(tables.variant, config, "ilg_without_everything", 0)
  assert line.startswith("configs/ablations/ilg_without_everything.py: cannot")


def test_a_test_set_that_cannot_be_scored_is_refused(tmp_path):
  bare = [dataclasses.replace(v, instances=()) for v in tiny_videos("test", 2)]
  train = tiny_videos("train", 4)
  root = write_basnet(tmp_path / "root", train, bare, ("Diving", "HighJump"))
  where = (f"--config.data.root={root}", "--config.data.layout=basnet")
  args = ["", CONFIG, "--table=3", f"--workdir={tmp_path / 'run'}", *where]
  line = refused(tables.run_command, [*args, "--config.data.width=4"])
  assert line.startswith(f"{root}: expected a test set that can be scored")
  assert "none of the 2 test videos has a temporal annotation" in line
  assert line.endswith("the tables need one, ptlr_jax.main does not")


def test_labels_that_have_no_truth_make_no_table(tmp_path):
  """Refused before the training, and only where such a table is asked for."""
  train, test = tiny_videos("train", 4), tiny_videos("test", 2)
  table = ["video,label,subset,start,end"]
  table += [f"{v.id},c{v.labels[0]},train,," for v in train]
  table += [f"{v.id},c{v.labels[0]},test,1,2" for v in test]
  root = write_basnet(tmp_path / "root", train, test, ("c0", "c1"))
  for split in ("train", "test"):
    for path in (root / "features" / split / "rgb").glob("*.npy"):
      path.rename(root / path.name)
  for path in (root / "gt.json", *root.glob("split_*.txt")):
    path.unlink()
  shutil.rmtree(root / "features")
  (root / "labels.csv").write_text("\n".join(table) + "\n")
  where = (f"--config.data.root={root}", "--config.data.layout=own")
  streams = "--config.ilg.streams=('rgb',)"
  args = ["", CONFIG, f"--workdir={tmp_path / 'run'}", *where, streams]
  args += ["--config.data.width=4"]
  line = refused(tables.run_command, [*args, "--table=4"])
  assert line.startswith(f"{root}: expected temporal annotations of training")


# Runs that are made up.


@pytest.fixture
def pretend(monkeypatch):
  """Runs end at once with made-up figures; returns which were asked for."""
  asked = []

  def finish(self, name, seed):
    asked.append((name, seed))
    if (name, seed) == ("ilg_without_cs", 1):
      raise Diverged("ilg: loss is nan")
    if seed == 99:
      raise KeyboardInterrupt
    simulated = self.config.data.layout == "simulated"
    figures = {**metrics(seed), "seed": seed, "simulated": simulated}
    storage.write_json(self.directory(name, seed) / "metrics.json", figures)

  monkeypatch.setattr(tables.Runs, "finish", finish)
  return asked


def test_a_run_that_diverges_costs_its_own_row_only(pretend, tmp_path, capsys):
  args = ["", CONFIG, "--table=3", "--seeds=3", f"--workdir={tmp_path}"]
  with pytest.raises(Diverged) as caught:
    tables.run_command(args)
  assert "1 runs diverged" in str(caught.value)
  assert "seed 1, ilg_without_cs: ilg: loss is nan" in str(caught.value)
  assert len(pretend) == 12
  shown = capsys.readouterr().out
  assert "fewer seeds so far for ILG w/o cs: 2" in shown
  rows = read_csv(tmp_path / "tables" / "table-3.csv")
  seeds = {row["row"]: row["seeds"] for row in rows}
  assert seeds == {
    **dict.fromkeys(("ILG w/o cs & tm", "ILG w/o tm", "ILG"), "0 1 2"),
    "ILG w/o cs": "0 2",
  }


@pytest.mark.parametrize(
  ("args", "seeds"),
  [
    (("--seeds=2",), [0, 1]),
    (("--seeds=2", "--config.seed=7"), [7, 8]),
    (("--seeds=4,2", "--config.seed=7"), [2, 4]),
    ((), [0, 1, 2, 3, 4]),
  ],
)
def test_a_count_begins_at_the_configurations_seed_and_a_list_does_not(
  pretend, tmp_path, args, seeds
):
  tables.run_command(["", CONFIG, "--table=1", f"--workdir={tmp_path}", *args])
  assert pretend == [(n, seed) for seed in seeds for n in ("basnet", "ours")]
  made = {p.name for p in tmp_path.glob("seed-*")}
  assert made == {f"seed-{seed}" for seed in seeds}


def test_the_tables_of_a_seed_are_there_when_a_later_one_is_stopped(
  pretend, tmp_path
):
  args = ["", CONFIG, "--table=3", f"--workdir={tmp_path}"]
  with pytest.raises(KeyboardInterrupt):
    tables.run_command([*args, "--seeds=0,99"])
  assert pretend[-1] == ("ilg_without_cs_tm", 99)
  rows = read_csv(tmp_path / "tables" / "table-3.csv")
  assert {row["seeds"] for row in rows} == {"0"}
  tables.run_command([*args, "--seeds=0,2"])
  rows = read_csv(tmp_path / "tables" / "table-3.csv")
  assert {row["seeds"] for row in rows} == {"0 2"}


def test_a_diverged_run_is_exit_status_1(pretend, tmp_path, monkeypatch):
  argv = ["tables", CONFIG, "--table=4", "--seeds=1,", f"--workdir={tmp_path}"]
  monkeypatch.setattr("sys.argv", argv)
  with pytest.raises(SystemExit) as caught:
    command_line.execute(tables.run_command, "", tables.USAGE)
  assert caught.value.code == 1
  assert pretend


def test_every_table_is_there_in_every_format_and_says_simulated(
  pretend, tmp_path
):
  tables.run_command(
    ["", CONFIG, "--table=1,6", "--seeds=0,", f"--workdir={tmp_path}"]
  )
  assert {name for name, _ in pretend} == {"basnet", "ours", "ptlr"}
  written = {p.name for p in (tmp_path / "tables").iterdir()}
  assert written == {
    f"{stem}.{form}"
    for stem in ("table-1", "table-6", "tables")
    for form in ("txt", "md", "csv", "tex")
  }
  for path in (tmp_path / "tables").iterdir():
    text = path.read_text()
    assert ("Simulated features" in text) == (path.suffix != ".csv")
    assert not text.startswith("Table I.")
  every = (tmp_path / "tables" / "tables.md").read_text()
  assert "Table I. " in every
  assert "Table VI. " in every


def test_tables_of_a_data_set_on_disk_have_no_such_note(pretend, tmp_path):
  layout = ("--config.data.layout=basnet", "--config.data.root=nowhere")
  args = ["--table=1", "--seeds=1", f"--workdir={tmp_path}", *layout]
  tables.run_command(["", CONFIG, *args])
  assert pretend
  for path in (tmp_path / "tables").iterdir():
    assert "imulated" not in path.read_text()


def test_nothing_is_written_before_the_first_run(tmp_path):
  assert tables.write_tables(tmp_path, [3], {"ilg": {}}) == ""
  assert not list(tmp_path.iterdir())


def test_seeds_at_once_are_refused_for_tables(tmp_path):
  argv = ["", "--config=configs/simulated.py", f"--workdir={tmp_path / 'w'}"]
  with pytest.raises(InputError, match=r"config\.seeds: expected 1, got 2"):
    tables.run_command([*argv, "--table=3", "--config.seeds=2"])
