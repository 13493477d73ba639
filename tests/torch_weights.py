"""Parameters carried between Flax trees and torch state dicts, both ways.

Arrays are NumPy's on both sides, so that this needs no torch; whatever has the
shapes of parameters, such as gradients, travels the same way.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_CAS = {
  "cas_module/conv1": "cas.0",
  "cas_module/conv2": "cas.2",
  "cas_module/classifier": "cas.5",
}
_BASNET = {
  "filter_module/conv1": "filter.0",
  "filter_module/conv2": "filter.2",
  **_CAS,
}

# A layer of ptlr_jax: the same in benchmarks/torch_reference.py.
LAYERS = {
  **{
    f"{stream}/{ours}": f"streams.{stream}.{theirs}"
    for stream in ("rgb", "flow", "fused")
    for ours, theirs in _BASNET.items()
  },
  **_CAS,  # Network-OTS
  "conv": "stem.0",
  **{
    f"branch{m}_conv{i}": f"branches.{m - 1}.{2 * (i - 1)}"
    for m in (1, 2, 3)
    for i in range(1, m + 1)
  },
  **{
    f"branch{m}_classifier": f"branches.{m - 1}.{2 * m + 1}" for m in (1, 2, 3)
  },
}
_BACK = {theirs: ours for ours, theirs in LAYERS.items()}


def to_torch(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Kernels [taps,in,out] become weights [out,in,taps], biases stay."""
  state = {}
  flat: dict[str, Any] = flatten_dict(params, sep="/")
  for path, array in flat.items():
    layer, _, kind = path.rpartition("/")
    name = {"kernel": "weight", "bias": "bias"}[kind]
    state[f"{LAYERS[layer]}.{name}"] = np.array(np.transpose(array))
  return state


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The Flax tree that `to_torch` would give `state` for."""
  flat = {}
  for path, array in state.items():
    layer, _, kind = path.rpartition(".")
    name = {"weight": "kernel", "bias": "bias"}[kind]
    flat[f"{_BACK[layer]}/{name}"] = np.array(np.transpose(array))
  return unflatten_dict(flat, sep="/")
