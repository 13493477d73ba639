"""What the commands print, on a terminal and into a pipe, and the curves that a
run leaves beside its log when it was killed in between."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import flags
from test_event_files import curves_of, scalars
from test_tracking import STAND_IN
from tiny_config import KILLED, ROOT, start

from ptlr_jax import main
from ptlr_jax.cli import command_line
from ptlr_jax.io import metrics_log, storage
from ptlr_jax.runtime import progress

CONFIG = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
SMALL = (
  *("--config.ilg.streams=('fused',)", "--config.ilg.loss.alpha=0.0"),
  *("--config.ptlr.stages=1", "--config.ptlr.networks=('ots',)"),
  *("--config.detect.sources=('ots',)", "--config.log.tensorboard=always"),
)
# All that a run says; whatever else comes is some library's.
LINE = re.compile(
  r"|\d+ training and \d+ test videos of \d+ classes"
  r"|(ilg|ots-1|detect) +\d+/\d+  (loss [\d.]+  )?[\d.]+ (step|video)s/s  "
  r"\d+ s left"
  r"|(ilg|labels-0|ots-1) +(done before|goes on from step 4)"
  r"|labels-\S+ +precision [\d.]+  recall [\d.]+  \(actions .*\)"
  r"|\S+/\.lock: left by process \d+ on \S+; taken over"
  r"|mAP \(%\), protocol thumos14.*|tIoU +0.1 .*|(ilg|stage-1)( +[\d.]+)+"
  r"|Simulated features: no number here is .* result."
)
BAR = re.compile(
  r"(ilg|ots-1|detect) *: +\d+%\|.*\| \d+/\d+ \[[^]]+(, loss [\d.]+)?\]"
)


class Said(NamedTuple):
  """How a command ended, and what it printed, both streams together."""

  status: int
  text: str


def _environment(cache):
  return {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "PYTHONPATH": str(cache / "stubs"),
    "TERM": "xterm-256color",
    "FORCE_COLOR": "1",
  }


def on_a_terminal(cache, module, *args):
  """Runs a command on a terminal of 100 columns."""
  ours, theirs = os.openpty()
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
  with subprocess.Popen(
    [sys.executable, "-m", f"ptlr_jax.{module}", *args],
    cwd=ROOT,
    env=_environment(cache),
    stdin=theirs,
    stdout=theirs,
    stderr=theirs,
  ) as process:
    os.close(theirs)
    data = b""
    try:
      while more := os.read(ours, 65536):
        data += more
    except OSError:  # the other end is closed
      pass
    os.close(ours)
  return Said(process.returncode, data.decode().replace("\r\n", "\n"))


def piped(cache, module, *args):
  """Runs a command whose output is read by another program."""
  done = subprocess.run(
    [sys.executable, "-m", f"ptlr_jax.{module}", *args],
    cwd=ROOT,
    env=_environment(cache),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  return Said(done.returncode, done.stdout)


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
  """(workdir, what was said until it was killed, and on a terminal to the
  end); no test changes it."""
  directory = tmp_path_factory.mktemp("run") / "run"
  (cache / "stubs").mkdir(exist_ok=True)
  (cache / "stubs" / "wandb.py").write_text(STAND_IN)
  how = (*SMALL, "--config.log.wandb=mine")
  code = KILLED.format(moment="ots-1:6")
  with pytest.MonkeyPatch.context() as context:
    context.setenv("NOTES", f"{directory}-sent")
    killed = start(directory, cache, *how, code=code)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    rest = on_a_terminal(cache, "main", CONFIG, f"--workdir={directory}", *how)
  assert rest.status == 0, rest.text
  return directory, killed, rest.text


def test_a_pipe_gets_whole_lines_of_ours_and_nothing_else(run):
  _, killed, _ = run
  assert killed.stderr == ""
  assert killed.stdout.endswith("\n")
  assert not {"\r", "\x1b", "\b"} & set(killed.stdout)
  for line in killed.stdout.splitlines():
    assert LINE.fullmatch(line), line
  begins = dict.fromkeys(x.split()[0] for x in killed.stdout.splitlines())
  # A phase that takes long has a line now and then.
  assert [x for x in begins if x != "ots-1"] == ["6", "ilg", "labels-0"]


def test_a_terminal_gets_bars_and_lines_of_ours_and_nothing_else(run):
  _, _, text = run
  pieces = [piece.strip() for piece in re.split("[\r\n]", text)]
  bars = [piece for piece in pieces if BAR.fullmatch(piece)]
  assert {bar.split()[0] for bar in bars} == {"ots-1", "detect"}
  for piece in pieces:
    assert BAR.fullmatch(piece) or LINE.fullmatch(piece), piece
  assert "ots-1          goes on from step 4\n" in text
  assert "\x1b" not in text
  assert text.endswith(" result.\n\n")


def test_the_curves_of_a_run_that_was_killed_have_every_step_once(run):
  directory, _, _ = run
  lines = metrics_log.MetricsLog(directory / "metrics.jsonl").read()
  shown = scalars(directory / "tensorboard")
  rows = storage.read_json(directory / "metrics.json")["stages"]
  scores = shown.pop("evaluate")
  assert shown == curves_of(lines)
  assert [step for step, _ in shown["ots-1"]["loss"]] == [2, 4, 6]
  assert [step for step, _ in shown["ilg"]["loss"]] == [2, 4, 6, 8]
  for tiou in ("0.10", "0.90"):
    values = [row["mAP"][tiou] for row in rows.values()]
    assert [step for step, _ in scores[f"mAP/{tiou}"]] == [0, 1]
    assert [x for _, x in scores[f"mAP/{tiou}"]] == pytest.approx(values)
  assert "average/0.1:0.7" in scores


def test_each_start_of_a_run_that_was_killed_sends_every_line_once(run):
  directory, _, _ = run
  sent: dict[int, list] = {}
  for line in Path(f"{directory}-sent").read_text().splitlines():
    process, values = json.loads(line)
    sent.setdefault(process, []).append(values)
  log = [
    {f"{line['phase']}/{k}": line[k] for k in line.keys() - {"phase"}}
    for line in metrics_log.MetricsLog(directory / "metrics.jsonl").read()
  ]
  killed, whole = sent.values()
  assert killed == log[: len(killed)]
  assert killed[-1]["ots-1/step"] == 6
  assert whole[: len(log)] == log
  assert [line["evaluate/step"] for line in whole[len(log) :]] == [0, 1]


def test_a_finished_run_says_no_more_than_its_table_when_quiet(run, cache):
  directory, _, text = run
  said = piped(
    cache, "main", CONFIG, f"--workdir={directory}", *SMALL, "--quiet"
  )
  assert said == (0, text[text.index("\nmAP (%)") :])


@pytest.fixture
def loud(monkeypatch):
  """After the test, too."""
  monkeypatch.setattr(progress, "_quiet", False)


@pytest.mark.usefixtures("loud")
def test_seeds_at_once_have_curves_each_and_say_their_table_alone_when_quiet(
  tmp_path, monkeypatch, capfd
):
  argv = ["main", CONFIG, f"--workdir={tmp_path}", "--quiet", *SMALL]
  argv += ["--config.ptlr.stages=0", "--config.detect.sources=('ilg',)"]
  argv += ["--config.seeds=2", "--config.ilg.steps=4"]
  monkeypatch.setattr(sys, "argv", argv)
  main.main()
  out, err = capfd.readouterr()
  assert err == ""
  assert out.startswith("\nmAP (%), protocol thumos14\n")
  assert out.count("\n0.") == 4
  for seed in (0, 1):
    directory = tmp_path / f"seed-{seed}"
    shown = scalars(directory / "tensorboard")
    assert shown.pop("evaluate")
    lines = metrics_log.MetricsLog(directory / "metrics.jsonl").read()
    assert shown == curves_of(lines)
    assert shown.keys() == {"ilg", "labels-0"}


def test_prepare_says_its_result_alone_when_quiet_on_a_terminal_too(
  cache, tmp_path
):
  said = on_a_terminal(
    cache,
    "prepare",
    *("--layout=simulated", "--width=4", "--quiet"),
    f"--data_dir={tmp_path}",
  )
  assert said.status == 0
  (line,) = said.text.splitlines()
  assert re.fullmatch(
    r"\S+: 100 videos; train with --config.data.root=\S+", line
  )


def test_a_problem_is_told_when_quiet(cache, tmp_path):
  said = piped(
    cache, "prepare", "--check", "--quiet", f"--source={tmp_path / 'none'}"
  )
  assert said.status == 2
  (line,) = said.text.splitlines()
  assert line.startswith("ptlr_jax: ")


@pytest.mark.parametrize(
  ("args", "shown"),
  [
    ([], ["how it goes", "the result"]),
    (["--quiet"], ["the result"]),
    (["--quiet", "--noquiet"], ["how it goes", "the result"]),
  ],
)
def test_quiet_leaves_results(args, shown, monkeypatch, capsys):
  monkeypatch.setattr(progress, "_quiet", False)
  command_line.read_flags(flags.FlagValues(), ["x", *args], "usage")
  progress.say("how it goes")
  progress.show("the result")
  bar = progress.Progress("ilg", 4)
  bar.at(4, 1.0)
  bar.close()
  lines = capsys.readouterr().out.splitlines()
  assert [x for x in lines if not x.startswith("ilg ")] == shown
  assert any(x.startswith("ilg ") for x in lines) == ("how it goes" in shown)


def test_help_names_quiet(monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["main", "--help"])
  command_line.execute(lambda argv: None, "What it does.", "usage: x")
  assert "--quiet: " in capsys.readouterr().out
