"""Whether two runs end with the same bits, and what it costs to make sure.

python benchmarks/deterministic.py --config=configs/simulated.py \
  --workdir=runs/deterministic [--times=2] [--config.SECTION.KEY=VALUE ...]

Runs the command `--times` times as it is and as often with
--config.deterministic=True, in turn, each in a workdir of its own, and compares
all parameters, pseudo labels and detections within each kind. The cost is the
ratio of their median seconds; the first run of each kind, which compiles, is
left out where there are more.
"""

import statistics
import sys
import time

import jax
from kill_resume import contents, parsed, parser_of, start

KINDS = {"usual": [], "deterministic": ["--config.deterministic=True"]}


def main() -> None:
  """Prints a line a kind; exits with 1 where deterministic runs differ."""
  args, root, flags = parsed(parser_of(__doc__, times=2))
  seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
  found: dict[str, list[dict]] = {kind: [] for kind in KINDS}
  for i in range(args.times):
    for kind, more in KINDS.items():
      workdir, begun = root / f"{kind}-{i}", time.monotonic()
      if start(workdir, [*flags, *more]).wait():
        raise SystemExit(f"{workdir}.log: the command failed")
      seconds[kind].append(time.monotonic() - begun)
      found[kind].append(contents(workdir))
  print(f"on {jax.devices()[0].device_kind}")
  same = {}
  for kind, runs in found.items():
    same[kind] = all(run == runs[0] for run in runs)
    word = "the same bits" if same[kind] else "DIFFERENT bits"
    spent = ", ".join(f"{x:.1f}" for x in seconds[kind])
    print(f"{kind}: {args.times} runs, {word}; {spent} s")
  usual, sure = (
    statistics.median(times[1:] or times) for times in seconds.values()
  )
  print(f"deterministic / usual: {sure / usual:.2f}")
  sys.exit(not same["deterministic"])


if __name__ == "__main__":
  main()
