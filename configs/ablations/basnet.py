"""Tables I and II, "Bas-Net": early fusion, no consistency, no refinement.

python -m ptlr_jax.main --config=configs/ablations/basnet.py:thumos14 \
  --config.data.root=ROOT --workdir=runs/basnet
"""

from configs import base


def change(config):
  """The row as a delta of any configuration."""
  return base.early_fusion(config)


get_config = base.delta(change)
