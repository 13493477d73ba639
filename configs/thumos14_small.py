"""THUMOS14 at the size of two CPU cores: narrow networks, short sequences.

python -m ptlr_jax.main --config=configs/thumos14_small.py \
  --config.data.root=ROOT --workdir=runs/thumos14_small

For features 128 wide, as benchmarks/simulate.py --width=128 makes them;
`--config.data.width=1024` takes real ones. Its numbers are not the paper's
setting.
"""

from configs import thumos14


def get_config():
  """configs/thumos14.py with everything that costs time made smaller."""
  config = thumos14.get_config()
  config.data.width = 128
  config.ptlr.window = 256
  config.ilg.update(
    {
      "batch_size": 8,
      "learning_rate": 5e-4,
      "segments": 128,
      "model": {"filter_width": 64, "cas_width": 128},
    }
  )
  # L_norm sums over time: its weight makes up for the shorter sequences.
  config.ilg.loss.norm_weight = 1e-4 * 750 / config.ilg.segments
  for network in (config.ots, config.rts):
    network.update({"steps": 400, "batch_size": 8, "model": {"width": 128}})
  return config
