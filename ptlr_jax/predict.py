"""Detections of one's own videos by a trained model: JSON, CSV and pictures.

python -m ptlr_jax.predict --model=FILE.safetensors --features=DIR
python -m ptlr_jax.predict --workdir=RUN --rgb=V_rgb.npy --flow=V_flow.npy
python -m ptlr_jax.predict --model=FILE.safetensors --video=V.mp4 \\
  --rgb_weights=FILE --flow_weights=FILE

The model is the folder of a finished run, or what python -m ptlr_jax.export
wrote. Features are files or folders, given once or more:

  --features=PATH  rgb/V.npy and flow/V.npy, V_rgb.npy and V_flow.npy, or V.npy
                   with both joined, rgb first; a folder or such a file
  --rgb, --flow    the streams apart, files or folders
  --video=PATH     a video file, or a folder of them, with the weights of I3D

Further flags:

  --output=predictions   gets detections.json, detections.csv, a timeline V.png
                         of every video; and of video files their features,
                         which are not extracted again
  --pictures=png         or pdf, svg, none
  --ground_truth=FILE    CSV or JSON, as training reads it, for the pictures
  --fps, --stride, --window   of the features, in frames; else geometry.json
                         beside them, else as the model learned
  --trim                 cuts streams that differ by a segment or two
  --batch_size=N         videos at a time; else as the run had it, which gives
                         its detections to the bit
  --jobs=N               processes that decode videos
  --stage=N, --source    with --workdir, as of ptlr_jax.export

In Python, with arrays or paths: `ptlr_jax.load_model` (docs/PYTHON.md).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from ptlr_jax.cli import command_line
from ptlr_jax.io import disk_space
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import show

USAGE = (
  "usage: python -m ptlr_jax.predict (--model=FILE | --workdir=RUN) "
  "(--features=PATH | --rgb=PATH --flow=PATH | --video=PATH) [--output=DIR]"
)
PICTURES = ("png", "pdf", "svg", "none")
_MANY = ("rgb", "flow", "features", "video")
_TEXTS = {
  **dict.fromkeys(("model", "workdir", "source", "ground_truth"), ""),
  **dict.fromkeys(("rgb_weights", "flow_weights"), ""),
  "output": "predictions",
  "pictures": "png",
}
_FRAMES = ("fps", "stride", "window")


class Asked(NamedTuple):
  """The flags; every path as it was given."""

  model: str
  workdir: str
  source: str
  stage: int | None
  rgb: list[str]
  flow: list[str]
  features: list[str]
  video: list[str]
  rgb_weights: str
  flow_weights: str
  output: str
  pictures: str
  ground_truth: str
  fps: float
  stride: float
  window: float
  trim: bool
  batch_size: int
  jobs: int


def _parse(argv: Sequence[str]) -> Asked:
  values = flags.FlagValues()
  for name, default in _TEXTS.items():
    flags.DEFINE_string(name, default, "", flag_values=values)
  for name in _MANY:
    flags.DEFINE_multi_string(name, [], "", flag_values=values)
  for name in _FRAMES:
    flags.DEFINE_float(name, 0.0, "", 0.0, 1e6, flag_values=values)
  flags.DEFINE_integer("stage", None, "", flag_values=values)
  flags.DEFINE_integer("batch_size", 0, "", 0, flag_values=values)
  flags.DEFINE_integer("jobs", 1, "", 1, flag_values=values)
  flags.DEFINE_boolean("trim", False, "", flag_values=values)
  command_line.read_flags(values, argv, USAGE)
  said: Any = {name: values[name].value for name in Asked._fields}
  asked = Asked(**said)
  if problems := _faults(asked):
    raise InputError(*problems)
  return asked


def _faults(asked: Asked) -> list[str]:
  found = []
  if bool(asked.model) == bool(asked.workdir):
    came = "both" if asked.model else "neither"
    found.append(f"expected --model or --workdir, came {came}; {USAGE}")
  if asked.model and (asked.source or asked.stage is not None):
    found.append(
      "--stage, --source: expected them with --workdir, came --model, which is "
      "of one stage; leave them out"
    )
  if not any(getattr(asked, name) for name in _MANY):
    found.append(f"expected features or videos, came none; {USAGE}")
  if asked.pictures not in PICTURES:
    found.append(
      f"--pictures: expected one of {', '.join(PICTURES)}, got "
      f"{asked.pictures!r}"
    )
  return found


def _checked_output(given: str) -> Path:
  """The folder to write to; refused before anything is computed."""
  path = Path(given).expanduser()
  try:
    disk_space.make_writable(path)
  except OSError as error:
    raise InputError(
      f"--output={given}: expected a folder that can be written, came: "
      f"{error.strerror}; choose another"
    ) from None
  if (path / "config.json").exists():
    raise InputError(
      f"--output={given}: expected a folder of its own, came that of a run, "
      "whose detections.json would be lost; choose another"
    )
  return path


def run_command(argv: Sequence[str]) -> None:
  """Writes the detections of what was given, and says the best of each."""
  asked = _parse(argv)
  output = _checked_output(asked.output)
  from ptlr_jax.cli import startup

  startup.settle_jax()
  from ptlr_jax.inference import file_prediction  # it imports JAX

  count, problems = file_prediction.predict_files(asked, output)
  if count:
    show(f"{output}: detections of {count} video{'s' * (count > 1)}")
  if problems:
    raise InputError(*problems)


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
