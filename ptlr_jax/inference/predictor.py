"""From a trained model and features to detections, as in the test phase."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ptlr_jax.data.dataset import Video
from ptlr_jax.inference.model_file import Model
from ptlr_jax.inference.video_detections import Segment, VideoDetections
from ptlr_jax.localization import detection
from ptlr_jax.method import cas_space
from ptlr_jax.training import prediction
from ptlr_jax.training.networks import cached_stage
from ptlr_jax.workdir import phases


class Predictor:
  """A model on a device, to be asked about videos.

  Those of a run get the detections of its test phase: videos are batched as
  there, `batch_size` 0, since sums of another shape may round otherwise.
  """

  def __init__(self, model: Model, batch_size: int = 0):
    self.model = model
    self._params = jax.device_put(model.params)
    self._batch_size = batch_size or model.config.predict.batch_size

  def __call__(self, videos: Sequence[Video]) -> list[VideoDetections]:
    """The detections of every video, in their order."""
    return list(self._detections(videos))

  def _ask(
    self, network: str, videos: Sequence[Video], leave_out: tuple[str, ...] = ()
  ) -> list[dict[str, Any]]:
    config = self.model.config
    return prediction.predict_videos(
      cached_stage(network, len(self.model.classes), config[network]),
      self._params[network],
      videos,
      batch_size=self._batch_size,
      segments=phases.sampled_segments(config, network),
      read_back=config.predict.sampling == "own",
      leave_out=leave_out,
    )

  def _detections(self, videos: Sequence[Video]) -> Iterator[VideoDetections]:
    model, config = self.model, self.model.config
    spared = detection.unread_outputs(config.detect)
    ilg = self._ask("ilg", videos)
    outputs = {
      net: self._ask(net, videos, spared)
      for net in model.params
      if net != "ilg"
    }
    for i, video in enumerate(videos):
      found = {net: outputs[net][i] for net in outputs}
      cas = {net: out["cas"] for net, out in found.items()}
      curves = {
        n: out["cas" if spared else "logits"] for n, out in found.items()
      }
      results = detection.detect_video(
        model.classes,
        video,
        ilg[i],
        found,
        options=config.detect,
        fusion=config.fusion,
        topk_ratio=config.ilg.loss.topk_ratio,
      )
      rows = len(next(iter(ilg[i]["logits"].values())))
      scores = detection.video_scores(
        ilg[i],
        cas,
        source=config.detect.class_scores,
        fusion=config.fusion,
        topk_ratio=config.ilg.loss.topk_ratio,
      )
      step = video.geometry.seconds_per_segment
      step *= detection.stretch(video, ilg[i])
      yield VideoDetections(
        video.id,
        [Segment.of(one) for one in results],
        dict(zip(model.classes, scores.tolist(), strict=True)),
        self._curves(ilg[i], curves),
        video.geometry.start + (np.arange(rows) + 0.5) * step,
        model.classes,
      )

  def _curves(self, ilg: Any, networks: Any) -> dict[str, np.ndarray]:
    """The CASs as detection reads them, of the ILG too where it does not."""
    config = self.model.config
    curves = {
      "ilg": cas_space.fused_cas(
        ilg["logits"], config.fusion, config.detect.ilg_cas
      )
    }
    for net, cas in networks.items():
      plain = config.detect.cas == "probability"
      curves[net] = cas if plain else cas_space.minmax(cas)
    return curves
