"""A run as one page: figures, curves, errors, and its videos to look into.

python -m ptlr_jax.report --workdir=RUN --output=report.html
python -m ptlr_jax.report --workdir=RUN --against=RUN2 --output=report.html
python -m ptlr_jax.report --workdir=RUN --figure=VIDEO --output=V.pdf

The page needs nothing but a browser: no network, no files beside it. A run that
is not finished has a page of what there is. Flags:

  --source=ROOT       the data set, of which a run keeps no path; without it
                      there are no intervals, ground truth or CAS, unless the
                      data are simulated
  --annotations=FILE  as --config.data.annotations, where the run had it
  --against=RUN2      another run on the same data, or anybody's results file of
                      the ActivityNet form; by default the run's own ILG
  --figure=VIDEO      the timeline of a video as .png, .pdf or .svg instead
  --videos=250        test videos in the viewer: of more, the worst and the best
  --train_videos=12   training videos, with their pseudo labels
  --bootstrap=1000    resamples of the videos for 95 % intervals; 0 for none
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from ptlr_jax.cli import command_line, startup
from ptlr_jax.io import disk_space
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import show

USAGE = (
  "usage: python -m ptlr_jax.report --workdir=RUN [--against=RUN2] "
  "[--source=ROOT] [--figure=VIDEO] --output=report.html"
)
PICTURES = (".png", ".pdf", ".svg")
PAGES = (".html", ".htm")


class Asked(NamedTuple):
  """The flags as they were given."""

  workdir: str = ""
  against: str = ""
  source: str = ""
  annotations: str = ""
  figure: str = ""
  output: str = ""
  videos: int = 250
  train_videos: int = 12
  bootstrap: int = 1000


def _parse(argv: Sequence[str]) -> Asked:
  values = flags.FlagValues()
  for name, default in Asked._field_defaults.items():
    if isinstance(default, int):
      flags.DEFINE_integer(name, default, "", 0, flag_values=values)
    else:
      flags.DEFINE_string(name, default, "", flag_values=values)
  command_line.read_flags(values, argv, USAGE)
  said: Any = {name: values[name].value for name in Asked._fields}
  asked = Asked(**said)
  for name in ("workdir", "output"):
    if not getattr(asked, name):
      raise InputError(f"--{name}: expected a path, got none; {USAGE}")
  _check_output(asked)
  return asked


def _check_output(asked: Asked) -> None:
  """Refuses before anything is read."""
  path = Path(asked.output).expanduser()
  endings = PICTURES if asked.figure else PAGES
  if path.suffix not in endings:
    what = "a picture" if asked.figure else "a page"
    raise InputError(
      f"--output={asked.output}: expected the name of {what}, that ends in "
      f"{' or '.join(endings)}; {USAGE}"
    )
  disk_space.check_file(path, asked.output)


def run_command(argv: Sequence[str]) -> None:
  """Writes the page, or the picture, and says what is not in it."""
  asked = _parse(argv)
  startup.settle_jax()
  from ptlr_jax.reporting import report_writer  # it imports JAX

  said, notes = report_writer.write_report(asked)
  for note in notes:
    show(f"note: {note}")
  show(said)


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
