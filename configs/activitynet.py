"""ActivityNet v1.3 with the paper's settings.

python -m ptlr_jax.main --config=configs/activitynet.py \
  --config.data.root=ROOT --workdir=runs/activitynet

ROOT as for THUMOS14, with training and validation videos in the train and
test splits. The paper has an average mAP of 23.7 over tIoU 0.5:0.95; this
package has not been run on the real features yet.
"""

from configs import base


def get_config():
  """100 segments a video, batch 64, the higher learning rates."""
  config = base.get_config()
  config.ilg.update(
    {
      "batch_size": 64,
      "learning_rate": 5e-4,
      "segments": 100,
    }
  )
  for network in (config.ots, config.rts):
    network.update({"batch_size": 64, "learning_rate": 2e-3})
  config.detect.class_threshold = 0.1
  config.evaluate.protocol = "activitynet"
  return config
