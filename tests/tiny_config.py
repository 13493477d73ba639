"""The smallest run of every phase: its configuration, and how tests start it.

python -m ptlr_jax.main --config=tests/tiny_config.py --workdir=/tmp/tiny
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from configs import simulated

ROOT = Path(__file__).absolute().parents[1]

# Kills itself, as `kill -9` does, once the log has the line PHASE:STEP, or
# when a file is about to get the name that ends so.
KILLED = """
import os, pathlib, signal
from ptlr_jax.io import metrics_log
from ptlr_jax import main

moment = {moment!r}

def die():
  os.kill(os.getpid(), signal.SIGKILL)

def logged(self, phase, step, values, append=metrics_log.MetricsLog.append):
  append(self, phase, step, values)
  if f"{{phase}}:{{step}}" == moment:
    die()

def guarded(rename):
  def renamed(self, target):
    if str(target).endswith(moment):
      die()
    return rename(self, target)
  return renamed

metrics_log.MetricsLog.append = logged
pathlib.Path.rename = guarded(pathlib.Path.rename)
pathlib.Path.replace = guarded(pathlib.Path.replace)
main.main()
"""


def get_config():
  """The demo's configuration at the size of a test."""
  config = simulated.get_config()
  config.data.width = 8
  config.data.simulated.update(
    {
      "num_classes": 3,
      "train_videos": 6,
      "test_videos": 4,
      "min_segments": 30,
      "max_segments": 32,
    }
  )
  config.train.update({"log_every": 2, "checkpoint_every": 4})
  config.log.tensorboard = "never"  # whatever is installed
  config.ilg.update(
    {
      "steps": 8,
      "batch_size": 4,
      "segments": 16,
      "model": {"filter_width": 8, "cas_width": 8},
      "scale": {"lengths": 1},
    }
  )
  for network in (config.ots, config.rts):
    network.update({"steps": 6, "batch_size": 4, "model": {"width": 8}})
  config.rts.model.branches = 2
  config.ptlr.update({"stages": 2, "window": 16})
  config.predict.batch_size = 4
  return config


def start(
  workdir: Path,
  cache: Path,
  *overrides: str,
  code: str = "",
  config: str | Path = __file__,
) -> subprocess.CompletedProcess:
  """Runs `main`, or `code` in its place, in a process of its own.

  Warnings are errors there. What one run compiled, the next ones find in
  `cache`.
  """
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "PYTHONPATH": os.pathsep.join([str(cache / "stubs"), str(ROOT)]),
  }
  what = ["-c", code] if code else ["-m", "ptlr_jax.main"]
  return subprocess.run(
    [
      *(sys.executable, "-W", "error", "-W", "ignore:the load_module", *what),
      *(f"--config={config}", f"--workdir={workdir}", *overrides),
    ],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )


def free_port() -> int:
  """A port of this host that nothing listens at."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    return server.getsockname()[1]
