"""Tables V and VI, "PTLR": both networks exchange labels, 4 stages.

python -m ptlr_jax.main --config=configs/ablations/ptlr.py:thumos14 \
  --config.data.root=ROOT --workdir=runs/ptlr
"""

from configs import base


def change(config):
  """The row as a delta of any configuration."""
  config.ptlr.stages = 4
  return config


get_config = base.delta(change)
