"""Tests of ptlr_jax.cli.config_checks."""

import pytest
from ml_collections import FrozenConfigDict

from configs import base
from ptlr_jax.cli import config_checks
from ptlr_jax.runtime import config_tree, schema
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.workdir import identity


def _with(**changes):
  """The base configuration with {"a.b": value} as a__b=value."""
  config = base.get_config()
  for key, value in changes.items():
    section, _, name = key.replace("__", ".").rpartition(".")
    where = config
    for part in filter(None, section.split(".")):
      where = where[part]
    with where.ignore_type():
      where[name] = value
  return config


def _problems(**changes):
  with pytest.raises(InputError) as caught:
    config_checks.freeze_config(_with(**changes))
  return caught.value.problems


def test_the_base_passes():
  config_checks.freeze_config(base.get_config())
  config_checks.freeze_config(FrozenConfigDict(base.get_config()))


@pytest.mark.parametrize(
  "key",
  [
    name
    for name, key in schema.keys().items()
    if key.choices and isinstance(key.default, str)
  ],
)
def test_a_name_outside_its_choices_is_refused_with_them(key):
  (problem,) = _problems(**{key.replace(".", "__"): "sofmax"})
  choices = ", ".join(x or "''" for x in schema.keys()[key].choices)
  assert problem == f"--config.{key}: expected one of {choices}, got 'sofmax'"


WRONG = [
  ("seed", -1, "an integer in [0, 4294967295], got -1"),
  ("ilg__steps", 0, "an integer of at least 1, got 0"),
  ("ilg__segments", 7, "at least 8"),
  ("ilg__loss__topk_ratio", 0, "at least 1"),
  ("train__checkpoint_every", 0, "at least 1"),
  ("ptlr__window", -1, "at least 0"),
  ("ilg__learning_rate", float("nan"), "number of at least 0, got nan"),
  ("detect__ring", float("inf"), "a number of at least 0, got inf"),
  ("ots__model__dropout", 1.0, "a number in [0, 1), got 1.0"),
  ("rts__model__dropout", -0.1, "a number in [0, 1), got -0.1"),
  ("ilg__streams", ("flow", "rgb"), "expected two streams, as ('rgb', 'flow')"),
  ("ilg__streams", (), "expected two streams, as ('rgb', 'flow')"),
  ("ptlr__networks", ("rts", "ots"), "expected ('ots', 'rts'), ('ots',)"),
  ("ptlr__thresholds", (0.7,), "one for each of the 3 stages, got (0.7,)"),
  ("ptlr__thresholds", (0.7, "x", 0.6), "numbers in [0, 1], got (0.7, 'x'"),
  (
    "data__classes",
    ("Diving", 3),
    "names in quotes, as ('a', 'b'), got",
  ),
  ("data__overrun_ids", (7,), "names in quotes, as ('a', 'b'), got (7,)"),
  ("data__fps", -25.0, "at least 0, got -25"),
  ("data__stride", -1.0, "of at least 0, got -1"),
  ("data__window", float("nan"), "number of at least 0, got nan"),
  ("data__offset", -8.0, "at least 0, got -8"),
  ("data__width", -1, "of at least 0, got -1"),
  ("data__length_tolerance", -2.0, "at least 0, got -2"),
  ("data__stream_threads", 0, "an integer of at least 1, got 0"),
  (
    "data__streams",
    "rgb",
    "names in quotes, as ('a', 'b'), got 'rgb'",
  ),
  ("data__streams", ("rgb", "rgb"), "expected names of streams, each once"),
  ("detect__sources", (), "expected some of ilg, ots and rts"),
  ("detect__sources", ("ots", "i3d"), "expected some of ilg, ots, rts, got"),
  ("ilg__scale__max", 0.4, "at least ilg.scale.min 0.5, got 0.4"),
  (
    "data__simulated__max_segments",
    30,
    "data.simulated.min_segments 80, got 30",
  ),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_value_out_of_its_range_is_refused_in_one_line(key, value, said):
  (problem,) = _problems(**{key: value})
  assert problem.startswith(f"--config.{key.replace('__', '.')}: expected ")
  assert said in problem


def test_all_problems_come_together():
  found = _problems(seed=-1, ilg__steps=0, labels__cas="x", ilg__streams=())
  assert len(found) == 4


def test_a_source_must_be_trained():
  config_checks.freeze_config(_with(ptlr__networks=("ots",)))
  assert _problems(ptlr__networks=("ots",), detect__sources=("rts",))


def test_a_configuration_without_a_key_is_refused_with_its_name():
  config = base.get_config()
  del config.labels.cas
  with pytest.raises(InputError, match=r"--config\.labels\.cas: missing"):
    config_checks.freeze_config(config)


def test_flatten_joins_names_and_makes_tuples():
  nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": (3,)}
  flat = {"a.b": 1, "a.c.d": (1, 2), "e": (3,)}
  assert config_tree.flatten(nested) == flat
  assert config_tree.flatten(FrozenConfigDict(nested)) == flat


def test_nearest_is_the_likeliest_word_or_none():
  known = ["ilg.steps", "ots.steps", "detect.nms"]
  assert config_tree.nearest("ilg.stepz", known) == "ilg.steps"
  assert config_tree.nearest("detect.mns", known) == "detect.nms"
  assert config_tree.nearest("xyzzy", known) == ""


def test_differences_name_every_key_that_is_not_the_same():
  old = {"a": {"b": 1, "gone": True}, "same": [1, 2]}
  new = {"a": {"b": 2, "new": "x"}, "same": (1, 2)}
  assert identity.differences(old, new) == [
    "a.b: 1 -> 2",
    "a.gone: True -> 'absent'",
    "a.new: 'absent' -> 'x'",
  ]
  assert identity.differences(old, old) == []
