"""L_csc as a cosine distance in place of L1."""

from configs import base


def get_config(name: str = "simulated"):
  """The change on configs/NAME.py."""
  config = base.named(name)
  config.plugins = ("tests.forks.cosine_streams.loss",)
  config.ilg.loss.cross_stream_losses = {"cosine": 1.0}
  return config
