"""A third network, which exchanges labels after Network-RTS.

python -m ptlr_jax.main --config=tests/forks/third_network/config.py \
  --workdir=runs/third_network
"""

from configs import base


def get_config(name: str = "simulated"):
  """The change on configs/NAME.py."""
  config = base.named(name)
  config.plugins = ("tests.forks.third_network.stage",)
  config.dts = config.ots.copy_and_resolve_references()
  width, dropout = config.ots.model.width, config.ots.model.dropout
  config.dts.model = {"width": width, "layers": 4, "dropout": dropout}
  config.ptlr.networks = ("ots", "rts", "dts")
  config.detect.sources = (*config.detect.sources, "dts")
  return config
