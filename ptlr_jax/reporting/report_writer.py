"""What the command `report` does: a run in, a page or a picture out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.inference import video_detections
from ptlr_jax.inference.video_detections import VideoDetections
from ptlr_jax.io import disk_space, storage
from ptlr_jax.reporting import (
  curves,
  page,
  run_record,
  scores,
  sections,
  videos,
)
from ptlr_jax.reporting.run_record import Compared, RunRecord
from ptlr_jax.reporting.scores import Scores
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.workdir import phases

# Okabe and Ito's colours, as all of a timeline.
_OTHER, _LABELS = "#cc79a7", "#e69f00"
_LETTERS = 14  # of a name beside its bars


def write_report(asked: Any) -> tuple[str, list[str]]:
  """Writes what was asked for (`report.Asked`); a line about it, and notes.

  Raises:
    InputError: what was given cannot be used.
  """
  output = Path(asked.output).expanduser()
  if not asked.figure:
    page.library()  # before anything is computed
  run = run_record.read_run(Path(asked.workdir).expanduser())
  other = _other(run, asked.against)
  data = run_record.dataset(run, asked.source, asked.annotations, run.notes)
  if asked.figure:
    said = _figure(run, other, data, asked, output)
  else:
    said = _page(run, other, data, asked, output)
  return said, list(dict.fromkeys(run.notes))


def _other(run: RunRecord, given: str) -> Compared | None:
  """What the run is held against: by default the first line of
  its own table, the ILG's."""
  if given:
    return run_record.compared(Path(given).expanduser(), run)
  first = next(iter(run.detections), "")
  return Compared(first, run.detections[first]) if first != run.row else None


def _scores(
  run: RunRecord, other: Compared | None, data: Dataset | None, asked: Any
) -> tuple[Scores | None, str]:
  """The scores, or why there are none."""
  if data is None:
    return None, ""
  if fault := data.not_scorable():
    return None, fault
  if not run.detections:
    return None, "nothing is detected yet"
  named = None if other is None else (other.name, other.detections)
  found = scores.score(
    data,
    run.detections,
    named,
    run.config.evaluate,
    samples=asked.bootstrap,
    seed=0,
  )
  return found, ""


def _simulated(run: RunRecord, data: Dataset | None) -> bool | None:
  if data is not None:
    return data.simulated
  said = [s["learned_from"] for s in run.starts if "learned_from" in s]
  return said[-1]["simulated"] if said else run.metrics.get("simulated")


def _page(
  run: RunRecord,
  other: Compared | None,
  data: Dataset | None,
  asked: Any,
  output: Path,
) -> str:
  found, why = _scores(run, other, data, asked)
  name = "" if other is None else other.name
  names = [n for n in (run.row, name) if n]
  entries, classes = _entries(run, other, data, found, asked)
  listed = phases.phases(run.config)
  losses = curves.losses(run.log, listed, curves.totals(run.config, listed))
  quality = curves.quality(run.log, run.metrics, listed)
  simulated = _simulated(run, data)
  splits = dict.fromkeys(entry["split"] for entry in entries)
  lacking = "" if entries else "There is no video to show: nothing is detected."
  parts = [
    ("run", sections.what(run, other, simulated)),
    (
      "map",
      sections.scores_section(run, found, name, asked.bootstrap, why),
    ),
    (
      "viewer",
      page.viewer_section(
        [run.name, *names[1:]], splits, found is not None, lacking
      ),
    ),
    ("losses", sections.losses_section(losses)),
    ("labels", sections.labels_section(quality)),
    ("classes", sections.classes_section(run, found, name)),
    ("errors", sections.errors_section(found, names)),
    ("notes", sections.notes_section(run.notes)),
  ]
  held = {
    "about": videos.ABOUT,
    "names": {"run": run.name, "other": name},
    "classes": classes,
    "videos": entries,
    "losses": losses,
    "quality": [
      {k: line[k] for k in ("phase", *curves.SHARES) if k in line}
      for line in quality
    ],
    "profiles": [
      {"name": n, "profile": _short(found.diagnosis[n])} for n in names
    ]
    if found
    else [],
  }
  text = page.page(
    f"Run {run.name}", _summary(run, found), parts, held, bool(simulated)
  )
  storage.write_bytes(output, text.encode())
  size = disk_space.size_in_words(output.stat().st_size)
  many = "1 video" if len(entries) == 1 else f"{len(entries)} videos"
  return f"{output}: {many}, {size}"


