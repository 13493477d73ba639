"""What spreading a step over processes and devices costs, and brings.

python benchmarks/spread.py [--rounds=3] [--steps=10] [--width=512]

Times updates of the ILG, Network-OTS and Network-RTS on simulated features, the
same batches each time, as: one process on one core; one process on all cores;
two processes on a core each; 8 virtual devices of one process on all cores. The
kinds take turns, a process (or two) each, and give the median milliseconds of
an update. Efficiency is the speed against one process with the same cores: of
two processes against twice that on one core, of 8 devices against one device.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ptlr_jax.runtime import cluster

ROOT = Path(__file__).resolve().parents[1]
PORT = 29400  # of this host, where process 0 is reached
NETWORKS = ("ilg", "ots", "rts")
# name: (processes, virtual devices, cores of each process; 0: all)
KINDS = {
  "one process, one core": (1, 1, 1),
  "one process, all cores": (1, 1, 0),
  "two processes, a core each": (2, 1, 1),
  "8 devices, all cores": (1, 8, 0),
}


def config_of(args: argparse.Namespace):
  """The demo at a width at which products count."""
  from configs import simulated

  config = simulated.get_config()
  config.data.width = args.features
  config.data.parts = 1
  config.ilg.update({"batch_size": 16, "segments": 128, "steps": 1000})
  config.ilg.model.update(
    {"filter_width": args.width // 4, "cas_width": args.width}
  )
  config.ilg.scale.lengths = 1  # one program
  for network in (config.ots, config.rts):
    network.update({"batch_size": 16, "steps": 1000})
    network.model.width = args.width
  config.ptlr.update({"stages": 1, "window": 128, "pack": False})
  return config


def work(args: argparse.Namespace) -> None:
  """Times the updates, as one of the processes of a kind; prints JSON."""
  processes_, _, cores = KINDS[args.kind]
  if cores:
    os.sched_setaffinity(0, {args.index % (os.cpu_count() or 1)})
  place = cluster.Place(processes_, f"127.0.0.1:{PORT}", args.index)
  from ml_collections import FrozenConfigDict

  from ptlr_jax.cli import startup
  from ptlr_jax.runtime import processes

  config = FrozenConfigDict(config_of(args))
  startup.settle_jax(config)
  with processes.joined(place if processes_ > 1 else None):
    found = timed(config, args)
    if processes.is_first():
      print(json.dumps(found), flush=True)


def timed(config, args: argparse.Namespace) -> dict[str, float]:
  """Median milliseconds of an update of each network."""
  import functools

  import jax
  import numpy as np

  from ptlr_jax.method.pseudo_labels import PseudoLabels
  from ptlr_jax.method.stage import COMMON
  from ptlr_jax.runs.dataset import load_dataset
  from ptlr_jax.runs.pipeline import Run
  from ptlr_jax.workdir.phases import phases

  data = load_dataset(config.data)
  columns = len(data.classes) + 1
  labels = [
    PseudoLabels(
      np.eye(columns, dtype=bool)[np.arange(v.num_segments) % columns],
      np.ones(v.num_segments, bool),
    )
    for v in data.train
  ]
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    run = Run(config, data, Path(folder))
    put = functools.partial(run.devices.put, common=COMMON)
    for phase in phases(config):
      if phase.kind != "train":
        continue
      training = run.trainer(phase, labels)
      state, batch_at = training.begin().state, training.batches(0)
      times = []
      for i in range(args.steps + 2):
        begun = time.perf_counter()
        state, terms = training.network.step(
          state, put(batch_at(i)), training.key
        )
        jax.block_until_ready(terms)
        times.append(1000 * (time.perf_counter() - begun))
      found[phase.network] = statistics.median(times[2:])
  return found


def measured(kind: str, args: argparse.Namespace) -> dict[str, float]:
  """One turn of a kind, in processes of its own."""
  count, devices, _ = KINDS[kind]
  flags = os.environ.get("XLA_FLAGS", "").split()
  flags += [f"--xla_force_host_platform_device_count={devices}"]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  environment |= {"XLA_FLAGS": " ".join(flags), "PYTHONPATH": str(ROOT)}
  given = [f"--{n}={getattr(args, n)}" for n in ("steps", "width", "features")]
  started = [
    subprocess.Popen(
      [
        *(sys.executable, __file__, f"--kind={kind}"),
        *(f"--index={i}", *given),
      ],
      env=environment,
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
    )
    for i in range(count)
  ]
  said = [process.communicate()[0] for process in started]
  if any(process.returncode for process in started):
    raise SystemExit(f"{kind}: a process failed, see above")
  return json.loads(said[0].strip().splitlines()[-1])


def main() -> None:
  """Prints a table of milliseconds and efficiencies."""
  parser = argparse.ArgumentParser(description=__doc__)
  for name, default in {
    "rounds": 3,
    "steps": 10,
    "width": 512,
    "features": 256,
    "index": 0,
  }.items():
    parser.add_argument(f"--{name}", type=int, default=default)
  parser.add_argument("--kind", choices=KINDS)
  args = parser.parse_args()
  if args.kind:
    work(args)
    return
  turns: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
  for _ in range(args.rounds):
    for kind, found in turns.items():
      found.append(measured(kind, args))
  medians = {
    kind: {n: statistics.median(turn[n] for turn in found) for n in NETWORKS}
    for kind, found in turns.items()
  }
  print("| ms an update |", " | ".join(NETWORKS), "|\n|---|---|---|---|")
  for kind, found in medians.items():
    cells = (f"{found[n]:.0f}" for n in NETWORKS)
    print(f"| {kind} |", " | ".join(cells), "|")
  one, both, two, eight = medians.values()
  two_of = (f"{one[n] / two[n] / 2:.2f}" for n in NETWORKS)
  eight_of = (f"{both[n] / eight[n]:.2f}" for n in NETWORKS)
  print("| efficiency of two processes |", " | ".join(two_of), "|")
  print("| efficiency of 8 devices |", " | ".join(eight_of), "|")


if __name__ == "__main__":
  main()
