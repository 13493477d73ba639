"""Features that stay on the device are those that a batch would have brought:
ptlr_jax.training.resident, rows of batches, and whole runs."""

import functools
import hashlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from basnet_fixture import tiny_videos, write_basnet
from batch_options import ilg_options
from tiny_config import ROOT

from ptlr_jax.cli import command_line
from ptlr_jax.data import batches
from ptlr_jax.data.dataset import Video
from ptlr_jax.runs import pipeline
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime import mesh
from ptlr_jax.training import resident, train_step
from ptlr_jax.workdir import run_folder

LENGTHS = (5, 17, 16, 40, 23, 30)
OFFSETS = [0, 5, 22, 38, 78, 101]  # first rows
DRAWN: dict[str, Any] = {"seed": 0, "name": "ots-1"}


def _video(n, dtype):
  """Random features; the very first row of the first video is NaN."""
  rng = np.random.default_rng(n)
  features = {
    stream: rng.normal(size=(LENGTHS[n], width)).astype(dtype)
    for stream, width in (("rgb", 3), ("flow", 2))
  }
  if n == 0:
    for x in features.values():
      x[0] = np.nan
  return Video(f"video{n}", features, (n % 3,), ())


@functools.cache
def _videos(dtype):
  return [_video(n, dtype) for n in range(len(LENGTHS))]


def _ilg(videos, **first):
  return batches.ilg_batches(videos, 3, ilg_options(), **DRAWN, **first)


def _labelled(videos, **first):
  labels = [
    (np.eye(4, dtype=bool)[np.arange(t) % 4], np.arange(t) % 3 == 0)
    for t in LENGTHS
  ]
  how = {"window": 32, "align": 4, **DRAWN, **first}
  return batches.labelled_batches(videos, labels, 4, **how)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_holds_the_videos_one_after_the_other(dtype):
  store = resident.store_of(_videos(dtype), mesh.run_devices(0))
  assert store.first.tolist() == OFFSETS
  for stream, x in store.features.items():
    assert isinstance(x, jax.Array)
    assert x.dtype == dtype
    assert len(x) == sum(LENGTHS)
    for video, first in zip(_videos(dtype), OFFSETS, strict=True):
      own = video.features[stream]
      np.testing.assert_array_equal(x[first : first + len(own)], own)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("make", [_ilg, _labelled])
def test_rows_become_what_the_batch_would_have_brought(make, dtype):
  videos = _videos(dtype)
  store = resident.store_of(videos, mesh.run_devices(0))
  plain, by_rows = make(videos), make(videos, first=store.first)
  padded = 0
  for i in range(6):
    expected, batch = plain(i), by_rows(i)
    assert batch.keys() == expected.keys() - {"features"} | {"rows"}
    assert batch["rows"].dtype == np.int32
    found: dict[str, Any] = dict(train_step._filled(batch, store.features))
    assert found.keys() == expected.keys()
    assert found["features"].keys() == expected["features"].keys()
    for stream, x in found.pop("features").items():
      assert x.dtype == jnp.float32
      np.testing.assert_array_equal(x, expected["features"][stream])
      # Padding is read at row 0, which is NaN here.
      outside = ~batch["mask"]
      assert not np.asarray(x)[outside].any()
      padded += outside.sum()
    for name, value in found.items():
      np.testing.assert_array_equal(value, expected[name])
  assert (padded > 0) == (make is _labelled)


def test_rows_of_nothing_are_refused():
  batch = _ilg(_videos("float32"), first=np.array(OFFSETS))(0)
  with pytest.raises(ValueError, match="rows: expected the features"):
    train_step._filled(batch, None)


def test_a_batch_with_features_is_left_alone():
  batch = _ilg(_videos("float32"))(0)
  assert train_step._filled(batch, None) is batch


def test_always_and_never_are_what_they_say():
  videos = _videos("float32")
  for on_disk in (False, True):
    assert resident.wanted("always", videos, on_disk)
    assert not resident.wanted("never", videos, on_disk)


def test_auto_keeps_a_cpus_features_where_they_are():
  assert jax.default_backend() == "cpu"
  assert not resident.wanted("auto", _videos("float32"), False)


