"""The documentation as a site: the pages of this folder and an API reference.

.venv/bin/pip install -c launch/requirements-test.txt -e '.[docs]'
.venv/bin/python -m sphinx -W -b html docs build/docs

Nothing is fetched, when it is built or when it is read.
"""

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import ptlr_jax
from ptlr_jax.runtime import schema

project = "ptlr_jax"
author = "The ptlr_jax maintainers"
release = ptlr_jax.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
smartquotes = False  # -- begins a flag
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {
  "description": "Weakly supervised temporal action localization in JAX",
  "font_family": "system-ui, sans-serif",
  "page_width": "76rem",
}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
toc_object_entries = False


# The pages name each other as files; the pages of api/ are a sentence each, and
# what modules there are is read here.


def _modules(package: str) -> list[str]:
  """A package and its modules, those of packages below it only if they have no
  page of their own."""
  folder = Path(str(ptlr_jax.__file__)).parent.parent / package.replace(
    ".", "/"
  )
  found = [package]
  for module in pkgutil.iter_modules([str(folder)], f"{package}."):
    page = module.name.removeprefix("ptlr_jax.")
    if not module.ispkg:
      found.append(module.name)
    elif not (Path(__file__).parent / f"api/{page}.md").exists():
      found += _modules(module.name)
  return found


def _config_tables() -> str:
  """A table of keys for every section of the configuration."""
  sections: dict[str, str] = {"general": ""}
  for name, default, kind, meaning in schema.reference():
    section = name.partition(".")[0] if "." in name else "general"
    row = f"| `{name}` | `{default}` | {kind} | {meaning} |\n"
    sections[section] = sections.get(section, "") + row
  head = "| key | default | values | meaning |\n|---|---|---|---|\n"
  return "".join(f"\n## {x}\n\n{head}{rows}" for x, rows in sections.items())


def _fill(app, page, source):
  """Makes names of pages links; puts the keys of the configuration on theirs,
  and the modules of a package on its own."""
  if page == "CONFIG":
    source[0] += _config_tables()
  if not page.startswith("api/"):
    source[0] = re.sub(
      r"`((?:docs/)?([A-Z0-9_]+\.md))`", r"[`\1`](\2)", source[0]
    )
    return
  package = page.removeprefix("api/")
  package = package if package == "ptlr_jax" else f"ptlr_jax.{package}"
  for name in _modules(package):
    source[0] += (
      f"\n## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n"
      "```\n"
    )


# Docstrings are plain text with `names` and blocks that are indented: commands,
# shapes, tables. Sphinx reads reStructuredText.


def _escaped(text: str) -> str:
  parts = re.split(r"`([^`]+)`", text)
  for i, part in enumerate(parts):
    if i % 2:
      parts[i] = f"\\ ``{' '.join(part.split())}``\\ "
    else:
      parts[i] = re.sub(r"([\\*|_`])", r"\\\1", part)
  return "".join(parts)


def _literal(lines: list[str]) -> list[str]:
  return ["::", "", *(f"    {line}" for line in lines), ""]


def _section(name: str, lines: list[str]) -> list[str]:
  """`Args:` and its like: a list, an item for every line that is indented
  least, of "name: what"."""
  depth = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
  items: list[str] = []
  for line in lines:
    begins = len(line) - len(line.lstrip()) == depth
    if items and (not begins or name == "Returns"):
      items[-1] += f" {line.strip()}"
    else:
      items.append(line.strip())
  found = [f"**{name}**", ""]
  for item in items:
    key, colon, what = item.partition(": ")
    plain = colon and name != "Returns" and re.fullmatch(r"[\w, ]+", key)
    said = f"``{key}``: {_escaped(what)}" if plain else _escaped(item)
    found.append(f"- {said}")
  return [*found, ""]


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
  """What empty lines part; a section with all that is indented below it."""
  held: list[str] = []
  for line in [*lines, ""]:
    if line.strip():
      held.append(line)
    elif held:
      yield held
      held = []


def _converted(lines: list[str]) -> Iterator[str]:
  for paragraph in _paragraphs(lines):
    section = re.fullmatch(r"(Args|Returns|Raises|Yields):", paragraph[0])
    plain = next(
      (i for i, line in enumerate(paragraph) if line.startswith(" ")),
      len(paragraph),
    )
    if section and plain == 1 and len(paragraph) > 1:
      yield from _section(section[1], paragraph[1:])
    elif paragraph[0].startswith("python ") or plain == 0:
      yield from _literal(paragraph)
    elif paragraph[0].startswith("- "):
      items = re.split(r"\n(?=- )", "\n".join(paragraph))
      for item in items:
        yield f"- {' '.join(_escaped(item.removeprefix('- ')).split())}"
      yield ""
    else:
      yield from _escaped("\n".join(paragraph[:plain])).split("\n")
      yield ""
      if plain < len(paragraph):
        yield from _literal(paragraph[plain:])


def _convert(app, what, name, obj, options, lines):
  lines[:] = list(_converted(lines))


def _leave_out(app, what, name, obj, skip, options):
  """Fields of named tuples say what they are in the tuple's docstring."""
  return True if type(obj).__name__ == "_tuplegetter" else None


def _shorten(app, what, name, obj, options, signature, returned):
  """Flax gives every module of networks a `parent` and a `name`."""
  before, found, _ = (signature or "").partition("parent: ")
  return (f"{before.rstrip(', ')})", returned) if found else None


def setup(app):
  """Called by Sphinx."""
  app.connect("source-read", _fill)
  app.connect("autodoc-process-docstring", _convert)
  app.connect("autodoc-skip-member", _leave_out)
  app.connect("autodoc-process-signature", _shorten)
