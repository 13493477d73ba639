"""Writes the model of a finished run as one file that needs no workdir.

python -m ptlr_jax.export --workdir=RUN --output=FILE.safetensors

It holds the parameters of the ILG and of the last stage's networks, the
configuration, the class list, and what the run was made with: arrays and text,
nothing that could run. python -m ptlr_jax.predict --model=FILE takes it.

  --stage=N      another stage; 0: the ILG alone
  --source=ROOT  the data set of a run whose provenance.json does not say what
                 its classes are
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ptlr_jax.cli import command_line
from ptlr_jax.io import disk_space
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import show

USAGE = (
  "usage: python -m ptlr_jax.export --workdir=RUN --output=FILE.safetensors "
  "[--stage=N] [--source=ROOT]"
)


def _output(given: str) -> Path:
  """Where the file is written; refused before anything is read."""
  from ptlr_jax.inference import model_file

  path = Path(given).expanduser()
  if path.suffix != model_file.ENDING:
    raise InputError(
      f"--output={given}: expected a file NAME{model_file.ENDING}; {USAGE}"
    )
  disk_space.check_file(path, given)
  return path


def run_command(argv: Sequence[str]) -> None:
  """Reads the run and writes the file."""
  values = flags.FlagValues()
  for name in ("workdir", "output", "source"):
    flags.DEFINE_string(name, "", "", flag_values=values)
  flags.DEFINE_integer("stage", None, "", flag_values=values)
  command_line.read_flags(values, argv, USAGE)
  workdir, output, source = (
    str(values[name].value) for name in ("workdir", "output", "source")
  )
  for name, path in {"workdir": workdir, "output": output}.items():
    if not path:
      raise InputError(f"--{name}: expected a path, got none; {USAGE}")
  target = _output(output)
  # These import JAX.
  from ptlr_jax.inference import model_file, run_model

  model = run_model.model_from_workdir(
    Path(workdir).expanduser(), source, values["stage"].value
  )
  model_file.write_model(target, model)
  size = disk_space.size_in_words(target.stat().st_size)
  said = f"{len(model.classes)} classes, features {_widths(model.widths)}"
  show(f"{target}: {', '.join(model.params)}, {said}, {size}")


def _widths(widths: dict[str, int]) -> str:
  return " and ".join(f"{s} {width}" for s, width in widths.items())


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