@pytest.mark.parametrize(
  ("limit", "on_disk", "kept"),
  [(1, False, False), (2, False, True), (2, True, False), (None, False, False)],
)
def test_auto_is_a_gpu_with_twice_the_room(limit, on_disk, kept, monkeypatch):
  videos = _videos("float16")
  size = sum(LENGTHS) * (3 + 2) * 2
  stats = {"bytes_limit": limit * size} if limit else None
  device = SimpleNamespace(memory_stats=lambda: stats)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(jax, "local_devices", lambda: [device])
  assert resident.wanted("auto", videos, on_disk) == kept


TX = train_step.adam(0.1)


def _loss(params, batch, key):
  """Of a linear model, with noise from the update's own key."""
  y = batch["features"]["rgb"] @ params["w"]
  noise = jax.random.normal(key, y.shape)
  total = jnp.where(batch["mask"], (y - noise) ** 2, 0).sum()
  return total, {"square": total}


def _begin():
  return train_step.create_state({"w": jnp.ones(3)}, TX)


def test_runs_at_once_share_the_store():
  videos = _videos("float16")[1:]  # without NaN
  store = resident.store_of(videos, mesh.run_devices(0))
  labels = [(np.eye(4)[[0] * t], np.arange(t) < 9) for t in LENGTHS[1:]]
  how: dict[str, Any] = {"window": 16, "align": 4, "name": "x"}
  keys = [jax.random.key(seed) for seed in (3, 4)]
  by: tuple[dict[str, Any], ...] = ({}, {"first": store.first})
  plain, by_rows = (
    [
      batches.labelled_batches(videos, labels, 2, seed=seed, **how, **first)(0)
      for seed in (3, 4)
    ]
    for first in by
  )
  step, steps = (
    train_step.make_step(_loss, TX),
    train_step.make_steps(_loss, TX),
  )
  alone = [step(_begin(), b, key) for b, key in zip(plain, keys, strict=True)]
  both, terms = steps(
    jax.tree.map(lambda *x: jnp.stack(x), _begin(), _begin()),
    jax.tree.map(lambda *x: np.stack(x), *by_rows),
    jnp.stack(keys),
    store.features,
  )
  assert terms["loss"].shape == (2,)
  for i, (state, own) in enumerate(alone):
    w = both.params["w"][i]
    np.testing.assert_allclose(w, state.params["w"], rtol=1e-5)
    np.testing.assert_allclose(terms["loss"][i], own["loss"], rtol=1e-5)
  assert abs(terms["loss"][0] - terms["loss"][1]) > 1e-3


EARLY = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.stages=1"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ptlr.networks=('ots',)"),
  *("--config.detect.sources=('ots',)", "--config.data.width=0"),
)


def _run(root, directory, setting, memory_gb):
  """The digests of what a run leaves."""
  argv = [
    *("main", f"--config={ROOT / 'tests' / 'tiny_config.py'}"),
    *(f"--workdir={directory}", "--config.data.layout=auto", *EARLY),
    *(f"--config.data.root={root}", f"--config.data.memory_gb={memory_gb}"),
    f"--config.data.resident={setting}",
  ]
  config = command_line.parse(argv).config
  run_folder.prepare_run_folder(directory, config)
  run = pipeline.Run(config, load_dataset(config.data), directory)
  assert (run.store is not None) == (setting == "always")
  run.run()
  names = ["detections.json", "metrics.jsonl"]
  names += [f"labels/{p.name}" for p in (directory / "labels").iterdir()]
  return {
    name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
    for name in names
  }


def test_a_run_has_the_same_bits_with_its_features_on_the_device(tmp_path):
  """In memory or, with 0 GB, read from disk at the start."""
  kind: dict[str, Any] = {"num_segments": 30, "width": 8, "num_classes": 3}
  train_, test = tiny_videos("a", 6, **kind), tiny_videos("b", 3, **kind)
  root = write_basnet(tmp_path / "root", train_, test, ("x", "y", "z"))
  never = _run(root, tmp_path / "never", "never", 8.0)
  assert never.keys() >= {"detections.json", "labels/labels-1-ots.npz"}
  assert _run(root, tmp_path / "always", "always", 8.0) == never
  assert _run(root, tmp_path / "disk", "always", 0.0) == never
