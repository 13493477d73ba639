"""The baseline on the demo's data: early-fusion Bas-Net alone.

python -m ptlr_jax.main --config=configs/simulated_basnet.py \
  --workdir=runs/simulated_basnet
"""

from configs import base, simulated


def get_config():
  """One stream of both features, no consistency, no refinement."""
  return base.early_fusion(simulated.get_config())
