"""The documentation as a site: that all is in it, and how docstrings are read.

launch/test.sh builds it with warnings as errors, which takes some 20 s.
"""

import importlib.util
import re

import pytest
from documents import ROOT, relative

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def conf():
  """docs/conf.py, as Sphinx imports it."""
  spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
  assert spec
  assert spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_every_page_is_in_the_navigation_once():
  text = (DOCS / "index.md").read_text()
  trees = re.findall(r"```\{toctree\}\n(.*?)```", text, re.S)
  entries = [
    line
    for tree in trees
    for line in tree.split()
    if re.match(r"[A-Za-z]", line)
  ]
  named = [e for e in entries if (DOCS / f"{e}.md").exists()]
  pages = {
    path.relative_to(DOCS).with_suffix("").as_posix()
    for path in DOCS.rglob("*.md")
  }
  assert set(named) == pages - {"index"}
  assert len(set(named)) == len(named)


def test_every_module_is_on_one_page(conf):
  pages = [path.stem for path in (DOCS / "api").glob("*.md")]
  found = []
  for page in pages:
    source = ["# Title\n"]
    conf._fill(None, f"api/{page}", source)
    found += re.findall(r"automodule:: (\S+)", source[0])
  modules = {
    ".".join(
      part for part in relative(path)[:-3].split("/") if part != "__init__"
    )
    for path in (ROOT / "ptlr_jax").rglob("*.py")
  }
  assert set(found) == modules
  assert len(found) == len(modules)


def test_pages_that_are_named_are_links(conf):
  source = ["See `docs/OWN_DATA.md` and `DATA.md`, not `configs/base.py`.\n"]
  conf._fill(None, "SCALE", source)
  links = "[`docs/OWN_DATA.md`](OWN_DATA.md) and [`DATA.md`](DATA.md)"
  assert source == [f"See {links}, not `configs/base.py`.\n"]


READ = {
  "prose": (
    ["Mean of `x` over a*b, as _p and `y\nz`s."],
    ["Mean of \\ ``x``\\  over a\\*b, as \\_p and \\ ``y z``\\ s.", ""],
  ),
  "a command": (
    ["python -m a --b=C \\", "  --d"],
    ["::", "", "    python -m a --b=C \\", "      --d", ""],
  ),
  "a table below a sentence": (
    ["A batch is:", "  rgb  f32[B,T]"],
    ["A batch is:", "", "::", "", "      rgb  f32[B,T]", ""],
  ),
  "arguments": (
    ["Args:", "  x: one,", "    two.", "  y, z: `three`."],
    ["**Args**", "", "- ``x``: one, two.", "- ``y, z``: \\ ``three``\\ .", ""],
  ),
  "what is returned": (
    ["Returns:", "  a list, or", "  none: see `x`."],
    ["**Returns**", "", "- a list, or none: see \\ ``x``\\ .", ""],
  ),
  "a list": (
    ["- one", "  more;", "- two."],
    ["- one more;", "- two.", ""],
  ),
}


@pytest.mark.parametrize("kind", READ)
def test_a_docstring_becomes_what_sphinx_reads(conf, kind):
  lines, wanted = READ[kind]
  plain = [line for text in lines for line in text.split("\n")]
  assert list(conf._converted(plain)) == wanted


def test_the_site_is_built_with_warnings_as_errors():
  text = (ROOT / "launch" / "test.sh").read_text()
  assert re.search(r'^checks\+=\("sphinx .*-W\b.* docs \S+"\)$', text, re.M)
