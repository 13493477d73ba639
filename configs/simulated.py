"""The demo: every part of the method on simulated features, under 3 minutes.

python -m ptlr_jax.main --config=configs/simulated.py --workdir=runs/simulated

The features are drawn from a small generative model (ptlr_jax.data.simulated).
Its numbers say nothing about THUMOS14.
"""

from configs import base


def get_config():
  """The base at the size of two CPU cores."""
  config = base.get_config()
  config.data.layout = "simulated"
  config.data.width = 32
  config.train.update({"log_every": 20, "checkpoint_every": 100})
  config.ilg.update(
    {
      "steps": 400,
      "learning_rate": 1e-3,
      "segments": 128,
      "model": {"filter_width": 32, "cas_width": 64},
    }
  )
  for network in (config.ots, config.rts):
    network.update({"steps": 300, "model": {"width": 128, "dropout": 0.5}})
  # Copying, as the paper has it, is late by half a low-resolution cell; on
  # held-out training videos that undid the later stages.
  config.rts.upsampling = "nearest"
  return config
