"""What is trained: ILG, Network-OTS and Network-RTS as pure functions.

A stage is three functions of arrays. A batch is a dict:
  features  {"rgb": f32[B,T,D], "flow": f32[B,T,D]}
  mask      bool[B,T], the valid segments
  labels    f32[B,C], video-level labels                         (ilg)
  scale     f32[streams], s of each stream; scale_grid f32[S],
            whose length is the padded length of ST(., s)         (ilg)
  targets   f32[B,T,C+1], selected bool[B,T]: pseudo labels       (ots, rts)
  video     optional, i32[B,T]: the videos, where a row holds several
            (`data.packing`)                                      (ots, rts)
  weights   optional, f32[B,T/2^m] of each output: what its frames count
            for, where the batch is part of a larger one           (ots, rts)
  row       optional, i32[B]: each video's number in the whole batch   (ilg)
  number    optional, i32[B,T]: each segment's, which dropout draws
            with; both count from 0 where they are absent          (ots, rts)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ptlr_jax import losses
from ptlr_jax.models import basnet, ots, rts
from ptlr_jax.models.layers import COSTLY, segment_numbers
from ptlr_jax.scale import scale_transform

COMMON = ("scale", "scale_grid")  # what a batch has once, not a row each

Batch = Mapping[str, Any]
Terms = dict[str, jax.Array]


class Stage(NamedTuple):
  """init(key, widths) -> params; loss(params, batch, key) -> (loss, terms);
  predict(params, batch) -> arrays. `widths` maps a stream to D.

  split(batch, parts) -> the batch as `parts` batches, stacked, the mean of
  whose losses, all with the key of the whole, is the loss of the whole, drawn
  dropout included. Part j has rows j, j + parts, ...: where neighbouring rows
  lie on a device of their own, none has to move.
  """

  init: Callable[..., Any]
  loss: Callable[..., tuple[jax.Array, Terms]]
  predict: Callable[..., dict[str, Any]]
  split: Callable[[Batch, int], Batch]


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


def remembering(loss: Callable[..., Any], options: Mapping[str, Any]):
  """The loss; with `options.remat` what its gradient keeps are the outputs of
  convolutions alone: activations, masks of dropout and interpolated products
  are made again, for no further matrix product."""
  if not options["remat"]:
    return loss
  policy = jax.checkpoint_policies.save_only_these_names(COSTLY)
  return jax.checkpoint(loss, policy=policy)


def _stacked(batch: Batch, parts: int) -> dict[str, Any]:
  """Arrays [B,...] as [parts,B/parts,...], row i in part i mod `parts`."""
  return jax.tree.map(
    lambda x: x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1),
    dict(batch),
  )


def _rows(batch: Batch) -> Any:
  """i32[B]: each row's number in the whole batch."""
  return batch["row"] if "row" in batch else jnp.arange(len(batch["mask"]))


def _numbers(batch: Batch) -> Any:
  """i32[B,T]: each segment's number in the whole batch."""
  if "number" in batch:
    return batch["number"]
  return segment_numbers(_rows(batch), batch["mask"].shape[1])


def _split_videos(batch: Batch, parts: int) -> Batch:
  """For losses that are means over videos of as many valid segments."""
  common = {k: v for k, v in batch.items() if k in COMMON}
  own = {k: v for k, v in batch.items() if k not in common}
  own = _stacked({**own, "row": _rows(batch)}, parts)
  return {**own, **{k: jnp.stack([v] * parts) for k, v in common.items()}}


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
    """L_sc of a stream, and the transformed branch's own MIL loss."""
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
    out = apply(params, xs, valid, _rows(batch), key, base=extra > 0)
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
      x = first_products(params[stream], x, mask)
      out = apply(params[stream], x, mask, _rows(batch), original, base=True)
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

  return Stage(init, remembering(loss, options), predict, _split_videos)


def _refinement(
  name: str,
  options: Mapping[str, Any],
  net: nn.Module,
  loss_of: Callable[..., jax.Array],
  heads: Callable[..., tuple[jax.Array, jax.Array]],
  strides: Sequence[int],
) -> Stage:
  """A network that learns pseudo labels from the fused features.

  `heads(outputs, mask, temperature)` are its probabilities and its logits,
  `strides` the frames from one value of each output to the next. It predicts
  {"cas": probabilities f32[B,T,C+1], "logits": f32[B,T,C+1]}.
  """
  weigh = {
    "average": options["loss_average"],
    "balance": options["class_balance"],
  }

  def init(key, widths):
    return net.init(key, *_init_input(widths, "fused"))["params"]

  def apply(params, batch, **how) -> Any:
    x = stream_input(batch["features"], "fused")
    return net.apply({"params": params}, x, batch["mask"], **how)

  def loss(params, batch, key):
    value = loss_of(
      apply(
        params,
        batch,
        number=_numbers(batch),
        deterministic=False,
        rngs={"dropout": key},
      ),
      batch["targets"],
      batch["selected"],
      smoothing=options["label_smoothing"],
      weights=weights_of(batch),
    )
    return value, {name: value}

  def weights_of(batch) -> list[jax.Array]:
    if "weights" in batch:
      return batch["weights"]
    names = [n for n in ("targets", "selected", "video") if n in batch]
    return [
      losses.frame_weights(**{n: batch[n][:, ::step] for n in names}, **weigh)
      for step in strides
    ]

  def split(batch, parts):
    weights = [parts * w for w in weights_of(batch)]
    own = {"weights": weights, "number": _numbers(batch)}
    return _stacked({**batch, **own}, parts)

  def predict(params, batch):
    outputs, mask = apply(params, batch), batch["mask"]
    cas, logits = heads(outputs, mask, options["temperature"])
    return {"cas": cas, "logits": logits}

  return Stage(init, remembering(loss, options), predict, split)


def _ots(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """Network-OTS, Eq. (6)."""

  def loss_of(logits, targets, selected, *, weights, **how):
    return losses.selected_cross_entropy(
      logits, targets, selected, weights=weights[0], **how
    )

  return _refinement(
    "ots",
    options,
    ots.NetworkOTS(num_classes, **options["model"]),
    loss_of,
    lambda logits, mask, t: (jax.nn.softmax(logits / t), logits),
    strides=(1,),
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
    strides=[2**m for m in range(1, options["model"]["branches"] + 1)],
  )


STAGES: dict[str, Callable[[int, Mapping[str, Any]], Stage]] = {
  "ilg": _ilg,
  "ots": _ots,
  "rts": _rts,
}
