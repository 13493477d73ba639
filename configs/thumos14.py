"""THUMOS14 with the paper's settings.

python -m ptlr_jax.main --config=configs/thumos14.py \
  --config.data.root=ROOT --workdir=runs/thumos14

ROOT holds gt.json, split_train.txt, split_test.txt and
features/{train,test}/{rgb,flow}/VIDEO.npy, each (T, 1024).
The paper has mAP 61.2 / 47.1 / 29.7 / 11.5 at tIoU 0.1 / 0.3 / 0.5 / 0.7; this
package has not been run on the real features yet.
"""

from configs import base

CLASSES = (
  "BaseballPitch",
  "BasketballDunk",
  "Billiards",
  "CleanAndJerk",
  "CliffDiving",
  "CricketBowling",
  "CricketShot",
  "Diving",
  "FrisbeeCatch",
  "GolfSwing",
  "HammerThrow",
  "HighJump",
  "JavelinThrow",
  "LongJump",
  "PoleVault",
  "Shotput",
  "SoccerPenalty",
  "TennisSwing",
  "ThrowDiscus",
  "VolleyballSpiking",
)


def get_config():
  """The base, with THUMOS14's classes."""
  config = base.get_config()
  config.data.classes = CLASSES
  return config
