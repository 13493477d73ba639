"""Features that stay on disk give the batches, and the runs, of those in
memory: ptlr_jax.data.streaming, from a layout and from a prepared data set."""

import hashlib
from typing import Any

import numpy as np
import pytest
from basnet_fixture import read_root, tiny_videos, write_basnet
from batch_options import ilg_options
from tiny_config import ROOT

from ptlr_jax import prepare
from ptlr_jax.cli import command_line
from ptlr_jax.data import batches
from ptlr_jax.data.layouts.source import read_options
from ptlr_jax.data.streaming import read_ahead
from ptlr_jax.data.tfds import prepared
from ptlr_jax.runs import detection_phase, pipeline
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.workdir import run_folder

CLASSES = ("Archery", "Ballet", "Zumba")
LENGTHS: dict[str, Any] = {"num_segments": 30, "width": 8, "num_classes": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """A data set in the layout basnet, and the same prepared."""
  folder = tmp_path_factory.mktemp("data")
  train = tiny_videos("train", 6, **LENGTHS)
  test = tiny_videos("test", 3, seed=1, **LENGTHS)
  root = write_basnet(folder / "root", train, test, CLASSES)
  out = folder / "out"
  prepare.run_command(["prepare", f"--source={root}", f"--data_dir={out}"])
  return {"layout": root, "prepared": prepared.find_prepared(out)[0]}


def _videos(folders, kind, memory_gb=0.0):
  if kind == "prepared":
    how = read_options(
      root=str(folders[kind]), layout=kind, memory_gb=memory_gb
    )
    data = prepared.load_prepared(how)
  else:
    data = read_root(folders[kind], memory_gb=memory_gb)
  assert data.on_disk == (memory_gb == 0)
  return data.train


def _ilg(videos):
  return batches.ilg_batches(videos, 3, ilg_options(), seed=0, name="ilg")


def _labelled(videos):
  labels = [
    (np.eye(4, dtype=bool)[np.arange(30) % 4], np.arange(30) % 3 == 0)
    for _ in videos
  ]
  drawn = {"window": 16, "align": 4, "seed": 0, "name": "ots-1"}
  return batches.labelled_batches(videos, labels, 4, **drawn)


def _flat(batch):
  return {**batch, **{f"x/{s}": x for s, x in batch["features"].items()}}


def _same(one, other):
  one, other = _flat(one), _flat(other)
  assert one.keys() == other.keys()
  for name, x in one.items():
    if name != "features":
      assert x.dtype == other[name].dtype
      np.testing.assert_array_equal(x, other[name])


@pytest.mark.parametrize("make", [_ilg, _labelled])
@pytest.mark.parametrize("kind", ["layout", "prepared"])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_those_of_memory(folders, kind, make, threads):
  plain = make(_videos(folders, "layout", 8.0))
  ahead = read_ahead(make(_videos(folders, kind)), 0, 12, threads)
  for i in range(12):
    _same(ahead(i), plain(i))


@pytest.mark.parametrize("start", [1, 5, 11])
def test_resuming_is_starting_later(folders, start):
  plain = _ilg(_videos(folders, "prepared", 8.0))
  ahead = read_ahead(_ilg(_videos(folders, "prepared")), start, 12)
  for i in range(start, 12):
    _same(ahead(i), plain(i))


def test_batches_come_in_order_and_end(folders):
  ahead = read_ahead(_ilg(_videos(folders, "layout")), 0, 2)
  ahead(0)
  with pytest.raises(ValueError, match="streamed in order: 1, not 0"):
    ahead(0)
  with pytest.raises(StopIteration):
    ahead(2)


def test_a_record_damaged_meanwhile_is_one_clear_error():
  def batch_at(i):
    if i == 3:
      raise InputError("shard: expected a sound record")
    return i

  ahead = read_ahead(batch_at, 0, 9)
  assert [ahead(i) for i in range(3)] == [0, 1, 2]
  with pytest.raises(InputError, match="expected a sound record"):
    ahead(3)


def test_a_video_is_read_once_for_all_streams(folders, monkeypatch):
  read = []
  get = prepared.Records.__getitem__

  def noted(self, index):
    read.append(index)
    return get(self, index)

  monkeypatch.setattr(prepared.Records, "__getitem__", noted)
  _ilg(_videos(folders, "prepared"))(0)
  assert len(read) == 4


FEW = (  # programs, and small ones
  *("--config.ilg.streams=('fused',)", "--config.ilg.loss.alpha=0.0"),
  *("--config.ilg.loss.beta=0.0", "--config.ilg.loss.gamma=0.0"),
  *("--config.ptlr.networks=('ots',)", "--config.detect.sources=('ots',)"),
)


def _run(root, directory, memory_gb):
  argv = [
    *("main", f"--config={ROOT / 'tests' / 'tiny_config.py'}"),
    *(f"--workdir={directory}", "--config.data.layout=auto"),
    *(f"--config.data.root={root}", f"--config.data.memory_gb={memory_gb}"),
    *("--config.data.width=0", "--config.ptlr.stages=1", *FEW),
  ]
  config = command_line.parse(argv).config
  run_folder.prepare_run_folder(directory, config)
  pipeline.Run(config, load_dataset(config.data), directory).run()
  names = [p for p in directory.rglob("*") if p.is_file()]
  kept = [p for p in names if p.suffix == ".npz" or p.name == "detections.json"]
  return {
    str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
    for p in kept
  }


def test_a_run_has_the_same_bits_wherever_its_features_are(folders, tmp_path):
  """Labels and detections: layout or prepared, in memory or streamed, and the
  test videos a part at a time."""
  runs = [
    _run(folders[kind], tmp_path / f"{kind}-{memory_gb}", memory_gb)
    for kind in ("layout", "prepared")
    for memory_gb in (8.0, 0.0)
  ]
  assert runs[0].keys() >= {"detections.json", "labels/labels-1-ots.npz"}
  assert [run for run in runs if run != runs[0]] == []


def test_parts_of_the_test_set_change_no_detection(
  folders, tmp_path, monkeypatch
):
  whole = _run(folders["layout"], tmp_path / "whole", 0.0)
  monkeypatch.setattr(detection_phase, "PART", 2)
  assert _run(folders["layout"], tmp_path / "parts", 0.0) == whole
