"""ActivityNet at the size of two CPU cores: narrow networks, fewer updates.

python -m ptlr_jax.main --config=configs/activitynet_small.py \
  --config.data.root=ROOT --workdir=runs/activitynet_small

For features 64 wide, as benchmarks/activitynet_sim.py makes them, and of any
other width. Its numbers are not the paper's setting.
"""

from configs import activitynet


def get_config():
  """configs/activitynet.py with everything that costs time made smaller."""
  config = activitynet.get_config()
  config.ilg.model.update({"filter_width": 64, "cas_width": 128})
  config.ilg.learning_rate = 1e-3  # narrow networks learn slowly with 5e-4
  for network in (config.ots, config.rts):
    network.update({"steps": 600, "batch_size": 16, "model": {"width": 128}})
  config.ptlr.update({"stages": 1, "window": 256})
  return config
