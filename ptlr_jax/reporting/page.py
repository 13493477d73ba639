"""The page itself: one HTML file that needs nothing besides a browser."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from ptlr_jax.reporting.markup import Markup, chart, join, section, tag
from ptlr_jax.runtime.errors import InputError

SIMULATED = (
  "Simulated features: no number here is a THUMOS14 or ActivityNet result."
)
# Nothing is fetched from anywhere, whatever is inside.
_POLICY = (
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
  "img-src data: blob:"
)
_CODE = ("drawing.js", "charts.js", "timeline.js", "viewer.js", "page.js")
_NAMES = {
  "run": "Run",
  "map": "mAP",
  "viewer": "Viewer",
  "losses": "Losses",
  "labels": "Pseudo labels",
  "classes": "Classes",
  "errors": "Errors",
  "notes": "Notes",
}


def library() -> str:
  """Plotly's JavaScript, which the page carries.

  Raises:
    InputError: the package is not installed.
  """
  try:
    from plotly import offline
  except ImportError:
    raise InputError(
      "reports need the package plotly, which is not installed: pip install "
      "'ptlr-jax[report]'"
    ) from None
  return offline.get_plotlyjs()


def _own(name: str) -> str:
  return resources.files("ptlr_jax.reporting").joinpath(name).read_text("utf-8")


def _code() -> str:
  """Our own JavaScript, whose files are one: they know each other's names."""
  return '(() => {\n"use strict";\n' + "\n".join(map(_own, _CODE)) + "})();\n"


def _script(code: str) -> Markup:
  kept = code.replace("</script", "<\\/script")  # it would end the element
  return Markup(f"<script>{kept}</script>")


def data_text(data: Mapping[str, Any]) -> str:
  """The data of the page as JSON, a line an entry of every list in it, which
  holds nothing that could end its element."""
  parts = []
  for key, value in data.items():
    said = json.dumps(value, separators=(",", ":"), allow_nan=False)
    if isinstance(value, list) and value and isinstance(value[0], dict):
      lines = [
        json.dumps(x, separators=(",", ":"), allow_nan=False) for x in value
      ]
      said = "[\n" + ",\n".join(lines) + "\n]"
    parts.append(f"{json.dumps(key)}: {said}")
  return ("{\n" + ",\n".join(parts) + "\n}").replace("<", "\\u003c")


def _select(name: str, label: str, options: Mapping[str, str]) -> Markup:
  choices = [tag("option", said, value=key) for key, said in options.items()]
  return tag(
    "label", tag("span", label), tag("select", *choices, id=name, name=name)
  )


def viewer_section(
  names: Sequence[str], splits: Iterable[str], scored: bool, why: str
) -> Markup:
  """The viewer's controls; timeline.js draws what they show."""
  if why:
    return section("viewer", "Videos", tag("p", why))
  orders = {"name": "by name"}
  if scored:
    orders = {"worst": "worst first", "best": "best first", **orders}
    if len(names) > 1:
      orders["gained"] = f"gained most on {names[1]}"
      orders["lost"] = f"lost most to {names[1]}"
  found = {
    "clear": "the best of those that overlap",
    "all": "up to 20 of a class",
  }
  measure = (
    "Best and worst go by the AP of a video's own classes at tIoU 0.5 within "
    "the video, in percent behind its name; detections of other classes do not "
    "count in it. "
  )
  return section(
    "viewer",
    "Videos",
    tag(
      "div",
      tag(
        "div",
        _select("split", "Videos of", {s: f"the {s} set" for s in splits}),
        _select("order", "Order", orders),
        _select("class-filter", "With class", {"": "any"}),
        tag(
          "label",
          tag("span", "Video"),
          tag("select", id="video", name="video", size=12),
        ),
        tag(
          "div",
          tag("button", "Previous", type="button", id="previous"),
          tag("button", "Next", type="button", id="next"),
          class_="pair",
        ),
        class_="controls",
      ),
      tag(
        "div",
        tag(
          "div",
          _select("video-class", "Class", {}),
          _select("proposals", "Proposals", found),
          class_="row",
        ),
        tag("p", id="said", aria_live="polite"),
        tag(
          "div",
          chart("timeline", "Timeline of the video"),
          id="frame",
          tabindex=0,
          role="group",
          aria_label="Timeline: left and right move, plus and minus zoom, 0 "
          "shows all",
        ),
        tag(
          "p",
          "Drag to zoom, double-click for all; with the keyboard ← → + − 0 "
          "once the timeline has the focus, and ↑ ↓ in the list of videos. ",
          measure if scored else "",
          class_="note",
        ),
        tag(
          "details",
          tag("summary", "The same as a table"),
          tag("div", id="listing"),
        ),
        class_="shown",
      ),
      class_="viewer",
    ),
  )


def page(
  title: str,
  summary: str,
  sections: Sequence[tuple[str, Markup | None]],
  data: Mapping[str, Any],
  simulated: bool,
) -> str:
  """The whole page of sections, by their ids, and of what its charts hold."""
  there = [(name, inside) for name, inside in sections if inside is not None]
  links = [tag("a", _NAMES[name], href=f"#{name}") for name, _ in there]
  banner = tag("p", SIMULATED, class_="banner") if simulated else ""
  body = join(
    [
      tag("a", "Skip to the content", href="#content", class_="skip"),
      tag(
        "header", tag("h1", title), tag("p", summary, class_="summary"), banner
      ),
      tag("nav", *links, aria_label="Contents"),
      tag("noscript", "Charts and videos need JavaScript, tables do not."),
      tag("main", *(inside for _, inside in there), id="content"),
    ]
  )
  head = join(
    [
      Markup('<meta charset="utf-8">'),
      Markup(
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
      ),
      Markup(
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
      ),
      Markup('<meta name="color-scheme" content="light dark">'),
      Markup('<link rel="icon" href="data:,">'),
      tag("title", title),
      Markup(f"<style>{_own('page.css')}</style>"),
    ]
  )
  held = Markup(
    f'<script type="application/json" id="data">{data_text(data)}</script>'
  )
  return (
    f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}\n'
    f"{held}\n{_script(library())}\n{_script(_code())}\n"
    "</body>\n</html>\n"
  )
