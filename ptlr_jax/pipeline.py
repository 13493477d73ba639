"""The phases of Algorithm 1, in order, and how they resume.

Each phase reads what earlier ones left in the workdir and leaves its own
artefact there, written atomically; a phase whose artefact exists is skipped.
"""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ptlr_jax import (
  checkpoints,
  detection,
  optimizer,
  pseudo_labels,
  train,
  writers,
)
from ptlr_jax.data import sampling
from ptlr_jax.data.annotations import Dataset, Video, frame_truth
from ptlr_jax.progress import Progress, say
from ptlr_jax.pseudo_labels import PseudoLabels
from ptlr_jax.stages import STAGES, Stage


class Phase(NamedTuple):
  """One line of Algorithm 1; `network` and `stage` (from 1) where it has."""

  name: str
  kind: str
  network: str = ""
  stage: int = 0


def phases(config: ConfigDict) -> list[Phase]:
  """ilg, labels-0, ots-1, labels-1-ots, rts-1, ..., detect, evaluate."""
  found = [Phase("ilg", "train", "ilg"), Phase("labels-0", "labels", "ilg")]
  for n in range(1, config.ptlr.stages + 1):
    for net in config.ptlr.networks:
      found.append(Phase(f"{net}-{n}", "train", net, n))
      found.append(Phase(f"labels-{n}-{net}", "labels", net, n))
  return [*found, Phase("detect", "detect"), Phase("evaluate", "evaluate")]


def _at_own_length(values: np.ndarray, length: int) -> np.ndarray:
  """f[S,C] sampled evenly over a video, read at its own segments f[T,C]."""
  where = np.linspace(0, len(values) - 1, length)
  low = np.minimum(where.astype(int), len(values) - 2)
  weight = (where - low)[:, None]
  return (1 - weight) * values[low] + weight * values[low + 1]


def predict(
  stage: Stage,
  params: Any,
  videos: Sequence[Video],
  *,
  batch_size: int = 8,
  segments: int = 0,
) -> list[dict[str, Any]]:
  """What `stage.predict` says of every video, arrays f[T,..] or f[..].

  Videos come at their own length, or uniformly sampled at `segments`, and the
  result is read back at the video's own length.
  """
  run = _jitted(stage)
  found: list[Any] = [None] * len(videos)
  batches = sampling.prediction_batches(videos, batch_size, segments)
  for indexes, batch in batches:
    size, out = batch["mask"].shape[1], jax.device_get(run(params, batch))
    for row, i in enumerate(indexes):
      length = videos[i].num_segments

      def own(x, row=row, length=length, size=size):
        if x.ndim < 3:
          return x[row]
        value = x[row]
        return _at_own_length(value, length) if segments else value[:length]

      found[i] = jax.tree.map(own, out)
  return found


@functools.cache
def _jitted(stage: Stage):
  return jax.jit(stage.predict)


