"""Writes the CASs of a run's ILG in the form that `config.ptlr.cas` reads.

python -m ptlr_jax.dump_cas --config=configs/NAME.py --workdir=RUN --output=DIR

Configuration and overrides are those of the run, whose ILG has to be trained.
DIR gets a file V.npz for every training and test video: its fused CAS as
probabilities, its class scores, and the names of the classes.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.cli import command_line
from ptlr_jax.data.dataset import Video
from ptlr_jax.io import storage
from ptlr_jax.method import cas_space
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import say
from ptlr_jax.workdir import run_folder
from ptlr_jax.workdir.phases import phases

USAGE = command_line.USAGE.replace(
  "ptlr_jax.main", "ptlr_jax.dump_cas"
).replace("--workdir=DIR", "--workdir=RUN --output=DIR")


def run_command(argv: Sequence[str]) -> None:
  """Reads the run and its data, and writes the files."""
  config, directory, said = command_line.parse(argv, USAGE, {"output": ""})
  if not said["output"]:
    raise InputError(f"--output: expected a folder, got none; {USAGE}")
  if config.ptlr.cas or config.seeds > 1:
    key = "ptlr.cas" if config.ptlr.cas else "seeds"
    raise InputError(
      f"--config.{key}={config.ptlr.cas or config.seeds}: expected a run with "
      "an ILG of its own, and of several seeds one of the folders seed-N with "
      "its --config.seed=N; leave it out"
    )
  if not (directory / run_folder.CONFIG).exists():
    raise InputError(
      f"--workdir={directory}: expected the folder of a run, came one without "
      f"{run_folder.CONFIG}; train it first"
    )
  target = Path(said["output"]).expanduser()
  with run_folder.open_run_folders({directory: config}):
    _dump(config, directory, target)


def _dump(config: Any, directory: Path, target: Path) -> None:
  # These import JAX, which a mistake in the flags spares.
  from ptlr_jax.cli import startup

  startup.settle_jax(config)
  from ptlr_jax.runs.dataset import load_dataset
  from ptlr_jax.runs.pipeline import Run

  data = load_dataset(config.data, config.evaluate)
  made = Run(config, data, directory)
  made.record()
  if not made.files.is_done(phases(config)[0]):
    raise InputError(
      f"--workdir={directory}: expected a run whose ILG is trained, came one "
      "without; give its command to ptlr_jax.main first"
    )
  count = 0
  for video, out in _said(made):
    content = packed(out, config.fusion, data.classes)
    storage.write_bytes(target / f"{video.id}.npz", content)
    count += 1
  say(f"{target}: CASs of {count} videos, {len(data.classes)} classes")


def _said(run: Any) -> Iterator[tuple[Video, Mapping[str, Any]]]:
  """What the ILG says of every video, those together that are together in the
  run's own phases: sums of another shape may round otherwise."""
  from ptlr_jax.runs.detection_phase import PART
  from ptlr_jax.workdir import shares

  data, ask = run.data, run.networks.asking("ilg", "ilg")
  train = shares.bounds(run.files.parts, len(data.train))
  size = PART if data.on_disk else len(data.test)
  starts = range(0, len(data.test), size) if data.test else ()
  together = [data.train[of.start : of.stop] for of in train]
  together += [data.test[start : start + size] for start in starts]
  for videos in together:
    for i, out in ask(videos):
      yield videos[i], out


def packed(
  out: Mapping[str, Any], fusion: Mapping[str, float], classes: Sequence[str]
) -> bytes:
  """The bytes of V.npz, from what the ILG says of the video V."""
  buffer = io.BytesIO()
  np.savez(
    buffer,
    cas=cas_space.fused_cas(out["logits"], fusion, "softmax"),
    scores=cas_space.fuse(out["scores"], fusion)[:-1],
    classes=np.array(classes),
  )
  return buffer.getvalue()


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
