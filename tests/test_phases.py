"""What a phase hangs on, and what one run takes over from another."""

import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.workdir import identity, phases
from tests import tiny_config


def _config(**changes):
  config = tiny_config.get_config()
  flat = {key.replace("__", "."): value for key, value in changes.items()}
  config.update_from_flattened_dict(flat)
  return FrozenConfigDict(ConfigDict(config.to_dict()))


def _changed(**changes):
  """The names that a change of settings makes anew."""
  old = identity.fingerprints(_config())
  new = identity.fingerprints(_config(**changes))
  return {n for n in old.keys() | new.keys() if old.get(n) != new.get(n)}


STAGE_1 = {
  "ots-1",
  "labels-1-ots",
  "rts-1",
  "labels-1-rts",
  "detections/stage-1",
}
STAGE_2 = {
  "ots-2",
  "labels-2-ots",
  "rts-2",
  "labels-2-rts",
  "detections/stage-2",
}
DETECTIONS = {"detections/ilg", "detections/stage-1", "detections/stage-2"}
EVERYTHING = {"ilg", "labels-0", "detections/ilg"} | STAGE_1 | STAGE_2


@pytest.mark.parametrize(
  ("changes", "anew"),
  [
    ({}, set()),
    ({"seed": 7}, EVERYTHING),
    ({"data__holdout": 0.5}, EVERYTHING),
    ({"optimizer__weight_decay": 0.1}, EVERYTHING),
    ({"ilg__loss__alpha": 0.0}, EVERYTHING),
    ({"fusion__flow": 2.0}, EVERYTHING - {"ilg"}),
    ({"labels__high": 0.8}, EVERYTHING - {"ilg", "detections/ilg"}),
    ({"labels__fusion": "average"}, EVERYTHING - {"ilg", "detections/ilg"}),
    (
      {"labels__update_rule": "replace"},
      (STAGE_1 | STAGE_2) - {"ots-1"},
    ),
    ({"ptlr__sampling": "uniform"}, STAGE_1 | STAGE_2),
    ({"ots__steps": 7}, STAGE_1 | STAGE_2),
    # RTS changes what it says; OTS of stage 1 came before it.
    (
      {"rts__upsampling": "copy"},
      (STAGE_1 | STAGE_2) - {"ots-1", "labels-1-ots"},
    ),
    ({"ptlr__thresholds": (0.7, 0.5)}, STAGE_2 - {"ots-2"}),
    ({"detect__nms": 0.7}, DETECTIONS),
    ({"evaluate__protocol": "activitynet"}, set()),
    ({"train__log_every": 3}, set()),
    ({"ptlr__stages": 1}, STAGE_2),
    ({"ptlr__warm_start": True}, STAGE_2),
  ],
)
def test_a_setting_makes_anew_what_hangs_on_it(changes, anew):
  assert _changed(**changes) == anew


@pytest.mark.parametrize(
  ("predict", "ptlr", "expected"),
  [
    ("own", "own", (0, 0)),
    ("own", "uniform", (0, 16)),
    ("uniform", "own", (16, 16)),
    ("uniform", "uniform", (16, 16)),
  ],
)
def test_a_network_is_asked_at_its_sampling(predict, ptlr, expected):
  config = _config(predict__sampling=predict, ptlr__sampling=ptlr)
  found = [phases.sampled_segments(config, net) for net in ("ilg", "rts")]
  assert tuple(found) == expected


def test_every_phase_but_detection_and_evaluation_has_a_fingerprint():
  config = _config()
  found = identity.fingerprints(config)
  names = [p.name for p in phases.phases(config)]
  assert set(names) - found.keys() == {"detect", "evaluate"}
  assert found.keys() - set(names) == {
    f"detections/{row}" for row in phases.table_rows(config)
  }
  assert len(set(found.values())) == len(found)


def test_ots_alone_shares_its_first_stage_with_the_whole():
  whole = identity.fingerprints(_config())
  alone = identity.fingerprints(_config(ptlr__networks=("ots",)))
  same = {name for name in alone if alone[name] == whole.get(name)}
  assert same == {
    "ilg",
    "labels-0",
    "ots-1",
    "labels-1-ots",
    "detections/ilg",
  }
