"""From files and options to the whole result of an evaluation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.files.annotations import Stretches, read_stretches
from ptlr_jax.evaluation import (
  ambiguity,
  average_precision,
  bootstrap,
  diagnosis,
  files,
  mean_ap,
  protocols,
  upper_bounds,
)
from ptlr_jax.evaluation.average_precision import Scored
from ptlr_jax.evaluation.columns import MAX_SECONDS
from ptlr_jax.evaluation.files import GroundTruth
from ptlr_jax.evaluation.instances import (
  Detections,
  Truth,
  detections_of,
  truth_of,
)
from ptlr_jax.evaluation.protocols import Protocol
from ptlr_jax.runtime.errors import InputError

_Given = tuple[Detections, np.ndarray | None]


class Options(NamedTuple):
  """What to score and how; see `ptlr_jax.evaluate` for each."""

  ground_truth: str = ""
  detections: str = ""
  protocol: str = ""
  subset: str = ""
  against: str = ""
  ambiguous: str = ""
  ambiguous_rule: str = "kit"
  bootstrap: int = 1000
  seed: int = 0
  tiou: float = 0.5
  grid: float = 0.64
  diagnosis: bool = True
  lenient: bool = False


def path_of(flag: str, given: str) -> Path:
  """The path that a flag names."""
  try:
    return Path(given).expanduser()
  except RuntimeError as error:
    raise InputError(
      f"--{flag}={given}: expected a path, came one that cannot be followed: "
      f"{error}; write it whole"
    ) from None


def _checked(options: Options) -> Protocol:
  """The protocol; refuses flags that nothing can be done with."""
  problems = []
  known = protocols.PROTOCOLS
  if options.protocol not in known:
    problems.append(
      f"--protocol: expected one of {', '.join(known)}, or list, got "
      f"{options.protocol!r}"
    )
  elif options.tiou not in known[options.protocol].tious:
    tious = (f"{tiou:g}" for tiou in known[options.protocol].tious)
    problems.append(
      f"--tiou: expected a threshold of {options.protocol}, one of "
      f"{', '.join(tious)}, got {options.tiou:g}"
    )
  if options.ambiguous_rule not in ambiguity.RULES:
    problems.append(
      f"--ambiguous_rule: expected one of {', '.join(ambiguity.RULES)}, got "
      f"{options.ambiguous_rule!r}"
    )
  elif options.ambiguous_rule != "kit" and not options.ambiguous:
    problems.append(
      "--ambiguous_rule: expected stretches to use it on, got none; pass "
      "--ambiguous=FILE or --ambiguous=ground_truth"
    )
  if 0 < options.bootstrap < 100:
    problems.append(
      "--bootstrap: expected 100 resamples or more, or 0 for none, got "
      f"{options.bootstrap}"
    )
  if not 0 < options.grid < MAX_SECONDS:
    problems.append(f"--grid: expected seconds above 0, got {options.grid}")
  if problems:
    raise InputError(*problems)
  return known[options.protocol]


class _Reader:
  """Reads the files; keeps what was noted, left out and wrong."""

  def __init__(self, options: Options, protocol: Protocol):
    self.options, self.protocol = options, protocol
    self.notes: list[str] = []
    self.skipped: dict[str, int] = {}
    self.problems: list[str] = []
    self.truth, self.ground_truth = self._ground_truth()
    self.stretches = self._stretches()

  def _refuse(self, problems: Sequence[str], flag: str) -> None:
    """What is wrong with a file as a whole."""
    self.problems += (
      p.replace("--config.data.root=", f"--{flag}=") for p in problems
    )

  def _skip(self, problems: Sequence[str], path: Path, noun: str) -> None:
    """Entries that cannot be scored: refused, or counted."""
    if not self.options.lenient:
      self.problems += (
        f"{line}, or pass --lenient to leave it out" for line in problems
      )
    elif problems:
      self.skipped[str(path)] = len(problems)
      self.notes += problems[:3]
      shown = "" if len(problems) <= 3 else ", the first three of them above"
      self.notes.append(f"{path}: {len(problems)} {noun} left out{shown}")

  def _ground_truth(self) -> tuple[Truth, GroundTruth]:
    path = path_of("ground_truth", self.options.ground_truth)
    problems: list[str] = []
    faults: list[str] = []
    said = files.read_ground_truth(
      path, self.protocol, self.options.subset, self.notes, problems, faults
    )
    self._refuse(problems, "ground_truth")
    truth = truth_of(said.database, self.protocol, str(path), faults)
    self._skip(faults, path, "annotations")
    if not truth.labels and not self.problems:
      self.problems.append(
        f"{path}: expected instances in the subset {said.subset!r}, came "
        f"{len(said.database)} videos with none; pass another --subset="
      )
    lacking = set(self.protocol.expected) - set(said.database)
    if lacking:
      self.notes.append(
        f"{path}: {self.protocol.name} expects {', '.join(sorted(lacking))}, "
        "which are not there; figures are without them"
      )
    return truth, said

  def _stretches(self) -> Stretches:
    given = self.options.ambiguous
    if not given:
      return {}
    problems: list[str] = []
    path = self.ground_truth.path
    found = self.ground_truth.stretches
    if given != "ground_truth":
      path = path_of("ambiguous", given)
      found = read_stretches(path, problems)
    self._refuse(problems, "ambiguous")
    if not found and not self.problems:
      self.problems.append(
        f"--ambiguous={given}: expected ambiguous stretches in {path}, came "
        "none; pass a file of lines VIDEO START END"
      )
    return found

  def detections(self, given: str, flag: str) -> _Given:
    """The detections of a file, and which of them are ambiguous."""
    path = path_of(flag, given)
    problems: list[str] = []
    results = files.read_results(path, self.notes, problems)
    self._refuse(problems, flag)
    entries: list[str] = []
    found = detections_of(
      results, self.truth, self.protocol, str(path), entries
    )
    # Where the ground truth is broken nothing is known of its classes.
    unknown = set(found.ignored) - self.ground_truth.labels
    if unknown and not self.problems:
      entries += files.unknown_labels(path, results, self.ground_truth)
    self._skip(entries, path, "detections")
    kept = {x: n for x, n in found.ignored.items() if x not in unknown}
    found = dataclasses.replace(found, ignored=kept)
    if not self.stretches:
      return found, None
    rule = self.options.ambiguous_rule
    found, ambiguous, number = ambiguity.applied(
      found, self.stretches, self.protocol, rule
    )
    self.notes.append(
      f"{path}: {number} detections lie over ambiguous stretches, rule {rule}"
    )
    return found, ambiguous


def diagnose(scored: Scored, tiou: float, grid: float) -> dict[str, Any]:
  """All that says why the figures are what they are, for JSON."""
  k = scored.protocol.tious.index(tiou)
  return {
    "false_positives": diagnosis.profile(scored, k),
    "sensitivity": {"tiou": tiou, "by": diagnosis.table(scored, k)},
    "recall": upper_bounds.recall_curve(scored),
    "oracles": {"grid": grid, "mAP": upper_bounds.caps(scored, grid)},
  }


def _results(options: Options) -> dict[str, str]:
  """The results files by their flags."""
  given = {"detections": options.detections, "against": options.against}
  return {flag: path for flag, path in given.items() if path}


def _names(options: Options) -> list[str]:
  """What the files are called in tables: as little as tells them apart."""
  paths = [path_of(*item).absolute() for item in _results(options).items()]
  parts = [(*path.parts[:-1], path.stem) for path in paths]
  for size in range(1, max(map(len, parts)) + 1):
    names = ["/".join(part[-size:]) for part in parts]
    if len(set(names)) == len(names):
      return names
  return ["detections", "against"][: len(paths)]


def _resample(
  results: dict[str, dict[str, Any]], scored: list[Scored], options: Options
) -> None:
  """Adds intervals to the results of one file, or of two and what differs."""
  if options.against:
    scored = list(bootstrap.together(*scored))
  videos = len(scored[0].found.videos)
  weights = bootstrap.draws(videos, options.bootstrap, options.seed)
  maps = [bootstrap.resampled_map(each, weights) for each in scored]
  for result, each, its in zip(results.values(), scored, maps, strict=True):
    result["intervals"] = bootstrap.intervals(each, its)
  if options.against:
    first, second = results
    compared = bootstrap.compare(scored[0], scored[1], maps[0], maps[1])
    results[first]["against"] = {second: compared}


def evaluate(options: Options) -> dict[str, Any]:
  """Scores as the options say; the result for JSON, see the README."""
  protocol = _checked(options)
  reader = _Reader(options, protocol)
  names = _names(options)
  given = [
    reader.detections(path, flag) for flag, path in _results(options).items()
  ]
  if reader.problems:
    raise InputError(*reader.problems)
  scored = [
    average_precision.score(reader.truth, found, protocol, ambiguous)
    for found, ambiguous in given
  ]
  results = {
    name: mean_ap.summary(each)
    for name, each in zip(names, scored, strict=True)
  }
  first = results[names[0]]
  if options.against:
    first["against"] = {names[1]: bootstrap.differences(*scored)}
  if options.bootstrap:
    _resample(results, scored, options)
  if options.diagnosis:
    for result, each in zip(results.values(), scored, strict=True):
      result |= diagnose(each, options.tiou, options.grid)
  return {
    **first,
    "name": names[0],
    "others": {name: results[name] for name in names[1:]},
    "subset": reader.ground_truth.subset,
    "settings": options._asdict(),
    "notes": reader.notes,
    "skipped": reader.skipped,
  }
