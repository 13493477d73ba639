"""ActivityNet at the size of two CPU cores: narrow networks, short sequences.

python -m ptlr_jax.main --config=configs/activitynet_small.py \
  --config.data.root=ROOT --workdir=runs/activitynet_small

For features 64 wide, as benchmarks/simulate.py --gain=10 makes them, and of any
other width. Its numbers are not the paper's setting: rate and dropout were
chosen by the training loss of the first updates alone.
"""

from configs import activitynet


def get_config():
  """configs/activitynet.py with everything that costs time made smaller."""
  config = activitynet.get_config()
  config.ilg.update(
    {
      "steps": 1200,
      "batch_size": 32,
      "learning_rate": 1e-3,
      "segments": 50,
      "model": {"filter_width": 64, "cas_width": 128, "dropout": 0.3},
    }
  )
  # L_norm sums over time: its weight makes up for the shorter sequences.
  config.ilg.loss.norm_weight = 1e-4 * 100 / config.ilg.segments
  for network in (config.ots, config.rts):
    network.update(
      {"steps": 4000, "batch_size": 16, "model": {"width": 128, "dropout": 0.3}}
    )
  config.ptlr.update({"stages": 1, "window": 128})
  return config
