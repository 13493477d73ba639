"""The data set that a configuration names."""

from typing import Any

from ptlr_jax.data import simulated
from ptlr_jax.data.annotations import Dataset, holdout
from ptlr_jax.data.layouts import LAYOUTS
from ptlr_jax.errors import InputError


def load(options: Any) -> Dataset:
  """Reads, or simulates, what `config.data` says.

  Raises:
    InputError: a line for every file or setting that is wrong.
  """
  if options.layout == "simulated":
    data = simulated.simulate(width=options.width, **options.simulated)
  else:
    if not options.root:
      raise InputError(
        "--config.data.root: expected the folder of the features and "
        "annotations, got none; pass --config.data.root=ROOT"
      )
    data = LAYOUTS[options.layout](
      options.root,
      classes=tuple(options.classes),
      width=options.width,
      fps=options.fps,
      stride=options.stride,
      trim=options.trim,
      min_segments=options.min_segments,
      end_tolerance=options.end_tolerance,
      overrun_ids=tuple(options.overrun_ids),
      memory_gb=options.memory_gb,
    )
  if not any(video.instances for video in data.test):
    raise InputError(
      f"{options.root}: expected a test video with an annotated instance, got "
      "none, so that nothing could be scored; annotate one"
    )
  return holdout(data, options.holdout, options.holdout_seed)
