"""Table V, "PTLR-RTS": Network-RTS learns its own labels, 4 stages.

python -m ptlr_jax.main --config=configs/ablations/ptlr_rts.py:thumos14 \
  --config.data.root=ROOT --workdir=runs/ptlr_rts
"""

from configs import base


def change(config):
  """The row as a delta of any configuration."""
  config.ptlr.update({"networks": ("rts",), "stages": 4})
  return config


get_config = base.delta(change)
