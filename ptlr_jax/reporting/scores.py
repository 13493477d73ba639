"""Figures of a run's detections: intervals, differences, diagnosis, videos."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.dataset import Dataset, ground_truth_database
from ptlr_jax.evaluation import (
  ambiguity,
  average_precision,
  bootstrap,
  mean_ap,
  scoring,
)
from ptlr_jax.evaluation.average_precision import Scored
from ptlr_jax.evaluation.instances import detections_of, truth_of
from ptlr_jax.evaluation.protocols import protocol
from ptlr_jax.runtime.errors import InputError

TIOU = 0.5  # of the diagnosis and of the AP of single videos


class Scores(NamedTuple):
  """Results of `mean_ap.summary` by line of the table, with `intervals`.

  difference: `bootstrap.compare` of the last line and what it is held against.
  diagnosis: `scoring.diagnose` of these two, by name. videos: of these two,
  {name: {video: AP}}, see `of_videos`.
  """

  results: dict[str, dict[str, Any]]
  difference: dict[str, dict[str, Any]]
  diagnosis: dict[str, dict[str, Any]]
  videos: dict[str, dict[str, float]]


def score(
  data: Dataset,
  detections: Mapping[str, Any],
  other: tuple[str, Any] | None,
  options: Any,
  *,
  samples: int,
  seed: int,
) -> Scores:
  """Scores every line of {name: {video: detections}}, and (name, detections) of
  what the last of them is held against.

  `options` is config.evaluate. Intervals are of `samples` resamples of the
  videos, 0 for none.

  Raises:
    InputError: detections cannot be scored.
  """
  scored = {
    name: _scored(data, found, options) for name, found in detections.items()
  }
  last = next(reversed(scored))
  pair, difference = {last: scored[last]}, {}
  if other is not None:
    theirs = _scored(data, other[1], options)
    scored[other[0]] = pair[other[0]] = theirs
    difference = _difference(scored[last], theirs, samples, seed)
  results = {name: mean_ap.summary(x) for name, x in scored.items()}
  if samples:
    for name, each in scored.items():
      drawn = bootstrap.draws(len(each.found.videos), samples, seed)
      resampled = bootstrap.resampled_map(each, drawn)
      results[name]["intervals"] = bootstrap.intervals(each, resampled)
  return Scores(
    results,
    difference,
    {
      name: scoring.diagnose(each, TIOU, _grid(data))
      for name, each in pair.items()
    },
    {name: of_videos(each) for name, each in pair.items()},
  )


def _grid(data: Dataset) -> float:
  """Seconds of a segment, of most test videos."""
  steps = [video.geometry.seconds_per_segment for video in data.test]
  return float(np.median(steps))


def _scored(data: Dataset, found: Mapping[str, Any], options: Any) -> Scored:
  chosen = protocol(options.protocol)
  database = ground_truth_database(data.test, data.classes, "test")
  for video in data.test:
    end = video.geometry.end(video.num_segments)
    database[video.id]["duration"] = float(video.duration or end)
  problems: list[str] = []
  truth = truth_of(database, chosen, "ground truth", problems)
  detections = detections_of(found, truth, chosen, "detections", problems)
  if problems:
    raise InputError(*problems)
  ambiguous = None
  if options.ambiguous:
    stretches = {video.id: video.ambiguous for video in data.test}
    detections, ambiguous, _ = ambiguity.applied(
      detections, stretches, chosen, options.ambiguous
    )
  return average_precision.score(truth, detections, chosen, ambiguous)


def _difference(
  one: Scored, other: Scored, samples: int, seed: int
) -> dict[str, dict[str, Any]]:
  if not samples:
    return bootstrap.differences(one, other)
  one, other = bootstrap.together(one, other)
  drawn = bootstrap.draws(len(one.found.videos), samples, seed)
  here, there = (bootstrap.resampled_map(x, drawn) for x in (one, other))
  return bootstrap.compare(one, other, here, there)


def of_videos(scored: Scored, tiou: float = TIOU) -> dict[str, float]:
  """AP of a video's own classes among its own detections, {video: mean}.

  A detection of a class that the video does not have counts nowhere, as there
  is no precision of such a class. Videos without an instance are left out.
  """
  k = scored.protocol.tious.index(tiou)
  truth, found = scored.truth, scored.found
  classes = len(truth.labels)
  # Every class of every video is a class of its own; by decreasing score still.
  keys = found.video * classes + found.label
  order = np.argsort(keys, kind="stable")
  keys, hit = keys[order], scored.matched[k][order] >= 0
  counted = scored.counted(k)
  seen = np.cumsum(np.ones(len(keys)) if counted is None else counted[order])
  first = np.searchsorted(keys, keys)
  before = np.concatenate([[0], seen])[first]
  sizes = np.bincount(
    truth.video * classes + truth.label,
    minlength=classes * len(found.videos),
  )
  ap = average_precision.interpolated((seen - before)[hit], keys[hit], sizes)
  ap, there = ap.reshape(-1, classes), sizes.reshape(-1, classes) > 0
  return {
    video: float(ap[n][there[n]].mean())
    for n, video in enumerate(found.videos)
    if there[n].any()
  }
