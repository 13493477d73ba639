"""The timeline of a video: curves of its classes, detections, ground truth.

Drawn without pyplot, so that no window is opened and no setting of the user's
is touched. Colours are Okabe and Ito's, which the colour-blind tell apart.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ptlr_jax.io import storage

FORMATS = ("png", "pdf", "svg")
CLASSES = 6  # at most, in one picture
_NAMES = {"ilg": "ILG", "ots": "OTS", "rts": "RTS"}
_CURVES = {"ilg": "#8c8c8c", "ots": "#0072b2", "rts": "#d55e00"}
_FOUND, _TRUE, _INK = "#009e73", "#3c3c3c", "#333333"
_WRITTEN: Any = {"ha": "center", "va": "center", "color": "white", "size": 5.5}
_STYLE: Any = {
  "font.family": "sans-serif",
  "font.size": 7.5,
  "axes.edgecolor": _INK,
  "axes.labelcolor": _INK,
  "axes.linewidth": 0.6,
  "xtick.color": _INK,
  "ytick.color": _INK,
  "text.color": _INK,
  "pdf.fonttype": 42,  # letters that journals accept, and editors can edit
  "svg.fonttype": "none",
  "svg.hashsalt": "ptlr_jax",  # equal pictures are equal files
}
_LANE, _GAP = 0.15, 0.07  # inches: of a bar, and below the curves
_CURVE, _TOP, _BOTTOM = 0.72, 0.4, 0.36
_LEFT, _RIGHT, _BETWEEN = 0.92, 0.12, 0.24

Truth = Iterable[Sequence[Any]] | None
Lane = tuple[str, str, Sequence[Sequence[Any]]]
Detected: TypeAlias = Any  # VideoDetections, which calls this module
Segment: TypeAlias = Any  # likewise


class Timeline(Figure):
  """A figure that notebooks show, whether pyplot was imported or not."""

  def _repr_png_(self) -> bytes:
    buffer = io.BytesIO()
    self.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def draw_timeline(
  found: Detected,
  truth: Truth = None,
  *,
  share: float = 0.5,
  classes: Sequence[str] = (),
  width: float = 7.0,
  lanes: Sequence[Lane] = (),
) -> Timeline:
  """The picture of a video, a panel a class, the class of the best score first.

  A panel has the class's CAS of every network, and below it the detections of
  `Detected.apart(share)`, the deeper the higher their score, and with `truth`,
  (start, end, label) in seconds, the true instances. `classes` chooses the
  panels; by default those detected, and those that are true. `width`: inches.
  `lanes` are further bars below, (name, colour, [(start, end, label)]).
  """
  true = None if truth is None else [(s, e, str(c)) for s, e, c in truth]
  shown = found.apart(share)
  panels = list(classes) or _panels(found, shown, true)
  with mpl.rc_context(_STYLE):
    return _drawn(found, shown, true, panels, width, lanes)


def write_figure(figure: Figure, path: Path) -> None:
  """Writes the picture, whole or not at all, in the form that its name says."""
  form = path.suffix.removeprefix(".") or "png"
  # Without a date: equal pictures are equal files.
  dated = {"pdf": "CreationDate", "svg": "Date"}.get(form)
  buffer = io.BytesIO()
  with mpl.rc_context(_STYLE):
    figure.savefig(
      buffer,
      format=form,
      dpi=200,
      metadata={dated: None} if dated else None,
    )
  storage.write_bytes(path, buffer.getvalue())


def _panels(
  found: Detected, shown: Sequence[Segment], true: list[Any] | None
) -> list[str]:
  """The classes to show: those of the detections, then other true ones; where
  there is neither, the one of the highest score."""
  names = [s.label for s in sorted(shown, key=lambda s: -s.score)]
  names += [name for *_, name in true or ()]
  best = max(found.scores, key=lambda name: found.scores[name])
  return list(dict.fromkeys(names))[:CLASSES] or [best]


def _drawn(
  found: Detected,
  shown: Sequence[Segment],
  true: list[Any] | None,
  panels: Sequence[str],
  width: float,
  others: Sequence[Lane],
) -> Timeline:
  lanes = (1 if true is None else 2) + len(others)
  panel = _CURVE + _GAP + lanes * _LANE
  height = _TOP + _BOTTOM + len(panels) * panel + (len(panels) - 1) * _BETWEEN
  figure = Timeline(figsize=(width, height), facecolor="white")
  end = _end(found, true)
  bottom = height - _TOP
  for i, name in enumerate(panels):
    bottom -= _CURVE
    box = (_LEFT, bottom, width - _LEFT - _RIGHT, _CURVE)
    axes = _axes(figure, box, (width, height), end)
    _curves(axes, found, name)
    own = [s for s in shown if s.label == name]
    for one in own:
      axes.axvspan(one.start, one.end, color=_FOUND, alpha=0.1, lw=0)
    score = found.scores.get(name)
    said = "" if score is None else f"   video score {score:.2f}"
    axes.set_title(name, loc="left", fontsize=8, fontweight="bold", pad=3)
    axes.set_title(said, loc="right", fontsize=6.5, color="#777777", pad=3)
    size = _GAP + lanes * _LANE
    box = (_LEFT, bottom - size, width - _LEFT - _RIGHT, size)
    below = _axes(figure, box, (width, height), end)
    _lanes(below, own, found, true, name, size, others)
    bottom -= size + _BETWEEN
    _time_axis(below, end, last=i == len(panels) - 1)
  _heading(figure, found, true, width, height)
  return figure


def _axes(
  figure: Figure,
  box: tuple[float, float, float, float],
  whole: tuple[float, float],
  end: float,
) -> Axes:
  """Axes at a place in inches, (left, bottom, width, height)."""
  left, bottom, wide, high = box
  x, y = whole
  axes = figure.add_axes((left / x, bottom / y, wide / x, high / y))
  axes.set_xlim(0.0, end)
  axes.tick_params(length=2.5, width=0.6, pad=2, labelsize=6.5)
  return axes


def _end(found: Detected, true: list[Any] | None) -> float:
  """Where the picture ends, in seconds: with the features, or what is true."""
  ends = [float(end) for _, end, _ in true or ()]
  return max([float(found.times[-1]) + _half(found), *ends])


def _half(found: Detected) -> float:
  """Half of the seconds from one segment to the next."""
  times = found.times
  return float(times[1] - times[0]) / 2 if len(times) > 1 else float(times[0])


def _name(net: str) -> str:
  return _NAMES.get(net, net.upper())


def _colour(net: str) -> str:
  """Of a network's curve; of one that a plugin adds Okabe and Ito's green."""
  return _CURVES.get(net, "#009e73")


def _curves(axes: Axes, found: Detected, name: str) -> None:
  """The class's column of every CAS over time."""
  top, times, half = 1.0, found.times, _half(found)
  if name in found.classes:
    column = found.classes.index(name)
    for net, cas in found.cas.items():
      y = cas[:, column]
      top = max(top, float(y.max()))
      line = 0.9 if net == "ilg" else 1.2
      # To both ends of the features, where detection holds the last value.
      axes.plot(
        [times[0] - half, *times, times[-1] + half],
        [y[0], *y, y[-1]],
        color=_colour(net),
        lw=line,
        solid_joinstyle="round",
      )
  axes.set_ylim(min(0.0, *axes.get_ylim()) if top > 1 else 0.0, 1.06 * top)
  axes.set_yticks([0, 0.5, 1] if top == 1 else [0, round(top, 1)])
  axes.set_ylabel("CAS", fontsize=7, labelpad=3)
  axes.grid(axis="y", color="#e4e4e4", lw=0.5)
  axes.set_axisbelow(True)
  for side in ("top", "right"):
    axes.spines[side].set_visible(False)
  axes.tick_params(axis="x", length=0, labelbottom=False)


