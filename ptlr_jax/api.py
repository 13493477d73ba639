"""ptlr_jax in Python: train, look at a run, detect, score.

`import ptlr_jax` has these names; docs/PYTHON.md shows each at work.
"""

import html
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax import main
from ptlr_jax.cli import command_line, config_checks
from ptlr_jax.evaluation import scoring, text_report
from ptlr_jax.inference.detection_model import DetectionModel, load_model
from ptlr_jax.inference.predictor import Predictor
from ptlr_jax.inference.video_detections import Segment, VideoDetections
from ptlr_jax.io import detection_files, label_files
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.reporting import run_record
from ptlr_jax.reporting.run_record import RunRecord
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.workdir import run_folder

__all__ = [
  "DetectionModel",
  "Scores",
  "TrainedRun",
  "load_model",
  "load_run",
  "score",
  "train",
]


class TrainedRun:
  """What a run has left in its workdir, finished or not.

  config: the whole configuration. metrics: what metrics.json has, {} before
  the end. notes: a line for all that is not as it should be.
  """

  def __init__(self, record: RunRecord):
    self._record = record
    self.directory: Path = record.directory
    self.config: FrozenConfigDict = record.config
    self.metrics: dict[str, Any] = record.metrics
    self.notes: list[str] = record.notes

  def __repr__(self) -> str:
    missing = ", ".join(self._record.missing)
    state = f"without {missing}" if missing else "finished"
    return f"TrainedRun({str(self.directory)!r}, {state})"

  def _repr_html_(self) -> str:
    text = run_folder.map_table(self.metrics) if self.metrics else repr(self)
    return f"<pre>{html.escape(text.strip())}</pre>"

  @property
  def mean_ap(self) -> list[dict[str, Any]]:
    """The mAP table in percent, a dict a line: "row" ("ilg", "stage-1", ...),
    one for each tIoU ("0.50") and one for each average ("0.1:0.7")."""
    return [
      {"row": row}
      | {k: 100 * x for k, x in (one["mAP"] | one["averages"]).items()}
      for row, one in self.metrics.get("stages", {}).items()
    ]

  @property
  def label_quality(self) -> list[dict[str, Any]]:
    """Precision and recall of the pseudo labels, a dict a phase, in [0, 1]."""
    return list(self.metrics.get("pseudo_labels", ()))

  @property
  def log(self) -> list[dict[str, Any]]:
    """The losses, a dict an interval of a phase, as in metrics.jsonl."""
    return self._record.log

  def detections(self, row: str = "") -> dict[str, list[Segment]]:
    """{test video: segments, best first} of a row of the mAP table; "": of the
    last.

    Raises:
      InputError: the run has not come so far, or has no such row.
    """
    found = self._record.detections
    row = row or self._record.row
    if row not in found:
      raise InputError(
        f"{self.directory}: expected detections of a row it has "
        f"({', '.join(found) or 'none'}), got {row!r}"
      )
    return {
      video: [Segment.of(entry) for entry in entries]
      for video, entries in found[row].items()
    }

  def pseudo_labels(self, phase: str = "labels-0") -> dict[str, PseudoLabels]:
    """{training video: PseudoLabels} of a phase, as "labels-1-ots": labels
    bool[T,C+1], background last, and selected bool[T].

    Raises:
      InputError: the run has not come so far, or has no such phase.
    """
    done = [x for x in self._record.done if x.kind == "labels"]
    for one in done:
      if one.name == phase:
        return label_files.read_by_id(self._record.files.paths(one))
    raise InputError(
      f"{self.directory}: expected labels of a phase that is done "
      f"({', '.join(x.name for x in done) or 'none'}), got {phase!r}"
    )

  def model(self, stage: int | None = None) -> DetectionModel:
    """The networks of a stage, 0 for the ILG alone; of the last by default."""
    return load_model(self.directory, stage)

  def videos(
    self, split: str = "test", source: str | Path = ""
  ) -> list[VideoDetections]:
    """The videos of a split, each with its CASs and what is detected in it.

    Args:
      split: "train" or "test".
      source: the data set's folder, where it is not the configuration's.

    Raises:
      InputError: the data set cannot be read.
    """
    predictor = Predictor(self.model())  # imports the run's plugins as well
    options: Any = ConfigDict(self.config.data.to_dict())
    if source:
      options.root = str(source)
    data = load_dataset(FrozenConfigDict(options), self.config.evaluate)
    chosen = {"train": data.train, "test": data.test}[split]
    return predictor(chosen)


