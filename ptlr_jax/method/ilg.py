"""Initial Label Generation (ILG), Sec. III-C, as a stage."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ptlr_jax.method import losses, stage
from ptlr_jax.method.stage import (
  COMMON,
  Batch,
  Stage,
  init_input,
  remembering,
  rows,
  stacked,
  stream_input,
)
from ptlr_jax.method.temporal_scale import scale_transform
from ptlr_jax.models import basnet
from ptlr_jax.models.layers import segment_numbers


def _split_videos(batch: Batch, parts: int) -> Batch:
  """For losses that are means over videos of as many valid segments."""
  common = {k: v for k, v in batch.items() if k in COMMON}
  own = {k: v for k, v in batch.items() if k not in common}
  own = stacked({**own, "row": rows(batch)}, parts)
  return {**own, **{k: jnp.stack([v] * parts) for k, v in common.items()}}


def ilg_stage(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """Initial Label Generation, Sec. III-C.

  `options.streams` is ("rgb", "flow") for the paper's module, ("fused",) for
  the early-fusion Bas-Net, or a single stream.
  """
  streams, opt = tuple(options["streams"]), options["loss"]
  model = stage.registered(NETWORKS, options["network"], "ilg.network")
  net = model(num_classes, **options["model"])
  weights = {"rgb": opt["beta"], "flow": opt["gamma"], "fused": opt["beta"]}
  scale_losses = {
    name: (
      weight,
      stage.registered(losses.SCALE_LOSSES, name, "ilg.loss.scale_losses"),
    )
    for name, weight in opt["scale_losses"].items()
    if weight
  }
  space, reduce = opt["consistency_space"], opt["consistency_reduce"]
  detach = opt["consistency_stop_gradient"]
  if detach not in ("none", "original", "transformed"):
    raise ValueError(
      "consistency_stop_gradient: expected none, original or transformed, "
      f"got {detach!r}"
    )
  mil = {
    "topk_ratio": opt["topk_ratio"],
    "reference_classes": opt["reference_classes"],
    "norm_weight": opt["norm_weight"],
  }

  def init(key, widths):
    return {
      stream: net.init(jax.random.fold_in(key, i), *init_input(widths, stream))[
        "params"
      ]
      for i, stream in enumerate(streams)
    }

  def apply(params, x, mask, row, key, *, base) -> Any:
    how = {"deterministic": False, "base": base, "rngs": {"dropout": key}}
    number = segment_numbers(row, mask.shape[1])
    return net.apply({"params": params}, x, mask, number, **how)

  def mil_terms(out, mask, labels):
    return losses.basnet_terms(
      out["base"],
      out["suppression"],
      out["foreground_weights"],
      mask,
      labels,
      **mil,
    )

  def first_products(params, x, mask) -> Any:
    """What the branches of a stream have in common; x where each multiplies
    its own."""
    if not options["share_products"]:
      return x
    return net.apply({"params": params}, x, mask, method="products")

  def transformed(params, x, cas, batch, scale, key):
    """{term: value} of L_sc of a stream, and the transformed branch's own MIL
    loss."""
    mask, extra = batch["mask"], opt["transformed_mil_weight"]
    lengths, size = mask.sum(1), len(batch["scale_grid"])

    def rescaled(values):
      return scale_transform(
        values,
        lengths,
        scale,
        size,
        align_corners=options["scale"]["align_corners"],
        max_scale=options["scale"]["max"],
      )

    xs = jax.tree.map(lambda values: rescaled(values)[0], x)
    ours = losses.consistency_space(cas, mask, space)
    ours, valid = rescaled(ours)
    out = apply(params, xs, valid, rows(batch), key, base=extra > 0)
    theirs = losses.consistency_space(out["suppression"], valid, space)
    if detach == "original":
      ours = jax.lax.stop_gradient(ours)
    elif detach == "transformed":
      theirs = jax.lax.stop_gradient(theirs)
    found = {
      name: distance(ours, theirs, valid, reduce=reduce)
      for name, (_, distance) in scale_losses.items()
    }
    if not extra:
      return found, 0.0
    own = mil_terms(out, valid, batch["labels"])
    return found, extra * sum(own.values())

  def loss(params, batch, key):
    mask, terms, cas = batch["mask"], {}, {}
    total = jnp.zeros(())
    for i, stream in enumerate(streams):
      original, scaled = jax.random.split(jax.random.fold_in(key, i))
      x = stream_input(batch["features"], stream)
      x = first_products(params[stream], x, mask)
      out = apply(params[stream], x, mask, rows(batch), original, base=True)
      own = mil_terms(out, mask, batch["labels"])
      terms |= {f"{stream}/{name}": value for name, value in own.items()}
      total += sum(own.values())
      cas[stream] = out["suppression"]
      if weights[stream] or opt["transformed_mil_weight"]:
        found, pull = transformed(
          params[stream], x, cas[stream], batch, batch["scale"][i], scaled
        )
        for name, value in found.items():
          terms[f"{stream}/{name}"] = value
          pull = weights[stream] * scale_losses[name][0] * value + pull
        total += pull
    if opt["alpha"] and len(streams) == 2:
      terms["csc"] = losses.cross_stream_consistency(
        cas["rgb"], cas["flow"], mask, space=space, reduce=reduce
      )
      total += opt["alpha"] * terms["csc"]
    return total, terms

  def predict(params, batch):
    """{"logits": {stream: f32[B,T,C+1]}, "scores": {stream: f32[B,C+1]}}:
    suppression-branch CAS and the softmax of its top-k means."""
    logits, scores = {}, {}
    for stream in streams:
      x = stream_input(batch["features"], stream)
      out: Any = net.apply(
        {"params": params[stream]}, x, batch["mask"], base=False
      )
      logits[stream] = out["suppression"]
      mean = losses.topk_mean(
        out["suppression"], batch["mask"], ratio=opt["topk_ratio"]
      )
      scores[stream] = jax.nn.softmax(mean)
    return {"logits": logits, "scores": scores}

  return Stage(init, remembering(loss, options), predict, _split_videos)


# The ILG's network of a stream, as `basnet.BasNet`, by `config.ilg.network`.
NETWORKS: dict[str, Callable[..., Any]] = {"basnet": basnet.BasNet}
