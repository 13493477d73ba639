"""The phases of Algorithm 1 that make pseudo labels.

Of several processes each labels its share of the training videos; what they
find is added up, and process 0 tells it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ptlr_jax import label_files, labelling, processes, shares
from ptlr_jax.artefacts import Artefacts
from ptlr_jax.data.annotations import Dataset, Video
from ptlr_jax.label_files import Labels
from ptlr_jax.labelling import Tally
from ptlr_jax.networks import Asking, Networks
from ptlr_jax.phases import Phase, phases
from ptlr_jax.progress import say, show
from ptlr_jax.pseudo_labels import PseudoLabels


class LabelPhases(NamedTuple):
  """Those of a run."""

  config: Any
  data: Dataset
  files: Artefacts
  networks: Networks

  def read(self, name: str, parts: Sequence[int]) -> Labels:
    """Pseudo labels of a finished labels phase, of some parts of the training
    set, by the numbers of the videos."""
    return shares.read_labels(
      self.config, self.files, name, self.data.train, parts
    )

  def before(self, phase: Phase) -> Labels:
    """The newest pseudo labels written before a phase, of the videos that this
    process trains on."""
    names = [p.name for p in phases(self.config)]
    earlier = names[: names.index(phase.name)]
    labels = [name for name in earlier if name.startswith("labels-")]
    return self.read(labels[-1], shares.own_parts(self.config))

  def run(self, phase: Phase) -> None:
    """Labels the training videos, each process its own."""
    videos = self.data.train
    name = f"{phase.network}-{phase.stage}" if phase.stage else phase.network
    ask = self.networks.asking(name, phase.network)
    before = self.before(phase) if phase.stage else None
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

  def _tell(self, phase: Phase, found: Tally, kept: int) -> None:
    quality = {**labelling.quality(found), "videos_kept": kept}
    self.files.log.rewind(phase.name, -1)
    self.files.log.append(phase.name, 0, quality)
    for gap in labelling.gaps(found, self.data):
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
    found = labelling.tally((), (), classes)
    for k, of in enumerate(shares.bounds(self.config, len(self.data.train))):
      videos = self.data.train[of.start : of.stop]
      labels = self.read(name, (k,))
      found = found.plus(labelling.tally(labels, videos, classes))
    return labelling.quality(found)
