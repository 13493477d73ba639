"""Detection of the test videos, and its mAP.

Of several processes each detects in its share of the test videos.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ptlr_jax.data.dataset import Dataset, Video, ground_truth_database
from ptlr_jax.evaluation import mean_ap
from ptlr_jax.io import detection_files, storage
from ptlr_jax.localization import detection
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.progress import Progress
from ptlr_jax.training import prediction
from ptlr_jax.training.networks import Asking, Networks
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import cas_source, table_rows

PART = 256  # test videos at a time of a set that does not fit into memory


class DetectionPhase(NamedTuple):
  """Detections of a run, and what they score."""

  config: Any
  data: Dataset
  files: Artefacts
  networks: Networks

  def run(self) -> None:
    """Every row's detections; large test sets a part at a time."""
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
        said = ilg(part, read_back=self._read_back)
        said = prediction.in_order(said, len(part))
        for row in missing:
          add[row](self._detections(asking[row], part, said))
          done += len(part)
          bar.at(done)
    bar.close()

  @property
  def _read_back(self) -> bool:
    """Whether detection is at the videos' own length."""
    return self.config.predict.sampling == "own"

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
        ask(videos, read_back=self._read_back, leave_out=leave_out),
        len(videos),
      )
      for net, ask in networks.items()
    }
    return {
      video.id: detection.detect_video(
        self.data.classes,
        video,
        ilg[i],
        {net: said[i] for net, said in outputs.items()},
        options=self.config.detect,
        fusion=self.config.fusion,
        topk_ratio=self.config.ilg.loss.topk_ratio,
      )
      for i, video in enumerate(videos)
    }

  def scores(self) -> dict[str, Any]:
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
