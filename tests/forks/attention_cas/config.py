"""The ILG with an attention-based CAS module.

python -m ptlr_jax.main --config=tests/forks/attention_cas/config.py \
  --workdir=runs/attention_cas
"""

from configs import base


def get_config(name: str = "simulated"):
  """The change on configs/NAME.py."""
  config = base.named(name)
  config.plugins = ("tests.forks.attention_cas.model",)
  config.ilg.network = "attention"
  config.ilg.model.heads = 4
  config.ilg.share_products = False
  return config
