"""Tables III and IV, "ILG w/o tm": cross-stream consistency alone.

python -m ptlr_jax.main --config=configs/ablations/ilg_without_tm.py:thumos14 \
  --config.data.root=ROOT --workdir=runs/ilg_without_tm
"""

from configs import base


def change(config):
  """The row as a delta of any configuration."""
  config.ilg.loss.update({"beta": 0.0, "gamma": 0.0})
  config.ptlr.stages = 0
  return config


get_config = base.delta(change)
