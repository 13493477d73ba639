"""The ILG with a transformer encoder, which has fields of its own."""

from configs import base


def get_config(name: str = "simulated"):
  """The change on configs/NAME.py."""
  config = base.named(name)
  config.plugins = ("tests.forks.transformer.model",)
  config.ilg.network = "transformer"
  config.ilg.model = {"width": 64, "layers": 2, "heads": 4, "dropout": 0.5}
  return config
