"""A trained model as one file: parameters, configuration and class list.

The file is a safetensors file, which holds arrays and text and nothing that
could run. Its tensors are NETWORK/LAYER/.../NAME; of its metadata the entry
`ptlr_jax` is a JSON object with the rest, the digest of the tensors, and the
version and digest of itself.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import FrozenConfigDict

from ptlr_jax.cli import config_checks
from ptlr_jax.data.files import sealing
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.io import disk_space, storage
from ptlr_jax.runtime.errors import InputError

FORMAT = 1  # of the file
KEY = "ptlr_jax"
ENDING = ".safetensors"
_AGAIN = "copy it again, or make it anew with python -m ptlr_jax.export"


class Model(NamedTuple):
  """What detection needs of a finished run.

  config: the resolved configuration of the run.
  classes: their names, in the order of the scores.
  widths: {stream: D} of the features.
  geometry: of the features it learned from, as far as all videos share it.
  stage: whose networks it has; 0: the ILG alone.
  params: {network: tree of f32 arrays}, the ILG first.
  made_with: what the run was made with, as provenance.json has it.
  """

  config: FrozenConfigDict
  classes: tuple[str, ...]
  widths: dict[str, int]
  geometry: dict[str, float]
  stage: int
  simulated: bool
  params: dict[str, Any]
  made_with: list[dict[str, Any]]

  def __repr__(self) -> str:
    size = sum(x.size for x in flatten_params(self.params).values())
    return (
      f"Model({', '.join(self.params)} of stage {self.stage}, "
      f"{len(self.classes)} classes, features {self.widths}, {size} parameters"
      f"{', learned from simulated features' * self.simulated})"
    )


def networks_of(config: Any, stage: int) -> tuple[str, ...]:
  """The networks that the detections of a stage come from."""
  return ("ilg", *(config.ptlr.networks if stage else ()))


def flatten_params(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"ilg/rgb/...": array} of nested trees of arrays."""
  found = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      found |= flatten_params(value, f"{prefix}{name}/")
    else:
      found[prefix + name] = value
  return found


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for name, value in flat.items():
    *folders, last = name.split("/")
    place = found
    for folder in folders:
      place = place.setdefault(folder, {})
    place[last] = value
  return found


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of names, types, shapes and values."""
  found = hashlib.sha256()
  for name in sorted(tensors):
    x = tensors[name]
    found.update(f"{name} {x.dtype.str} {x.shape}\n".encode())
    found.update(np.ascontiguousarray(x).data)
  return found.hexdigest()


def _package() -> Any:
  try:
    import safetensors
    import safetensors.numpy
  except ImportError:
    raise InputError(
      "model files need the package safetensors, which is not installed: pip "
      "install 'ptlr-jax[predict]'; or give the run itself by --workdir"
    ) from None
  return safetensors


def write_model(path: Path, model: Model) -> None:
  """Writes a model whole or not at all.

  Raises:
    InputError: safetensors is not installed.
    NoSpace: the disk is full; what was there stays.
  """
  package = _package()
  tensors = {
    name: np.ascontiguousarray(x, np.float32)  # else it would be mixed up
    for name, x in flatten_params(model.params).items()
  }
  said = model._replace(config=model.config.to_dict(), params=None)._asdict()
  del said["params"]
  whole = {
    "format": FORMAT,
    **said,
    "tensors": _digest(tensors),
    sealing.DIGEST_KEY: sealing.PLACE.decode(),
  }
  text = sealing.seal(json.dumps(whole, allow_nan=False).encode()).decode()
  size = sum(x.nbytes for x in tensors.values()) + len(text)
  temporary = storage.temporary_of(path)
  with disk_space.room_for(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      temporary.touch()
      mode = temporary.stat().st_mode
      package.numpy.save_file(tensors, temporary, {KEY: text})
      temporary.chmod(mode)  # else the user alone could read it
      storage.sync(temporary)
      temporary.replace(path)
      storage.sync(path.parent)
    finally:
      temporary.unlink(missing_ok=True)


def read_model(path: Path) -> Model:
  """The model of a file, as it was written.

  Raises:
    InputError: there is none, it is damaged, of another version or no model;
      or safetensors is not installed.
  """
  said, tensors = _contents(path, _package())
  if said.pop("tensors", None) != _digest(tensors):
    raise _damaged(path, "other parameters than its digest is of")
  del said["format"], said[sealing.DIGEST_KEY]
  if faults := list(_faults(said)):
    raise InputError(
      f"{path}: expected a model of this version, came one with {faults[0]}; "
      "use the ptlr_jax that wrote it, or export the run again"
    )
  said["classes"] = tuple(said["classes"])
  return Model(params=_nested(tensors), **said)


def _damaged(path: Path, came: str) -> InputError:
  return InputError(
    f"{path}: expected a model as it was written, came {came}; {_AGAIN}"
  )


def _contents(
  path: Path, package: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What a file says, its digest verified, and its tensors."""
  try:
    with package.safe_open(path, "np") as file:
      said = _said(path, (file.metadata() or {}).get(KEY))
      return said, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except FileNotFoundError:
    came = "no such file; give one that python -m ptlr_jax.export wrote"
  except OSError as error:
    came = f"{error.strerror or error}"
    if path.is_dir():
      came = "a folder; give that of a run as --workdir"
  except package.SafetensorError as error:
    came = f"what cannot be read ({' '.join(str(error).split()):.80}); {_AGAIN}"
  raise InputError(f"{path}: expected a {ENDING} file, came {came}")


def _said(path: Path, text: str | None) -> dict[str, Any]:
  if text is None:
    raise InputError(
      f"{path}: expected a model that python -m ptlr_jax.export wrote, came "
      f"another {ENDING} file"
    )
  try:
    said = json.loads(text)
    version = said["format"]
  except (ValueError, KeyError, TypeError):
    raise _damaged(path, "no JSON in its metadata") from None
  data = text.encode()
  if not sealing.is_sealed(data, data.rfind(b'"') - len(sealing.PLACE)):
    raise _damaged(path, "another description than its digest is of")
  if version != FORMAT:
    raise InputError(
      f"{path}: expected a model file of format {FORMAT}, came {version!r:.20};"
      " use the ptlr_jax that wrote it, or export the run again with this one"
    )
  return said


def _faults(said: dict[str, Any]) -> Iterator[str]:
  """What keeps a model from being used here; its digest was right, so that
  another version, or another program, has written it."""
  fields = set(Model._fields) - {"params"}
  if said.keys() != fields:
    yield f"other entries ({', '.join(sorted(said.keys() ^ fields)):.80})"
    return
  try:
    said["config"] = config_checks.freeze_config(said["config"])
  except (InputError, AttributeError, TypeError, ValueError) as error:
    yield f"another configuration ({str(error).splitlines()[0]})"
    return
  classes, widths = said["classes"], said["widths"]
  named = isinstance(classes, list) and all(isinstance(c, str) for c in classes)
  if not named or not classes or len(set(classes)) < len(classes):
    yield "a faulty class list"
  streams = set(said["config"].ilg.streams) - {"fused"}
  if not isinstance(widths, dict) or not streams <= set(widths) or not widths:
    yield "other streams than its configuration names"
  geometry = said["geometry"]
  names = set(Geometry.__dataclass_fields__)
  if not isinstance(geometry, dict) or not names.issuperset(geometry):
    yield "a faulty geometry"
  elif not all(
    isinstance(x, float) and math.isfinite(x) for x in geometry.values()
  ):
    yield "a geometry that is not made of numbers"
