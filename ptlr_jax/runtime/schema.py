"""The schema of configurations: each key's default, type, range and meaning.

`configs/base.py` declares the keys once, as a tree of `Key`s. Configurations
are made from it, completed with it and held to it.
"""

import functools
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.runtime import config_files, config_tree
from ptlr_jax.runtime.config_tree import flatten

# How messages call a value of a type, and several.
_TYPES: dict[type | None, tuple[str, str]] = {
  str: ("text", "names in quotes, as ('a', 'b')"),
  int: ("an integer", "integers"),
  float: ("a number", "numbers"),
  bool: ("True or False", ""),
}


class Key(NamedTuple):
  """A key of the configuration; its type is that of its default.

  range: interval of a number, or of each number in a tuple, as "[0, 1)".
  choices: names that it may be, or that the elements of a tuple may be.
  extensible: whether plugins may add choices.
  elements: type of the elements of a tuple without choices.
  added: of a key that earlier versions lack: (the value that means what they
    did,). Without it a run of an earlier version is refused.
  """

  default: Any
  meaning: str
  range: str = ""
  choices: tuple[str, ...] = ()
  extensible: bool = False
  elements: type | None = None
  added: tuple[Any, ...] = ()

  @property
  def expected(self) -> str:
    """What a value must be, in words."""
    many = isinstance(self.default, tuple)
    if self.choices:
      names = ", ".join(name or "''" for name in self.choices)
      return f"{'some' if many else 'one'} of {names}"
    kind = self.elements if many else type(self.default)
    words = _TYPES[kind][many]
    if self.range.endswith("inf)"):
      return f"{words} of at least {self.range[1:].partition(',')[0]}"
    return f"{words} in {self.range}" if self.range else words

  def accepts(self, value: Any, plugins: bool) -> bool:
    """Whether a value is of the type, and among the choices or in the range;
    with plugins, any name where they may add some."""
    many = isinstance(self.default, tuple)
    if many != isinstance(value, tuple):
      return False
    values = value if many else (value,)
    kind = self.elements if many else type(self.default)
    if self.choices:
      known = (self.extensible and plugins) or set(values) <= set(self.choices)
      return known and all(isinstance(x, str) for x in values)
    return all(_is_a(kind, x) and _is_within(self.range, x) for x in values)


def _is_a(kind: type | None, value: Any) -> bool:
  if kind is float:
    return type(value) in (int, float) and math.isfinite(value)
  return type(value) is kind


def _is_within(interval: str, value: Any) -> bool:
  if not interval:
    return True
  low, high = map(float, interval[1:-1].split(","))
  above = value >= low if interval[0] == "[" else value > low
  return above and (value <= high if interval[-1] == "]" else value < high)


class Open(dict[str, Key]):
  """A section that may have other keys in place of these, as streams by name.

  Only beside `config.plugins`, if `to_plugins`: losses, a network's fields.
  """

  def __init__(self, entries: Mapping[str, Key], to_plugins: bool = False):
    super().__init__(entries)
    self.to_plugins = to_plugins


def default_config(tree: Mapping[str, Any]) -> ConfigDict:
  """The defaults of a tree of keys."""
  return ConfigDict(
    {
      name: x.default if isinstance(x, Key) else default_config(x)
      for name, x in tree.items()
    }
  )


@functools.cache
def keys() -> dict[str, Key]:
  """{"ilg.steps": Key, ...} of configs/base.py."""
  return dict(_keys(config_files.base().KEYS))


@functools.cache
def open_sections(plugins: bool) -> tuple[str, ...]:
  """The sections that may have other keys, with plugins or without."""

  def found(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, entry in tree.items():
      if isinstance(entry, Open):
        if plugins or not entry.to_plugins:
          yield f"{prefix}{name}."
      elif not isinstance(entry, Key):
        yield from found(entry, f"{prefix}{name}.")

  return tuple(found(config_files.base().KEYS, ""))


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[Any]:
  for name, entry in tree.items():
    if isinstance(entry, Key):
      yield prefix + name, entry
    else:
      yield from _keys(entry, f"{prefix}{name}.")


def completed(config: Mapping[str, Any]) -> FrozenConfigDict:
  """A configuration with the keys that an earlier version lacks, at the values
  that mean what it did."""
  found = ConfigDict(config).to_dict()
  there = flatten(found)
  for name, key in keys().items():
    section = name.rpartition(".")[0]
    held = f"{section}." in open_sections(plugins=True) and any(
      other.startswith(f"{section}.") for other in there
    )
    if key.added and name not in there and not held:
      place = found
      for part in section.split(".") if section else ():
        place = place.setdefault(part, {})
      place[name.rpartition(".")[2]] = key.added[0]
  return FrozenConfigDict(found)


def is_as_before(name: str, value: Any) -> bool:
  """Whether a key that earlier versions lack means what they did."""
  key = keys().get(name)
  return bool(key and key.added and key.added[0] == value)


def problems(flat: Mapping[str, Any]) -> dict[str, str]:
  """{key: what is wrong with it} of a flattened configuration; that keys are
  missing is told of the first one."""
  plugins, found = bool(flat.get("plugins")), {}
  open_ = open_sections(plugins)
  missing = [
    name for name in keys() if name not in flat and not name.startswith(open_)
  ]
  if missing:
    others = f", with {len(missing) - 1} more" * (len(missing) > 1)
    found[missing[0]] = f"missing{others}; begin from configs/base.py"
  for name, key in keys().items():
    if name in flat and not key.accepts(flat[name], plugins):
      found[name] = f"expected {key.expected}, got {flat[name]!r}"
  for name in sorted(flat.keys() - keys().keys()):
    if plugins or name.startswith(open_):
      value = flat[name]
      if isinstance(value, float) and not math.isfinite(value):
        found[name] = f"expected a finite number, got {value!r}"
    else:
      found[name] = f"there is no such key; {suggestion(name)}"
  return found


def suggestion(name: str, known: Iterable[str] = ()) -> str:
  """Which key a misspelt name may mean."""
  leaves = list(known) or list(keys())
  last = name.rpartition(".")[2]
  same = (leaf for leaf in leaves if leaf.endswith(f".{last}"))
  guess = next(same, config_tree.nearest(name, leaves))
  return f"did you mean --config.{guess}?" if guess else "see --help_config"


def reference() -> Iterator[tuple[str, str, str, str]]:
  """(key, default, what it must be, meaning) of every key."""
  for name, key in keys().items():
    kind = key.expected
    if key.extensible:
      kind += ", or a name that a plugin adds"
    yield name, repr(key.default), kind, key.meaning


def help_text() -> str:
  """The reference as text for a terminal."""
  lines = []
  for name, default, kind, meaning in reference():
    said = f"{meaning} ({kind[0].upper()}{kind[1:]}.)"
    lines += [f"--config.{name}={default}"]
    lines += textwrap.wrap(
      said, 76, initial_indent=" " * 4, subsequent_indent=" " * 4
    )
  return "\n".join(lines)
