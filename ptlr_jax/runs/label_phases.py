"""The phases of Algorithm 1 that make pseudo labels.

Of several processes each labels its share of the training videos; what they
find is added up, and process 0 tells it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.io import label_files
from ptlr_jax.io.label_files import Labels
from ptlr_jax.method import cas_space, label_quality, pseudo_labels
from ptlr_jax.method.label_quality import Tally
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.progress import say, show
from ptlr_jax.training.networks import Asking, Networks
from ptlr_jax.workdir import shares
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import Phase, phases


class LabelPhases(NamedTuple):
  """Those of a run."""

  config: Any
  data: Dataset
  files: Artefacts
  networks: Networks

  def read(self, name: str, parts: Sequence[int]) -> Labels:
    """Pseudo labels of a finished labels phase, of some parts of the training
    set, by the numbers of the videos."""
    return shares.read_labels(self.files, name, self.data.train, parts)

  def before(self, phase: Phase) -> Labels:
    """The newest pseudo labels written before a phase, of the videos that this
    process trains on."""
    names = [p.name for p in phases(self.config)]
    earlier = names[: names.index(phase.name)]
    labels = [name for name in earlier if name.startswith("labels-")]
    return self.read(labels[-1], shares.own_parts(self.files.parts))

  def run(self, phase: Phase) -> None:
    """Labels the training videos, each process its own."""
    videos = self.data.train
    name = f"{phase.network}-{phase.stage}" if phase.stage else phase.network
    ask = self.networks.asking(name, phase.network)
    before = self.before(phase) if phase.stage else None
    classes = len(self.data.classes)
    own, kept = label_quality.tally_labels((), (), classes), 0
    for piece, path in shares.label_pieces(self.files, phase.name, len(videos)):
      part = videos[piece.start : piece.stop]
      old = None if before is None else before[piece.start : piece.stop]
      labels, stayed = self._label(phase, ask, part, old)
      label_files.write_labels(path, [video.id for video in part], labels)
      own = own.plus(label_quality.tally_labels(labels, part, classes))
      kept += stayed
    (found, kept), *others = processes.exchange([own, kept])
    found = label_quality.tally_labels((), (), classes).plus(found)
    for other, stayed in others:
      found, kept = found.plus(other), kept + stayed
    pieces = shares.pieces_to_join(self.files, phase.name)
    if pieces and processes.is_first():
      label_files.join_label_files(self.files.label_path(phase.name), pieces)
    self._tell(phase, found, kept)

  def _label(
    self,
    phase: Phase,
    ask: Asking,
    videos: Sequence[Video],
    before: Sequence[PseudoLabels] | None,
  ) -> tuple[list[PseudoLabels], int]:
    """New labels of some videos, and how many keep those before."""
    options, stage = self.config.labels, phase.stage
    return label_videos(
      ask(videos, leave_out=("logits",) if stage else ()),
      before,
      pseudo_labels.allowed_classes(
        videos, len(self.data.classes), options.class_filter
      ),
      self.config.ptlr.thresholds[stage - 1] if stage else 0.0,
      options,
      self.config.fusion,
    )

  def _tell(self, phase: Phase, found: Tally, kept: int) -> None:
    quality = {**label_quality.label_quality(found), "videos_kept": kept}
    self.files.log.rewind(phase.name, -1)
    self.files.log.append(phase.name, 0, quality)
    for gap in label_quality.label_gaps(found, self.data):
      show(f"{phase.name:<14} {gap}")
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

  def quality_of(self, name: str) -> dict[str, float]:
    """Of the labels of a finished phase, a part at a time."""
    classes = len(self.data.classes)
    found = label_quality.tally_labels((), (), classes)
    for k, of in enumerate(
      shares.bounds(self.files.parts, len(self.data.train))
    ):
      videos = self.data.train[of.start : of.stop]
      labels = self.read(name, (k,))
      found = found.plus(label_quality.tally_labels(labels, videos, classes))
    return label_quality.label_quality(found)


def initial_labels(
  outputs: Sequence[Mapping[str, Any]],
  allowed: Sequence[np.ndarray],
  options: Any,
  fusion: Mapping[str, float],
) -> list[PseudoLabels]:
  """Labels from the ILG's logits, {"logits": {stream: f[T,C+1]}} a video.

  `options` is config.labels.
  """
  return [
    pseudo_labels.initial_labels(
      cas_space.fused_cas(
        out["logits"], fusion, options.cas, options.fusion == "average"
      ),
      classes,
      high=options.high,
      low=options.low,
      several=options.several,
      background_sum=options.background_sum,
    )
    for out, classes in zip(outputs, allowed, strict=True)
  ]


def refined_labels(
  outputs: Sequence[Mapping[str, Any]],
  old: Sequence[PseudoLabels],
  allowed: Sequence[np.ndarray],
  threshold: float,
  options: Any,
) -> tuple[list[PseudoLabels], int]:
  """Labels from a network's {"cas": f[T,C+1]} a video, and how many videos
  were left without an action frame and kept their old labels.

  `threshold` is theta_p of the stage, `options` config.labels.
  """
  labels, kept = [], 0
  for out, before, classes in zip(outputs, old, allowed, strict=True):
    new = pseudo_labels.network_labels(
      out["cas"],
      classes,
      threshold=threshold,
      several=options.several,
      space=options.network_cas,
    )
    kept += options.keep_empty and not pseudo_labels.has_action(new)
    labels.append(
      pseudo_labels.update(
        before, new, keep_empty=options.keep_empty, rule=options.update_rule
      )
    )
  return labels, kept


def label_videos(
  predictions: Iterable[tuple[int, Mapping[str, Any]]],
  old: Sequence[PseudoLabels] | None,
  allowed: Sequence[np.ndarray],
  threshold: float,
  options: Any,
  fusion: Mapping[str, float],
) -> tuple[list[PseudoLabels], int]:
  """Labels of every video, {index: prediction} as they come: `initial` without
  `old` labels, else `refine`; and how many videos kept their old ones."""
  found: list[Any] = [None] * len(allowed)
  kept = 0
  for i, out in predictions:
    if old is None:
      (found[i],) = initial_labels([out], [allowed[i]], options, fusion)
    else:
      (found[i],), stayed = refined_labels(
        [out], [old[i]], [allowed[i]], threshold, options
      )
      kept += stayed
  return found, kept
