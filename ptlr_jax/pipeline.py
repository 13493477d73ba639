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

import numpy as np
from ml_collections import FrozenConfigDict

from ptlr_jax import (
  checkpoints,
  compilation,
  detection,
  detection_files,
  devices,
  label_files,
  labelling,
  prediction,
  processes,
  provenance,
  resident,
  shares,
  training,
  writers,
)
from ptlr_jax.artefacts import Artefacts
from ptlr_jax.data.annotations import Dataset, Video
from ptlr_jax.label_files import Labels
from ptlr_jax.labelling import Tally
from ptlr_jax.networks import Asking, Networks
from ptlr_jax.phases import Phase, phases, rows
from ptlr_jax.progress import Progress, say
from ptlr_jax.pseudo_labels import PseudoLabels

PART = 256  # test videos at a time of a set that does not fit into memory


def _length(logits: Mapping[str, np.ndarray]) -> int:
  """T of the streams' f[T,C+1]."""
  return len(next(iter(logits.values())))


@dataclasses.dataclass
class Run:
  """One run: a resolved config, its data and its workdir."""

  config: FrozenConfigDict
  data: Dataset
  workdir: Path
  features_of: "Run | None" = None  # whose resident features are used too

  def __post_init__(self):
    self.files = Artefacts(self.config, self.workdir)
    self.log = self.files.log
    self.devices = devices.of(self.config.devices)
    shares.check(self.config, self.devices, len(self.data.train))
    self.networks = Networks(self.config, self.data, self.files, self.devices)
    self.recorded = False

  def run(self) -> dict[str, Any]:
    """Runs what is missing and returns the metrics, which process 0 has."""
    self.record()
    for phase in phases(self.config):
      self.finish(phase)
    path = self.files.metrics_path()
    return writers.read_json(path) if processes.is_first() else {}

  def record(self) -> None:
    """Leaves what the run is made with, once a start.

    Raises:
      InputError: it began on other data.
    """
    if not self.recorded and processes.is_first():
      made_with = provenance.of(self.config, self.data, compilation.device())
      provenance.record(self.workdir, made_with)
      self.recorded = True

  def finish(self, phase: Phase) -> None:
    """Runs a phase unless it is done."""
    if not self.is_done(phase):
      getattr(self, f"_{phase.kind}")(phase)
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

  def training(self, phase: Phase) -> training.Training:
    """A training phase, ready to begin."""
    return training.Training(
      self.config,
      self.data,
      self.files,
      self.networks,
      phase,
      self.store,
      () if phase.network == "ilg" else self.labels_before(phase),
    )

  def _train(self, phase: Phase) -> None:
    training.run(self.training(phase))

  # Pseudo labels.

  def read_labels(self, name: str, parts: Sequence[int]) -> Labels:
    """Pseudo labels of a finished labels phase, of some parts of the training
    set, by the numbers of the videos."""
    videos = self.data.train
    of = shares.bounds(self.config, len(videos))
    return label_files.read_parts(
      [(of[k], self.files.label_path(name, k)) for k in parts],
      [video.id for video in videos],
      [video.num_segments for video in videos],
    )

  def labels_before(self, phase: Phase) -> Labels:
    """The newest pseudo labels written before a phase, of the videos that this
    process trains on."""
    names = [p.name for p in phases(self.config)]
    earlier = names[: names.index(phase.name)]
    labels = [name for name in earlier if name.startswith("labels-")]
    return self.read_labels(labels[-1], shares.own_parts(self.config))

  def _labels(self, phase: Phase) -> None:
    videos = self.data.train
    name = f"{phase.network}-{phase.stage}" if phase.stage else "ilg"
    ask = self.networks.asking(name, phase.network)
    before = self.labels_before(phase) if phase.stage else None
    classes = len(self.data.classes)
    own, kept = labelling.tally((), (), classes), 0
    for piece, path in shares.label_pieces(
      self.config, self.files, phase.name, len(videos)
    ):
      part = videos[piece.start : piece.stop]
      old = None if before is None else before[piece.start : piece.stop]
      labels, stayed = self._label(phase, ask, part, old)
      label_files.write_labels(path, [video.id for video in part], labels)
      own = own.plus(labelling.tally(labels, part, classes))
      kept += stayed
    (found, kept), *others = processes.exchange([own, kept])
    found = labelling.tally((), (), classes).plus(found)
    for other, stayed in others:
      found, kept = found.plus(other), kept + stayed
    pieces = shares.pieces_to_join(self.config, self.files, phase.name)
    if pieces and processes.is_first():
      label_files.join(self.files.label_path(phase.name), pieces)
    self._tell_labels(phase, found, kept)

  def _label(
    self,
    phase: Phase,
    ask: Asking,
    videos: Sequence[Video],
    before: Sequence[PseudoLabels] | None,
  ) -> tuple[list[PseudoLabels], int]:
    """New labels of some videos, and how many keep those before."""
    options, stage = self.config.labels, phase.stage
    return labelling.label(
      ask(videos, leave_out=("logits",) if stage else ()),
      before,
      labelling.allowed_classes(
        videos, len(self.data.classes), options.class_filter
      ),
      self.config.ptlr.thresholds[stage - 1] if stage else 0.0,
      options,
      self.config.fusion,
    )

  def _tell_labels(self, phase: Phase, found: Tally, kept: int) -> None:
    quality = {**labelling.quality(found), "videos_kept": kept}
    self.log.rewind(phase.name, -1)
    self.log.append(phase.name, 0, quality)
    for gap in labelling.gaps(found, self.data):
      say(f"{phase.name:<14} {gap}")
    if "precision" not in quality:
      say(
        f"{phase.name:<14} {100 * quality['selected']:.1f} % of frames "
        f"selected; no temporal annotations to compare with; {kept} videos "
        "kept theirs"
      )
      return
    say(
      f"{phase.name:<14} precision {100 * quality['precision']:.1f}  recall "
      f"{100 * quality['recall']:.1f}  (actions "
      f"{100 * quality['action_precision']:.1f} / "
      f"{100 * quality['action_recall']:.1f}; {kept} videos kept theirs)"
    )

  def _quality_of(self, name: str) -> dict[str, float]:
    """Of the labels of a finished phase, a part at a time."""
    classes = len(self.data.classes)
    found = labelling.tally((), (), classes)
    for k, of in enumerate(shares.bounds(self.config, len(self.data.train))):
      videos = self.data.train[of.start : of.stop]
      labels = self.read_labels(name, (k,))
      found = found.plus(labelling.tally(labels, videos, classes))
    return labelling.quality(found)

  # Detection and evaluation.

  def _detect(self, phase: Phase) -> None:
    """Every row's detections; large test sets a part at a time."""
    del phase
    path = self.files.detection_path
    missing = processes.first(
      lambda: [
        row
        for row in rows(self.config)
        if not self.files.is_sound(path(row), told="")
      ]
    )
    own = processes.own_share(len(self.data.test))
    videos = self.data.test[own.start : own.stop]
    ilg = self.networks.asking("ilg", "ilg")
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
    n = rows(self.config).index(row)
    networks = self.config.ptlr.networks if n else ()
    return {net: self.networks.asking(f"{net}-{n}", net) for net in networks}

  def _detections(
    self,
    networks: Mapping[str, Asking],
    videos: Sequence[Video],
    ilg: Sequence[Mapping[str, Any]],
  ) -> dict[str, list[dict[str, Any]]]:
    """{id: detections} of videos."""
    spared = () if self.config.detect.cas == "logit_minmax" else ("logits",)
    how = {"read_back": False, "leave_out": spared}
    outputs = {
      net: prediction.in_order(ask(videos, **how), len(videos))
      for net, ask in networks.items()
    }
    results = {}
    for i, video in enumerate(videos):
      found = {net: outputs[net][i] for net in networks}
      logits = None if spared else {n: found[n]["logits"] for n in found}
      results[video.id] = detection.detect(
        ilg[i],
        {net: out["cas"] for net, out in found.items()},
        self.data.classes,
        video.geometry,
        options=self.config.detect,
        fusion=self.config.fusion,
        topk_ratio=self.config.ilg.loss.topk_ratio,
        logits=logits,
        stretch=video.num_segments / _length(ilg[i]["logits"]),
      )
    return results

  def _evaluate(self, phase: Phase) -> None:
    del phase
    if not processes.is_first():
      return
    labels = [p for p in phases(self.config) if p.kind == "labels"]
    metrics = {
      **self._scores(),
      "pseudo_labels": [
        {"phase": p.name, **self._quality_of(p.name)} for p in labels
      ],
      "seed": self.config.seed,
      "simulated": self.data.simulated,
      "made_with": provenance.distinct(self.workdir),
    }
    writers.write_json(self.files.metrics_path(), metrics)

  def _scores(self) -> dict[str, Any]:
    """mAP of the result and of every row, or why there is none."""
    protocol = self.config.evaluate.protocol
    if fault := self.data.not_scorable():
      return {"protocol": protocol, "stages": {}, "not_evaluated": fault}
    detections = {
      row: writers.read_json(self.files.detection_path(row))["results"]
      for row in rows(self.config)
    }
    scored = detection.evaluate(
      detections, self.data, protocol, self.config.evaluate.ambiguous
    )
    return {
      **scored[rows(self.config)[-1]],
      "stages": {
        row: {k: result[k] for k in ("protocol", "mAP", "averages")}
        for row, result in scored.items()
      },
    }
