"""Whole runs that signals end, and that go on: one after the other in the same
workdir, which ends as that of a run which nothing disturbed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_config import ROOT

from ptlr_jax import main
from ptlr_jax.localization import detection
from ptlr_jax.method import label_quality
from ptlr_jax.runs import dataset
from ptlr_jax.runtime import signals
from ptlr_jax.training import trainer

SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ptlr.networks=('ots',)"),
  *("--config.ilg.loss.alpha=0.0", "--config.ilg.loss.beta=0.0"),
  *("--config.ilg.loss.gamma=0.0", "--config.ptlr.stages=1"),
  *("--config.detect.sources=('ots',)", "--config.ilg.steps=7"),
  *("--config.train.log_every=3", "--config.train.checkpoint_every=5"),
)
BOTH = "--config.seeds=2"

# Kills itself when it saves a checkpoint for the COUNT-th time; with 0 it is
# only slow.
KILLED = """
import os, signal, time
from ptlr_jax import main
from ptlr_jax.io import checkpoints
from ptlr_jax.runtime import signals
from ptlr_jax.training.trainer import Trainer

signals.GRACE = 3600
calls, save, batches = [], checkpoints.save, Trainer.batches

def counted(*args, **kwargs):
  calls.append(args)
  if len(calls) == {count!r}:
    os.kill(os.getpid(), signal.SIGKILL)
  return save(*args, **kwargs)

def slow(self, start):
  batch_at = batches(self, start)
  def of(i):
    time.sleep(0 if {count!r} else 0.2)
    return batch_at(i)
  return of

checkpoints.save = counted
Trainer.batches = slow
main.main()
"""


@pytest.fixture(autouse=True)
def heedful(monkeypatch):
  """Signals are heeded, and afterwards as before."""
  monkeypatch.setattr(signals._watch, "asked", None)  # also afterwards
  # What starts tests in the background has it ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(monkeypatch, capsys):
  """Runs `main` on a workdir: its status, what it prints and complains."""

  def started(directory, *overrides):
    config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
    argv = ["main", config, f"--workdir={directory}", *SMALL, *overrides]
    status = 0
    with monkeypatch.context() as context:
      context.setattr(sys, "argv", argv)
      try:
        main.main()
      except SystemExit as error:
        status = error.code
    for own in (directory, *directory.glob("seed-*")):
      assert not (own / ".lock").exists()
    return status, *capsys.readouterr()

  return started


@pytest.fixture
def whole(run):
  """Runs to the end; what is printed."""

  def ended(*how):
    status, said, complaint = run(*how)
    assert (status, complaint) == (0, "")
    return said

  return ended


@pytest.fixture
def stopped(run, monkeypatch):
  """Runs until `what` is done for the count-th time, which gets a signal: reads
  the data, labels, detects, or makes a batch of a phase.

  What is printed, and the complaint but for its ends.
  """

  def ended(what, count, number, *how):
    calls = []

    def noted(name):
      calls.append(name)
      if calls.count(what) == count and name == what:
        os.kill(os.getpid(), number)

    def wrapped(context, module, name):
      function = getattr(module, name)

      def call(*args, **kwargs):
        noted(name)
        return function(*args, **kwargs)

      context.setattr(module, name, call)

    batches = trainer.Trainer.batches

    def noting(self, start):
      batch_at = batches(self, start)

      def of(i):
        noted(self.phase.name)
        return batch_at(i)

      return of

    with monkeypatch.context() as context:
      wrapped(context, dataset, "load_dataset")
      wrapped(context, label_quality, "tally_labels")
      wrapped(context, detection, "detect_video")
      context.setattr(trainer.Trainer, "batches", noting)
      status, said, complaint = run(*how)
    assert calls.count(what) >= count
    assert status == 128 + number
    (line,) = complaint.splitlines()
    prefix, suffix = f"ptlr_jax: stopped by {number.name}: ", GOES_ON
    assert line.startswith(prefix)
    assert line.endswith(suffix)
    return said, line.removeprefix(prefix).removesuffix(suffix)

  return ended


def _assert_saved(line, directory, phase, step):
  """The line names a phase, a step and a checkpoint, which is there."""
  path = directory / "checkpoints" / phase / f"step-{step:06d}"
  assert line.endswith(f"is saved at step {step} in {path}")
  assert line.startswith(phase)
  assert path.is_dir()


def _pending(directory, phase, step):
  """How many updates' terms are saved with a checkpoint."""
  path = directory / "checkpoints" / phase / f"step-{step:06d}"
  (manifest,) = (p for p in path.iterdir() if "pending" in _text(p))
  return len(json.loads(manifest.read_text())["notes"]["pending"])


def _text(path):
  return path.read_text(errors="replace") if path.is_file() else ""


def _assert_same(one, other):
  """Two runs left the same, to the bit."""
  names = {"detections.json", "detections/ilg.json", "metrics.jsonl"}
  names |= {"labels/labels-0.npz", "labels/labels-1-ots.npz", "metrics.json"}
  for name in sorted(names):
    assert (one / name).read_bytes() == (other / name).read_bytes(), name
  for phase in ("ilg", "ots-1"):
    ours, theirs = (_params(x / "checkpoints" / phase) for x in (one, other))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def _params(directory):
  assert [p.name for p in directory.iterdir()] == ["final"]
  with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Sharding info not provided")
    return checkpointer.restore(directory / "final")


