"""What is trained: ILG, Network-OTS and Network-RTS as pure functions.

A stage is three functions of arrays. A batch is a dict:
  features  {"rgb": f32[B,T,D], "flow": f32[B,T,D]}
  mask      bool[B,T], the valid segments
  labels    f32[B,C], video-level labels                         (ilg)
  scale     f32[streams], s of each stream; scale_grid f32[S],
            whose length is the padded length of ST(., s)         (ilg)
  targets   f32[B,T,C+1], selected bool[B,T]: pseudo labels       (ots, rts)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ptlr_jax import losses
from ptlr_jax.models import basnet, ots, rts
from ptlr_jax.scale import scale_transform

Batch = Mapping[str, Any]
Terms = dict[str, jax.Array]


class Stage(NamedTuple):
  """init(key, widths) -> params; loss(params, batch, key) -> (loss, terms);
  predict(params, batch) -> arrays. `widths` maps a stream to D."""

  init: Callable[..., Any]
  loss: Callable[..., tuple[jax.Array, Terms]]
  predict: Callable[..., dict[str, Any]]


def stream_input(features: Mapping[str, jax.Array], stream: str) -> jax.Array:
  """Features of `rgb` or `flow`, or of all, joined rgb first (`fused`)."""
  if stream == "fused":
    return jnp.concatenate([features[s] for s in _joined(features)], -1)
  return features[stream]


def _joined(streams: Mapping[str, Any]) -> list[str]:
  return [s for s in ("rgb", "flow") if s in streams]


def _init_input(widths: Mapping[str, int], stream: str):
  names = _joined(widths) if stream == "fused" else (stream,)
  width = sum(widths[name] for name in names)
  return jnp.zeros((1, 8, width)), jnp.ones((1, 8), bool)


def _ilg(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """Initial Label Generation, Sec. III-C.

  `options.streams` is ("rgb", "flow") for the paper's module, ("fused",) for
  the early-fusion Bas-Net, or a single stream.
  """
  streams, opt = tuple(options["streams"]), options["loss"]
  net = basnet.BasNet(num_classes, **options["model"])
  weights = {"rgb": opt["beta"], "flow": opt["gamma"], "fused": opt["beta"]}
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
      stream: net.init(
        jax.random.fold_in(key, i), *_init_input(widths, stream)
      )["params"]
      for i, stream in enumerate(streams)
    }

  def apply(params, x, mask, key, *, base) -> Any:
    return net.apply(
      {"params": params},
      x,
      mask,
      deterministic=False,
      base=base,
      rngs={"dropout": key},
    )

  def mil_terms(out, mask, labels):
    return losses.basnet_terms(
      out["base"],
      out["suppression"],
      out["foreground_weights"],
      mask,
      labels,
      **mil,
    )

  def transformed(params, x, cas, batch, scale, key):
    """L_sc of a stream, and the transformed branch's own MIL loss."""
    mask, extra = batch["mask"], opt["transformed_mil_weight"]
    size = len(batch["scale_grid"])
    read = {"align_corners": options["scale"]["align_corners"]}
    lengths = mask.sum(1)
    xs, valid = scale_transform(x, lengths, scale, size, **read)
    out = apply(params, xs, valid, key, base=extra > 0)
    ours = losses.consistency_space(cas, mask, space)
    ours, _ = scale_transform(ours, lengths, scale, size, **read)
    theirs = losses.consistency_space(out["suppression"], valid, space)
    if detach == "original":
      ours = jax.lax.stop_gradient(ours)
    elif detach == "transformed":
      theirs = jax.lax.stop_gradient(theirs)
    distance = losses.scale_consistency(ours, theirs, valid, reduce=reduce)
    if not extra:
      return distance, 0.0
    own = mil_terms(out, valid, batch["labels"])
    return distance, extra * sum(own.values())

  def loss(params, batch, key):
    mask, terms, cas = batch["mask"], {}, {}
    total = jnp.zeros(())
    for i, stream in enumerate(streams):
      original, scaled = jax.random.split(jax.random.fold_in(key, i))
      x = stream_input(batch["features"], stream)
      out = apply(params[stream], x, mask, original, base=True)
      own = mil_terms(out, mask, batch["labels"])
      terms |= {f"{stream}/{name}": value for name, value in own.items()}
      total += sum(own.values())
      cas[stream] = out["suppression"]
      if weights[stream] or opt["transformed_mil_weight"]:
        distance, extra = transformed(
          params[stream], x, cas[stream], batch, batch["scale"][i], scaled
        )
        terms[f"{stream}/sc"] = distance
        total += weights[stream] * distance + extra
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

  return Stage(init, loss, predict)


def _refinement(
  name: str,
  options: Mapping[str, Any],
  net: nn.Module,
  loss_of: Callable[..., jax.Array],
  heads: Callable[..., tuple[jax.Array, jax.Array]],
) -> Stage:
  """A network that learns pseudo labels from the fused features.

  `heads(outputs, mask, temperature)` are its probabilities and its logits. It
  predicts {"cas": probabilities f32[B,T,C+1], "logits": f32[B,T,C+1]}.
  """
  how = {
    "average": options["loss_average"],
    "balance": options["class_balance"],
    "smoothing": options["label_smoothing"],
  }

  def init(key, widths):
    return net.init(key, *_init_input(widths, "fused"))["params"]

  def apply(params, batch, **how) -> Any:
    x = stream_input(batch["features"], "fused")
    return net.apply({"params": params}, x, batch["mask"], **how)

  def loss(params, batch, key):
    outputs = apply(params, batch, deterministic=False, rngs={"dropout": key})
    value = loss_of(outputs, batch["targets"], batch["selected"], **how)
    return value, {name: value}

  def predict(params, batch):
    outputs, mask = apply(params, batch), batch["mask"]
    cas, logits = heads(outputs, mask, options["temperature"])
    return {"cas": cas, "logits": logits}

  return Stage(init, loss, predict)


def _ots(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """Network-OTS, Eq. (6)."""
  return _refinement(
    "ots",
    options,
    ots.NetworkOTS(num_classes, **options["model"]),
    losses.selected_cross_entropy,
    lambda logits, mask, t: (jax.nn.softmax(logits / t), logits),
  )


def _rts(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """Network-RTS, Eq. (7)."""
  mode, average = options["upsampling"], options["average"]

  def heads(branches, mask, t):
    soft = [logits / t for logits in branches]
    cas = rts.combine(soft, mask, mode=mode, average=average)
    return cas, rts.mean_of_branches(branches, mask, mode=mode)

  return _refinement(
    "rts",
    options,
    rts.NetworkRTS(num_classes, **options["model"]),
    losses.branch_cross_entropy,
    heads,
  )


STAGES: dict[str, Callable[[int, Mapping[str, Any]], Stage]] = {
  "ilg": _ilg,
  "ots": _ots,
  "rts": _rts,
}
