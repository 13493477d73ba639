"""What was found in a video: segments, and the curves that they come from."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.io import detection_files, storage
from ptlr_jax.runtime.errors import InputError


class Segment(NamedTuple):
  """A detected action from `start` to `end`, in seconds."""

  label: str
  start: float
  end: float
  score: float

  @classmethod
  def of(cls, entry: Mapping[str, Any]) -> "Segment":
    """The segment of an entry in a results file."""
    start, end = entry["segment"]
    return cls(entry["label"], start, end, entry["score"])

  def entry(self) -> dict[str, Any]:
    """The segment in a results file of the ActivityNet form."""
    segment = [self.start, self.end]
    return {"label": self.label, "score": self.score, "segment": segment}


CSV_HEADER = f"{','.join(('video', *Segment._fields))}\n"


class VideoDetections(NamedTuple):
  """The detections of one video.

  video: its name.
  segments: by decreasing score.
  scores: of the video, {class: in [0, 1]}.
  cas: {"ilg", "ots", "rts": f[T,C+1]} as detection reads them, background in
    the last column.
  times: f[T], the middle of every segment of the features, in seconds.
  classes: of the first C columns.
  """

  video: str
  segments: list[Segment]
  scores: dict[str, float]
  cas: dict[str, np.ndarray]
  times: np.ndarray
  classes: tuple[str, ...]

  def __repr__(self) -> str:
    return f"VideoDetections({self.summary()})"

  def summary(self) -> str:
    """The number of detections, and the best, in a line."""
    if not self.segments:
      return f"{self.video}: no detection"
    best, more = self.segments[0], len(self.segments)
    return (
      f"{self.video}: {more} detection{'s' * (more > 1)}, best {best.label} "
      f"{best.start:.1f}-{best.end:.1f} s ({best.score:.3f})"
    )

  def _repr_png_(self) -> bytes | None:
    """The timeline in a notebook, where matplotlib is installed."""
    picture = io.BytesIO()
    try:
      self.plot().savefig(picture, format="png")
    except InputError:
      return None
    return picture.getvalue()

  @property
  def labels(self) -> list[str]:
    """The detected classes, the one of the best segment first."""
    return list(dict.fromkeys(segment.label for segment in self.segments))

  def results(self) -> list[dict[str, Any]]:
    """The video's entry in a results file of the ActivityNet form."""
    return [segment.entry() for segment in self.segments]

  def apart(self, share: float = 0.5) -> list[Segment]:
    """Those a reader would name: of segments of a class that overlap the best,
    and none below a share of the video's best score. In order of time."""
    kept: list[Segment] = []
    floor = share * max((s.score for s in self.segments), default=0.0)
    for one in self.segments:
      rivals = (k for k in kept if k.label == one.label)
      clear = all(one.end <= k.start or k.end <= one.start for k in rivals)
      if clear and one.score >= floor:
        kept.append(one)
    return sorted(kept, key=lambda s: (s.start, s.end))

  def to_csv(self, path: str | Path) -> None:
    """Writes video, label, start, end, score: a line a segment."""
    write_detections_csv(Path(path), [self])

  def to_json(self, path: str | Path) -> None:
    """Writes a results file of the ActivityNet form."""
    detection_files.write_detections(Path(path), {self.video: self.results()})

  def plot(
    self,
    path: str | Path | None = None,
    *,
    truth: Iterable[Sequence[Any]] | None = None,
    **how: Any,
  ) -> Any:
    """The timeline as a matplotlib Figure; with a path it is written there.

    `truth`: (start, end, label), seconds; further arguments as for
    `timeline.draw_timeline`.

    Raises:
      InputError: matplotlib is not installed.
    """
    timeline = import_timeline()
    figure = timeline.draw_timeline(self, truth, **how)
    if path is not None:
      timeline.write_figure(figure, Path(path))
    return figure


def import_timeline() -> Any:
  """The module `timeline`, which needs matplotlib.

  Raises:
    InputError: that is not installed.
  """
  try:
    from ptlr_jax.inference import timeline
  except ImportError as error:
    if "ptlr_jax" in str(error.name):
      raise
    raise InputError(
      "timelines need the package matplotlib, which is not installed: pip "
      "install 'ptlr-jax[predict]'"
    ) from None
  return timeline


def csv_lines(found: Iterable[VideoDetections]) -> str:
  """video,label,start,end,score, without a header; numbers in full."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  for one in found:
    writer.writerows((one.video, *segment) for segment in one.segments)
  return text.getvalue()


def write_detections_csv(path: Path, found: Iterable[VideoDetections]) -> None:
  """Writes the segments of videos, whole or not at all."""
  storage.write_bytes(path, f"{CSV_HEADER}{csv_lines(found)}".encode())
