"""Tables III and IV, "ILG": both consistency losses, no refinement.

python -m ptlr_jax.main --config=configs/ablations/ilg.py:thumos14 \
  --config.data.root=ROOT --workdir=runs/ilg
"""

from configs import base


def change(config):
  """The row as a delta of any configuration."""
  config.ptlr.stages = 0
  return config


get_config = base.delta(change)
