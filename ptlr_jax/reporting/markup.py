"""Pieces of HTML: every text in them is escaped here."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Markup(str):
  """HTML as it is, made of what was escaped."""

  __slots__ = ()


def text(value: Any) -> Markup:
  """Any text as HTML; what is HTML stays."""
  return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(pieces: Iterable[Any], between: str = "") -> Markup:
  """Texts and HTML one after the other."""
  return Markup(text(between).join(map(text, pieces)))


def tag(name: str, /, *inside: Any, **attributes: Any) -> Markup:
  """An element; `class_` is its class, `aria_sort` becomes aria-sort."""
  said = "".join(
    f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
    for key, value in attributes.items()
    if value is not None
  )
  return Markup(f"<{name}{said}>{join(inside)}</{name}>")


def percent(value: float | None, signed: bool = False) -> str:
  """A share in percent with a decimal, nothing for None."""
  if value is None:
    return ""
  return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"


def between(bounds: Sequence[float] | None, signed: bool = False) -> Markup:
  """An interval in percent, in small letters below a figure."""
  if bounds is None:
    return Markup("")
  low, high = (percent(x, signed) for x in bounds)
  return tag("small", f"{low}{'…' if signed else '–'}{high}")


def table(
  head: Sequence[Any],
  rows: Iterable[Sequence[Any]],
  *,
  caption: str,
  sortable: bool = False,
) -> Markup:
  """A table; the first cell of a row is its name, the others are numbers.

  It lies in a box that scrolls by itself where the window is narrow. A
  `sortable` one has buttons as headings, which the page listens to.
  """
  cells = [
    tag("th", tag("button", h, type="button") if sortable else h, scope="col")
    for h in head
  ]
  body = [
    tag(
      "tr",
      tag("th", row[0], scope="row"),
      *(tag("td", cell) for cell in row[1:]),
    )
    for row in rows
  ]
  return tag(
    "div",
    tag(
      "table",
      tag("caption", caption),
      tag("thead", tag("tr", *cells)),
      tag("tbody", *body),
      class_="sortable" if sortable else None,
    ),
    class_="scrolls",
    tabindex=0,
    role="region",
    aria_label=caption,
  )


def section(name: str, heading: str, *inside: Any) -> Markup:
  """A part of the page that its contents link to."""
  return tag(
    "section",
    tag("h2", heading, id=f"{name}-heading"),
    *inside,
    id=name,
    aria_labelledby=f"{name}-heading",
  )


def chart(name: str, label: str, small: bool = False) -> Markup:
  """Where the page draws; `label` is what is read aloud."""
  return tag(
    "div",
    id=name,
    class_="chart small" if small else "chart",
    role="img",
    aria_label=label,
  )
