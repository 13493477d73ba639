"""Initial Label Generation (ILG), Sec. III-C, as a stage."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ptlr_jax.method import losses
from ptlr_jax.method.stage import (
  COMMON,
  Batch,
  Stage,
  Terms,
  init_input,
  remembering,
  rows,
  stacked,
  stream_input,
)
from ptlr_jax.method.temporal_scale import scale_transform
from ptlr_jax.models import basnet
from ptlr_jax.models.layers import segment_numbers
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.plugins import registered

# The network of a stream, as `basnet.BasNet`, by `config.ilg.network`; plugins
# add others.
NETWORKS: dict[str, Callable[..., Any]] = {"basnet": basnet.BasNet}


def made_network(name: str, num_classes: int, fields: Mapping[str, Any]) -> Any:
  """The network of a stream, with the fields that `config.ilg.model` gives.

  Raises:
    InputError: there is no such network, or it has other fields.
  """
  network = registered(NETWORKS, name, "ilg.network")
  signature = inspect.signature(network)
  try:
    signature.bind(num_classes, **fields)
  except TypeError as error:
    known = set(signature.parameters) - {"num_classes", "parent", "name"}
    raise InputError(
      f"--config.ilg.model: expected the fields of {name} "
      f"({', '.join(sorted(known))}), got {', '.join(fields)}: {error}"
    ) from None
  return network(num_classes, **fields)


def _weighted(
  registry: Mapping[str, Callable[..., jax.Array]],
  options: Mapping[str, Any],
  key: str,
) -> dict[str, tuple[float, Callable[..., jax.Array]]]:
  """{name: (weight, loss)} of a section of `config.ilg.loss`; without those of
  weight 0."""
  return {
    name: (weight, registered(registry, name, f"ilg.loss.{key}"))
    for name, weight in options[key].items()
    if weight
  }


class ILG:
  """Bas-Net of each stream with cross-stream and scale consistency.

  `options` are those of `config.ilg`: `streams` are two, as ("rgb", "flow"),
  for the paper's module, ("fused",) for the early-fusion Bas-Net, or one alone.
  Each method is a term of the loss or a step towards one, to be tested and
  overridden by itself; `loss` is Eq. (5).
  """

  def __init__(self, num_classes: int, options: Mapping[str, Any]):
    self.streams, self.options = tuple(options["streams"]), options
    self.opt = opt = options["loss"]
    self.net = made_network(options["network"], num_classes, options["model"])
    # Where a network has no such products each branch computes its own.
    self.shares = options["share_products"] and hasattr(self.net, "products")
    # beta and gamma of Eq. (5), of the first stream and the second
    self.scale_weights = {
      stream: opt["gamma" if i == 1 or stream == "flow" else "beta"]
      for i, stream in enumerate(self.streams)
    }
    self.cross_stream_losses = _weighted(
      losses.CROSS_STREAM_LOSSES, opt, "cross_stream_losses"
    )
    self.scale_losses = _weighted(losses.SCALE_LOSSES, opt, "scale_losses")
    self.reduce, self.size = opt["consistency_reduce"], 1.0
    if self.reduce == "as_mil":  # a mean over classes, of the MIL loss's size
      reference = opt["reference_classes"] or num_classes + 1
      self.reduce, self.size = "mean", (num_classes + 1) / reference

  def init(self, key: jax.Array, widths: Mapping[str, int]) -> dict[str, Any]:
    """{stream: parameters}, each stream drawn with a key of its own."""
    return {
      stream: self.net.init(
        jax.random.fold_in(key, i), *init_input(widths, stream)
      )["params"]
      for i, stream in enumerate(self.streams)
    }

  def forward(
    self,
    params: Any,
    x: Any,
    mask: jax.Array,
    row: jax.Array,
    key: jax.Array,
    *,
    base: bool,
  ) -> Any:
    """Outputs of a stream's network while it trains, dropout drawn by `row`.

    f32[B,T,D] or its products, bool[B,T], i32[B] -> as `BasNet`; the base
    branch is left out unless `base`.
    """
    return self.net.apply(
      {"params": params},
      x,
      mask,
      segment_numbers(row, mask.shape[1]),
      deterministic=False,
      base=base,
      rngs={"dropout": key},
    )

  def shared_products(self, params: Any, x: jax.Array, mask: jax.Array) -> Any:
    """The first layers' products, which all branches of a stream share; x
    itself where each branch multiplies its own."""
    if not self.shares:
      return x
    return self.net.apply({"params": params}, x, mask, method="products")

  def mil_terms(self, out: Any, mask: jax.Array, labels: jax.Array) -> Terms:
    """The terms of Eq. (1) from the outputs of a stream's network."""
    return losses.basnet_terms(
      out["base"],
      out["suppression"],
      out["foreground_weights"],
      mask,
      labels,
      topk_ratio=self.opt["topk_ratio"],
      reference_classes=self.opt["reference_classes"],
      norm_weight=self.opt["norm_weight"],
    )

  def scale_terms(
    self,
    params: Any,
    x: Any,
    cas: jax.Array,
    batch: Batch,
    scale: jax.Array,
    key: jax.Array,
  ) -> tuple[Terms, Any]:
    """L_sc of a stream, Eqs. (3) and (4), and the transformed branch's own MIL
    loss, 0 unless it is weighted.

    `x` are the stream's features, or their products, `cas` the original
    branch's logits f32[B,T,C+1], `scale` s.
    """
    opt, mask = self.opt, batch["mask"]
    extra, detach = (
      opt["transformed_mil_weight"],
      opt["consistency_stop_gradient"],
    )
    lengths, size = mask.sum(1), len(batch["scale_grid"])

    def transformed(values: jax.Array) -> tuple[jax.Array, jax.Array]:
      return scale_transform(
        values,
        lengths,
        scale,
        size,
        align_corners=self.options["scale"]["align_corners"],
        max_scale=self.options["scale"]["max"],
      )

    # ST commutes with a product over channels, so products are transformed.
    xs = jax.tree.map(lambda values: transformed(values)[0], x)
    of_original = losses.consistency_space(cas, mask, opt["consistency_space"])
    of_original, valid = transformed(of_original)
    out = self.forward(params, xs, valid, rows(batch), key, base=extra > 0)
    of_transformed = losses.consistency_space(
      out["suppression"], valid, opt["consistency_space"]
    )
    if detach == "original":
      of_original = jax.lax.stop_gradient(of_original)
    elif detach == "transformed":
      of_transformed = jax.lax.stop_gradient(of_transformed)
    terms = {
      name: self.size
      * distance(of_original, of_transformed, valid, reduce=self.reduce)
      for name, (_, distance) in self.scale_losses.items()
    }
    if not extra:
      return terms, 0.0
    mil = self.mil_terms(out, valid, batch["labels"])
    return terms, extra * sum(mil.values())

  def stream_terms(
    self, i: int, params: Any, batch: Batch, key: jax.Array
  ) -> tuple[list[Any], Terms, jax.Array]:
    """What stream i adds to the loss, its terms, and its suppression-branch
    logits f32[B,T,C+1]."""
    stream, mask = self.streams[i], batch["mask"]
    original, scaled = jax.random.split(jax.random.fold_in(key, i))
    x = stream_input(batch["features"], stream)
    x = self.shared_products(params, x, mask)
    out = self.forward(params, x, mask, rows(batch), original, base=True)
    cas = out["suppression"]
    terms = self.mil_terms(out, mask, batch["labels"])
    added: list[Any] = [sum(terms.values())]
    weight = self.scale_weights[stream]
    if weight or self.opt["transformed_mil_weight"]:
      scale = batch["scale"][i]
      distances, pull = self.scale_terms(params, x, cas, batch, scale, scaled)
      for name, value in distances.items():
        pull = weight * self.scale_losses[name][0] * value + pull
      terms |= distances
      added.append(pull)
    return added, terms, cas

  def cross_stream_terms(
    self, cas: Mapping[str, jax.Array], mask: jax.Array
  ) -> Terms:
    """L_csc, Eq. (2), of {stream: logits f32[B,T,C+1]}, unweighted."""
    first, second = (
      losses.consistency_space(cas[x], mask, self.opt["consistency_space"])
      for x in self.streams
    )
    return {
      name: self.size * distance(first, second, mask, reduce=self.reduce)
      for name, (_, distance) in self.cross_stream_losses.items()
    }

  def loss(
    self, params: Any, batch: Batch, key: jax.Array
  ) -> tuple[jax.Array, Terms]:
    """L_ilg, Eq. (5), and its unweighted terms, {"rgb/sc": f32[], ...}."""
    total, terms, cas = jnp.zeros(()), {}, {}
    for i, stream in enumerate(self.streams):
      added, own, cas[stream] = self.stream_terms(i, params[stream], batch, key)
      terms |= {f"{stream}/{name}": term for name, term in own.items()}
      for value in added:  # one by one: another order would round otherwise
        total += value
    if self.opt["alpha"] and len(self.streams) == 2:
      found = self.cross_stream_terms(cas, batch["mask"])
      for name, value in found.items():
        weight = self.opt["alpha"] * self.cross_stream_losses[name][0]
        total += weight * value
      terms |= found
    return total, terms

  def predict(self, params: Any, batch: Batch) -> dict[str, Any]:
    """{"logits": {stream: f32[B,T,C+1]}, "scores": {stream: f32[B,C+1]}}:
    suppression-branch CAS and the softmax of its top-k means."""
    logits, scores = {}, {}
    for stream in self.streams:
      x = stream_input(batch["features"], stream)
      out: Any = self.net.apply(
        {"params": params[stream]}, x, batch["mask"], base=False
      )
      logits[stream] = out["suppression"]
      mean = losses.topk_mean(
        out["suppression"], batch["mask"], ratio=self.opt["topk_ratio"]
      )
      scores[stream] = jax.nn.softmax(mean)
    return {"logits": logits, "scores": scores}


def split_videos(batch: Batch, parts: int) -> Batch:
  """For losses that are means over videos of as many valid segments."""
  common = {k: v for k, v in batch.items() if k in COMMON}
  own = {k: v for k, v in batch.items() if k not in common}
  own = stacked({**own, "row": rows(batch)}, parts)
  return {**own, **{k: jnp.stack([v] * parts) for k, v in common.items()}}


def ilg_stage(num_classes: int, options: Mapping[str, Any]) -> Stage:
  """`ILG` as a stage."""
  ilg = ILG(num_classes, options)
  loss = remembering(ilg.loss, options)
  return Stage(ilg.init, loss, ilg.predict, split_videos)
