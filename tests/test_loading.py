"""What a protocol asks of the data set that a configuration names."""

import dataclasses

import pytest
from basnet_fixture import tiny_videos, write_basnet

from configs import base
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime.errors import InputError

DISPUTED = "video_test_0000270"


def _config(root, **evaluate):
  config = base.get_config()
  config.data.update({"root": str(root), "layout": "basnet"})
  config.evaluate.update(evaluate)
  return config


@pytest.fixture
def root(tmp_path):
  train, test = tiny_videos("video_validation_", 4), tiny_videos("t", 2)
  test = (dataclasses.replace(test[0], id=DISPUTED), test[1])
  return write_basnet(tmp_path, train, test, ("Jump", "Run"))


def test_a_protocol_leaves_disputed_videos_out_and_says_so(root):
  ids = {}
  for protocol in ("thumos14", "thumos14-212"):
    config = _config(root, protocol=protocol)
    data = load_dataset(config.data, config.evaluate)
    ids[protocol] = {v.id for v in data.test}
    said = [note for note in data.notes if "rule disputed" in note]
    assert len(said) == (protocol == "thumos14")
  assert ids["thumos14-212"] - ids["thumos14"] == {DISPUTED}
  assert DISPUTED in {v.id for v in load_dataset(config.data).test}


def test_a_rule_for_stretches_needs_stretches(root):
  config = _config(root, ambiguous="kit")
  with pytest.raises(InputError, match="expected test videos with ambiguous"):
    load_dataset(config.data, config.evaluate)
