"""Networks trained on simulated THUMOS14, shown real I3D features."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from basnet_fixture import read_root, write_basnet
from tiny_config import ROOT, start

from ptlr_jax.cli import command_line
from ptlr_jax.data.dataset import Video
from ptlr_jax.localization import detection
from ptlr_jax.runs import pipeline
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.workdir import run_folder

SHARED = ROOT.parent / "shared"

pytestmark = pytest.mark.skipif(
  not (SHARED / "tools" / "thumos14_sim.py").is_file(),
  reason=f"{SHARED} with the simulator and the real features is not here",
)

SMALL = (
  *("--config.ilg.steps=2", "--config.ots.steps=2", "--config.rts.steps=2"),
  *("--config.ilg.segments=32", "--config.ilg.scale.lengths=1"),
  *("--config.ilg.model.filter_width=8", "--config.ilg.model.cas_width=8"),
  *("--config.ots.model.width=8", "--config.rts.model.width=8"),
  *("--config.ptlr.stages=1", "--config.ptlr.window=32"),
  *("--config.ilg.batch_size=2", "--config.predict.batch_size=2"),
  *("--config.ots.batch_size=2", "--config.rts.batch_size=2"),
)


def _simulate(root):
  pytest.importorskip("scipy")
  done = subprocess.run(
    [
      *(sys.executable, str(SHARED / "tools" / "thumos14_sim.py")),
      *("--data", str(SHARED / "data"), "--out", str(root)),
      *("--dim", "1024", "--videos", "4,2"),
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return root


def _real_videos():
  """The 14 videos; they have no annotations."""
  videos = []
  for path in sorted((SHARED / "data" / "i3d_features").glob("*_rgb.npy")):
    name = path.name.removesuffix("_rgb.npy")
    streams = {"rgb": path, "flow": path.with_name(f"{name}_flow.npy")}
    features = {stream: np.load(file) for stream, file in streams.items()}
    videos.append(Video(name, features, (), ()))
  return videos


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
  """A finished run on simulated THUMOS14 at the real width."""
  folder = tmp_path_factory.mktemp("thumos14")
  root = _simulate(folder / "root")
  config = ROOT / "configs" / "thumos14.py"
  args = (*SMALL, f"--config.data.root={root}")
  done = start(folder / "run", cache, *args, config=config)
  assert done.returncode == 0, done.stderr
  assert "4 training and 2 test videos of 20 classes" in done.stdout
  assert run_folder.SIMULATED in done.stdout
  parsed = command_line.parse(
    ["main", f"--config={config}", f"--workdir={folder / 'run'}", *args]
  )
  return pipeline.Run(
    parsed.config, load_dataset(parsed.config.data), parsed.workdir
  )


def test_real_features_give_sound_cas_and_detections(trained, tmp_path):
  data, options = trained.data, trained.config
  root = write_basnet(
    tmp_path / "real", data.train, _real_videos(), data.classes
  )
  real = read_root(root, classes=data.classes)
  assert len(real.test) == 14
  assert not real.simulated
  assert {video.features["flow"].shape[1] for video in real.test} == {1024}

  ilg = trained.networks.predict("ilg", "ilg", real.test)
  networks = {
    net: trained.networks.predict(f"{net}-1", net, real.test)
    for net in ("ots", "rts")
  }
  counts = []
  for i, video in enumerate(real.test):
    shape = (video.num_segments, 21)
    for logits in ilg[i]["logits"].values():
      assert logits.shape == shape
      assert np.isfinite(logits).all()
    cas = {net: out[i]["cas"] for net, out in networks.items()}
    for values in cas.values():
      assert values.shape == shape
      assert np.isfinite(values).all()
      assert (values >= 0).all()
      np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)
    for scores in ilg[i]["scores"].values():
      np.testing.assert_allclose(scores.sum(), 1, atol=1e-5)
    found = detection.detect(
      ilg[i],
      cas,
      real.classes,
      video.geometry,
      options=options.detect,
      fusion=options.fusion,
      topk_ratio=options.ilg.loss.topk_ratio,
    )
    seconds = video.geometry.end(video.num_segments)
    for item in found:
      begin, end = item["segment"]
      assert 0 <= begin < end <= seconds + 1e-9
      assert np.isfinite(item["score"])
      assert item["label"] in data.classes
    counts.append(len(found))
  assert min(counts) > 0


def test_the_simulated_test_videos_are_scored_under_all_classes(trained):
  text = (Path(trained.workdir) / "metrics.json").read_text()
  assert '"simulated": true' in text
  for name in {i.label for video in trained.data.test for i in video.instances}:
    assert f'"{trained.data.classes[name]}"' in text
