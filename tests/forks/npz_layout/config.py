"""Features in one .npz a video."""

from configs import base


def get_config(name: str = "thumos14_small"):
  """The change on configs/NAME.py."""
  config = base.named(name)
  config.plugins = ("tests.forks.npz_layout.layout",)
  config.data.layout = "npz"
  return config