def load_run(workdir: str | Path) -> TrainedRun:
  """A run as it lies there, finished or not; of several seeds one `seed-N`.

  Raises:
    InputError: the folder holds none.
  """
  return TrainedRun(run_record.read_run(Path(workdir).expanduser()))


def train(
  config: str | Path | ConfigDict | FrozenConfigDict, workdir: str | Path
) -> TrainedRun:
  """Trains what is missing of a run, as `python -m ptlr_jax.main` does.

  Args:
    config: a configuration, or its file, as "configs/simulated.py".
    workdir: its folder; the same call goes on with a run that was stopped.

  Raises:
    InputError: a line for all that is wrong with the configuration or data.
    Diverged: a loss or gradient is not finite.
  """
  directory = Path(workdir).expanduser()
  if isinstance(config, str | Path):
    argv = ["train", f"--config={config}", f"--workdir={directory}"]
    checked = command_line.parse(argv).config
  else:
    changed = ConfigDict(config.to_dict())
    config_checks.apply_compat(changed)
    checked = config_checks.freeze_config(changed)
  if checked.seeds > 1:
    raise InputError(
      f"config.seeds: expected 1, got {checked.seeds}; call train for each "
      "seed, or give the configuration to ptlr_jax.main"
    )
  runs = run_folder.runs_of(checked, directory)
  with run_folder.open_run_folders(runs):
    if not run_folder.are_whole(runs):
      main.train_missing(checked, runs)
  return load_run(directory)


class Scores(NamedTuple):
  """The result of `score`.

  mean_ap: {tIoU: mAP}, as {"0.50": 0.31}. averages: {"0.1:0.7": 0.27}.
  details: all that `ptlr_jax.evaluate --output` writes (docs/EVALUATION.md).
  """

  mean_ap: dict[str, float]
  averages: dict[str, float]
  details: dict[str, Any]

  def __repr__(self) -> str:
    return text_report.text(self.details, False)

  def _repr_html_(self) -> str:
    return f"<pre>{html.escape(repr(self))}</pre>"


def score(
  ground_truth: str | Path,
  detections: str | Path | Sequence[VideoDetections] | dict[str, list[Segment]],
  protocol: str,
  *,
  subset: str = "",
  against: str | Path = "",
  bootstrap: int = 1000,
  lenient: bool = False,
) -> Scores:
  """Scores detections as `python -m ptlr_jax.evaluate` does.

  Args:
    ground_truth: a JSON file of the ActivityNet form, or W-TALC's folder.
    detections: a results file of the ActivityNet form, what `detect` gave of
      several videos, or {video: segments} as `TrainedRun.detections` has them.
    protocol: as "thumos14"; `evaluation.protocols.PROTOCOLS` has all.
    subset: of the ground truth; "": the protocol's.
    against: another results file, compared on the same videos.
    bootstrap: resamples of the videos for 95 % intervals; 0: none.
    lenient: leaves out what cannot be scored, and counts it.

  Raises:
    InputError: a line for everything that cannot be scored.
  """
  with tempfile.TemporaryDirectory() as folder:
    if not isinstance(detections, str | Path):
      if not isinstance(detections, dict):
        detections = {one.video: one.segments for one in detections}
      path = Path(folder) / "detections.json"
      found = {v: [x.entry() for x in own] for v, own in detections.items()}
      detection_files.write_detections(path, found)
      detections = path
    options = scoring.Options(
      ground_truth=str(ground_truth),
      detections=str(detections),
      protocol=protocol,
      subset=subset,
      against=str(against),
      bootstrap=bootstrap,
      lenient=lenient,
    )
    details = scoring.evaluate(options)
  return Scores(details["mAP"], details["averages"], details)
