"""Tests of ptlr_jax.io.tensorboard, held to TensorBoard's own reader."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptlr_jax.io import disk_space, metrics_log
from ptlr_jax.io.tensorboard import EventFiles
from ptlr_jax.runtime.errors import NoSpace

# importorskip would import PyTorch with it.
if importlib.util.find_spec("tensorboardX") is None:
  pytest.skip("the extra tensorboard is absent", allow_module_level=True)

ROOT = Path(__file__).parents[1]
STEPS = [("ilg", 2), ("ilg", 4), ("ilg", 6), ("ots-1", 2), ("ots-1", 4)]


def scalars(folder):
  """{phase: {term: [(step, value)]}}, as TensorBoard shows it."""
  reader = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="TensorBoard, whose reader this test needs, is not installed",
  )
  found = {}
  for phase in sorted(folder.iterdir()):
    events = reader.EventAccumulator(str(phase)).Reload()
    tags = events.Tags()["scalars"]
    if tags:
      found[phase.name] = {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags
      }
  return found


def curves_of(lines):
  """The same of lines of a log."""
  found = {}
  for line in lines:
    for term in line.keys() - {"phase", "step"}:
      value = float(np.float32(line[term]))
      curve = found.setdefault(line["phase"], {}).setdefault(term, [])
      curve.append((line["step"], value))
  return found


def _append(log, steps):
  for phase, step in steps:
    log.append(phase, step, {"loss": 1 / step, "rgb/sc": 0.1 * step})


@pytest.fixture
def log(tmp_path):
  """A log and what follows it, after three and two lines of two phases."""
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  log.follow([EventFiles(tmp_path / "tensorboard", ("evaluate",))])
  _append(log, STEPS)
  return log


def _again(log):
  """The next start of the run."""
  again = metrics_log.MetricsLog(log.path)
  again.follow([EventFiles(log.path.parent / "tensorboard", ("evaluate",))])
  return again


def _contents(log):
  folder = log.path.parent / "tensorboard"
  return {
    f"{path.parent.name}/{path.name}": path.read_bytes()
    for path in sorted(folder.glob("*/*"))
  }


def _file(log, phase):
  """The one that says something."""
  paths = (log.path.parent / "tensorboard" / phase).iterdir()
  (path,) = [path for path in paths if path.stat().st_size]
  return path


def test_tensorboard_reads_what_the_log_says(log):
  shown = scalars(log.path.parent / "tensorboard")
  assert shown == curves_of(log.read())
  assert shown["ilg"]["loss"][0] == (2, 0.5)
  assert [step for step, _ in shown["ots-1"]["rgb/sc"]] == [2, 4]


def test_a_phase_that_goes_on_from_a_checkpoint_has_no_step_twice(log):
  again = _again(log)
  again.rewind("ilg", 2)
  shown = scalars(log.path.parent / "tensorboard")
  assert shown["ilg"]["loss"] == [(2, 0.5)]
  _append(again, [("ilg", 4), ("ilg", 6), ("ilg", 8)])
  shown = scalars(log.path.parent / "tensorboard")
  assert [step for step, _ in shown["ilg"]["loss"]] == [2, 4, 6, 8]
  assert shown == curves_of(again.read())


def test_one_that_is_reading_meanwhile_sees_each_step_once(log):
  """A new file begins with a new session, and its name comes next."""
  reader = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
  )
  folder = log.path.parent / "tensorboard" / "ilg"
  events = reader.EventAccumulator(str(folder)).Reload()
  assert [e.step for e in events.Scalars("loss")] == [2, 4, 6]
  log.rewind("ilg", 2)
  _append(log, [("ilg", 4), ("ilg", 6), ("ilg", 8)])
  events.Reload()
  assert [e.step for e in events.Scalars("loss")] == [2, 4, 6, 8]


def test_a_start_that_changes_nothing_changes_no_byte(log):
  before = _contents(log)
  again = _again(log)
  assert _contents(log) == before
  again.rewind("ots-1", 4)
  assert _contents(log) == before
  _append(again, [("ots-1", 6)])
  assert (
    _file(log, "ots-1")
    .read_bytes()
    .startswith(before[f"ots-1/{_file(log, 'ots-1').name}"])
  )


DAMAGE = {
  "a record that a kill cut off": lambda data: data[:-5],
  "a line that a kill kept from it": lambda data: data[: len(data) - 63],
  "nothing but its name": lambda data: b"",
  "a flipped bit": lambda data: (
    data[:100] + bytes([data[100] ^ 4]) + data[101:]
  ),
  "more than the log says": lambda data: data + data[-63:],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_that_says_something_else_is_made_anew(log, name):
  whole = scalars(log.path.parent / "tensorboard")
  path = _file(log, "ilg")
  path.write_bytes(DAMAGE[name](path.read_bytes()))
  others = {k: v for k, v in _contents(log).items() if "ilg" not in k}
  _again(log)
  assert scalars(log.path.parent / "tensorboard") == whole
  assert _file(log, "ilg").name > path.name
  assert others.items() <= _contents(log).items()


def test_lines_keep_their_times_when_a_file_is_made_anew(log, monkeypatch):
  reader = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
  )
  folder = log.path.parent / "tensorboard" / "ilg"

  def times():
    events = reader.EventAccumulator(str(folder)).Reload().Scalars("loss")
    return {e.step: e.wall_time for e in events}

  before = times()
  monkeypatch.setattr("time.time", lambda: 4e9)
  again = _again(log)
  again.rewind("ilg", 4)
  _append(again, [("ilg", 6)])
  assert times() == {**before, 6: 4e9}


def test_a_phase_that_the_log_has_lost_has_no_curve(log):
  log.rewind("ots-1", -1)
  shown = scalars(log.path.parent / "tensorboard")
  assert shown.keys() == {"ilg"}


def test_files_of_others_stay(log):
  folder = log.path.parent / "tensorboard"
  (folder / "ots-1" / "events.out.tfevents.1.host").write_bytes(b"theirs")
  (folder / "notes.txt").write_text("mine")
  log.rewind("ots-1", -1)
  (kept,) = [p for p in (folder / "ots-1").iterdir() if p.stat().st_size]
  assert kept.name == "events.out.tfevents.1.host"
  assert (folder / "notes.txt").read_text() == "mine"


def test_what_is_not_in_the_log_stays_until_it_is_told_again(log):
  line = {"phase": "evaluate", "step": 0, "mAP/0.50": 0.5}
  log.tell("evaluate", [line, {**line, "step": 1}])
  again = _again(log)
  shown = scalars(log.path.parent / "tensorboard")
  assert shown["evaluate"] == {"mAP/0.50": [(0, 0.5), (1, 0.5)]}
  again.tell("evaluate", [{**line, "mAP/0.50": 0.25}])
  shown = scalars(log.path.parent / "tensorboard")
  assert shown["evaluate"] == {"mAP/0.50": [(0, 0.25)]}


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path, capsys):
  (tmp_path / "tensorboard").write_text("in the way")
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  log.follow([EventFiles(tmp_path / "tensorboard")])
  _append(log, STEPS)
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f"{tmp_path / 'tensorboard'}")
  assert line.endswith("going on without TensorBoard's files")
  assert len(log.read()) == len(STEPS)


def test_a_full_disk_ends_the_run_as_the_log_itself_would(log, monkeypatch):
  files = log.followers[0]
  monkeypatch.setattr(disk_space, "free_space", lambda path: 10)
  with pytest.raises(NoSpace):
    files.add({"phase": "ilg", "step": 8, "loss": 1.0})


def test_no_pytorch_comes_with_it():
  code = (
    "import sys; from pathlib import Path; from ptlr_jax.io import tensorboard;"
    "tensorboard.EventFiles(Path('x'));"
    "print({'torch', 'tensorflow', 'matplotlib'} & sys.modules.keys())"
  )
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", code],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert (done.stdout, done.stderr) == ("set()\n", "")
