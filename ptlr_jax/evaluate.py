"""Scores anybody's detections, with intervals and a diagnosis.

python -m ptlr_jax.evaluate --ground_truth=G --detections=D --protocol=NAME
python -m ptlr_jax.evaluate --protocol=list

G is a JSON file of the ActivityNet form or W-TALC's folder NAME-Annotations, D
a results file of the ActivityNet form. Flags:

  --subset=S          of G; else the protocol's
  --output=FILE       the same as JSON
  --against=D2        another results file, compared on the same videos
  --bootstrap=1000    resamples of the videos for 95 % intervals; 0 for none
  --seed=0            of the resamples
  --nodiagnosis       the mAP only
  --tiou=0.5          of the diagnosis
  --grid=0.64         seconds, of the oracle on a grid
  --per_class         prints the AP of every class
  --ambiguous=FILE    lines "VIDEO START END", as THUMOS14's
                      Ambiguous_test.txt; `ground_truth` takes those of G
  --ambiguous_rule    kit or wtalc, see --protocol=list
  --lenient           leaves out what cannot be scored, and counts it
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ptlr_jax.cli import command_line
from ptlr_jax.evaluation import ambiguity, protocols, scoring, text_report
from ptlr_jax.evaluation.scoring import Options
from ptlr_jax.io import disk_space, storage
from ptlr_jax.runtime.errors import InputError

USAGE = (
  "usage: python -m ptlr_jax.evaluate --ground_truth=G --detections=D "
  "--protocol=NAME [--subset=S] [--output=FILE] [--against=D2] [--lenient]; "
  "--protocol=list explains the protocols"
)
_OWN = {"output": "", "per_class": False}


def _parse(argv: Sequence[str]) -> tuple[Options, dict[str, Any]]:
  """How to score, and the command's own flags."""
  values = flags.FlagValues()
  for name, default in (Options._field_defaults | _OWN).items():
    if isinstance(default, bool):
      flags.DEFINE_boolean(name, default, "", flag_values=values)
    elif isinstance(default, int):
      flags.DEFINE_integer(name, default, "", 0, flag_values=values)
    elif isinstance(default, float):
      flags.DEFINE_float(name, default, "", 0.0, flag_values=values)
    else:
      flags.DEFINE_string(name, default, "", flag_values=values)
  command_line.read_flags(values, argv, USAGE)
  options: Any = {name: values[name].value for name in Options._fields}
  return Options(**options), {name: values[name].value for name in _OWN}


def _checked_output(given: str, options: Options) -> Path | None:
  """Where the result is written; refused before anything is computed."""
  if not given:
    return None
  path = scoring.path_of("output", given)
  read = ("ground_truth", "detections", "against", "ambiguous")
  inputs = [scoring.path_of(flag, getattr(options, flag)) for flag in read]
  disk_space.check_file(path, given, inputs)
  return path


def run_command(argv: Sequence[str]) -> None:
  """Prints the scores, and writes them."""
  options, own = _parse(argv)
  if options.protocol == "list":
    print(f"{protocols.explain()}\n\nRules for ambiguous stretches:")
    for name, what in ambiguity.RULES.items():
      print(f"  {name}: {what}")
    return
  missing = [
    f"--{name}: expected a file, got none; {USAGE}"
    for name in ("ground_truth", "detections")
    if not getattr(options, name)
  ]
  if missing:
    raise InputError(*missing)
  output = _checked_output(own["output"], options)
  found = scoring.evaluate(options)
  if output:
    # Before anything is printed: a closed pipe loses nothing.
    storage.write_json(output, found)
  print(text_report.text(found, own["per_class"]))


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
