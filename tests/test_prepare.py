"""Tests of ptlr_jax.prepare, data.builders and data.prepared: TFDS written,
killed, written twice, damaged and read."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from basnet_fixture import edit_entry, read_root, tiny_videos, write_basnet
from layout_fixture import CLASSES, tiny_splits, write_own, write_wtalc

from ptlr_jax import prepare
from ptlr_jax.data.layouts.source import read_options
from ptlr_jax.data.tfds import builders, prepared
from ptlr_jax.runtime.errors import InputError

ROOT = Path(__file__).parents[1]
WIDE: dict[str, Any] = {"num_segments": 64, "width": 64}  # 32 kB a video


@pytest.fixture
def root(tmp_path):
  train, test = tiny_videos("train", 8, **WIDE), tiny_videos("test", 4, **WIDE)
  return write_basnet(tmp_path / "root", train, test, CLASSES)


def _prepare(root, out, *flags):
  prepare.run_command(
    ["prepare", f"--source={root}", f"--data_dir={out}", *flags]
  )
  return prepared.find_prepared(out)


def _load(folder, **options):
  return prepared.load_prepared(
    read_options(root=str(folder), layout="prepared", **options)
  )


def _same(one, other):
  assert one.classes == other.classes
  for ours, theirs in ((one.train, other.train), (one.test, other.test)):
    for a, b in zip(ours, theirs, strict=True):
      for name in ("id", "labels", "instances", "geometry", "duration"):
        assert getattr(a, name) == getattr(b, name)
      assert a.ambiguous == b.ambiguous
      assert a.num_segments == b.num_segments
      assert list(a.load()) == list(b.load())
      for stream, x in a.load().items():
        assert x.dtype == b.load()[stream].dtype
        np.testing.assert_array_equal(x, b.load()[stream])


def _digests(folder):
  return json.loads((folder / "metadata.json").read_text())["sha256"]


def _single_shards(root, out, **options):
  """Builds with a shard a video."""
  data = read_root(root, memory_gb=0.0)
  return builders.build(data, out, "own", "a", megabytes=0, **options)


@pytest.mark.parametrize("memory_gb", [8.0, 0.0])
def test_what_is_written_is_read_again(root, tmp_path, memory_gb):
  (folder,) = _prepare(root, tmp_path / "out")
  found = _load(folder, memory_gb=memory_gb)
  assert found.on_disk == (memory_gb == 0)
  _same(found, read_root(root))


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8"])
def test_features_keep_half_precision_and_no_more_than_single(tmp_path, kind):
  root = write_basnet(tmp_path / "root", *tiny_splits(), CLASSES)
  for path in root.rglob("*.npy"):
    np.save(path, np.load(path).astype(kind))
  (folder,) = _prepare(root, tmp_path / "out")
  for video in _load(folder).train:
    for stream, x in video.features.items():
      assert x.dtype == (np.float16 if kind == "<f2" else np.float32)
      path = root / "features/train" / stream / f"{video.id}.npy"
      np.testing.assert_array_equal(x, np.load(path).astype(np.float32))


def test_any_user_of_tfds_can_read_it(tmp_path):
  """In a process of its own that knows nothing of this package."""
  root = write_wtalc(tmp_path / "root", *tiny_splits(), CLASSES)
  ambiguous = root / "Thumos14reduced-Annotations/Ambiguous_test.txt"
  ambiguous.write_text("test0000  1.0 2.5\n")
  (folder,) = _prepare(root, tmp_path / "out")
  code = (
    "import sys, tensorflow_datasets as tfds\n"
    f"builder = tfds.builder_from_directory({str(folder)!r})\n"
    "print(builder.info.features['labels'].feature.names)\n"
    "one = builder.as_data_source('test')[0]\n"
    "print(one['id'].decode(), one['rgb'].shape, one['flow'].dtype)\n"
    "print([int(c) for c in one['labels']], float(one['fps']))\n"
    "print([float(x) for x in one['ambiguous']['end']])\n"
    "print([float(x) for x in one['instances']['start']])\n"
    "print('tensorflow' in sys.modules, 'ptlr_jax' in sys.modules)\n"
  )
  said = subprocess.run(
    [sys.executable, "-c", code],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=True,
  )
  video = tiny_splits()[1][0]
  assert said.stdout.splitlines() == [
    str(list(CLASSES)),
    "test0000 (8, 4) float32",
    "[0] 25.0",
    "[2.5]",
    str([float(np.float32(video.instances[0].start))]),
    "False False",
  ]


def test_one_stream_and_no_segments(tmp_path):
  train, test = tiny_splits()
  root = write_own(
    tmp_path / "root", train, test, CLASSES, columns="video,label,subset"
  )
  shutil.rmtree(root / "features/flow")
  (folder,) = _prepare(root, tmp_path / "out")
  found = _load(folder)
  assert found.streams == ("rgb",)
  assert "temporal annotation" in found.not_scorable()
  assert [v.labels for v in found.train] == [v.labels for v in train]


def test_again_there_is_nothing_to_do(root, tmp_path, capsys):
  (folder,) = _prepare(root, tmp_path / "out")
  before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
  capsys.readouterr()
  assert _prepare(root, tmp_path / "out", "--layout=basnet") == [folder]
  assert "prepared before; nothing to do" in capsys.readouterr().out
  assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}
  hidden = [p.name for p in folder.parents[1].glob(".*.part")]
  assert not hidden


def _relabel(root):
  edit_entry(root, "train0000", subset="training")


def _touch(root):
  path = root / "features/train/rgb/train0000.npy"
  np.save(path, np.load(path) + 1)
  os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [_relabel, _touch])
def test_a_changed_source_is_noticed(root, tmp_path, capsys, change):
  (first,) = _prepare(root, tmp_path / "out")
  change(root)
  both = _prepare(root, tmp_path / "out")
  assert len(both) == 2
  assert first in both
  assert "another state of this one; it stays" in capsys.readouterr().out
  with pytest.raises(InputError, match="expected one data set"):
    _load(tmp_path / "out")


def test_a_change_inside_a_pickle_is_noticed(tmp_path):
  """Small arrays of W-TALC's are in memory, with no file of their own."""
  root = write_wtalc(tmp_path / "root", *tiny_splits(), CLASSES)
  (path,) = root.glob("*-I3D-JOINTFeatures.npy")
  _prepare(root, tmp_path / "out")
  when, raw = path.stat().st_mtime_ns, bytearray(path.read_bytes())
  place = raw.find(tiny_splits()[0][0].features["rgb"][:1].tobytes())
  assert place > 0
  raw[place] ^= 1
  path.write_bytes(raw)
  os.utime(path, ns=(when, when))
  assert len(_prepare(root, tmp_path / "out")) == 2


