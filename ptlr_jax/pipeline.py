"""The phases of Algorithm 1, in order, and how they resume.

Each phase reads what earlier ones left in the workdir and leaves its own
artefact there, written atomically; a phase whose artefact exists is skipped.
"""

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
  labelling,
  provenance,
  resident,
  training,
  writers,
)
from ptlr_jax.artefacts import Artefacts
from ptlr_jax.data.annotations import Dataset, Video
from ptlr_jax.networks import Networks
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
    self.networks = Networks(self.config, self.data, self.files)
    self.recorded = False

  def run(self) -> dict[str, Any]:
    """Runs what is missing and returns the metrics."""
    self.record()
    for phase in phases(self.config):
      self.finish(phase)
    return writers.read_json(self.files.metrics_path())

  def record(self) -> None:
    """Leaves what the run is made with, once a start.

    Raises:
      InputError: it began on other data.
    """
    if not self.recorded:
      made_with = provenance.of(self.config, self.data, compilation.device())
      provenance.record(self.workdir, made_with)
      self.recorded = True

  def finish(self, phase: Phase) -> None:
    """Runs a phase unless it is done."""
    if not self.is_done(phase):
      getattr(self, f"_{phase.kind}")(phase)

  def is_done(self, phase: Phase) -> bool:
    """Whether a phase has been finished before, which is told."""
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
    return resident.store_of(videos)

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

  def read_labels(self, name: str) -> list[PseudoLabels]:
    """Pseudo labels of a finished labels phase, in the videos' order."""
    videos = self.data.train
    return writers.read_labels(
      self.files.label_path(name),
      [video.id for video in videos],
      [video.num_segments for video in videos],
    )

  def labels_before(self, phase: Phase) -> list[PseudoLabels]:
    """The newest pseudo labels written before a phase."""
    names = [p.name for p in phases(self.config)]
    earlier = names[: names.index(phase.name)]
    labels = [name for name in earlier if name.startswith("labels-")]
    return self.read_labels(labels[-1])

  def _labels(self, phase: Phase) -> None:
    videos, options = self.data.train, self.config.labels
    name = f"{phase.network}-{phase.stage}" if phase.stage else "ilg"
    allowed = labelling.allowed_classes(
      videos, len(self.data.classes), options.class_filter
    )
    first = not phase.stage
    theta = 0.0 if first else self.config.ptlr.thresholds[phase.stage - 1]
    labels, kept = labelling.label(
      self.networks.predictions(
        name, phase.network, videos, leave_out=() if first else ("logits",)
      ),
      None if first else self.labels_before(phase),
      allowed,
      theta,
      options,
      self.config.fusion,
    )
    quality = {**labelling.quality(labels, self.data), "videos_kept": kept}
    self.log.rewind(phase.name, -1)
    self.log.append(phase.name, 0, quality)
    writers.write_labels(
      self.files.label_path(phase.name), [video.id for video in videos], labels
    )
    for gap in labelling.gaps(labels, self.data):
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
    return labelling.quality(self.read_labels(name), self.data)

  # Detection and evaluation.

  def _detect(self, phase: Phase) -> None:
    """Every row's detections; large test sets a part at a time."""
    del phase
    path, sound = self.files.detection_path, self.files.is_sound
    missing = [r for r in rows(self.config) if not sound(path(r), told="")]
    results: dict[str, dict[str, Any]] = {row: {} for row in missing}
    videos = self.data.test
    size = PART if self.data.on_disk else max(len(videos), 1)
    bar = Progress("detect", len(videos) * len(missing), unit="video")
    done = 0
    for start in range(0, max(len(videos), 1), size):
      part = videos[start : start + size]
      # Sampled CASs stay as they are: their geometry is stretched instead.
      ilg = self.networks.predict("ilg", "ilg", part, read_back=False)
      for row in missing:
        results[row] |= self._detections(row, part, ilg)
        done += len(part)
        bar.at(done)
        if start + size >= len(videos):
          writers.write_detections(path(row), results[row])
    bar.close()

  def _detections(
    self, row: str, videos: Sequence[Video], ilg: Sequence[Mapping[str, Any]]
  ) -> dict[str, list[dict[str, Any]]]:
    """{id: detections} of videos for a line of the mAP table."""
    n = rows(self.config).index(row)
    networks = self.config.ptlr.networks if n else ()
    spared = () if self.config.detect.cas == "logit_minmax" else ("logits",)
    how = {"read_back": False, "leave_out": spared}
    outputs = {
      net: self.networks.predict(f"{net}-{n}", net, videos, **how)
      for net in networks
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
