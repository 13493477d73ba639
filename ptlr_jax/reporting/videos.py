"""What the viewer shows of single videos: curves, instances, proposals, labels.

Numbers are whole and few, so that a page of hundreds of videos stays small and
can be read: CASs in thousandths, times in hundredths of a second.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.inference import run_model
from ptlr_jax.inference.predictor import Predictor
from ptlr_jax.inference.video_detections import Segment, VideoDetections
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.reporting.run_record import RunRecord
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import Progress
from ptlr_jax.workdir import shares

PART = 64  # videos in memory at a time
CLASSES = 4  # of a video, besides those that are true
BEST = 20  # proposals of a class in a video
ABOUT = {
  "duration": "seconds",
  "start, step": "of the segments of the features, seconds; cas_step: of the "
  "CASs, which may be sampled",
  "ap": "AP of the video's own classes at tIoU 0.5, in thousandths: of this "
  "run, and of the compared one",
  "truth": "[class, start, end], hundredths of a second; null: not known",
  "found, other": "[class, start, end, score in thousandths, 1 where none of a "
  "better score overlaps it], of this run and of the compared one",
  "cas": "{network: {class: a number a segment, in thousandths}}",
  "labels": "{phase: {class: [first segment, last + 1, ...]}} of the selected "
  "segments; class -1 is background",
}

Labels = Mapping[str, Sequence[PseudoLabels]]  # by phase


def predictor(run: RunRecord, source: str) -> Predictor | None:
  """The networks of the last stage that is trained; None, noted, where they
  cannot be used."""
  if run.config.ptlr.cas:
    run.notes.append(
      "the run began with the CASs of another method: there are none to show"
    )
    return None
  if run.stage is None:
    run.notes.append("the ILG is not trained yet: there is no CAS to show")
    return None
  if run.stage < run.config.ptlr.stages:
    run.notes.append(
      f"the CASs are those of stage {run.stage} of {run.config.ptlr.stages}, "
      "the last that is trained"
    )
  try:
    model = run_model.model_from_workdir(run.directory, source, run.stage)
  except InputError as error:
    run.notes.append(f"there is no CAS to show: {error.lines[0]}")
    return None
  return Predictor(model)


def chosen(
  data: Dataset, ap: Mapping[str, float], tests: int, trains: int
) -> tuple[list[int], list[int]]:
  """Which test and training videos are shown, by their numbers.

  Of too many test videos the worst and the best by their AP; of the training
  videos some from all over the set.
  """
  order = sorted(
    range(len(data.test)), key=lambda i: ap.get(data.test[i].id, -1.0)
  )
  if len(order) > tests:
    order = order[: tests // 2] + order[len(order) - (tests - tests // 2) :]
  spread = np.linspace(0, len(data.train) - 1, min(trains, len(data.train)))
  return sorted(order), sorted({round(x) for x in spread.tolist()})


def training_labels(run: RunRecord, data: Dataset) -> Labels:
  """The pseudo labels of every phase that left some, {phase: a video each}."""
  found = {}
  parts = range(run.files.parts)
  for phase in run.done:
    if phase.kind == "labels":
      try:
        found[phase.name] = shares.read_labels(
          run.files, phase.name, data.train, parts
        )
      except InputError as error:
        run.notes.append(error.lines[0])
  return found


def entries(
  run: RunRecord,
  data: Dataset,
  networks: Predictor | None,
  other: Mapping[str, Any],
  ap: tuple[Mapping[str, float], Mapping[str, float]],
  *,
  tests: int,
  trains: int,
) -> list[dict[str, Any]]:
  """Entries of the chosen test and training videos, as `ABOUT` says.

  `other`: detections of the compared one; `ap`: of videos, this and its.
  """
  test, train = chosen(data, ap[0], tests, trains)
  labels = training_labels(run, data)
  found = run.detections.get(run.row, {})
  known = {
    is_test: any(video.instances for video in split)
    for is_test, split in ((True, data.test), (False, data.train))
  }
  made = []
  seen = [data.test[i] for i in test] + [data.train[i] for i in train]
  for i, (video, of) in enumerate(_with_cas(seen, networks)):
    if i < len(test):
      own, theirs = segments(found.get(video.id)), other.get(video.id)
      kept: Labels = {}
    else:
      number = train[i - len(test)]
      own, theirs = [] if of is None else of.segments, None
      kept = {name: [each[number]] for name, each in labels.items()}
    made.append(
      {
        **_entry(video, data.classes, of, own, segments(theirs), kept),
        "split": "test" if i < len(test) else "training",
        "truth": _truth(video) if known[i < len(test)] else None,
        "ap": [_thousandths(x.get(video.id)) for x in ap],
      }
    )
  return made


def without_data(
  run: RunRecord, other: Mapping[str, Any], tests: int
) -> tuple[list[dict[str, Any]], list[str]]:
  """Entries of what the detections alone say, and the names of the classes."""
  found = run.detections.get(run.row, {})
  said = [
    one for each in (found, other) for own in each.values() for one in own
  ]
  names = sorted({one["label"] for one in said})
  made = []
  for video in list(found)[:tests]:
    own, theirs = segments(found[video]), segments(other.get(video))
    end = max((s.end for s in (*own, *theirs)), default=1.0)
    made.append(
      {
        "id": video,
        "split": "test",
        "ap": [None, None],
        "duration": round(end, 2),
        "truth": None,
        "found": proposals(own, names),
        "other": proposals(theirs, names),
      }
    )
  return made, names


def _with_cas(
  videos: Sequence[Video], networks: Predictor | None
) -> Iterable[tuple[Video, VideoDetections | None]]:
  """Every video with what the networks say of it, where there are any."""
  if networks is None:
    yield from ((video, None) for video in videos)
    return
  bar = Progress("report", len(videos), unit="video")
  for a in range(0, len(videos), PART):
    part = videos[a : a + PART]
    yield from zip(part, networks(part), strict=True)
    bar.at(a + len(part))
  bar.close()


def segments(found: Sequence[Mapping[str, Any]] | None) -> list[Segment]:
  """The detections of a results file's video, by decreasing score."""
  return [
    Segment(
      one["label"],
      float(one["segment"][0]),
      float(one["segment"][1]),
      float(one["score"]),
    )
    for one in sorted(found or (), key=lambda one: -one["score"])
  ]


