"""A data set of one's own: features and video-level labels.

python -m ptlr_jax.main --config=configs/own.py --config.data.root=ROOT \
  --workdir=runs/own

`--config=configs/own.py:rgb` takes one stream alone, `:pose,motion` those of
features/pose and features/motion. docs/OWN_DATA.md says what ROOT holds. The
settings are THUMOS14's; for clips of a minute or two take fewer segments, for a
small card or a CPU narrower networks (`configs/thumos14_small.py` shows which
keys these are).
"""

from configs import base


def get_config(streams: str = "rgb,flow"):
  """The base; `streams` are two, with flow's weight for the second, or one."""
  config = base.get_config()
  config.ilg.streams = names = tuple(streams.split(","))
  if not set(names) <= {"rgb", "flow"}:
    config.data.streams = names
    weights = config.fusion.rgb, config.fusion.flow
    config.fusion = dict(zip(names, weights, strict=False))
  return config