def test_reading_it_otherwise_is_another_data_set(root, tmp_path):
  _prepare(root, tmp_path / "out")
  flags = ("--stride=32", "--end_tolerance=99")
  assert len(_prepare(root, tmp_path / "out", *flags)) == 2


def test_processes_change_no_byte(root, tmp_path):
  one = _single_shards(root, tmp_path / "one")
  two = _single_shards(root, tmp_path / "two", jobs=2)
  assert _digests(one) == _digests(two)
  assert len(_digests(one)) == 12
  assert prepared.verify_prepared(two) == []


KILLED = """
import os, signal, sys
from ptlr_jax import prepare
from ptlr_jax.data.tfds import builders

left = int(sys.argv.pop(1))
write = builders._write_shard

def dying(job):
  global left
  if left == 0:
    os.kill(os.getpid(), signal.SIGKILL)
  left -= 1
  return write(job)

def finishing(*args, **how):
  os.kill(os.getpid(), signal.SIGKILL)

builders._write_shard = dying
cut = builders.shards_of
builders.shards_of = lambda d, n, m, parts: cut(d, n, 0, parts)
if left == 12:
  builders.os.link = finishing
prepare.main()
"""


@pytest.mark.parametrize("moment", [0, 1, 7, 12])
def test_a_killed_preparation_goes_on(root, tmp_path, monkeypatch, moment):
  """After `moment` shards, or among the last links: nothing is done twice."""
  out = tmp_path / "out"
  flags = [f"--source={root}", f"--data_dir={out}", "--name=own"]
  done = subprocess.run(
    [sys.executable, "-c", KILLED, str(moment), *flags], cwd=ROOT, check=False
  )
  assert done.returncode == -signal.SIGKILL
  assert not prepared.find_prepared(out)
  (staging,) = (out / "own").glob(".*.part")
  staged = {p: p.stat().st_mtime_ns for p in staging.glob("own-*")}
  assert len(staged) == moment
  written = []

  def noted(job, write=builders._write_shard):
    if not (job[2] / job[0].name).exists():
      written.append(job[0].name)
    return write(job)

  cut = builders.shards_of
  monkeypatch.setattr(builders, "_write_shard", noted)
  monkeypatch.setattr(builders, "shards_of", lambda d, n, m, k: cut(d, n, 0, k))
  (folder,) = _prepare(root, out, "--name=own")
  assert len(written) == 12 - moment
  assert _digests(folder) == _digests(_single_shards(root, tmp_path / "whole"))
  _same(_load(folder), read_root(root))
  left = [p.name for p in folder.parents[1].iterdir()]
  assert sorted(left) == sorted(
    [folder.parent.name, f".{folder.parent.name}.lock"]
  )
  assert [p.name for p in folder.parent.iterdir()] == ["1.0.0"]