def _lanes(
  axes: Axes,
  own: Sequence[Segment],
  found: Detected,
  true: list[Any] | None,
  name: str,
  size: float,
  others: Sequence[Lane],
) -> None:
  """Bars of what was found, and of what is true, one below the other."""
  axes.set_ylim(-size, 0)
  axes.patch.set_visible(False)
  best = max((s.score for s in found.segments), default=1.0)
  thick = 0.72 * _LANE
  ticks = [(-_GAP - 0.5 * _LANE, "detected")]
  for one in own:
    depth = float(np.clip(one.score / best, 0.0, 1.0)) if best > 0 else 1.0
    axes.barh(
      ticks[0][0],
      one.end - one.start,
      thick,
      one.start,
      color=_FOUND,
      alpha=0.45 + 0.55 * depth,
      lw=0,
    )
    if one.end - one.start > 0.035 * axes.get_xlim()[1]:
      axes.text(
        (one.start + one.end) / 2,
        ticks[0][0] - 0.006,
        f"{one.score:.2f}",
        **_WRITTEN,
      )
  if true is not None:
    ticks.append((ticks[0][0] - _LANE, "ground truth"))
    for start, end, label in true:
      if label == name:
        axes.barh(ticks[1][0], end - start, thick, start, color=_TRUE, lw=0)
  for said, ink, bars in others:
    ticks.append((ticks[-1][0] - _LANE, said))
    for start, end, label in bars:
      if label == name:
        axes.barh(ticks[-1][0], end - start, thick, start, color=ink, lw=0)
  axes.set_yticks([y for y, _ in ticks], [text for _, text in ticks])
  axes.tick_params(axis="y", length=0, pad=3)
  for side in ("top", "right", "left"):
    axes.spines[side].set_visible(False)


def _time_axis(axes: Axes, end: float, last: bool) -> None:
  minutes = end > 180
  steps = [1, 1.5, 3, 6, 10] if minutes else [1, 2, 2.5, 5, 10]
  axes.xaxis.set_major_locator(MaxNLocator(9, steps=steps))
  if minutes:

    def clock(x: float, _: Any) -> str:
      return f"{int(x // 60)}:{int(x % 60):02d}"

    axes.xaxis.set_major_formatter(FuncFormatter(clock))
  if last:
    axes.set_xlabel(f"time ({'min:s' if minutes else 's'})", labelpad=2)
  else:
    axes.tick_params(axis="x", labelbottom=False)


def _heading(
  figure: Figure,
  found: Detected,
  true: list[Any] | None,
  width: float,
  height: float,
) -> None:
  """The video's name, and what the colours are."""
  handles: list[Any] = [
    Line2D([], [], color=_colour(net), lw=1.4, label=_name(net))
    for net in found.cas
  ]
  handles.append(Patch(color=_FOUND, label="detected"))
  if true is not None:
    handles.append(Patch(color=_TRUE, label="ground truth"))
  figure.legend(
    handles=handles,
    loc="upper right",
    bbox_to_anchor=(1 - _RIGHT / width, 1 - 0.02 / height),
    ncols=len(handles),
    frameon=False,
    fontsize=6.5,
    handlelength=1.3,
    handleheight=0.6,
    columnspacing=1.2,
    handletextpad=0.5,
    borderaxespad=0.2,
  )
  name = found.video if len(found.video) < 45 else f"{found.video[:42]}..."
  figure.text(
    _LEFT / width, 1 - 0.11 / height, name, va="center", ha="left", fontsize=8
  )
