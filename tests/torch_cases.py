"""Cases, weights and networks to compare with the PyTorch reading.

Whoever imports this is skipped where torch is not installed.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from torch_weights import to_torch

from configs import base
from ptlr_jax.method.registry import STAGES

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
reference: Any = pytest.importorskip(
  "benchmarks.torch_reference", reason="torch is not installed"
)

C, KEY = 3, jax.random.key(0)
WIDTHS = {"rgb": 5, "flow": 4}
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


class Case(NamedTuple):
  """Videos of `lengths` padded to `size`; one scale s for the ILG."""

  size: int
  lengths: tuple[int, ...]
  scale: float = 0.7312
  streams: tuple[str, ...] = ("rgb", "flow")

  @property
  def padded(self):
    return any(length < self.size for length in self.lengths)


def assert_close(ours, theirs, dtype):
  """Equal to TOLERANCE, relative to the largest absolute value of `theirs`."""
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert (ours.dtype, ours.shape) == (np.dtype(dtype), theirs.shape)
  assert ours.dtype == theirs.dtype
  limit = TOLERANCE[dtype] * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


def assert_trees_close(ours, theirs, dtype):
  """The same of a Flax tree and arrays named as in a state dict."""
  carried = to_torch(ours)
  assert carried.keys() == theirs.keys()
  for name, array in carried.items():
    assert_close(array, theirs[name], dtype)


@functools.cache
def stage(name, streams=("rgb", "flow"), dropout=0.0):
  """configs/base.py's stage at test width."""
  options = base.get_config()[name]
  sizes = {"filter_width": 6, "cas_width": 7} if name == "ilg" else {"width": 6}
  options.model.update({**sizes, "dropout": dropout})
  if name == "ilg":
    options.streams = streams
  return STAGES[name](C, options)


def network(name, streams=("rgb", "flow"), dropout=0.0):
  """The reference's network for the same."""
  fused = sum(WIDTHS.values())
  if name == "ots":
    return reference.NetworkOts(fused, C, 6, dropout)
  if name == "rts":
    return reference.NetworkRts(fused, C, 6, dropout)
  features = {s: WIDTHS.get(s, fused) for s in streams}
  return reference.Ilg(
    features, C, filter_width=6, cas_width=7, dropout=dropout
  )


def parameters(name, streams, dtype):
  """Random ones, large enough for CASs that are not nearly uniform."""
  rng = np.random.default_rng(1)
  state = network(name, streams).state_dict()
  draw = {n: rng.uniform(-0.6, 0.6, p.shape) for n, p in state.items()}
  return {n: array.astype(dtype) for n, array in draw.items()}


def load(net, state):
  state = {n: torch.from_numpy(array) for n, array in state.items()}
  net.to(next(iter(state.values())).dtype).load_state_dict(state)
  return net


def batch_of(case, dtype, seed=0):
  """A batch of a stage; what lies in padding is no zero."""
  rng = np.random.default_rng(seed)
  shape = len(case.lengths), case.size
  mask = np.arange(case.size) < np.array(case.lengths)[:, None]
  selected = mask & (rng.random(shape) < 0.7)
  labels = np.eye(C)[np.arange(shape[0]) % C] + np.eye(C)[0]
  return {
    "features": {
      name: rng.normal(size=(*shape, width)).astype(dtype)
      for name, width in WIDTHS.items()
    },
    "mask": mask,
    "labels": labels.clip(max=1).astype(dtype),
    "scale": np.full(len(case.streams), case.scale, dtype),
    "scale_grid": np.zeros(2 * case.size, dtype),
    "targets": np.eye(C + 1, dtype=dtype)[rng.integers(0, C + 1, shape)],
    "selected": selected,
  }


def torch_inputs(name, case, batch):
  """The arguments of the reference's losses and steps, after the network."""
  features = {
    n: torch.from_numpy(x).transpose(1, 2) for n, x in batch["features"].items()
  }
  features["fused"] = torch.cat([features["rgb"], features["flow"]], dim=1)
  # A batch without padding takes the vectorised way.
  lengths = case.lengths if case.padded else None
  if name == "ilg":
    labels = torch.from_numpy(batch["labels"])
    return {s: features[s] for s in case.streams}, labels, case.scale, lengths
  targets = torch.from_numpy(batch["targets"]).transpose(1, 2)
  return (
    features["fused"],
    targets,
    torch.from_numpy(batch["selected"]),
    lengths,
  )
