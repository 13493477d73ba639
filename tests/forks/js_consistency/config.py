"""L_sc with half an L1 distance and twice a Jensen-Shannon divergence.

python -m ptlr_jax.main --config=tests/forks/js_consistency/config.py \
  --workdir=runs/js_consistency
"""

from configs import base


def get_config(name: str = "simulated"):
  """The change on configs/NAME.py."""
  config = base.named(name)
  config.plugins = ("tests.forks.js_consistency.loss",)
  config.ilg.loss.scale_losses = {"sc": 0.5, "js": 2.0}
  return config
