"""THUMOS14 with the printed text read word by word.

python -m ptlr_jax.main --config=configs/thumos14_letter.py \
  --config.data.root=ROOT --workdir=runs/thumos14_letter

The streams are averaged, every network's labels replace those before, and NMS
at 0.7 takes the proposals of the two networks alone. docs/CHOICES.md says why
the defaults are others, and where these, too, depart from the text.
`--config=configs/thumos14_letter.py:thumos14_small` is the same at the size of
two CPU cores.
"""

from configs import base


def change(config):
  """The choices as a delta of any configuration."""
  config.labels.update(
    {
      "cas": "softmax_minmax",
      "fusion": "average",
      "update_rule": "replace",
    }
  )
  config.detect.update({"sources": ("ots", "rts"), "nms": 0.7})
  return config


get_config = base.delta(change)
