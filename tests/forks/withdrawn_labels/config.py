"""Pseudo labels that a network contradicts are withdrawn.

python -m ptlr_jax.main --config=tests/forks/withdrawn_labels/config.py \
  --workdir=runs/withdrawn_labels
"""

from configs import base


def get_config(name: str = "simulated"):
  """The change on configs/NAME.py."""
  config = base.named(name)
  config.plugins = ("tests.forks.withdrawn_labels.rule",)
  config.labels.update_rule = "withdraw"
  return config
