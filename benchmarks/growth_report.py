"""The points of `growth` as tables in Markdown, with exponents, and a plot."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

NEAR_LINEAR = 1.2

Point = dict[str, Any]


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
  """Slope of log seconds against log size, upper half of the sizes."""
  kept = max(2, math.ceil(len(sizes) / 2))
  x, y = (np.log(np.asarray(v, float)[-kept:]) for v in (sizes, seconds))
  return float(np.polyfit(x, y, 1)[0])


def series(found: Sequence[Point], axis: str) -> dict[str, dict[str, list]]:
  """{work: {figure: its values by size}} of an axis."""
  every: dict[str, dict[str, list]] = {}
  for point in (x for x in found if x["axis"] == axis):
    own = every.setdefault(point["work"], {})
    for name, value in point.items():
      own.setdefault(name, []).append(value)
  return every


def table(found: Sequence[Point], axis: str) -> str:
  """The series of an axis in Markdown."""
  lines = []
  for work, x in series(found, axis).items():
    if not lines:
      lines.append([axis, "", *(f"{n:,}" for n in x["size"]), "exponent"])
      lines.append(["---"] * 2 + ["---:"] * (len(x["size"]) + 1))
    slope = exponent(x["size"], x["seconds"])
    flag = f"**{slope:.2f}**" if slope > NEAR_LINEAR else f"{slope:.2f}"
    cells = (1e3 * s for s in x["seconds"])
    cells = (f"{c:,.0f}" if c >= 1000 else f"{c:.3g}" for c in cells)
    lines.append([work, "ms", *cells, flag])
    cells = zip(x["mb"], x["peak_mb"], strict=True)
    lines.append(
      ["", "MB (peak)", *(f"{m:.0f} ({p:.0f})" for m, p in cells), ""]
    )
    more = {"buffers_mb": "buffers, MB", "compile_s": "compiling, s"}
    for name, said in more.items():
      if name in x:
        lines.append(["", said, *(f"{v:.3g}" for v in x[name]), ""])
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(found: Sequence[Point], path: str) -> None:
  """Seconds and MB of every axis, log-log, with a line of slope 1."""
  try:
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]
  except ImportError:
    print("no plot: matplotlib is not installed")
    return
  plt.switch_backend("svg")
  plt.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none"})
  plt.rcParams["font.size"] = 8
  axes = list(dict.fromkeys(point["axis"] for point in found))
  shape = {"figsize": (3.2 * len(axes), 5.6), "squeeze": False}
  figure, grid = plt.subplots(2, len(axes), **shape)
  names = {"seconds": "CPU seconds", "mb": "MB above the imports"}
  works = dict.fromkeys(point["work"] for point in found)
  colours = {work: f"C{n}" for n, work in enumerate(works)}
  pairs = itertools.product(names, axes)
  handles = {}
  for cell, (name, axis) in zip(grid.flat, pairs, strict=True):
    top, sizes = 0.0, np.ones(1)
    for work, x in series(found, axis).items():
      how = {"color": colours[work], "marker": ".", "linewidth": 1}
      (handles[work],) = cell.loglog(x["size"], x[name], **how)
      top, sizes = max(top, x[name][-1]), np.array(x["size"])
    (line,) = cell.loglog(sizes, top * sizes / sizes[-1], "k:", linewidth=0.8)
    handles["slope 1"] = line
    cell.set(xlabel=axis, ylabel=names[name])
    cell.set_xticks(sizes, [f"{n}" for n in sizes])
    cell.minorticks_off()
  figure.tight_layout(rect=(0, 0, 1, 0.94))
  figure.legend(
    handles.values(), handles, loc="upper center", ncols=len(handles)
  )
  figure.savefig(path, metadata={"Date": None})
