"""Files of I3D weights: those of others read, our own read and written.

Ours is one safetensors file: arrays by the names of `i3d.shapes`, and in its
metadata the stream, where they come from and a digest of them. Nothing is
unpickled but by PyTorch's reader of tensors alone.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.features import published_names
from ptlr_jax.features.published_names import Weights
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import InputError

_FORM = "ptlr_jax.i3d"
_VERSION = "1"
_DIGEST = "sha256"
_HELP = "see docs/I3D_WEIGHTS.md"


def _needs(package: str, path: Path, way_out: str) -> InputError:
  return InputError(
    f"{path}: {package} is needed to read it and is not installed; {way_out}"
  )


# Files of others.


def _from_torch(path: Path) -> dict[str, np.ndarray]:
  """The tensors of a state dict, or of the one in a checkpoint around it."""
  try:
    import torch
  except ImportError:
    raise _needs(
      "torch",
      path,
      "pip install torch, or convert it where torch is: "
      "python -m ptlr_jax.features.weights",
    ) from None
  try:
    state = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # of many kinds, for damage as for code
    raise InputError(
      f"{path}: expected a state dict of tensors alone, PyTorch cannot read it "
      f"as one ({type(error).__name__}: {_first_line(error)}); {_HELP}"
    ) from None
  if isinstance(state, Mapping) and isinstance(
    state.get("state_dict"), Mapping
  ):
    state = state["state_dict"]
  if not isinstance(state, Mapping) or not all(
    isinstance(value, torch.Tensor) for value in state.values()
  ):
    raise InputError(
      f"{path}: expected a state dict of tensors, came {type(state).__name__} "
      f"with other values; {_HELP}"
    )
  return {
    str(name): (t.float() if t.is_floating_point() else t).detach().numpy()
    for name, t in state.items()
  }


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [""])[0][:200]


def _from_npz(path: Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise InputError(
      f"{path}: expected an .npz of numbers, NumPy cannot read it "
      f"({_first_line(error)}); write it again"
    ) from None


def tensorflow_prefix(path: Path) -> Path | None:
  """What TensorFlow calls a checkpoint: the names of its files up to their
  endings; none where there is no such checkpoint."""
  if path.is_dir():
    found = sorted(path.glob("*.index"))
    if len(found) > 1:
      raise InputError(
        f"{path}: expected one checkpoint, came {len(found)}; name one, as in "
        f"--source={found[0].with_suffix('')}"
      )
    return found[0].with_suffix("") if found else None
  for end in (".index", ".meta", ".data-"):
    name, dot, _ = path.name.rpartition(end)
    if dot and path.with_name(f"{name}.index").is_file():
      return path.with_name(name)
  return path if path.with_name(f"{path.name}.index").is_file() else None


def _from_tensorflow(prefix: Path) -> dict[str, np.ndarray]:
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  try:
    import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]
  except ImportError:
    raise _needs(
      "tensorflow",
      prefix,
      "pip install tensorflow in an environment of its own and write an .npz "
      "there, by the lines in docs/I3D_WEIGHTS.md",
    ) from None
  try:
    reader = tf.train.load_checkpoint(str(prefix))
    return {
      name: reader.get_tensor(name)
      for name in reader.get_variable_to_shape_map()
    }
  except Exception as error:  # TensorFlow's own, and RuntimeError
    raise InputError(
      f"{prefix}: expected a TensorFlow checkpoint, TensorFlow cannot read it "
      f"({_first_line(error)}); copy {prefix.name}.index and "
      f"{prefix.name}.data-* once more"
    ) from None


# Our own files.


def _safetensors(path: Path) -> Any:
  try:
    import safetensors
    import safetensors.numpy
  except ImportError:
    raise _needs("safetensors", path, "pip install 'ptlr-jax[video]'") from None
  return safetensors


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
  """Of names, shapes and values."""
  found = hashlib.sha256()
  for name, array in sorted(arrays.items()):
    found.update(f"{name} {array.shape} {array.dtype}\n".encode())
    found.update(np.ascontiguousarray(array).data)
  return found.hexdigest()


def _from_safetensors(path: Path) -> Weights:
  """Ours as they were written, or those of an origin."""
  safetensors = _safetensors(path)
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      notes = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (safetensors.SafetensorError, OSError, TypeError) as error:
    raise InputError(
      f"{path}: expected a safetensors file, it cannot be read "
      f"({_first_line(error)}); convert the weights once more"
    ) from None
  if notes.get("form") != _FORM:
    return published_names.recognised(str(path), arrays)
  if notes.get("version") != _VERSION:
    raise InputError(
      f"{path}: expected weights of version {_VERSION}, came "
      f"{notes.get('version')!r}; convert them once more"
    )
  if _digest(arrays) != notes.get(_DIGEST):
    raise storage.damaged(
      path,
      "came other values than its digest is of; convert the weights once more",
    )
  return Weights(arrays, notes["stream"], notes["origin"])


def write_weights(path: Path, weights: Weights, **notes: str) -> None:
  """Writes weights as one safetensors file, whole or not at all.

  Raises:
    InputError: safetensors is not installed.
    NoSpace: the disk is full; what was there stays.
  """
  about = {
    "form": _FORM,
    "version": _VERSION,
    "stream": weights.stream,
    "origin": weights.origin,
    _DIGEST: _digest(weights.arrays),
    **notes,
  }
  data = _safetensors(path).numpy.save(weights.arrays, metadata=about)
  storage.write_bytes(path, data)


# Any file.


def _kind(path: Path) -> str:
  """What a file is, by its first bytes."""
  try:
    with path.open("rb") as file:
      head = file.read(64)
    if head[:2] == b"PK":
      with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
      return "torch" if any(n.endswith("data.pkl") for n in names) else "npz"
  except zipfile.BadZipFile:
    raise InputError(
      f"{path}: expected weights, came part of a file; get it once more"
    ) from None
  except OSError as error:
    raise InputError(
      f"{path}: expected a file of I3D weights, it cannot be read "
      f"({error.strerror}); {_HELP}"
    ) from None
  if head.startswith(b"version https://git-lfs"):
    raise InputError(
      f"{path}: expected weights, came a Git LFS pointer to them; run git lfs "
      "pull where it was cloned"
    )
  if head[8:9] == b"{":
    return "safetensors"
  if head[:1] == b"\x80":
    return "torch"
  came = f"came {head[:16]!r}..." if head else "it is empty"
  raise InputError(
    f"{path}: expected I3D weights (.pt, .npz, .safetensors or a TensorFlow "
    f"checkpoint), {came}; {_HELP}"
  )


def read_weights(path: Path) -> Weights:
  """The weights in a file of any kind that `weights` names.

  Raises:
    InputError: there are none, or they are not of an I3D network.
  """
  if prefix := tensorflow_prefix(path):
    return published_names.recognised(str(prefix), _from_tensorflow(prefix))
  kind = _kind(path)
  if kind == "safetensors":
    return _from_safetensors(path)
  arrays = _from_torch(path) if kind == "torch" else _from_npz(path)
  return published_names.recognised(str(path), arrays)
