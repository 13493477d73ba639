"""Tables III and IV, "ILG w/o cs": multi-resolution consistency alone.

python -m ptlr_jax.main --config=configs/ablations/ilg_without_cs.py:thumos14 \
  --config.data.root=ROOT --workdir=runs/ilg_without_cs
"""

from configs import base


def change(config):
  """The row as a delta of any configuration."""
  config.ilg.loss.alpha = 0.0
  config.ptlr.stages = 0
  return config


get_config = base.delta(change)
