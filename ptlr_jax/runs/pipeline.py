"""The phases of Algorithm 1, in order, and how they resume.

Each phase reads what earlier ones left in the workdir and leaves its own
artefact there, written atomically; a phase whose artefact exists is skipped.

Of several processes each takes its share of the videos in every phase; process
0 decides what is missing, and writes what they have in common.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from ptlr_jax.data.dataset import Dataset, Video, ground_truth_database
from ptlr_jax.evaluation import mean_ap
from ptlr_jax.io import checkpoints, detection_files, storage
from ptlr_jax.localization import detection
from ptlr_jax.runs.label_phases import LabelPhases
from ptlr_jax.runtime import mesh, processes
from ptlr_jax.runtime.progress import Progress, say
from ptlr_jax.training import prediction, resident, trainer
from ptlr_jax.training.networks import Asking, Networks
from ptlr_jax.workdir import log_followers, provenance, shares
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import Phase, cas_source, phases, table_rows


def evaluate_detections(
  detections: Mapping[str, Mapping[str, Any]],
  data: Dataset,
  protocol: str,
  ambiguous: str = "",
) -> dict[str, dict[str, Any]]:
  """mAP of each row of detections, {row: result of `detection_map`}.

  `ambiguous`: the rule for detections over the data's stretches, "" for none.
  """
  truth = ground_truth_database(data.test, data.classes, "test")
  stretches = {v.id: v.ambiguous for v in data.test} if ambiguous else None
  return {
    row: mean_ap.detection_map(truth, results, protocol, stretches, ambiguous)
    for row, results in detections.items()
  }


PART = 256  # test videos at a time of a set that does not fit into memory


@dataclasses.dataclass
class Run:
  """One run: a resolved config, its data and its workdir."""

  config: FrozenConfigDict
  data: Dataset
  workdir: Path
  features_of: "Run | None" = None  # whose resident features are used too

  def __post_init__(self):
    self.files = Artefacts(self.config, self.workdir)
    self.devices = mesh.run_devices(self.config.devices)
    shares.check_shares(self.config, self.devices, len(self.data.train))
    self.networks = Networks(self.config, self.data, self.files, self.devices)
    self.labels = LabelPhases(self.config, self.data, self.files, self.networks)
    self.recorded = False

  def run(self) -> dict[str, Any]:
    """Runs what is missing and returns the metrics, which process 0 has."""
    self.record()
    try:
      for phase in phases(self.config):
        self.finish(phase)
    finally:
      self.close()
    path = self.files.metrics_path()
    return storage.read_json(path) if processes.is_first() else {}

  def record(self) -> None:
    """Leaves what the run is made with, once a start.

    Raises:
      InputError: it began on other data.
    """
    if not self.recorded and processes.is_first():
      made_with = provenance.made_with(
        self.config,
        self.data,
        mesh.device_info(),
        self.networks.source_digest,
      )
      provenance.record_start(self.workdir, made_with)
      self.files.log.follow(
        log_followers.log_followers(self.config, self.workdir)
      )
      self.recorded = True

  def close(self) -> None:
    """Nothing more is logged in this start."""
    self.files.log.close()

  def finish(self, phase: Phase) -> None:
    """Runs a phase unless it is done."""
    if not self.is_done(phase):
      run = {
        "train": self._train,
        "labels": self._labels,
        "detect": self._detect,
        "evaluate": self._evaluate,
      }
      run[phase.kind](phase)
      processes.exchange()  # what it leaves is there for all

  def is_done(self, phase: Phase) -> bool:
    """Whether a phase has been finished before, which is told."""
    return processes.first(lambda: self._is_done(phase))

  def _is_done(self, phase: Phase) -> bool:
    if not self.files.is_done(phase):
      return False
    say(f"{phase.name:<14} done before")
    if phase.kind == "train":  # a kill may have come before the tidying
      checkpoints.tidy(self.files.checkpoint_dir(phase.name))
    return True

  # Training.

  @functools.cached_property
  def store(self) -> resident.Store | None:
    """The training videos' features on the device, where they are to be."""
    if self.features_of is not None:
      return self.features_of.store
    videos, setting = self.data.train, self.config.data.resident
    if not resident.wanted(setting, videos, self.data.on_disk):
      return None
    return resident.store_of(videos, self.devices)

  def training(self, phase: Phase) -> trainer.Trainer:
    """A training phase, ready to begin."""
    return trainer.Trainer(
      self.config,
      self.data,
      self.files,
      self.networks,
      phase,
      self.store,
      () if phase.network == "ilg" else self.labels.before(phase),
    )

  def _train(self, phase: Phase) -> None:
    trainer.train_phase(self.training(phase))

  def _labels(self, phase: Phase) -> None:
    self.labels.run(phase)

  # Detection and evaluation.

  def _detect(self, phase: Phase) -> None:
    """Every row's detections; large test sets a part at a time."""
    del phase
    path = self.files.detection_path
    missing = processes.first(
      lambda: [
        row
        for row in table_rows(self.config)
        if not self.files.is_sound(path(row), told="")
      ]
    )
    own = processes.own_share(len(self.data.test))
    videos = self.data.test[own.start : own.stop]
    ilg = self.networks.asking(cas_source(self.config), cas_source(self.config))
    asking = {row: self._asking(row) for row in missing}
    size = PART if self.data.on_disk else max(len(videos), 1)
    bar = Progress("detect", len(videos) * len(missing), unit="video")
    done = 0
    with contextlib.ExitStack() as stack:
      add = {
        row: stack.enter_context(detection_files.writing(path(row)))
        for row in reversed(missing)  # the file of the first is made first
      }
      for start in range(0, len(videos), size):
        part = videos[start : start + size]
        # Sampled CASs stay as they are: their geometry is stretched instead.
        said = prediction.in_order(ilg(part, read_back=False), len(part))
        for row in missing:
          add[row](self._detections(asking[row], part, said))
          done += len(part)
          bar.at(done)
    bar.close()

  def _asking(self, row: str) -> dict[str, Asking]:
    """The networks whose detections a line of the mAP table shows."""
    n = table_rows(self.config).index(row)
    networks = self.config.ptlr.networks if n else ()
    return {net: self.networks.asking(f"{net}-{n}", net) for net in networks}

  def _detections(
    self,
    networks: Mapping[str, Asking],
    videos: Sequence[Video],
    ilg: Sequence[Mapping[str, Any]],
  ) -> dict[str, list[dict[str, Any]]]:
    """{id: detections} of videos."""
    leave_out = detection.unread_outputs(self.config.detect)
    outputs = {
      net: prediction.in_order(
        ask(videos, read_back=False, leave_out=leave_out), len(videos)
      )
      for net, ask in networks.items()
    }
    return {
      video.id: detection.detect_video(
        self.config,
        self.data.classes,
        video,
        ilg[i],
        {net: said[i] for net, said in outputs.items()},
      )
      for i, video in enumerate(videos)
    }

  def _evaluate(self, phase: Phase) -> None:
    del phase
    if not processes.is_first():
      return
    labels = [p for p in phases(self.config) if p.kind == "labels"]
    metrics = {
      **self._scores(),
      "pseudo_labels": [
        {"phase": p.name, **self.labels.quality_of(p.name)} for p in labels
      ],
      "seed": self.config.seed,
      "simulated": self.data.simulated,
      "made_with": provenance.distinct_starts(self.workdir),
    }
    # First: once metrics.json is there nothing more is done.
    self.files.log.tell(
      log_followers.EVALUATE, log_followers.score_lines(metrics)
    )
    storage.write_json(self.files.metrics_path(), metrics)

  def _scores(self) -> dict[str, Any]:
    """mAP of the result and of every row, or why there is none."""
    protocol = self.config.evaluate.protocol
    if fault := self.data.not_scorable():
      return {"protocol": protocol, "stages": {}, "not_evaluated": fault}
    detections = {
      row: storage.read_json(self.files.detection_path(row))["results"]
      for row in table_rows(self.config)
    }
    scored = evaluate_detections(
      detections, self.data, protocol, self.config.evaluate.ambiguous
    )
    return {
      **scored[table_rows(self.config)[-1]],
      "stages": {
        row: {k: result[k] for k in ("protocol", "mAP", "averages")}
        for row, result in scored.items()
      },
    }
