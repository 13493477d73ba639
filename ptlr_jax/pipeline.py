"""The phases of Algorithm 1, in order, and how they resume.

Each phase reads what earlier ones left in the workdir and leaves its own
artefact there, written atomically; a phase whose artefact exists is skipped.
"""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from ptlr_jax import (
  checkpoints,
  detection,
  labelling,
  resident,
  train,
  writers,
)
from ptlr_jax.artefacts import Artefacts
from ptlr_jax.data import batches
from ptlr_jax.data.annotations import Dataset, Video
from ptlr_jax.errors import Diverged
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

  def __post_init__(self):
    self.files = Artefacts(self.config, self.workdir)
    self.log = self.files.log
    self.networks = Networks(self.config, self.data, self.files)

  def run(self) -> dict[str, Any]:
    """Runs what is missing and returns the metrics."""
    for phase in phases(self.config):
      if self.files.is_done(phase):
        say(f"{phase.name:<14} done before")
        if phase.kind == "train":  # a kill may have come before the tidying
          checkpoints.tidy(self.files.checkpoint_dir(phase.name))
      else:
        getattr(self, f"_{phase.kind}")(phase)
    return writers.read_json(self.files.metrics_path())

  # Training.

  @functools.cached_property
  def store(self) -> resident.Store | None:
    """The training videos' features on the device, where they are to be."""
    videos, setting = self.data.train, self.config.data.resident
    if not resident.wanted(setting, videos, self.data.on_disk):
      return None
    return resident.store_of(videos)

  def _key(self, name: str) -> jax.Array:
    key = jax.random.key(self.config.seed)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))

  def _initial_params(self, phase: Phase) -> Any:
    params = self.networks.initial_params(
      phase.network, jax.random.fold_in(self._key(phase.name), 0)
    )
    if self.config.ptlr.warm_start and phase.stage > 1:
      before = self.files.checkpoint_dir(f"{phase.network}-{phase.stage - 1}")
      params = checkpoints.final_params(before, params)
    return params

  def _batches(self, phase: Phase):
    """The function from an update's number to its batch."""
    config, videos = self.config, self.data.train
    drawn = {"seed": config.seed, "name": phase.name}
    if self.store is not None:
      drawn["first"] = self.store.first
    if phase.network == "ilg":
      classes = len(self.data.classes)
      return batches.ilg_batches(videos, classes, config.ilg, **drawn)
    return batches.labelled_batches(
      videos,
      self.labels_before(phase),
      config[phase.network].batch_size,
      window=config.ptlr.window,
      align=2**config.rts.model.branches,
      **drawn,
    )

  def _train(self, phase: Phase) -> None:
    options, directory = (
      self.config[phase.network],
      self.files.checkpoint_dir(phase.name),
    )
    params = self._initial_params(phase)
    state = train.create(params, self.networks[phase.network].optimizer)
    restored = checkpoints.restore(directory, state)
    state = state if restored is None else restored
    start = int(state.step)
    self.log.rewind(phase.name, start)
    if start:
      say(f"{phase.name:<14} goes on from step {start}")
    bar = Progress(phase.name, options.steps, start)
    batch_at = self._batches(phase)
    step = self.networks[phase.network].step
    if self.store is not None:
      step = functools.partial(step, store=self.store.features)
    elif self.data.on_disk:
      # Grain, which starts JAX's own imports, only where it has work to do.
      from ptlr_jax.data.streaming import read_ahead

      threads = self.config.data.stream_threads
      batch_at = read_ahead(batch_at, start, options.steps, threads)

    def on_log(step, values):
      self.log.append(phase.name, step, values)
      bar.at(step, values["loss"])

    try:
      state = train.fit(
        state,
        step,
        batch_at,
        steps=options.steps,
        key=jax.random.fold_in(self._key(phase.name), 1),
        log_every=self.config.train.log_every,
        checkpoint_every=self.config.train.checkpoint_every,
        on_log=on_log,
        on_checkpoint=functools.partial(checkpoints.save, directory),
      )
    except Diverged as error:
      saved = checkpoints.steps(directory)
      good = f"step {saved[-1]} in {directory}" if saved else "none yet"
      raise Diverged(
        f"{phase.name}: {error}; last good checkpoint: {good}; look at the "
        f"features, or lower --config.{phase.network}.learning_rate in a new "
        "--workdir"
      ) from None
    finally:
      bar.close()
    checkpoints.finish(directory, state.params)

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
      self.networks.predictions(name, phase.network, videos),
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
    if not any(item.selected.any() for item in labels):
      say(f"{phase.name:<14} no frame of any video is labelled")
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
    path = self.files.detection_path
    missing = [row for row in rows(self.config) if not path(row).exists()]
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
    outputs = {
      net: self.networks.predict(f"{net}-{n}", net, videos, read_back=False)
      for net in networks
    }
    results = {}
    for i, video in enumerate(videos):
      cas, logits = (
        {net: outputs[net][i][name] for net in networks}
        for name in ("cas", "logits")
      )
      results[video.id] = detection.detect(
        ilg[i],
        cas,
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
