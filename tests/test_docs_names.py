"""Links, files, modules, keys and flags that the documentation names exist."""

import functools
import re
from pathlib import Path

import pytest
from documents import PAGES, ROOT, names, prose, relative

from configs import base
from ptlr_jax.runtime import config_tree

FOLDERS = ("ptlr_jax", "configs", "tests", "benchmarks", "docs", "launch")
KEYS = config_tree.flatten(base.get_config())
SECTIONS = {
  ".".join(key.split(".")[:n])
  for key in KEYS
  for n in range(1, key.count(".") + 1)
}
MODULES = {
  path.relative_to(ROOT / "ptlr_jax").with_suffix("").as_posix(): path
  for path in (ROOT / "ptlr_jax").rglob("*.py")
}
# Keys of one's own may stand below it.
OPEN = "ilg.loss.scale_losses."
_FILE = re.compile(r"\.(py|json|jsonl|npz|npy|csv|md|sh|yaml|txt|html)$")
# Of others: what is set for JAX, NumPy, SLURM, pip and so on.
FLAGS_OF_OTHERS = {
  *("--signal", "--time", "--setup_file", "--runner", "--flink_master"),
  *(
    "--dim",
    "--videos",
    "--shm-size",
    "--logdir",
    "--xla_gpu_deterministic_ops",
  ),
}


def _slug(heading: str) -> str:
  return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_link_leads_somewhere(page):
  for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
    if re.match(r"[a-z]+:", target):
      continue
    file, _, anchor = target.partition("#")
    path = (page.parent / file) if file else page
    assert path.exists(), target
    if anchor:
      headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
      assert anchor in {_slug(heading) for heading in headings}, target


def _stands_for_any(path: str) -> bool:
  stem = Path(path).stem
  return not path.startswith("docs/") and bool(re.fullmatch(r"[A-Z_]+", stem))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_file_that_is_named_is_there(page):
  for name in names(page):
    first = name.split()[0].partition(":")[0]
    if re.fullmatch(r"[A-Z_0-9]+\.md", first):
      assert any((ROOT / d / first).exists() for d in ("", "docs")), name
    folder, slash, _ = first.partition("/")
    if slash and folder in FOLDERS and not _stands_for_any(first):
      assert list(ROOT.glob(first)), name


@functools.cache
def _source(path: Path) -> str:
  return path.read_text()


def _has(path: Path, name: str) -> bool:
  text = _source(path)
  return bool(
    re.search(rf"^(def|class) {name}\b|^{name}\s*[:=]", text, re.M)
    or re.search(rf'"{name}"', text)  # of __getattr__
    or re.search(rf"^  {name},$|^from .* import .*\b{name}\b", text, re.M)
  )


def _module(parts: list[str]) -> tuple[Path | None, list[str]]:
  """The module that a dotted name begins with, and what is left of it."""
  for n in range(len(parts), 0, -1):
    for path in ("/".join(parts[:n]), "/".join([*parts[:n], "__init__"])):
      if path in MODULES:
        return MODULES[path], parts[n:]
  return None, parts


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_module_that_is_named_is_there(page):
  for name in names(page):
    for dotted in re.findall(r"\bptlr_jax((?:\.[a-zA-Z_]\w*)+)", name):
      if _FILE.search(dotted):
        continue
      path, left = _module(dotted[1:].split("."))
      if path is None:
        path, left = MODULES["__init__"], dotted[1:].split(".")
      assert not left or _has(path, left[0]), name


def _is_key(dotted: str) -> bool:
  return dotted in KEYS or dotted in SECTIONS or dotted.startswith(OPEN)


def _last_names() -> dict[str, list[Path]]:
  found: dict[str, list[Path]] = {}
  for name, path in MODULES.items():
    found.setdefault(name.split("/")[-1], []).append(path)
  return found


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_key_or_name_of_a_module_is_there(page):
  modules = _last_names()
  for name in names(page):
    match = re.match(r"(?:--)?((?:\w+\.)+\w+)(?=$|[=( ,])", name)
    if not match or _FILE.search(match[1]):
      continue
    dotted = match[1].removeprefix("config.")
    first, _, rest = dotted.partition(".")
    is_key = _is_key(dotted)
    if match[1].startswith("config.") or (
      first in SECTIONS and first not in modules
    ):
      assert is_key, name
    elif first in modules:
      attribute = rest.split(".")[0]
      assert is_key or any(_has(p, attribute) for p in modules[first]), name


@functools.cache
def _said_in_code() -> str:
  files = [
    *MODULES.values(),
    *(ROOT / "benchmarks").glob("*.py"),
    *(p for p in (ROOT / "launch").iterdir() if p.is_file()),
  ]
  return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_flag_that_is_named_is_known(page):
  for name in names(page):
    for flag in re.findall(r"(?<![\w-])--[a-zA-Z][\w.-]*", name):
      key = flag.removeprefix("--")
      if key.startswith(("config.", "noconfig.")):
        key = key.partition(".")[2].removesuffix(".")
        assert "SECTION" in key or _is_key(key), name
      elif flag not in FLAGS_OF_OTHERS:
        plain = key.removeprefix("no")
        known = rf'["\'`]{plain}["\'`]|["\'`]{key}["\'`]|--{key}\b|\b{key}[:=]'
        assert re.search(known, _said_in_code()), name


@pytest.mark.parametrize(
  "text",
  [
    "`docs/NONE.md`",
    "`ptlr_jax/none.py`",
    "`ptlr_jax.none`",
    "`detect.mns`",
    "`--config.detect.mns`",
    "`--config.detect.mns=0.5`",
    "`config_checks.NONE`",
    "`--no_such_flag`",
    "[a](none.md)",
    "[a](#none)",
  ],
)
def test_a_wrong_name_would_be_noticed(text, tmp_path):
  page = tmp_path / "page.md"
  page.write_text(f"# Page\n\nWords {text} and words.\n")
  checks = (
    test_a_link_leads_somewhere,
    test_a_file_that_is_named_is_there,
    test_a_module_that_is_named_is_there,
    test_a_key_or_name_of_a_module_is_there,
    test_a_flag_that_is_named_is_known,
  )

  def fails(check) -> bool:
    try:
      check(page)
    except AssertionError:
      return True
    return False

  assert any(fails(check) for check in checks)
