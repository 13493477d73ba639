"""Checks of a configuration before anything is computed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.data.layouts import source
from ptlr_jax.runtime import schema
from ptlr_jax.runtime.config_tree import flatten
from ptlr_jax.runtime.errors import InputError

NETWORKS = ("ilg", "ots", "rts")

# What `config.compat` switches at once, and what the code of that name does
# there; each is a key of its own.
COMPAT: dict[str, dict[str, Any]] = {
  "": {},
  "basnet": {
    "ilg.loss.reference_classes": 0,  # the MIL loss is a plain mean
    "predict.sampling": "uniform",  # test videos at ilg.segments positions
    "detect.ilg_cas": "relu_minmax",  # min-max from 0 up, not clipped
    "detect.class_fallback": False,  # a video without a class has no detection
    "detect.lone_first_class": False,  # (index 0).any() is False
    "detect.class_score": "binary",  # scores are set to 0 and 1 first
    "detect.upsampling_grid": "left",  # i / 24, extrapolated at the end
    "detect.threshold_last": 0.225,  # arange(0, 0.25, 0.025)
    "detect.positive_runs": True,  # where(cas > 0) after the threshold
    "detect.contrast": "thresholded",  # on the CAS with zeros below it
    "detect.ring_rounding": "towards_start",  # int() of both its ends
    "detect.nms": 0.7,  # the default there
    "detect.nms_plus_one": True,  # lengths are end - start + 1, in seconds
    "detect.nms_drop_equal": True,  # kept is IoU < 0.7
  },
}

# Pairs of keys of which the second is no less than the first.
_ORDERED = (
  ("detect.threshold_first", "detect.threshold_last"),
  ("ilg.scale.min", "ilg.scale.max"),
  ("data.simulated.min_segments", "data.simulated.max_segments"),
)


def _problems(flat: Mapping[str, Any]) -> Iterator[str]:
  """What is wrong with each key, then with keys beside each other; of the
  second kind those that are wrong by themselves cause none."""
  keys, faults = schema.keys(), schema.problems(flat)
  for key, fault in faults.items():
    yield f"--config.{key}: {fault}"
  if any(name not in flat for name in faults):
    return  # keys are missing: what stands beside others is not known
  flat = {**flat, **{k: keys[k].default for k in faults if k in keys}}
  yield from _of_streams(flat)
  yield from _of_networks(flat)
  for net in (*NETWORKS, *_added(flat)):
    parts = flat.get(f"{net}.accumulate", 1)
    size = flat.get(f"{net}.batch_size", parts)
    if size % parts:
      yield (
        f"--config.{net}.accumulate: expected a divisor of {net}.batch_size "
        f"{size}, got {parts}"
      )
  if not flat["compile_cache"]:
    yield "--config.compile_cache: expected auto, off or a folder, got nothing"
  if flat["ptlr.stages"] > len(flat["ptlr.thresholds"]):
    yield (
      f"--config.ptlr.thresholds: expected one for each of the "
      f"{flat['ptlr.stages']} stages, got {flat['ptlr.thresholds']}"
    )
  smallest = 2 ** flat["rts.model.branches"]
  if 0 < flat["ptlr.window"] < smallest:
    yield (
      f"--config.ptlr.window: expected 0 or at least {smallest} segments (2 to "
      f"the power of rts.model.branches), got {flat['ptlr.window']}"
    )
  for lower, upper in _ORDERED:
    if flat[upper] < flat[lower]:
      yield (
        f"--config.{upper}: expected at least {lower} {flat[lower]}, got "
        f"{flat[upper]}"
      )


def _of_streams(flat: Mapping[str, Any]) -> Iterator[str]:
  """What is wrong with the names of streams, and with their weights."""
  streams = flat["ilg.streams"]
  two = len(streams) == 2 and source.are_stream_names(streams)
  if not (two or len(streams) == 1) or streams == ("flow", "rgb"):
    yield (
      "--config.ilg.streams: expected two streams, as ('rgb', 'flow'), one, or "
      f"('fused',), got {streams!r}"
    )
    return
  yield from source.stream_problems(flat["data.streams"])
  weights = {k: v for k, v in flat.items() if k.startswith("fusion.")}
  weight_key = schema.keys()["fusion.rgb"]
  for key, weight in weights.items():
    if not weight_key.accepts(weight, plugins=False):
      yield f"--config.{key}: expected {weight_key.expected}, got {weight!r}"
      return
  if len(streams) < 2:
    return
  lacking = [s for s in streams if f"fusion.{s}" not in weights]
  if lacking:
    yield (
      f"config.fusion: expected a weight for each of ilg.streams {streams!r}, "
      f"came none for {', '.join(lacking)}; see configs/own.py"
    )
  elif not sum(weights[f"fusion.{s}"] for s in streams):
    yield (
      f"--config.fusion.{streams[1]}: expected a weight above 0 beside "
      f"{streams[0]}'s 0"
    )


def _added(flat: Mapping[str, Any]) -> list[str]:
  """The networks of plugins that the refinement trains, which have a section
  of their own."""
  nets = [net for net in flat["ptlr.networks"] if net not in NETWORKS]
  return [net for net in nets if flat["plugins"] and f"{net}.steps" in flat]


def _of_networks(flat: Mapping[str, Any]) -> Iterator[str]:
  """What is wrong with the networks of the refinement."""
  networks, own, added = flat["ptlr.networks"], ("ots", "rts"), _added(flat)
  for net in added:  # its section has at least what trains any network
    for name in ("steps", "batch_size", "accumulate", "learning_rate", "remat"):
      key, like = f"{net}.{name}", schema.keys()[f"ots.{name}"]
      if key not in flat:
        yield f"--config.{key}: expected {like.expected}, got no such key"
      elif not like.accepts(flat[key], plugins=True):
        yield f"--config.{key}: expected {like.expected}, got {flat[key]!r}"
  if tuple(net for net in networks if net not in added) not in (
    own,
    own[:1],
    own[1:],
    own[:0] if added else own,
  ) or len(set(networks)) < len(networks):
    yield (
      "--config.ptlr.networks: expected ('ots', 'rts'), ('ots',) or ('rts',), "
      f"got {networks!r}"
    )
  sources = set(flat["detect.sources"])
  known, usable = {"ilg", *own, *added}, {"ilg", *networks} & sources
  if sources - known or not usable:
    yield (
      "--config.detect.sources: expected some of ilg, ots and rts, and at "
      f"least one of ilg and ptlr.networks {networks}, got "
      f"{flat['detect.sources']}"
    )
  if flat["ptlr.cas"] and flat["predict.sampling"] == "uniform":
    yield (
      "--config.predict.sampling: expected own beside ptlr.cas, whose rows are "
      "a video's segments, got 'uniform'"
    )


def freeze_config(config: Mapping[str, Any]) -> FrozenConfigDict:
  """The configuration that a run goes by: complete, checked, unchangeable.

  Raises:
    InputError: a line for every value that is out of its range.
  """
  frozen = schema.completed(config)
  if problems := list(_problems(flatten(frozen))):
    raise InputError(*problems)
  return frozen


def apply_compat(config: ConfigDict, given: Iterable[str] = ()) -> None:
  """Sets the keys that `config.compat` stands for.

  `given` are the keys that the user has set by hand.

  Raises:
    InputError: one of them has another value than `compat` stands for.
  """
  name = config.get("compat", "")
  flat, chosen = flatten(config), COMPAT.get(name, {})
  problems = [
    f"--config.{key}: expected {chosen[key]!r}, as --config.compat={name} sets "
    f"it, got {flat[key]!r}; leave one of the two out"
    for key in given
    if key in chosen and flat[key] != chosen[key]
  ]
  if problems:
    raise InputError(*problems)
  config.update_from_flattened_dict(chosen)
