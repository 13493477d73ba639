"""How much of a training step is padding, and how many programs it takes.

python benchmarks/padding.py --durations=FOLDER/duration.npy \
  --subset=FOLDER/subset.npy

Two places: ST(., s), whose length is continuous and whose padded lengths are
`ilg.scale.lengths`, and the batches of OTS and RTS, whose videos are as long as
they are. FOLDER holds W-TALC's annotations of THUMOS14 (its 200 training
videos); without it lengths are drawn log-normal. FLOPs are XLA's, of a whole
update at the paper's widths, one video, as a line through two lengths.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from configs import base  # noqa: E402
from ptlr_jax.data import batches, sampling  # noqa: E402
from ptlr_jax.method.registry import STAGES  # noqa: E402

DURATIONS = flags.DEFINE_string("durations", "", "seconds, a .npy of pickles")
SUBSET = flags.DEFINE_string("subset", "", "validation or test, the same")
STEPS = flags.DEFINE_integer("steps", 1500, "updates that are drawn")
SECONDS = 16 / 25


def lengths() -> np.ndarray:
  """Segments of the training videos."""
  if not DURATIONS.value:
    drawn = np.random.default_rng(0).lognormal(5.4, 0.9, 200)
    return np.maximum(2, drawn).astype(int)
  seconds = np.load(DURATIONS.value, allow_pickle=True).astype(float).ravel()
  subset = np.load(SUBSET.value, allow_pickle=True).ravel()
  training = seconds[subset == b"validation"]
  return np.maximum(2, training / SECONDS).astype(int)


def flops_of_ilg(size: int, segments: int) -> float:
  """FLOPs of an update of one video, ST(., s) padded to `size`."""
  stage = STAGES["ilg"](20, base.get_config().ilg)
  make = {"rgb": 1024, "flow": 1024}
  params = jax.eval_shape(lambda: stage.init(jax.random.key(0), make))
  batch: dict[str, Any] = {
    "features": {name: np.zeros((1, segments, 1024), "f") for name in make},
    "mask": np.ones((1, segments), bool),
    "labels": np.ones((1, 20), "f"),
    "scale": np.ones(2, "f"),
    "scale_grid": np.zeros(size, "f"),
  }
  gradient = jax.jit(jax.grad(stage.loss, has_aux=True))
  program = gradient.lower(params, batch, jax.random.key(0)).compile()
  cost: Any = program.cost_analysis()
  return cost["flops"]


def scale_table(segments: int) -> None:
  """Waste of ST(., s) by the number of padded lengths."""
  options = base.get_config().ilg.scale
  short, long = flops_of_ilg(400, segments), flops_of_ilg(1200, segments)
  slope = (long - short) / 800
  common = short - 400 * slope
  print("| padded lengths | waste of the branch | of the update | programs |")
  print("|---|---|---|---|")
  for count in (1, 2, 4, 8, 16):
    options.lengths = count
    rng = np.random.default_rng(0)
    drawn = rng.uniform(options.min, options.max, STEPS.value)
    sizes = [
      sampling.scale_grid_size(segments, float(s), options) for s in drawn
    ]
    needed, padded = (segments * drawn).astype(int).sum(), sum(sizes)
    update = STEPS.value * common
    waste = (update + slope * padded) / (update + slope * needed) - 1
    print(
      f"| {count} | {100 * (padded / needed - 1):.1f} % | "
      f"{100 * waste:.1f} % | {len(set(sizes))} |"
    )


def batch_table(videos: np.ndarray, size: int, window: int) -> None:
  """Waste of OTS's and RTS's batches, padded and packed."""
  align = 2 ** base.get_config().rts.model.branches
  print("\n| batches | segments a valid one | waste | programs |")
  print("|---|---|---|---|")
  for rows in (0, 1):
    valid, padded, shapes = 0, 0, set()
    for i in range(STEPS.value):
      order = sampling.epoch_order(len(videos), size, i, seed=0, name="ots-1")
      own = np.minimum(videos[order], window).tolist()
      layout = batches.layout_of(own, window, align, rows)
      valid += sum(own)
      padded += layout.rows * layout.size
      shapes.add((layout.rows, layout.size))
    name = "packed" if rows else "padded"
    share = 100 * (1 - valid / padded)
    print(f"| {name} | {padded / valid:.2f} | {share:.0f} % | {len(shapes)} |")


def main(argv: list[str]) -> None:
  """Prints both tables for configs/base.py."""
  del argv
  config = base.get_config()
  scale_table(config.ilg.segments)
  batch_table(lengths(), config.ots.batch_size, config.ptlr.window)


if __name__ == "__main__":
  app.run(main)
