"""From files and options to the whole result of an evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ptlr_jax import detection_map
from ptlr_jax.errors import InputError
from ptlr_jax.evaluation import (
  ambiguity,
  bootstrap,
  ceilings,
  false_positives,
  files,
  precision,
  protocols,
  sensitivity,
)
from ptlr_jax.evaluation.files import GroundTruth
from ptlr_jax.evaluation.instances import Truth, detections_of, truth_of
from ptlr_jax.evaluation.precision import Scored
from ptlr_jax.evaluation.protocols import Protocol


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


def _checked(options: Options) -> Protocol:
  """The protocol; refuses flags that nothing can be done with."""
  problems = []
  known = protocols.PROTOCOLS
  if options.protocol not in known:
    problems.append(
      f"--protocol: expected one of {', '.join(known)}, or list, got "
      f"{options.protocol!r}"
    )
  if options.ambiguous_rule not in ambiguity.RULES:
    problems.append(
      f"--ambiguous_rule: expected one of {', '.join(ambiguity.RULES)}, got "
      f"{options.ambiguous_rule!r}"
    )
  if 0 < options.bootstrap < 100:
    problems.append(
      "--bootstrap: expected 100 resamples or more, or 0 for none, got "
      f"{options.bootstrap}"
    )
  if not options.grid > 0:
    problems.append(f"--grid: expected seconds above 0, got {options.grid}")
  if problems:
    raise InputError(*problems)
  protocol = known[options.protocol]
  if options.diagnosis and options.tiou not in protocol.tious:
    raise InputError(
      f"--tiou: expected a threshold of {protocol.name}, one of "
      f"{', '.join(f'{tiou:g}' for tiou in protocol.tious)}, got "
      f"{options.tiou:g}"
    )
  return protocol


class _Reader:
  """Reads files and scores; keeps what was noted and left out."""

  def __init__(self, options: Options, protocol: Protocol):
    self.options, self.protocol = options, protocol
    self.notes: list[str] = []
    self.skipped: dict[str, int] = {}
    self.truth, self.ground_truth = self._ground_truth()
    self.stretches = self._stretches()

  def _refuse(self, problems: Sequence[str], flag: str) -> None:
    if problems:
      raise InputError(
        *(p.replace("--config.data.root=", f"--{flag}=") for p in problems)
      )

  def _skip(self, problems: Sequence[str], path: Path, noun: str) -> None:
    """Entries that cannot be scored: refused, or counted."""
    if problems and not self.options.lenient:
      raise InputError(
        *(f"{line}, or pass --lenient to leave it out" for line in problems)
      )
    if problems:
      self.skipped[str(path)] = len(problems)
      self.notes += [*problems[:3]]
      self.notes.append(f"{path}: {len(problems)} {noun} left out, as above")

  def _ground_truth(self) -> tuple[Truth, GroundTruth]:
    path = Path(self.options.ground_truth).expanduser()
    problems: list[str] = []
    said = files.read_ground_truth(
      path, self.protocol, self.options.subset, self.notes, problems
    )
    self._refuse(problems, "ground_truth")
    truth = truth_of(said.database, self.protocol, str(path), problems)
    self._skip(problems, path, "annotations")
    if not truth.labels:
      raise InputError(
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

  def _stretches(self) -> files.ambiguous.Stretches:
    given = self.options.ambiguous
    if not given:
      return {}
    if given == "ground_truth":
      found = self.ground_truth.stretches
      if not found:
        raise InputError(
          f"--ambiguous=ground_truth: expected ambiguous stretches in "
          f"{self.ground_truth.path}, came none; pass their file"
        )
      return found
    problems: list[str] = []
    found = files.ambiguous.read_stretches(Path(given).expanduser(), problems)
    self._refuse(problems, "ambiguous")
    return found

  def score(self, given: str, flag: str) -> Scored:
    """The detections of a file under the protocol."""
    path = Path(given).expanduser()
    problems: list[str] = []
    results = files.read_results(path, self.notes, problems)
    self._refuse(problems, flag)
    found = detections_of(
      results, self.truth, self.protocol, str(path), problems
    )
    if set(found.ignored) - self.ground_truth.labels:
      problems += files.unknown_labels(path, results, self.ground_truth)
    self._skip(problems, path, "detections")
    ambiguous, rule = None, self.options.ambiguous_rule
    if self.stretches:
      found, ambiguous, number = ambiguity.applied(
        found, self.stretches, self.protocol, rule
      )
      self.notes.append(
        f"{path}: {number} detections lie over ambiguous stretches, rule {rule}"
      )
    return precision.score(self.truth, found, self.protocol, ambiguous)


def diagnose(scored: Scored, tiou: float, grid: float) -> dict[str, Any]:
  """All that says why the figures are what they are, for JSON."""
  k = scored.protocol.tious.index(tiou)
  return {
    "false_positives": false_positives.profile(scored, k),
    "sensitivity": {"tiou": tiou, "by": sensitivity.table(scored, k)},
    "recall": ceilings.recall_curve(scored),
    "oracles": {"grid": grid, "mAP": ceilings.caps(scored, grid)},
  }


def _names(options: Options) -> list[str]:
  """What the files are called in tables: as little as tells them apart."""
  paths = [
    Path(p).absolute() for p in (options.detections, options.against) if p
  ]
  parts = [path.with_suffix("").parts[1:] for path in paths]
  for size in range(1, max(map(len, parts)) + 1):
    names = ["/".join(part[-size:]) for part in parts]
    if len(set(names)) == len(names):
      return names
  return ["detections", "against"]


def evaluate(options: Options) -> dict[str, Any]:
  """Scores as the options say; the result for JSON, see the README."""
  protocol = _checked(options)
  reader = _Reader(options, protocol)
  names = _names(options)
  scored = [reader.score(options.detections, "detections")]
  if options.against:
    scored.append(reader.score(options.against, "against"))
  results = {
    name: detection_map.summary(each)
    for name, each in zip(names, scored, strict=True)
  }
  first = results[names[0]]
  if options.bootstrap:
    same = scored
    if options.against:
      same = bootstrap.together(*scored)
    videos = len(same[0].found.videos)
    weights = bootstrap.draws(videos, options.bootstrap, options.seed)
    resampled = [bootstrap.resampled_map(each, weights) for each in same]
    for result, each, maps in zip(
      results.values(), same, resampled, strict=True
    ):
      result["intervals"] = bootstrap.intervals(each, maps)
    if options.against:
      first["against"] = {
        names[1]: bootstrap.compare(
          same[0], same[1], resampled[0], resampled[1]
        )
      }
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
