"""From the CASs of a test video to its detections, and their mAP."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax.data.dataset import Video
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.localization import proposals
from ptlr_jax.method import cas_space


def video_scores(
  ilg: Mapping[str, Any],
  networks: Mapping[str, np.ndarray],
  *,
  source: str,
  fusion: Mapping[str, float],
  topk_ratio: int,
) -> np.ndarray:
  """Class scores of a video, f[C], in [0, 1].

  `ilg`: softmax of the streams' top-k means, background dropped, fused;
  `ptlr`: the mean over OTS and RTS of their top-k mean probabilities.
  """
  if source == "ptlr" and networks:
    means = []
    for cas in networks.values():
      k = max(1, len(cas) // topk_ratio)
      means.append(np.sort(cas[:, :-1], axis=0)[-k:].mean(0))
    return np.mean(means, axis=0)
  return cas_space.fuse(ilg["scores"], fusion)[:-1]


def kept_classes(
  scores: np.ndarray,
  threshold: float,
  fallback: bool,
  lone_first: bool = True,
) -> np.ndarray:
  """Indexes of the classes to look for; with `fallback` the best one where none
  passes. Without `lone_first` class 0 is dropped where it passes alone, as in
  BaSNet-pytorch.
  """
  kept = np.flatnonzero(scores >= threshold)
  if not lone_first and not kept.any():
    kept = kept[:0]
  if fallback and not len(kept):
    kept = np.array([scores.argmax()])
  return kept


def unread_outputs(options: Any) -> tuple[str, ...]:
  """What detection does not read of OTS and RTS; options: config.detect."""
  return () if options.cas == "logit_minmax" else ("logits",)


def stretch(video: Video, ilg: Mapping[str, Any]) -> float:
  """Segments of a video's features to one row of its CASs."""
  return video.num_segments / len(next(iter(ilg["logits"].values())))


def detect_video(
  classes: Sequence[str],
  video: Video,
  ilg: Mapping[str, Any],
  networks: Mapping[str, Mapping[str, Any]],
  *,
  options: Any,
  fusion: Mapping[str, float],
  topk_ratio: int,
) -> list[dict[str, Any]]:
  """`detect` from what a run's networks say of a video: {"logits", "scores"} of
  the ILG, {name: {"cas", "logits" unless they are `unread_outputs`}}."""
  read = not unread_outputs(options)
  return detect(
    ilg,
    {net: out["cas"] for net, out in networks.items()},
    classes,
    video.geometry,
    options=options,
    fusion=fusion,
    topk_ratio=topk_ratio,
    logits={n: out["logits"] for n, out in networks.items()} if read else None,
    stretch=stretch(video, ilg),
  )


def detect(
  ilg: Mapping[str, Any],
  networks: Mapping[str, np.ndarray],
  classes: Sequence[str],
  geometry: Geometry,
  *,
  options: Any,
  fusion: Mapping[str, float],
  topk_ratio: int,
  logits: Mapping[str, np.ndarray] | None = None,
  stretch: float = 1.0,
) -> list[dict[str, Any]]:
  """Detections of one video, by decreasing score (Sec. III-D, inference).

  Args:
    ilg: {"logits": {stream: f[T,C+1]}, "scores": {stream: f[C+1]}}.
    networks: CAS of OTS and RTS, {name: f[T,C+1]}; empty for the ILG's own.
    classes: their names.
    geometry: where the video's segments lie in time.
    options: config.detect.
    fusion: weights of the streams.
    topk_ratio: of the MIL loss.
    logits: of OTS and RTS, {name: f[T,C+1]}, for `options.cas` logit_minmax.
    stretch: segments of the features to one row of the CASs, where they were
      sampled.
  """
  scores = video_scores(
    ilg,
    networks,
    source=options.class_scores,
    fusion=fusion,
    topk_ratio=topk_ratio,
  )
  kept = kept_classes(
    scores,
    options.class_threshold,
    options.class_fallback,
    options.lone_first_class,
  )
  said = (logits or {}) if options.cas == "logit_minmax" else networks
  sources = [said[name] for name in networks if name in options.sources]
  if options.cas != "probability":
    sources = [cas_space.minmax(cas) for cas in sources]
  if not networks or "ilg" in options.sources:
    sources.append(cas_space.fused_cas(ilg["logits"], fusion, options.ilg_cas))
  span = options.threshold_last - options.threshold_first
  count = int(span / options.threshold_step + 1e-6)
  thresholds = (
    options.threshold_first + np.arange(count + 1) * options.threshold_step
  )
  weighed = scores
  if options.class_score == "binary":
    weighed = (scores >= options.class_threshold).astype(scores.dtype)
  found = [
    proposals.propose(
      cas[:, :-1],
      weighed,
      kept,
      thresholds=thresholds,
      upsample_factor=options.upsampling,
      seconds_per_segment=geometry.seconds_per_segment * stretch,
      offset=geometry.start,
      ring=options.ring,
      class_weight=options.class_weight,
      contrast=options.contrast,
      grid=options.upsampling_grid,
      ring_rounding=options.ring_rounding,
      positive_runs=options.positive_runs,
    )
    for cas in sources
  ]
  merged = proposals.merge(
    found, options.nms, options.nms_plus_one, options.nms_drop_equal
  )
  return proposals.to_results(merged, classes)
