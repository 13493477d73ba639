"""A finished run with labels, a log and metrics, made without training."""

from pathlib import Path
from typing import Any

from ptlr_jax import report
from ptlr_jax.data.dataset import Dataset
from ptlr_jax.runs.pipeline import Run
from tests.trained_fixture import configuration, leave_run


def finished_run(directory: Path, data: Dataset | None = None, **changes: Any):
  """Leaves all that a run of the tiny configuration does; its data."""
  config = configuration(**changes)
  data = leave_run(directory, config, data)
  run = Run(config, data, directory)
  for phase, term in (("ilg", "csc"), ("ots-1", "ots"), ("rts-1", "rts")):
    for step in range(2, config[phase[:3]].steps + 1, 2):
      values = {"loss": 1.5 / step, term: 0.25, "grad_norm": 0.5}
      run.files.log.append(phase, step, values)
  run.run()
  return data


def write(directory: Path, output: Path, *flags: str) -> str:
  """The page of a run, as text."""
  report.run_command(
    ["", f"--workdir={directory}", f"--output={output}", *flags]
  )
  return output.read_text()