def _short(diagnosis: Mapping[str, Any]) -> list[dict[str, float]]:
  rows = diagnosis["false_positives"]["profile"]
  return [{kind: round(x, 4) for kind, x in row.items()} for row in rows]


def _summary(run: RunRecord, found: Scores | None) -> str:
  """The run in a line."""
  state = "finished"
  if run.missing:
    state = f"not finished, {run.missing[0]} is next"
  said = [f"{run.config.data.layout} data", f"seed {run.config.seed}", state]
  result = run.metrics if found is None else found.results[run.row]
  for name, value in list(result.get("averages", {}).items())[-2:]:
    said.append(f"mAP {name} {100 * value:.1f} %")
  return ", ".join(said)


def _entries(
  run: RunRecord,
  other: Compared | None,
  data: Dataset | None,
  found: Scores | None,
  asked: Any,
) -> tuple[list[dict[str, Any]], list[str]]:
  """What the viewer shows, and the names of its classes."""
  theirs = {} if other is None else other.detections
  if data is None:
    return videos.without_data(run, theirs, asked.videos)
  ap = [] if found is None else list(found.videos.values())
  ap += [{}] * (2 - len(ap))
  made = videos.entries(
    run,
    data,
    videos.predictor(run, asked.source),
    theirs,
    (ap[0], ap[1]),
    tests=asked.videos,
    trains=asked.train_videos,
  )
  return made, list(data.classes)


# A picture of one video.


def _figure(
  run: RunRecord,
  other: Compared | None,
  data: Dataset | None,
  asked: Any,
  output: Path,
) -> str:
  timeline = video_detections.import_timeline()
  if data is None:
    raise InputError(
      f"--figure={asked.figure}: expected the data set of the run, whose "
      "features the curves are of, came none; pass --source=ROOT"
    )
  video, is_test = _video(data, asked.figure)
  networks = videos.predictor(run, asked.source)
  if networks is None:
    raise InputError(f"--figure={asked.figure}: {run.notes[-1]}")
  (of,) = networks([video])
  lanes: list[Any] = []
  if is_test and other is not None:
    lanes.append((other.name[:_LETTERS], _OTHER, _bars(of, video, other)))
  if not is_test:
    lanes += _label_lanes(run, data, video)
  truth = [(i.start, i.end, data.classes[i.label]) for i in video.instances]
  drawn = timeline.draw_timeline(of, truth or None, lanes=lanes)
  timeline.write_figure(drawn, output)
  return f"{output}: the timeline of {video.id}"


def _video(data: Dataset, name: str) -> tuple[Video, bool]:
  for split, is_test in ((data.test, True), (data.train, False)):
    for video in split:
      if video.id == name:
        return video, is_test
  known = [video.id for video in (*data.test, *data.train)]
  near = ", ".join(known[:3])
  raise InputError(
    f"--figure={name}: expected a video of the data set ({near}, ...), came "
    "another name"
  )


def _label_lanes(run: RunRecord, data: Dataset, video: Video) -> list[Any]:
  """The selected frames of a training video with an action, by phase."""
  lanes, number = [], data.train.index(video)
  start, step = video.geometry.start, video.geometry.seconds_per_segment
  for name, labels in videos.training_labels(run, data).items():
    bars = []
    for c, edges in videos.stretches(labels[number]).items():
      times = [start + step * edge for edge in edges]
      if int(c) >= 0:
        label = data.classes[int(c)]
        pairs = zip(times[::2], times[1::2], strict=True)
        bars += [(*pair, label) for pair in pairs]
    lanes.append((name, _LABELS, bars))
  return lanes


def _bars(
  of: VideoDetections, video: Video, other: Compared
) -> list[tuple[float, float, str]]:
  """The compared one's best detections that stand apart, as the picture shows
  this run's."""
  theirs = videos.segments(other.detections.get(video.id))
  apart = of._replace(segments=theirs).apart()
  return [(one.start, one.end, one.label) for one in apart]
