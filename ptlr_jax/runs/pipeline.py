"""The phases of Algorithm 1, in order, and how they resume.

Each phase reads what earlier ones left in the workdir and leaves its own
artefact there, written atomically; a phase whose artefact exists is skipped.

Of several processes each takes its share of the videos in every phase; process
0 decides what is missing, and writes what they have in common.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from ptlr_jax.data.dataset import Dataset
from ptlr_jax.io import checkpoints, storage
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runs.detection_phase import DetectionPhase
from ptlr_jax.runs.label_phases import LabelPhases
from ptlr_jax.runtime import mesh, plugins, processes, signals
from ptlr_jax.runtime.errors import InputError, Stopped
from ptlr_jax.runtime.progress import say
from ptlr_jax.training import external_cas, resident
from ptlr_jax.training.networks import Networks
from ptlr_jax.training.trainer import Trainer, TrainSettings
from ptlr_jax.workdir import log_followers, provenance, shares
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import (
  Phase,
  phases,
  sampled_segments,
  trained_networks,
)


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
    self.networks = self._made_networks()
    parts = (self.config, self.data, self.files, self.networks)
    self.labels, self.detections = LabelPhases(*parts), DetectionPhase(*parts)
    self.recorded = False

  def _made_networks(self) -> Networks:
    """The networks that the configuration names, and their options.

    Raises:
      InputError: a plugin, a stream or the CASs of another method are missing.
    """
    config, data, external = self.config, self.data, None
    plugins.import_plugins(config.plugins)
    if config.ptlr.cas:
      external = external_cas.open_cas_folder(
        config.ptlr.cas,
        config.ptlr.cas_values,
        config.ptlr.cas_resample,
        config.ilg.loss.topk_ratio,
        data,
      )
    else:
      _check_streams(config.ilg.streams, data.streams)
    names = trained_networks(config)
    return Networks(
      {name: config[name] for name in names},
      config.optimizer,
      data,
      self.files,
      self.devices,
      parts=config.data.parts,
      batch_size=config.predict.batch_size,
      segments={name: sampled_segments(config, name) for name in names},
      external=external,
    )

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
        "train": lambda: self.trainer(phase).run(),
        "labels": lambda: self.labels.run(phase),
        "detect": self.detections.run,
        "evaluate": self._evaluate,
      }
      run[phase.kind]()
      processes.exchange()  # what it leaves is there for all
      if signals.stops():
        raise Stopped(signals.KEPT)

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

  def trainer(
    self, phase: Phase, labels: Sequence[PseudoLabels] | None = None
  ) -> Trainer:
    """A training phase, ready to begin; the labels are those written before it
    unless they are given."""
    config = self.config
    if labels is None:
      labels = () if phase.network == "ilg" else self.labels.before(phase)
    settings = TrainSettings(
      seed=config.seed,
      parts=config.data.parts,
      segments=config.ilg.segments if config.ptlr.sampling == "uniform" else 0,
      window=config.ptlr.window,
      align=2**config.rts.model.branches,
      pack=config.ptlr.pack,
      warm_start=config.ptlr.warm_start,
      log_every=config.train.log_every,
      checkpoint_every=config.train.checkpoint_every,
      stream_threads=config.data.stream_threads,
    )
    return Trainer(
      settings,
      config[phase.network],
      self.data,
      self.files,
      self.networks,
      phase,
      self.store,
      labels,
    )

  def _evaluate(self) -> None:
    if not processes.is_first():
      return
    labels = [p for p in phases(self.config) if p.kind == "labels"]
    metrics = {
      **self.detections.scores(),
      "pseudo_labels": [
        {"phase": p.name, **self.labels.quality_of(p.name)} for p in labels
      ],
      "seed": self.config.seed,
      "simulated": self.data.simulated,
      "made_with": provenance.distinct_starts(self.workdir),
    }
    # First: once metrics.json is there nothing more is done.
    self.files.log.tell(log_followers.score_lines(metrics))
    storage.write_json(self.files.metrics_path(), metrics)


def _check_streams(asked: Sequence[str], there: Sequence[str]) -> None:
  """Refuses to train the ILG on a stream that the features do not have."""
  missing = [s for s in asked if s != "fused" and s not in there]
  if missing:
    raise InputError(
      f"--config.ilg.streams: expected streams of the features, which have "
      f"{', '.join(there)}, came {', '.join(asked)}; pass "
      f"--config.ilg.streams=\"('{there[0]}',)\""
    )
