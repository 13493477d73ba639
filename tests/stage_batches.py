"""configs/base.py's stages at test width, and tiny batches for them.

Nothing here is jitted: operation by operation each shape compiles once for all
options, in place of every stage once for each.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from ptlr_jax.method.registry import STAGES

B, T, C = 2, 16, 2
WIDTHS = {"rgb": 3, "flow": 2}
LENGTHS = (16, 11)  # top-k takes k = 2 and 1
KEY = jax.random.key(0)
QUICK = {  # compiles in half the time, many small operations in a quarter
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  "xla_cpu_use_fusion_emitters": False,
  "xla_cpu_parallel_codegen_split_count": 1,
}


def batch_of(scale=(0.75, 0.75), grid=26, lengths=LENGTHS, seed=0, size=T):
  """Up to three videos of `lengths`; what lies in padding is no zero."""
  rng, count = np.random.default_rng(seed), len(lengths)
  shape = count, size
  targets = np.eye(C + 1, dtype=np.float32)[rng.integers(0, C + 1, shape)]
  mask = np.arange(size)[None] < np.array(lengths)[:, None]
  selected = mask & (rng.random(shape) < [[0.9], [0.4], [0.7]][:count])
  return {
    "features": {
      name: rng.normal(size=(*shape, width)).astype(np.float32)
      for name, width in WIDTHS.items()
    },
    "mask": mask,
    "labels": np.array([[1, 0], [1, 1], [0, 1]][:count], np.float32),
    "scale": np.array(scale, np.float32),
    "scale_grid": np.zeros(grid, np.float32),
    "targets": targets * selected[..., None],
    "selected": selected,
  }


def padded(batch, size, fill):
  """The same videos with `fill(shape)` in their padding, up to `size`."""
  mask = batch["mask"]

  def pad(x, fill=fill):
    wide = fill((len(x), size, *x.shape[2:])).astype(x.dtype)
    wide[:, : mask.shape[1]][mask] = x[mask]
    return wide

  return {
    **batch,
    "features": {name: pad(x) for name, x in batch["features"].items()},
    "mask": pad(mask, np.zeros),
    "targets": pad(batch["targets"]),
    "selected": pad(batch["selected"], np.zeros),
    "scale_grid": np.zeros(2 * size, np.float32),
  }


def options(name, changes=()):
  """configs/base.py's options of a stage at test width, and changes to them."""
  config = base.get_config()[name]
  sizes = {"filter_width": 4, "cas_width": 4} if name == "ilg" else {"width": 4}
  config.model.update(sizes)
  config.update_from_flattened_dict(dict(changes))
  return config


@functools.cache
def stage(name, *changes):
  return STAGES[name](C, options(name, changes))


@functools.cache
def params_of(name, *changes):
  """Random parameters of the shapes that init gives; nothing to compile.

  Large enough for CASs that are not nearly uniform.
  """
  made = jax.eval_shape(lambda: stage(name, *changes).init(KEY, WIDTHS))
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.uniform(-0.9, 0.9, leaf.shape), leaf.dtype),
    made,
  )


def loss_of(name, *changes):
  return stage(name, *changes).loss


def gradient_of(name, *changes):
  return jax.grad(stage(name, *changes).loss, has_aux=True)


def predict_of(name, *changes):
  return stage(name, *changes).predict


def leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


NO_DROPOUT = ("model.dropout", 0.0)
