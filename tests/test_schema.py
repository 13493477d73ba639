"""Tests of ptlr_jax.runtime.schema, and of the keys of configs/base.py."""

import math

import pytest

from configs import base
from ptlr_jax import main
from ptlr_jax.cli import config_checks
from ptlr_jax.data.layouts import LAYOUTS
from ptlr_jax.evaluation.protocols import PROTOCOLS
from ptlr_jax.io import storage
from ptlr_jax.method import cas_space, ilg, losses, pseudo_labels
from ptlr_jax.models import convolution
from ptlr_jax.runtime import config_files, config_tree, schema
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.schema import Key


@pytest.mark.parametrize(
  ("key", "known"),
  [
    ("labels.cas", cas_space.SPACES),
    ("detect.ilg_cas", cas_space.SPACES),
    ("labels.update_rule", pseudo_labels.UPDATE_RULES),
    ("ilg.network", ilg.NETWORKS),
    ("data.layout", ("auto", *LAYOUTS, "prepared", "simulated")),
    ("evaluate.protocol", PROTOCOLS),
    *(
      (f"{net}.model.{name}", known)
      for net in config_checks.NETWORKS
      for name, known in (
        ("convolution", ("auto", *convolution.METHODS)),
        ("precision", convolution.PRECISIONS),
      )
    ),
  ],
)
def test_choices_are_the_names_that_the_code_has(key, known):
  assert set(schema.keys()[key].choices) == set(known)


def test_losses_of_the_configuration_are_those_that_the_code_has():
  loss = base.get_config().ilg.loss
  assert set(loss.scale_losses) == set(losses.SCALE_LOSSES)
  assert set(loss.cross_stream_losses) == set(losses.CROSS_STREAM_LOSSES)


def test_every_default_is_accepted_and_explained():
  for name, key in schema.keys().items():
    assert key.accepts(key.default, plugins=False), name
    assert all(key.accepts(x, plugins=False) for x in key.added), name
    assert key.meaning.endswith("."), name


@pytest.mark.parametrize(
  ("key", "good", "bad"),
  [
    (Key(1, "", "[1, inf)"), (1, 10**9), (0, 1.0, True, "1", (1,))),
    (Key(0.5, "", "[0, 1)"), (0, 0.0, 0.99), (1, -0.1, math.nan, "0.5")),
    (Key(0.5, ""), (-1e9, 3), (math.inf, math.nan, None)),
    (Key(True, ""), (True, False), (1, 0, "True")),
    (Key("a", "", choices=("a", "b")), ("a", "b"), ("c", "", 1, ("a",))),
    (Key("a", ""), ("", "x"), (1, None)),
    (Key((), "", elements=str), ((), ("a",)), ("a", (1,), ["a"])),
    (Key((0.5,), "", "[0, 1]", elements=float), ((0, 1.0),), ((2.0,), 0.5)),
    (Key(("a",), "", choices=("a", "b")), ((), ("b", "a")), (("c",), "a")),
  ],
)
def test_what_a_key_accepts(key, good, bad):
  assert all(key.accepts(x, plugins=False) for x in good)
  assert not any(key.accepts(x, plugins=False) for x in bad)


def test_plugins_may_add_names_only_where_a_key_says_so():
  closed = Key("a", "", choices=("a",))
  open_ = closed._replace(extensible=True)
  assert not closed.accepts("b", plugins=True)
  assert open_.accepts("b", plugins=True)
  assert not open_.accepts("b", plugins=False)


def test_the_help_has_every_key_once(capsys, monkeypatch):
  monkeypatch.setattr("sys.argv", ["main", "--help_config"])
  main.main()
  lines = capsys.readouterr().out.splitlines()
  found = [line.partition("=")[0] for line in lines if line[:2] == "--"]
  flat = config_tree.flatten(base.get_config())
  assert sorted(found) == sorted(f"--config.{name}" for name in flat)
  assert max(map(len, lines)) <= 80


@pytest.fixture
def declared(monkeypatch):
  """Declares a key of a later version."""

  def declare(key: Key) -> None:
    for module in (base, config_files.base()):
      monkeypatch.setitem(module.KEYS, "of_later", key)
    schema.keys.cache_clear()

  yield declare
  monkeypatch.undo()
  schema.keys.cache_clear()


def test_a_key_added_later_does_not_lock_out_a_run_made_before(
  declared, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)
  command = [
    *("main", "--config=tests/tiny_config.py", f"--workdir={tmp_path}/run"),
    *("--config.ptlr.stages=0", "--config.ilg.streams=('rgb',)"),
  ]
  main.run_command(command)
  before = storage.read_json(tmp_path / "run" / "metrics.json")
  (tmp_path / "run" / "metrics.json").unlink()
  capsys.readouterr()

  declared(Key(1, "Of a later version.", "[0, 9]", added=(1,)))
  main.run_command(command)
  assert "ilg            done before" in capsys.readouterr().out
  after = storage.read_json(tmp_path / "run" / "metrics.json")
  assert after["stages"] == before["stages"]

  # Another value, and a key that says nothing of runs before, are changes.
  with pytest.raises(InputError, match=r"of_later: 1 -> 2"):
    main.run_command([*command, "--config.of_later=2"])
  declared(Key(1, "Of a later version.", "[0, 9]"))
  (tmp_path / "run" / "metrics.json").unlink()
  with pytest.raises(InputError, match=r"of_later: 'absent' -> 1"):
    main.run_command(command)