def test_two_at_once_make_one_data_set(root, tmp_path):
  out = tmp_path / "out"
  command = [sys.executable, "-m", "ptlr_jax.prepare", f"--source={root}"]
  command += [f"--data_dir={out}", "--jobs=2", "--shard_mb=1"]
  both = [
    subprocess.Popen(
      command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(2)
  ]
  said = [process.communicate() for process in both]
  assert [process.returncode for process in both] == [0, 0], said
  (folder,) = prepared.find_prepared(out)
  assert prepared.verify_prepared(folder) == []
  _same(_load(folder), read_root(root))


def test_a_stream_that_is_not_finite_is_never_written(root, tmp_path):
  path = root / "features/test/flow/test0001.npy"
  x = np.load(path)
  x[3] = np.nan
  np.save(path, x)
  with pytest.raises(InputError, match="test0001: flow: expected finite"):
    _prepare(root, tmp_path / "out")
  assert not prepared.find_prepared(tmp_path / "out")
  np.save(path, np.nan_to_num(x))
  assert prepared.find_prepared(tmp_path / "out") != _prepare(
    root, tmp_path / "out"
  )


def test_a_prepared_set_is_not_prepared_again(root, tmp_path):
  _prepare(root, tmp_path / "out")
  with pytest.raises(InputError, match="prepared already"):
    _prepare(tmp_path / "out", tmp_path / "again")


def test_the_simulated_set(tmp_path, capsys):
  prepare.run_command(
    ["prepare", "--layout=simulated", f"--data_dir={tmp_path}"]
  )
  (folder,) = prepared.find_prepared(tmp_path)
  assert folder.parts[-3:-1] == ("simulated", "simulated")
  found = _load(folder)
  assert found.simulated
  assert (len(found.train), len(found.test)) == (60, 40)


def test_what_contradicts_the_prepared_set_is_refused(root, tmp_path):
  (folder,) = _prepare(root, tmp_path / "out")
  with pytest.raises(InputError, match=r"expected the 1 classes"):
    _load(folder, classes=("Diving",))
  assert _load(folder, streams=("flow",)).streams == ("flow",)
  with pytest.raises(InputError, match="expected one data set"):
    _load(tmp_path / "root")


@pytest.mark.parametrize(
  "setting", [{"fps": 30.0}, {"trim": True}, {"video_labels": "listed"}]
)
def test_what_preparation_settled_is_settled(root, tmp_path, setting):
  (folder,) = _prepare(root, tmp_path / "out")
  (name,) = setting
  with pytest.raises(InputError, match=f"came --config.data.{name}; leave"):
    _load(folder, **setting)


@pytest.mark.parametrize(
  "text", ["", "{", "[]", "{}", '{"ptlr_jax": 2}', '{"ptlr_jax": 1}']
)
def test_a_damaged_index_is_named(root, tmp_path, text):
  (folder,) = _prepare(root, tmp_path / "out")
  (folder / "metadata.json").write_text(text)
  with pytest.raises(InputError, match=r"metadata\.json: expected the index"):
    _load(folder)


def test_flipped_bits_are_noticed_or_change_nothing(root, tmp_path):
  """At 40 random places of a shard; and `--check` names the shard each time."""
  (folder,) = _prepare(root, tmp_path / "out")
  whole = _load(folder)
  (shard,) = folder.glob("*-train.array_record*")
  raw, rng, noticed = shard.read_bytes(), np.random.default_rng(0), 0
  for place in rng.integers(len(raw), size=40):
    damaged = bytearray(raw)
    damaged[place] ^= 1 << int(rng.integers(8))
    shard.write_bytes(damaged)
    (problem,) = prepared.verify_prepared(folder)
    assert str(shard) in problem
    try:
      _same(_load(folder), whole)
    except InputError as error:
      noticed += "expected a sound record" in str(error)
  assert noticed > 20
  shard.write_bytes(raw)
  _same(_load(folder), whole)


def test_a_missing_shard_is_named(root, tmp_path):
  (folder,) = _prepare(root, tmp_path / "out")
  (shard,) = folder.glob("*-test.array_record*")
  shard.unlink()
  with pytest.raises(InputError, match="expected a sound record"):
    _load(folder)
  with pytest.raises(InputError, match="expected SHA-256"):
    prepare.run_command(["prepare", "--check", f"--source={folder}"])


def test_check_of_a_prepared_set(root, tmp_path, capsys):
  (folder,) = _prepare(root, tmp_path / "out")
  capsys.readouterr()
  prepare.run_command(["prepare", "--check", f"--source={tmp_path / 'out'}"])
  said = capsys.readouterr().out
  assert "train: 8 videos" in said
  assert f"{folder}: every shard is as it was written" in said
