"""What the documentation says: its pages, blocks, commands and names."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).absolute().parents[1]
PAGES = (
  *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
  ROOT / "benchmarks" / "RESULTS.md",
  *sorted((ROOT / "docs").glob("*.md")),
)
# Their docstrings begin with how they are run, and are in the API reference.
PROGRAMS = [
  path
  for folder in ("ptlr_jax", "configs", "benchmarks", "docs", "tests")
  for path in sorted((ROOT / folder).rglob("*.py"))
  if not path.name.startswith("test_")
]
_FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1[ ]*$", re.M | re.S)
# Of a block without a name, all lines are commands; one of these holds none.
NO_COMMANDS = ("text", "json", "diff", "python", "toml", "yaml")


class Block(NamedTuple):
  """Between two fences; `kind` is the name beside the first."""

  page: str
  line: int
  kind: str
  text: str


class Command(NamedTuple):
  """A line of a shell: `words` without comments, `text` as it is written."""

  page: str
  line: int
  text: str
  words: list[str]

  def __str__(self) -> str:
    return f"{self.page}:{self.line}: {self.text}"


def relative(path: Path) -> str:
  """A page by its place in the repository."""
  return path.relative_to(ROOT).as_posix()


def blocks() -> list[Block]:
  """Of all pages; those of the site's own directives left out."""
  found = []
  for path in PAGES:
    text = path.read_text()
    for match in _FENCE.finditer(text):
      line = text.count("\n", 0, match.start(3)) + 1
      if not match[2].startswith("{"):
        found.append(Block(relative(path), line, match[2].strip(), match[3]))
  return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
  """Lines by their number, those that a backslash continues as one."""
  number = 0
  for line in text.replace("\\\n", "\\\0").split("\n"):
    yield number, " ".join(line.replace("\\\0", " ").split())
    number += 1 + line.count("\0")


def commands() -> list[Command]:
  """Of all blocks that hold commands; a && b are two."""
  found = []
  for block in blocks():
    if block.kind in NO_COMMANDS:
      continue
    for number, line in _lines(block.text):
      for part in line.split(" && "):
        if words := shlex.split(part, comments=True):
          place = block.page, block.line + number
          found.append(Command(*place, part, words))
  return found


def docstring_commands() -> list[Command]:
  """Of the docstrings of modules: lines that begin with python."""
  found = []
  for path in PROGRAMS:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    for number, line in _lines(text):
      if re.match(r"python (-m|benchmarks/)", line):
        place = relative(path), number + 1
        found.append(Command(*place, line, line.split()))
  return found


def prose(path: Path) -> str:
  """A page without its blocks."""
  return _FENCE.sub("", path.read_text())


def names(path: Path) -> list[str]:
  """What stands between backticks, on one line or two."""
  found = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(path))
  return [" ".join(name.split()) for name in found]
