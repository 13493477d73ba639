"""Tests of ptlr_jax.io.tensorboard, held to TensorBoard's own readers."""

import ast
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
# What TensorBoard reads with where it can, in a process that ends it.
SERVED = """
import json, sys
from tensorboard.data import server_ingester
from tensorboard.util import grpc_util
server = server_ingester.SubprocessServerDataIngester(
  server_ingester.get_server_binary(),
  logdir=sys.argv[1],
  reload_interval=3600,
  channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
)
server.start()
found = server.data_provider.read_scalars(
  None, experiment_id="", plugin_name="scalars", downsample=1000
)
print({
  phase: {tag: [(e.step, e.value) for e in x] for tag, x in curves.items()}
  for phase, curves in found.items()
})
"""


def reader_of(folder):
  """TensorBoard's reader of a phase in Python, not begun."""
  module = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="TensorBoard, whose reader this test needs, is not installed",
  )
  return module.EventAccumulator(str(folder))


def shown(reader):
  """{term: [(step, value)]} of a reader, which reads on."""
  events = reader.Reload()
  return {
    tag: [(e.step, e.value) for e in events.Scalars(tag)]
    for tag in events.Tags()["scalars"]
  }


def scalars(folder):
  """{phase: {term: [(step, value)]}}, as TensorBoard shows it."""
  return {path.name: shown(reader_of(path)) for path in folder.iterdir()}


def served(folder):
  """The same of the server."""
  pytest.importorskip("tensorboard_data_server")
  command = [sys.executable, "-c", SERVED, str(folder)]
  return ast.literal_eval(subprocess.check_output(command, text=True))


def curves_of(lines):
  """The same of lines of a log."""
  found = {}
  for line in lines:
    for term in line.keys() - {"phase", "step"}:
      value = float(np.float32(line[term]))
      curve = found.setdefault(line["phase"], {}).setdefault(term, [])
      curve.append((line["step"], value))
  return found


def _append(log, phase, *steps):
  for step in steps:
    log.append(phase, step, {"loss": 1 / step, "rgb/sc": 0.1 * step})


@pytest.fixture
def begin(tmp_path):
  """Starts a run: its log, which is followed until the test ends."""
  logs = []

  def begin():
    logs.append(metrics_log.MetricsLog(tmp_path / "metrics.jsonl"))
    logs[-1].follow([EventFiles(tmp_path / "tensorboard")])
    return logs[-1]

  yield begin
  for log in logs:
    log.close()


def test_a_run_that_was_killed_and_goes_on_has_each_step_once(begin, tmp_path):
  folder, log = tmp_path / "tensorboard", begin()
  _append(log, "ilg", 2, 4, 6)
  _append(log, "ots-1", 2, 4)
  open_one = reader_of(folder / "ilg")
  assert shown(open_one) == curves_of(log.read())["ilg"]
  (file,) = (folder / "ots-1").iterdir()
  file.write_bytes(file.read_bytes()[:-5])  # what is cut off comes back
  log = begin()
  for rewound, steps in ((2, [4]), (4, [6, 8]), (6, [8])):
    log.rewind("ilg", rewound)
    _append(log, "ilg", *steps)
    curves = curves_of(log.read())
    assert [step for step, _ in curves["ilg"]["loss"]] == [
      *range(2, steps[-1] + 2, 2)
    ]
    for read in (scalars, served):
      assert read(folder) == curves
    assert shown(open_one) == curves["ilg"]


def test_scores_that_are_told_again_are_there_once(begin, tmp_path):
  score = {"phase": "evaluate", "step": 0, "mAP/0.50": 0.5}
  begin().tell([score, {**score, "step": 1}])
  begin().tell([{**score, "mAP/0.50": 0.25}])
  found = scalars(tmp_path / "tensorboard")
  assert found == {"evaluate": {"mAP/0.50": [(0, 0.25)]}}


def test_a_folder_that_cannot_be_written_is_told_once(begin, tmp_path, capsys):
  folder, log = tmp_path / "tensorboard", begin()
  folder.write_text("in the way")
  _append(log, "ilg", 2, 4)
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f"{folder}: cannot be written (")
  assert line.endswith("); going on without TensorBoard's files")
  assert len(log.read()) == 2


def test_a_full_disk_ends_the_run_as_the_log_itself_would(begin, monkeypatch):
  log = begin()
  _append(log, "ilg", 2)
  monkeypatch.setattr(disk_space, "free_space", lambda path: 10)
  with pytest.raises(NoSpace):
    log.tell([{"phase": "ilg", "step": 4, "loss": 1.0}])


def test_no_pytorch_comes_with_it():
  code = (
    "import sys; from pathlib import Path; from ptlr_jax.io import tensorboard;"
    "tensorboard.EventFiles(Path('x'));"
    "print({'torch', 'tensorflow', 'matplotlib'} & sys.modules.keys())"
  )
  command = [sys.executable, "-W", "error", "-c", code]
  said = subprocess.check_output(command, stderr=subprocess.STDOUT, cwd=ROOT)
  assert said == b"set()\n"
