"""Where the time of a whole run goes, phase by phase.

python benchmarks/whole_run.py --config=configs/thumos14_small.py \
  --config.data.root=ROOT --workdir=runs/timed

The command is `main`'s. Each phase is timed as it is finished, in this process,
compilation and checkpoints included; a run that is there already is not timed
again, so give a new workdir. One seed a run: several at once are not timed.
"""

import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

from ptlr_jax import main as command  # noqa: E402
from ptlr_jax.runs.pipeline import Run  # noqa: E402
from ptlr_jax.workdir.phases import Phase  # noqa: E402


def timed(spent: dict[str, list[float]]) -> None:
  """Has every phase that a run finishes add its wall and CPU seconds."""
  finish = Run.finish

  def finish_timed(self: Run, phase: Phase) -> None:
    begun = time.perf_counter(), time.process_time()
    finish(self, phase)
    wall, cpu = time.perf_counter(), time.process_time()
    spent[phase.name] = [wall - begun[0], cpu - begun[1]]
    spent[f"all {phase.kind}"][0] += wall - begun[0]
    spent[f"all {phase.kind}"][1] += cpu - begun[1]

  Run.finish = finish_timed  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
  """Runs, then prints a table."""
  spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
  timed(spent)
  command.run_command(sys.argv)
  total = sum(v[0] for name, v in spent.items() if name.startswith("all "))
  print("| phase | wall seconds | CPU seconds | share of the run |")
  print("|---|---|---|---|")
  for name, (wall, cpu) in spent.items():
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | {100 * wall / total:.1f} % |")


if __name__ == "__main__":
  main()
