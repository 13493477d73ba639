"""What the command `predict` does: files in, files out."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.data.dataset import Video
from ptlr_jax.data.files import label_tables
from ptlr_jax.data.files.features import is_constant
from ptlr_jax.data.files.text import canonical_id
from ptlr_jax.inference import (
  feature_inputs,
  run_model,
  video_detections,
  video_inputs,
)
from ptlr_jax.inference.model_file import Model
from ptlr_jax.inference.predictor import Predictor
from ptlr_jax.inference.video_detections import VideoDetections
from ptlr_jax.io import detection_files, storage
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import Progress, say, show

PART = 32  # videos in memory at a time
_EXTRACT, _UNIT = "extract", "video"
_TOLD = 20  # videos whose best detection is printed
_OFF = 1.1  # times as far apart as the model learned: worth a note

Truth = Mapping[str, Any]  # {video: its events, in seconds}


def predict_files(asked: Any, output: Path) -> tuple[int, list[str]]:
  """Predicts what was asked for (`predict.Asked`); how many videos, and a line
  for every one that could not be used.

  Raises:
    InputError: the model, or what all videos need, cannot be used.
  """
  model = (
    run_model.open_model(Path(asked.model).expanduser())
    if asked.model
    else run_model.model_from_workdir(
      Path(asked.workdir).expanduser(), asked.source, asked.stage
    )
  )
  say(f"{asked.model or asked.workdir}: {model!r}")
  truth = _truth(asked.ground_truth)
  drawing = _drawing(asked.pictures)
  problems: list[str] = []
  said = {name: getattr(asked, name) for name in ("fps", "stride", "window")}
  how = feature_inputs.InputOptions(
    model.widths, model.geometry, said, asked.trim
  )
  found = feature_inputs.find_inputs(
    how,
    {s: own for s in ("rgb", "flow") if (own := _paths(getattr(asked, s)))},
    _paths(asked.features),
    problems,
  )
  _note_spacing(model, found)
  clips = video_inputs.video_files(_paths(asked.video)) if asked.video else []
  twice = {one.id for one in found} & {clip.stem for clip in clips}
  problems += [
    f"--video: expected every video once, came {name} with features too; leave "
    "one of them out"
    for name in sorted(twice)
  ]
  clips = [clip for clip in clips if clip.stem not in twice]
  if not found and not clips:
    return 0, problems
  weights = {"rgb": asked.rgb_weights, "flow": asked.flow_weights}
  videos = _loaded(found, problems)
  if clips:
    seen = video_inputs.VideoInputs(model, weights, said, output)
    filmed = _filmed(seen, clips, asked.jobs, problems)
    videos = itertools.chain(videos, filmed)
  predictor = Predictor(model, asked.batch_size)
  writer = _Writer(output, drawing, asked.pictures, truth)
  return writer.write(predictor, videos, len(found) + len(clips)), problems


def _paths(given_paths: Sequence[str]) -> list[Path]:
  return [Path(path).expanduser() for path in given_paths]


def _truth(path: str) -> Truth | None:
  """{video: events} of a file of annotations; None without one."""
  if not path:
    return None
  problems: list[str] = []
  found = label_tables.read_entries(
    Path(path).expanduser(), problems, canonical_id
  )
  if problems:
    said = "--ground_truth=FILE"
    raise InputError(
      *(p.replace("--config.data.root=", said) for p in problems)
    )
  timed = {video: e.events for video, e in found.items() if e.events}
  if not timed:
    show(f"note: {path}: no video has a segment with start and end")
  return timed


def _drawing(pictures: str) -> Any:
  """The module that draws; without matplotlib none, and a note."""
  if pictures == "none":
    return None
  try:
    return video_detections.import_timeline()
  except InputError as error:
    show(f"no pictures: {error}")
    return None


def _note_spacing(
  model: Model, found: Sequence[feature_inputs.FeatureInput]
) -> None:
  """Tells of features that lie much closer, or wider, than those learned."""
  if {"fps", "stride"} - set(model.geometry):
    return
  learned = model.geometry["stride"] / model.geometry["fps"]
  steps = [one.geometry.seconds_per_segment for one in found]
  off = [s for s in steps if not 1 / _OFF < s / learned < _OFF]
  if off:
    show(
      f"note: {len(off)} of {len(steps)} videos have a segment every "
      f"{off[0]:.3g} s, the model learned from one every {learned:.3g} s"
    )


def _loaded(
  found: Sequence[feature_inputs.FeatureInput], problems: list[str]
) -> Iterator[Video]:
  for one in found:
    video = feature_inputs.load_input(one, problems)
    if video is None:
      continue
    for stream, x in video.features.items():
      if is_constant(x):
        show(
          f"note: {one.parts[stream].where}: all segments have the same "
          "features, in which nothing can be localised"
        )
    yield video


def _filmed(
  seen: video_inputs.VideoInputs,
  clips: Sequence[Path],
  jobs: int,
  problems: list[str],
) -> Iterator[Video]:
  """Features of video files; one that cannot be used does not end the rest."""
  bars = _Bars(len(clips))
  for one in seen.videos(clips, jobs, on_segment=bars.at_segment):
    bars.at_video()
    if isinstance(one, InputError):
      problems += one.problems
    else:
      yield one
  bars.close()


class _Bars:
  """Progress of extraction: in videos, or of a single one in segments."""

  def __init__(self, videos: int):
    self._done, self._alone = 0, videos == 1
    self._bar = None if self._alone else Progress(_EXTRACT, videos, unit=_UNIT)

  def at_segment(self, path: Path, done: int, expected: int) -> None:
    """Of a video `done` segments are through, of about `expected`."""
    del path
    if self._alone and expected:
      self._bar = self._bar or Progress(_EXTRACT, expected, unit="segment")
      self._bar.at(min(done, expected))

  def at_video(self) -> None:
    """Another video is through."""
    self._done += 1
    if self._bar and not self._alone:
      self._bar.at(self._done)

  def close(self) -> None:
    """Ends the bar."""
    if self._bar:
      self._bar.close()


class _Writer:
  """The files of a command, each whole or not at all."""

  def __init__(
    self, output: Path, drawing: Any, form: str, truth: Truth | None
  ):
    self._output, self._drawing = output, drawing
    self._form, self._truth = form, truth

  def write(
    self, predictor: Predictor, videos: Iterator[Video], total: int
  ) -> int:
    """Predicts and writes part by part; how many videos there were."""
    names: set[str] = set()
    lines: list[str] = []
    bar = Progress("predict", total, unit=_UNIT)
    try:
      first = next(videos, None)
      if first is None:
        return 0
      videos = itertools.chain([first], videos)
      with detection_files.writing(self._output / "detections.json") as add:
        while part := list(itertools.islice(videos, PART)):
          found = predictor(part)
          add({one.video: one.results() for one in found})
          lines.append(video_detections.csv_lines(found))
          for one in found:
            self._draw(one)
            names.add(one.video)
            if len(names) <= _TOLD:
              say(one.summary())
            bar.at(len(names))
      text = "".join([video_detections.CSV_HEADER, *lines])
      storage.write_bytes(self._output / "detections.csv", text.encode())
    finally:
      bar.close()
    return len(names)

  def _draw(self, one: VideoDetections) -> None:
    if self._drawing is None:
      return
    truth = None
    if self._truth is not None:
      truth = self._truth.get(canonical_id(one.video))
    figure = self._drawing.draw_timeline(one, truth)
    path = self._output / f"{one.video}.{self._form}"
    self._drawing.write_figure(figure, path)
