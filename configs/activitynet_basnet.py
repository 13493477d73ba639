"""The baseline of Table II on ActivityNet v1.3: early-fusion Bas-Net alone.

python -m ptlr_jax.main --config=configs/activitynet_basnet.py \
  --config.data.root=ROOT --workdir=runs/activitynet_basnet

The paper quotes an average mAP of 22.2 over tIoU 0.5:0.95.
"""

from configs import activitynet, base


def get_config():
  """One stream of both features, no consistency, no refinement."""
  return base.early_fusion(activitynet.get_config())
