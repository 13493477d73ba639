"""What a stage is, and what all of them do with a batch.

A stage is functions of arrays. A batch is a dict:
  features  {stream: f32[B,T,D]}, as of "rgb" and "flow"
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

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ptlr_jax.data.dataset import stream_order
from ptlr_jax.models.layers import COSTLY, segment_numbers

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
  """Features of a stream, or of all joined in `stream_order` (`fused`)."""
  if stream == "fused":
    return jnp.concatenate([features[s] for s in stream_order(features)], -1)
  return features[stream]


def init_input(
  widths: Mapping[str, int], stream: str
) -> tuple[jax.Array, jax.Array]:
  """Features f32[1,8,D] of a stream, and their mask, to draw parameters by."""
  names = stream_order(widths) if stream == "fused" else (stream,)
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


def stacked(batch: Batch, parts: int) -> dict[str, Any]:
  """Arrays [B,...] as [parts,B/parts,...], row i in part i mod `parts`."""
  return jax.tree.map(
    lambda x: x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1),
    dict(batch),
  )


def rows(batch: Batch) -> Any:
  """i32[B]: each row's number in the whole batch."""
  return batch["row"] if "row" in batch else jnp.arange(len(batch["mask"]))


def numbers(batch: Batch) -> Any:
  """i32[B,T]: each segment's number in the whole batch."""
  if "number" in batch:
    return batch["number"]
  return segment_numbers(rows(batch), batch["mask"].shape[1])
