"""Network-OTS and Network-RTS, and how others that learn pseudo labels are made
(docs/FORKING.md)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from ptlr_jax.method import losses
from ptlr_jax.method.stage import (
  Stage,
  init_input,
  numbers,
  remembering,
  stacked,
  stream_input,
)
from ptlr_jax.models.ots import NetworkOTS
from ptlr_jax.models.rts import NetworkRTS, combine, mean_of_branches


def refinement_stage(
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
    return net.init(key, *init_input(widths, "fused"))["params"]

  def apply(params, batch, **how) -> Any:
    x = stream_input(batch["features"], "fused")
    return net.apply({"params": params}, x, batch["mask"], **how)

  def loss(params, batch, key):
    value = loss_of(
      apply(
        params,
        batch,
        number=numbers(batch),
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
    own = {"weights": weights, "number": numbers(batch)}
    return stacked({**batch, **own}, parts)

  def predict(params, batch):
    outputs, mask = apply(params, batch), batch["mask"]
    cas, logits = heads(outputs, mask, options["temperature"])
    return {"cas": cas, "logits": logits}

  return Stage(init, remembering(loss, options), predict, split)


def frame_stage(name: str, options: Mapping[str, Any], net: nn.Module) -> Stage:
  """A network with one output a frame, logits f32[B,T,C+1], Eq. (6)."""

  def loss_of(logits, targets, selected, *, weights, **how):
    return losses.selected_cross_entropy(
      logits, targets, selected, weights=weights[0], **how
    )

  return refinement_stage(
    name,
    options,
    net,
    loss_of,
    lambda logits, mask, t: (jax.nn.softmax(logits / t), logits),
    strides=(1,),
  )


def ots(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """Network-OTS."""
  net = NetworkOTS(num_classes, **options["model"])
  return frame_stage("ots", options, net)


def rts(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """Network-RTS, Eq. (7)."""
  mode, average = options["upsampling"], options["average"]

  def heads(branches, mask, t):
    soft = [logits / t for logits in branches]
    cas = combine(soft, mask, mode=mode, average=average)
    return cas, mean_of_branches(branches, mask, mode=mode)

  return refinement_stage(
    "rts",
    options,
    NetworkRTS(num_classes, **options["model"]),
    losses.branch_cross_entropy,
    heads,
    strides=[2**m for m in range(1, options["model"]["branches"] + 1)],
  )
