"""All commands as one: ptlr-jax COMMAND, or python -m ptlr_jax COMMAND.

ptlr-jax train --config=configs/simulated.py --workdir=runs/simulated

`ptlr-jax COMMAND` is `python -m ptlr_jax.MODULE`, which stays valid.
"""

import ast
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptlr_jax.cli import command_line
from ptlr_jax.runtime import config_files
from ptlr_jax.runtime.config_tree import nearest
from ptlr_jax.runtime.errors import InputError

USAGE = "usage: ptlr-jax COMMAND [--FLAG=VALUE ...]"
CONFIGS = "configs"
MODULES = {
  "train": "main",
  "tables": "tables",
  "evaluate": "evaluate",
  "report": "report",
  "prepare": "prepare",
  "extract": "extract",
  "extract-beam": "features.beam",
  "export": "export",
  "predict": "predict",
  "dump-cas": "dump_cas",
}


def _first_line(path: Path) -> str:
  doc = ast.get_docstring(ast.parse(path.read_text())) or ""
  return doc.partition("\n")[0]


def _commands() -> Iterator[str]:
  for name, module in MODULES.items():
    path = Path(__file__).parent / f"{module.replace('.', '/')}.py"
    yield f"  {name:13} {_first_line(path)}"
  yield f"  {CONFIGS:13} Lists the configurations of the package."


def _configurations() -> Iterator[str]:
  folder = config_files.folder()
  for path in sorted(folder.rglob("*.py")):
    if path.name != "__init__.py":
      name = f"{CONFIGS}/{path.relative_to(folder).as_posix()}"
      yield f"{name:42} {_first_line(path)}"


def _run(argv: Sequence[str]) -> None:
  name = argv[1] if len(argv) > 1 else ""
  if name == CONFIGS:
    print("\n".join(_configurations()))
    return
  guess = nearest(name, [*MODULES, CONFIGS])
  hint = f"did you mean {guess}?" if guess else "ptlr-jax --help lists them"
  raise InputError(f"expected a command, got {name or 'none'}; {hint}")


def main() -> None:
  """Command line entry."""
  module = MODULES.get(sys.argv[1]) if len(sys.argv) > 1 else None
  if module:
    del sys.argv[1]
    importlib.import_module(f"ptlr_jax.{module}").main()
  else:
    doc = "\n".join([__doc__ or "", *_commands()])
    command_line.execute(_run, doc, USAGE)


if __name__ == "__main__":
  main()
