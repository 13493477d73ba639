"""The baseline of Table I on THUMOS14: early-fusion Bas-Net alone.

python -m ptlr_jax.main --config=configs/thumos14_basnet.py \
  --config.data.root=ROOT --workdir=runs/thumos14_basnet

The paper quotes mAP 58.2 / 44.6 / 27.0 / 10.4 at tIoU 0.1 / 0.3 / 0.5 / 0.7.
"""

from configs import base, thumos14


def get_config():
  """One stream of both features, no consistency, no refinement."""
  return base.early_fusion(thumos14.get_config())