def _entry(
  video: Video,
  classes: Sequence[str],
  of: VideoDetections | None,
  own: Sequence[Segment],
  theirs: Sequence[Segment],
  labels: Labels,
) -> dict[str, Any]:
  geometry = video.geometry
  end = geometry.end(video.num_segments)
  entry: dict[str, Any] = {
    "id": video.id,
    "duration": round(max([end, *(i.end for i in video.instances)]), 2),
    "start": round(geometry.start, 4),
    "step": round(geometry.seconds_per_segment, 4),
    "listed": list(video.labels),
    "found": proposals(own, classes),
    "other": proposals(theirs, classes),
  }
  if of is not None:
    entry["cas_step"] = round(_step(of, entry["step"]), 4)
    entry["cas"] = {
      net: {
        str(c): np.rint(1000 * cas[:, c]).astype(int).tolist()
        for c in _shown(video, of, own)
      }
      for net, cas in of.cas.items()
    }
  if labels:
    entry["labels"] = {
      name: stretches(each[0]) for name, each in labels.items()
    }
  return entry


def _truth(video: Video) -> list[list[int]]:
  return [
    [i.label, _hundredths(i.start), _hundredths(i.end)] for i in video.instances
  ]


def _step(of: VideoDetections, step: float) -> float:
  """Seconds from one row of the CASs to the next, of sampled ones too."""
  return float(of.times[1] - of.times[0]) if len(of.times) > 1 else step


def _shown(
  video: Video, of: VideoDetections, own: Sequence[Segment]
) -> list[int]:
  """The classes with curves: the true ones, and a few that are detected, or
  else the likeliest."""
  named = list(dict.fromkeys(s.label for s in own))[:CLASSES]
  likely = max(of.scores, key=lambda name: of.scores[name])
  names = [of.classes.index(c) for c in named or [likely] if c in of.classes]
  return list(dict.fromkeys([*video.labels, *names]))


def proposals(
  segments: Sequence[Segment], classes: Sequence[str]
) -> list[list[int]]:
  """The best of every class, by decreasing score; `ABOUT` says the columns."""
  number = {name: n for n, name in enumerate(classes)}
  rows, count, clear = [], dict.fromkeys(classes, 0), {}
  for one in segments:
    if one.label not in number or count[one.label] == BEST:
      continue
    count[one.label] += 1
    kept = clear.setdefault(one.label, [])
    alone = all(one.end <= k.start or k.end <= one.start for k in kept)
    kept += [one] * alone
    rows.append(
      [
        number[one.label],
        _hundredths(one.start),
        _hundredths(one.end),
        round(1000 * one.score),
        int(alone),
      ]
    )
  return rows


def stretches(labels: PseudoLabels) -> dict[str, list[int]]:
  """Stretches of each class among the selected segments; -1: background."""
  found = {}
  last = labels.labels.shape[1] - 1
  for c in np.flatnonzero(labels.labels[labels.selected].any(0)).tolist():
    on = np.r_[False, labels.labels[:, c] & labels.selected, False]
    edges = np.flatnonzero(on[1:] != on[:-1])
    found[str(-1 if c == last else c)] = edges.tolist()
  return found


def _hundredths(seconds: float) -> int:
  return round(100 * float(seconds))


def _thousandths(value: float | None) -> int | None:
  return None if value is None else round(1000 * value)
