"""Tests of ptlr_jax.inference.timeline and .video_detections."""

import sys

import numpy as np
import pytest

from ptlr_jax.inference import video_detections
from ptlr_jax.inference.video_detections import Segment, VideoDetections
from ptlr_jax.runtime.errors import InputError

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
from matplotlib import image

from ptlr_jax.inference import timeline

CLASSES = ("jump", "run", "throw")
TIMES = 0.32 + 0.64 * np.arange(40)
SEGMENTS = [
  Segment("run", 4.0, 8.0, 0.9),
  Segment("run", 5.0, 8.5, 0.8),
  Segment("jump", 15.0, 17.0, 0.7),
  Segment("run", 12.0, 14.0, 0.5),
  Segment("throw", 20.0, 25.0, 0.2),
]


def _found(segments=SEGMENTS, times=TIMES, low=0.0, high=1.0):
  rng = np.random.default_rng(0)
  cas = {
    net: rng.uniform(low, high, (len(times), 4))
    for net in ("ilg", "ots", "rts")
  }
  scores = {"jump": 0.3, "run": 0.6, "throw": 0.1}
  return VideoDetections("clip", list(segments), scores, cas, times, CLASSES)


def _panels(figure):
  """{class: (axes of its curves, axes of its bars)}, from top to bottom."""
  axes = figure.axes
  return {
    top.get_title(loc="left"): (top, below)
    for top, below in zip(axes[::2], axes[1::2], strict=True)
  }


def _bars(axes):
  """The (start, end) of every bar of each lane, the lanes by their names."""
  names = [text.get_text() for text in axes.get_yticklabels()]
  lanes = {name: [] for name in names}
  for bar in axes.patches:
    middle = bar.get_y() + bar.get_height() / 2
    lane = np.abs(axes.get_yticks() - middle).argmin()
    end = bar.get_x() + bar.get_width()
    lanes[names[lane]].append((round(bar.get_x(), 6), round(end, 6)))
  return lanes


def test_of_overlapping_segments_the_best_is_named():
  assert _found().apart() == [SEGMENTS[0], SEGMENTS[3], SEGMENTS[2]]
  assert _found().apart(share=0.1)[-1] == SEGMENTS[4]
  assert _found([]).apart() == []


def test_every_detected_class_has_its_curves_and_its_bars():
  found = _found()
  panels = _panels(found.plot())
  assert list(panels) == ["run", "jump"]
  curves, bars = panels["run"]
  assert _bars(bars) == {"detected": [(4.0, 8.0), (12.0, 14.0)]}
  assert curves.get_xlim() == pytest.approx((0.0, 25.6))
  assert len(curves.lines) == 3
  for line, cas in zip(curves.lines, found.cas.values(), strict=True):
    np.testing.assert_array_equal(line.get_ydata()[1:-1], cas[:, 1])
    np.testing.assert_array_equal(line.get_xdata()[1:-1], TIMES)


def test_the_truth_has_a_lane_and_its_undetected_classes_a_panel():
  truth = [(3.0, 7.0, "run"), (21.0, 24.0, "throw"), (1.0, 30.0, "fly")]
  panels = _panels(_found().plot(truth=truth))
  assert list(panels) == ["run", "jump", "throw", "fly"]
  assert _bars(panels["run"][1])["ground truth"] == [(3.0, 7.0)]
  assert _bars(panels["jump"][1])["ground truth"] == []
  assert _bars(panels["throw"][1])["detected"] == []
  # It reaches as far as what is true, and a class of others has no curve.
  assert panels["run"][0].get_xlim()[1] == 30.0
  assert not panels["fly"][0].lines


def test_without_detections_the_likeliest_class_is_shown():
  assert list(_panels(_found([]).plot())) == ["run"]


def test_chosen_classes_are_the_panels():
  figure = _found().plot(classes=["throw"], share=0.0)
  assert _bars(_panels(figure)["throw"][1]) == {"detected": [(20.0, 25.0)]}


@pytest.mark.parametrize(
  "how",
  [
    {"times": TIMES[:1]},
    {"low": -3.0, "high": 5.0},
    {"segments": [Segment("run", 0.0, 1.0, -0.2)]},
    {"times": TIMES * 40},
  ],
)
def test_odd_curves_stay_in_the_picture(how):
  figure = _found(**how).plot()
  for curves, _ in _panels(figure).values():
    low, high = curves.get_ylim()
    for line in curves.lines:
      assert low <= line.get_ydata().min()
      assert line.get_ydata().max() <= high


def test_long_videos_count_in_minutes():
  (_, bars) = _panels(_found(times=TIMES * 40).plot())["run"]
  labels = [bars.xaxis.get_major_formatter()(x, 0) for x in (0, 90, 600)]
  assert labels == ["0:00", "1:30", "10:00"]


@pytest.mark.parametrize("form", timeline.FORMATS)
def test_equal_pictures_are_equal_files(tmp_path, form):
  for name in ("a", "b"):
    _found().plot(tmp_path / f"{name}.{form}")
  a, b = ((tmp_path / f"{name}.{form}").read_bytes() for name in ("a", "b"))
  assert a == b
  start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[form]
  assert a.startswith(start)
  if form == "svg":
    assert b"ground truth" not in a
    assert b">jump<" in a


def test_nothing_is_cut_off(tmp_path):
  _found().plot(tmp_path / "a.png", truth=[(3.0, 7.0, "run")])
  pixels = image.imread(tmp_path / "a.png")[..., :3]
  assert pixels.shape[1] == 1400
  for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
    assert (edge == 1.0).all()
  assert (pixels < 0.5).any()


def test_a_notebook_shows_it_without_pyplot():
  before = "matplotlib.pyplot" in sys.modules
  assert _found().plot()._repr_png_().startswith(b"\x89PNG")
  assert ("matplotlib.pyplot" in sys.modules) is before


def test_an_absent_package_is_named_with_its_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.delitem(sys.modules, "ptlr_jax.inference.timeline")
  monkeypatch.delattr("ptlr_jax.inference.timeline")
  with pytest.raises(InputError, match=r"ptlr-jax\[predict\]"):
    _found().plot()
  with pytest.raises(InputError, match="matplotlib"):
    video_detections.import_timeline()
