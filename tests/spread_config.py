"""A run that 8 devices can share, as small as can be.

python -m ptlr_jax.main --config=tests/spread_config.py --workdir=/tmp/spread
"""

from tests.tiny_config import get_config as tiny


def get_config():
  """The tiny configuration with batches of 8, one stage, and the training set
  in four parts; dropout is on."""
  config = tiny()
  config.data.simulated.update({"train_videos": 8})
  config.train.update({"log_every": 3, "checkpoint_every": 4})
  for network in (config.ilg, config.ots, config.rts):
    network.update({"steps": 12, "batch_size": 8})
  config.ptlr.stages = 1
  config.data.parts = 4
  return config