@dataclasses.dataclass
class Run:
  """One run: a resolved config, its data and its workdir."""

  config: ConfigDict
  data: Dataset
  workdir: Path

  def __post_init__(self):
    classes = len(self.data.classes)
    self.log = writers.MetricsLog(self.workdir / "metrics.jsonl")
    self.stages = {
      name: STAGES[name](classes, self.config[name].to_dict())
      for name in STAGES
    }
    self.widths = {
      name: x.shape[1] for name, x in self.data.train[0].features.items()
    }
    self._predicted: tuple[str, list[dict[str, Any]]] = ("", [])

  # What the workdir holds.

  def checkpoint_dir(self, name: str) -> Path:
    """Checkpoints of a training phase."""
    return self.workdir / "checkpoints" / name

  def label_path(self, name: str) -> Path:
    """Pseudo labels of a labels phase."""
    return self.workdir / "labels" / f"{name}.npz"

  def rows(self) -> list[str]:
    """The lines of the mAP table: the ILG, then every stage."""
    stages = range(1, self.config.ptlr.stages + 1)
    return ["ilg", *(f"stage-{n}" for n in stages)]

  def detection_path(self, row: str) -> Path:
    """Detections of a line of the table; the last line is the result."""
    if row == self.rows()[-1]:
      return self.workdir / "detections.json"
    return self.workdir / "detections" / f"{row}.json"

  def is_done(self, phase: Phase) -> bool:
    """Whether the phase's artefact is there."""
    if phase.kind == "train":
      return checkpoints.is_finished(self.checkpoint_dir(phase.name))
    if phase.kind == "labels":
      return self.label_path(phase.name).exists()
    if phase.kind == "detect":
      return all(self.detection_path(row).exists() for row in self.rows())
    return (self.workdir / "metrics.json").exists()

  def run(self) -> dict[str, Any]:
    """Runs what is missing and returns the metrics."""
    for phase in phases(self.config):
      if self.is_done(phase):
        say(f"{phase.name:<14} done before")
      else:
        getattr(self, f"_{phase.kind}")(phase)
    return writers.read_json(self.workdir / "metrics.json")

  # Training.

  def _key(self, name: str) -> jax.Array:
    key = jax.random.key(self.config.seed)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))

  def _initial_params(self, phase: Phase) -> Any:
    params = self.stages[phase.network].init(
      jax.random.fold_in(self._key(phase.name), 0), self.widths
    )
    if self.config.ptlr.warm_start and phase.stage > 1:
      before = self.checkpoint_dir(f"{phase.network}-{phase.stage - 1}")
      params = checkpoints.final_params(before, params)
    return params

  def params(self, name: str, network: str) -> Any:
    """Final parameters of a finished training phase."""
    template = self.stages[network].init(jax.random.key(0), self.widths)
    return checkpoints.final_params(self.checkpoint_dir(name), template)

  def _batch_at(self, phase: Phase):
    """The function from an update's number to its batch."""
    options, seed = self.config[phase.network], self.config.seed
    videos, classes = self.data.train, len(self.data.classes)

    def chosen(i):
      order = sampling.epoch_order(
        len(videos), options.batch_size, i, seed=seed, name=phase.name
      )
      rng = sampling.generator(seed, f"{phase.name}/segments", i)
      return order, [videos[v] for v in order], rng

    def ilg_batch(i):
      _, part, rng = chosen(i)
      batch = sampling.fixed_length_batch(
        part, options.segments, sampling=options.sampling, rng=rng
      )
      batch["labels"] = sampling.video_labels(part, classes)
      scale = sampling.draw_scale(
        rng, options.segments, len(options.streams), options.scale
      )
      return {**batch, **scale}

    if phase.network == "ilg":
      return ilg_batch
    labels = self.labels_before(phase)
    align = 2**self.config.rts.model.branches

    def labelled_batch(i):
      order, part, rng = chosen(i)
      return sampling.labelled_batch(
        part,
        [labels[v] for v in order],
        window=self.config.ptlr.window,
        align=align,
        rng=rng,
      )

    return labelled_batch

  def _train(self, phase: Phase) -> None:
    options, directory = (
      self.config[phase.network],
      self.checkpoint_dir(phase.name),
    )
    tx = optimizer.adam(options.learning_rate, **self.config.optimizer)
    state = train.create(self._initial_params(phase), tx)
    restored = checkpoints.restore(directory, state)
    state = state if restored is None else restored
    start = int(state.step)
    self.log.rewind(phase.name, start)
    if start:
      say(f"{phase.name:<14} goes on from step {start}")
    bar = Progress(phase.name, options.steps, start)

    def on_log(step, values):
      self.log.append(phase.name, step, values)
      bar.at(step, values)

    try:
      state = train.fit(
        state,
        train.make_step(self.stages[phase.network].loss, tx),
        self._batch_at(phase),
        steps=options.steps,
        key=jax.random.fold_in(self._key(phase.name), 1),
        log_every=self.config.train.log_every,
        checkpoint_every=self.config.train.checkpoint_every,
        on_log=on_log,
        on_checkpoint=functools.partial(checkpoints.save, directory),
      )
    except train.Diverged as error:
      saved = checkpoints.steps(directory)
      good = f"step {saved[-1]} in {directory}" if saved else "none yet"
      raise train.Diverged(
        f"{phase.name}: {error}; last good checkpoint: {good}; lower "
        f"--config.{phase.network}.learning_rate or look at the features"
      ) from None
    finally:
      bar.close()
    checkpoints.finish(directory, state.params)

  # Pseudo labels.

  def _predict(self, name: str, network: str, videos: Sequence[Video]):
    uniform = self.config.predict.sampling == "uniform"
    return predict(
      self.stages[network],
      self.params(name, network),
      videos,
      batch_size=self.config.predict.batch_size,
      segments=self.config.ilg.segments if uniform else 0,
    )

  def _read_labels(self, name: str) -> list[PseudoLabels]:
    videos = self.data.train
    return writers.read_labels(
      self.label_path(name),
      [video.id for video in videos],
      [video.num_segments for video in videos],
    )

  def labels_before(self, phase: Phase) -> list[PseudoLabels]:
    """The newest pseudo labels written before a phase."""
    names = [p.name for p in phases(self.config)]
    earlier = names[: names.index(phase.name)]
    labels = [name for name in earlier if name.startswith("labels-")]
    return self._read_labels(labels[-1])

  def _allowed(self, video: Video) -> np.ndarray:
    allowed = np.zeros(len(self.data.classes), bool)
    if not self.config.labels.class_filter:
      return ~allowed
    allowed[list(video.labels)] = True
    return allowed

  def _labels(self, phase: Phase) -> None:
    options, videos = self.config.labels, self.data.train
    name = f"{phase.network}-{phase.stage}" if phase.stage else "ilg"
    outputs = self._predict(name, phase.network, videos)
    old = self.labels_before(phase) if phase.stage else []
    labels, kept = [], 0
    for i, (video, out) in enumerate(zip(videos, outputs)):
      allowed = self._allowed(video)
      if not phase.stage:
        cas = pseudo_labels.fused_cas(
          out["logits"], self.config.fusion, options.cas
        )
        labels.append(
          pseudo_labels.initial_labels(
            cas,
            allowed,
            high=options.high,
            low=options.low,
            several=options.several,
          )
        )
        continue
      new = pseudo_labels.network_labels(
        out["cas"],
        allowed,
        threshold=self.config.ptlr.thresholds[phase.stage - 1],
        several=options.several,
      )
      kept += options.keep_empty and not pseudo_labels.has_action(new)
      labels.append(
        pseudo_labels.update(
          old[i], new, keep_empty=options.keep_empty, rule=options.update_rule
        )
      )
    quality = {**self.quality(labels), "videos_kept": kept}
    self.log.rewind(phase.name, -1)
    self.log.append(phase.name, 0, quality)
    writers.write_labels(
      self.label_path(phase.name), [video.id for video in videos], labels
    )
    say(
      f"{phase.name:<14} precision {100 * quality['precision']:.1f}  recall "
      f"{100 * quality['recall']:.1f}  (actions "
      f"{100 * quality['action_precision']:.1f} / "
      f"{100 * quality['action_recall']:.1f}; {kept} videos kept theirs)"
    )
    if not any(item.selected.any() for item in labels):
      say(f"{phase.name:<14} no frame of any video is labelled")

  def quality(self, labels: Sequence[PseudoLabels]) -> dict[str, float]:
    """Precision and recall of the training videos' labels; only logged."""
    classes = len(self.data.classes)
    return pseudo_labels.quality(
      labels,
      (
        frame_truth(
          video, classes, self.data.seconds_per_segment, self.data.offset
        )
        for video in self.data.train
      ),
    )

  # Detection and evaluation.

  def _detect(self, phase: Phase) -> None:
    del phase
    videos, stages = self.data.test, self.config.ptlr.stages
    ilg = self._predict("ilg", "ilg", videos)
    for n, row in enumerate(self.rows()):
      path = self.detection_path(row)
      if path.exists():
        continue
      networks = self.config.ptlr.networks if n else ()
      outputs = {
        net: self._predict(f"{net}-{n}", net, videos) for net in networks
      }
      say(f"{'detect':<14} {row} ({n}/{stages})")
      results = {}
      for i, video in enumerate(videos):
        cas = {net: outputs[net][i]["cas"] for net in networks}
        results[video.id.removeprefix(self.config.data.id_prefix)] = (
          detection.detect(
            ilg[i],
            cas,
            self.data,
            options=self.config.detect,
            fusion=self.config.fusion,
            topk_ratio=self.config.ilg.loss.topk_ratio,
          )
        )
      writers.write_detections(path, results)

  def _evaluate(self, phase: Phase) -> None:
    del phase
    prefix = self.config.data.id_prefix
    detections = {
      row: writers.read_json(self.detection_path(row))["results"]
      for row in self.rows()
    }
    scored = detection.evaluate(
      detections, self.data, self.config.evaluate.protocol, prefix
    )
    labels = [p for p in phases(self.config) if p.kind == "labels"]
    metrics = {
      **scored[self.rows()[-1]],
      "stages": {
        row: {k: result[k] for k in ("protocol", "mAP", "averages")}
        for row, result in scored.items()
      },
      "pseudo_labels": [
        {"phase": p.name, **self.quality(self._read_labels(p.name))}
        for p in labels
      ],
      "seed": self.config.seed,
      "simulated": self.config.data.layout == "simulated",
    }
    writers.write_json(self.workdir / "metrics.json", metrics)
