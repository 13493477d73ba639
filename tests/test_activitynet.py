"""`configs/activitynet.py` as a user runs it, scaled down by overrides."""

import json

from basnet_fixture import tiny_videos, write_basnet
from tiny_config import ROOT, start

SMALL = (
  *("--config.ilg.steps=2", "--config.ots.steps=2", "--config.rts.steps=2"),
  *("--config.ilg.segments=16", "--config.ilg.scale.lengths=1"),
  *("--config.ilg.model.filter_width=8", "--config.ilg.model.cas_width=8"),
  *("--config.ilg.streams=('fused',)", "--config.ilg.loss.alpha=0.0"),
  *("--config.ilg.loss.beta=0.0", "--config.ilg.loss.gamma=0.0"),
  *("--config.ots.model.width=8", "--config.rts.model.width=8"),
  *("--config.ptlr.networks=('ots',)", "--config.detect.sources=('ots',)"),
  *("--config.ilg.batch_size=4", "--config.predict.batch_size=4"),
  *("--config.ots.batch_size=4", "--config.rts.batch_size=4"),
  *("--config.ptlr.stages=1", "--config.data.width=4"),
)


def test_activitynets_protocol_and_ids_are_used(tmp_path):
  train = tiny_videos("v_aaaaaaa", 6, num_classes=3, num_segments=20)
  test = tiny_videos("v_bbbbbbb", 3, num_classes=3, num_segments=12, seed=1)
  classes = ("Archery", "Ballet", "Zumba")
  root = write_basnet(tmp_path / "root", train, test, classes)
  config = ROOT / "configs" / "activitynet.py"
  where = f"--config.data.root={root}"
  done = start(tmp_path / "run", tmp_path, where, *SMALL, config=config)
  assert done.returncode == 0, done.stderr
  assert "0.5:0.95" in done.stdout
  metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert metrics["protocol"] == "activitynet"
  assert list(metrics["averages"]) == ["0.5:0.95"]
  assert list(metrics["mAP"])[0::9] == ["0.50", "0.95"]
  assert metrics["per_class"].keys() == set(classes)
  found = json.loads((tmp_path / "run" / "detections.json").read_text())
  assert found["results"].keys() == {f"bbbbbbb{n:04d}" for n in range(3)}
  assert not metrics["unknown_videos"]
