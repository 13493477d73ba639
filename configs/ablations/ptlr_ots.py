"""Table V, "PTLR-OTS": Network-OTS learns its own labels, 4 stages.

python -m ptlr_jax.main --config=configs/ablations/ptlr_ots.py:thumos14 \
  --config.data.root=ROOT --workdir=runs/ptlr_ots
"""

from configs import base


def change(config):
  """The row as a delta of any configuration."""
  config.ptlr.update({"networks": ("ots",), "stages": 4})
  return config


get_config = base.delta(change)