KEPT = "what is finished is kept"
GOES_ON = "; the same command goes on"


def test_a_run_that_is_stopped_in_every_phase_ends_with_the_same_bytes(
  whole, stopped, tmp_path
):
  whole(tmp_path / "whole")
  directory = tmp_path / "run"

  _, line = stopped("load_dataset", 1, signal.SIGTERM, directory)
  assert line == KEPT
  assert not (directory / "checkpoints").exists()

  _, line = stopped("ilg", 2, signal.SIGINT, directory)
  _assert_saved(line, directory, "ilg", 2)
  assert not (directory / "metrics.jsonl").exists()
  assert _pending(directory, "ilg", 2) == 2

  said, line = stopped("tally_labels", 1, signal.SIGTERM, directory)
  assert "ilg            goes on from step 2\n" in said
  assert line == KEPT
  assert not (directory / "labels").exists()

  said, line = stopped("ots-1", 4, signal.SIGTERM, directory)
  assert "ilg            done before" in said
  _assert_saved(line, directory, "ots-1", 4)
  assert _pending(directory, "ots-1", 4) == 1

  said, line = stopped("detect_video", 3, signal.SIGINT, directory)
  assert "ots-1          goes on from step 4\n" in said
  assert line == KEPT
  assert not (directory / "detections.json").exists()

  said = whole(directory)
  assert said.count("done before") == 4
  _assert_same(tmp_path / "whole", directory)


def _process(directory, count, *overrides):
  """A process of its own, see KILLED."""
  return subprocess.Popen(
    [
      *(sys.executable, "-c", KILLED.format(count=count)),
      f"--config={ROOT / 'tests' / 'tiny_config.py'}",
      *(f"--workdir={directory}", *SMALL, *overrides),
    ],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_a_signal_from_outside_ends_a_run_long_before_its_end(tmp_path):
  how = "--config.ilg.steps=4000", "--config.train.checkpoint_every=1000"
  with _process(tmp_path, 0, *how) as process:
    log = tmp_path / "metrics.jsonl"
    while not log.exists() and process.poll() is None:
      time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate()
  assert process.returncode == 143, complaint
  (line,) = complaint.splitlines()
  assert line.startswith("ptlr_jax: stopped by SIGTERM: ")
  assert line.endswith(GOES_ON)
  found = re.search(r"ilg is saved at step (\d+) in .*(?=;)", line)
  assert found
  _assert_saved(found[0], tmp_path, "ilg", int(found[1]))
  assert 3 <= int(found[1]) < 1000
  assert not (tmp_path / ".lock").exists()


COMPILING = """
import os, signal, threading
from ptlr_jax import main
from ptlr_jax.runtime import signals
from ptlr_jax.training import networks

signals.GRACE = 3600
real = networks.Networks.initial_params

def begin(self, *args):
  if args[0] == "ilg":
    kill = lambda: os.kill(os.getpid(), signal.SIGTERM)
    threading.Timer(0.05, kill).start()
  return real(self, *args)

networks.Networks.initial_params = begin
main.main()
"""


def test_a_signal_in_a_compilation_ends_with_its_status_too(tmp_path):
  """Where XLA was left like that, its own end was a crash."""
  done = subprocess.run(
    [
      *(sys.executable, "-c", COMPILING),
      f"--config={ROOT / 'tests' / 'tiny_config.py'}",
      *(f"--workdir={tmp_path}", *SMALL, "--config.compile_cache=off"),
    ],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 143, done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith("ptlr_jax: stopped by SIGTERM: ")
  assert not (tmp_path / ".lock").exists()


def test_two_seeds_that_are_stopped_and_killed_end_with_the_same_bytes(
  whole, stopped, tmp_path
):
  whole(tmp_path / "whole", BOTH)
  directory = tmp_path / "run"
  seeds = directory / "seed-0", directory / "seed-1"

  # Each seed makes a batch an update: the fourth is the second update's.
  _, line = stopped("ilg", 4, signal.SIGTERM, directory, BOTH)
  assert " and so are the other seeds" in line
  line = line.replace(" and so are the other seeds", "")
  _assert_saved(line.replace("ilg x 2", "ilg"), seeds[0], "ilg", 2)
  for seed in seeds:
    assert _pending(seed, "ilg", 2) == 2

  # Killed when seed 0 has saved step 5, and seed 1 has not.
  with _process(directory, 2, BOTH) as process:
    said, complaint = process.communicate()
  assert process.returncode == -signal.SIGKILL, complaint
  assert said.count("goes on from step 2") == 2
  saved = [
    sorted(path.name for path in (seed / "checkpoints" / "ilg").iterdir())
    for seed in seeds
  ]
  assert saved == [["step-000002", "step-000005"], ["step-000002"]]

  said = whole(directory, BOTH)
  assert said.count(".lock: left by process ") == 2
  assert said.count("goes on from step 2") == 2
  for seed in seeds:
    _assert_same(tmp_path / "whole" / seed.name, seed)
