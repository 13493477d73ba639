"""Checks of a configuration before anything is computed."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from ptlr_jax.data.layouts import LAYOUTS, source
from ptlr_jax.evaluation.ambiguity import RULES
from ptlr_jax.evaluation.protocols import PROTOCOLS
from ptlr_jax.localization.interpolation import GRIDS
from ptlr_jax.localization.proposals import CONTRASTS, RINGS
from ptlr_jax.method.cas_space import SPACES
from ptlr_jax.method.pseudo_labels import UPDATE_RULES
from ptlr_jax.runtime import config_tree
from ptlr_jax.runtime.errors import InputError

NETWORKS = ("ilg", "ots", "rts")
# Where a plugin may add to what there is to choose from: only it knows names.
_OPEN = ("ilg.network", "labels.update_rule")
# As `models.convolution` has them, which imports JAX.
_CONVOLUTIONS = ("auto", "direct", "winograd2", "winograd4")
_PRECISIONS = ("float32", "tf32", "bf16")

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

CHOICES: dict[str, tuple[str, ...]] = {
  "compat": tuple(COMPAT),
  "data.layout": ("auto", *LAYOUTS, "prepared", "simulated"),
  **{f"data.{key}": choices for key, choices in source.CHOICES.items()},
  "evaluate.protocol": tuple(PROTOCOLS),
  "evaluate.ambiguous": ("", *RULES),
  "data.resident": ("auto", "always", "never"),
  "log.tensorboard": ("auto", "always", "never"),
  **{f"{net}.model.convolution": _CONVOLUTIONS for net in NETWORKS},
  **{f"{net}.model.precision": _PRECISIONS for net in NETWORKS},
  "ilg.network": ("basnet",),
  "ilg.sampling": ("random", "uniform"),
  "ilg.loss.consistency_space": ("softmax", "minmax", "raw"),
  "ilg.loss.consistency_reduce": ("mean", "sum", "as_mil"),
  "ilg.loss.consistency_stop_gradient": ("none", "original", "transformed"),
  "ptlr.cas_values": ("probability", "logit"),
  "ptlr.sampling": ("own", "uniform"),
  "labels.cas": tuple(SPACES),
  "labels.fusion": ("average", "sum"),
  "labels.background_sum": ("own", "all"),
  "labels.several": ("highest", "multi_hot"),
  "labels.update_rule": tuple(UPDATE_RULES),
  "labels.network_cas": ("probability", "minmax"),
  "ots.loss_average": ("batch", "video"),
  "rts.loss_average": ("batch", "video"),
  "rts.upsampling": ("copy", "nearest", "linear"),
  "rts.average": ("probability", "logit"),
  "predict.sampling": ("own", "uniform"),
  "detect.ilg_cas": tuple(SPACES),
  "detect.class_scores": ("ilg", "ptlr"),
  "detect.cas": ("probability", "minmax", "logit_minmax"),
  "detect.contrast": CONTRASTS,
  "detect.class_score": ("value", "binary"),
  "detect.ring_rounding": RINGS,
  "detect.upsampling_grid": GRIDS,
}

_AT_LEAST: dict[str, float] = {
  "seed": 0,
  "seeds": 1,
  "data.stream_threads": 1,
  **{f"data.{key}": low for key, low in source.AT_LEAST.items()},
  "data.simulated.seed": 0,
  "data.simulated.num_classes": 2,
  "data.simulated.train_videos": 1,
  "data.simulated.test_videos": 1,
  "data.simulated.min_segments": 20,
  "train.log_every": 1,
  "train.checkpoint_every": 1,
  "ilg.steps": 1,
  "ilg.batch_size": 1,
  "ilg.segments": 8,
  "ilg.loss.topk_ratio": 1,
  "ilg.scale.lengths": 1,
  "ilg.scale.min": 1e-3,
  "ptlr.stages": 0,
  "ptlr.window": 0,
  "devices": 0,
  "data.parts": 1,
  "optimizer.weight_decay": 0,
  "ilg.learning_rate": 0,
  "ots.learning_rate": 0,
  "rts.learning_rate": 0,
  "ilg.model.filter_width": 1,
  "ilg.model.cas_width": 1,
  "ots.model.width": 1,
  "rts.model.width": 1,
  "detect.ring": 0,
  "detect.nms": 0,
  "ots.steps": 1,
  "ots.batch_size": 1,
  "rts.steps": 1,
  "rts.batch_size": 1,
  **{f"{net}.accumulate": 1 for net in NETWORKS},
  "ots.temperature": 1e-3,
  "rts.temperature": 1e-3,
  "rts.model.branches": 1,
  "predict.batch_size": 1,
  "detect.threshold_step": 1e-6,
  "detect.upsampling": 1,
}

# What the section of any network has, and what a number is at least.
_OF_ADDED = {"steps": 1, "batch_size": 1, "accumulate": 1, "learning_rate": 0}

_SHARES = (
  "ilg.model.dropout",
  "ots.model.dropout",
  "rts.model.dropout",
  "ots.label_smoothing",
  "rts.label_smoothing",
)

# What the elements of a sequence must be; streams, networks and sources are
# held to their names below.
_ELEMENTS: dict[str, tuple[tuple[type, ...], str]] = {
  "data.classes": ((str,), "names in quotes"),
  "data.overrun_ids": ((str,), "video ids in quotes"),
  "data.streams": ((str,), "names in quotes"),
  "ilg.streams": ((str,), "names in quotes"),
  "ptlr.thresholds": ((int, float), "numbers"),
  "plugins": ((str,), "modules in quotes, as ('my_fork.stage',)"),
}


def _problems(flat: Mapping[str, Any]) -> Iterator[str]:
  for key, choices in CHOICES.items():
    if flat[key] not in choices and not (flat["plugins"] and key in _OPEN):
      yield (
        f"--config.{key}: expected one of {', '.join(map(str, choices))}, "
        f"got {flat[key]!r}"
      )
  for key, value in flat.items():
    if isinstance(value, float) and not math.isfinite(value):
      yield f"--config.{key}: expected a finite number, got {value!r}"
  for key, (kinds, names) in _ELEMENTS.items():
    if not all(isinstance(item, kinds) for item in flat[key]):
      yield f"--config.{key}: expected {names}, got {flat[key]!r}"
  for key, low in _AT_LEAST.items():
    if flat[key] < low:
      yield f"--config.{key}: expected at least {low:g}, got {flat[key]!r}"
  for key in _SHARES:
    if not 0 <= flat[key] < 1:
      yield f"--config.{key}: expected a rate in [0, 1), got {flat[key]!r}"
  if not flat["compile_cache"]:
    yield "--config.compile_cache: expected auto, off or a folder, got nothing"
  yield from _of_streams(flat)
  yield from _of_networks(flat)
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
  for net in (*NETWORKS, *_added(flat)):
    size, parts = flat[f"{net}.batch_size"], flat[f"{net}.accumulate"]
    if parts > 0 and size % parts:
      yield (
        f"--config.{net}.accumulate: expected a divisor of {net}.batch_size "
        f"{size}, got {parts}"
      )
  if flat["detect.threshold_last"] < flat["detect.threshold_first"]:
    yield (
      "--config.detect.threshold_last: expected at least threshold_first "
      f"{flat['detect.threshold_first']}, got {flat['detect.threshold_last']}"
    )
  if flat["ilg.scale.max"] < flat["ilg.scale.min"]:
    yield (
      f"--config.ilg.scale.max: expected at least scale.min "
      f"{flat['ilg.scale.min']}, got {flat['ilg.scale.max']}"
    )
  if flat["data.simulated.max_segments"] < flat["data.simulated.min_segments"]:
    yield (
      "--config.data.simulated.max_segments: expected at least min_segments, "
      f"got {flat['data.simulated.max_segments']}"
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
  for key, weight in weights.items():
    if weight < 0:
      yield f"--config.{key}: expected at least 0, got {weight!r}"
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
  """The networks of plugins that the refinement trains."""
  nets = [net for net in flat["ptlr.networks"] if net not in NETWORKS]
  return [net for net in nets if flat["plugins"] and f"{net}.steps" in flat]


def _of_networks(flat: Mapping[str, Any]) -> Iterator[str]:
  """What is wrong with the networks of the refinement; those of plugins have a
  section of their own."""
  networks, own, added = flat["ptlr.networks"], ("ots", "rts"), _added(flat)
  for key, low in _OF_ADDED.items():
    for net in added:
      if (came := flat[f"{net}.{key}"]) < low:
        yield f"--config.{net}.{key}: expected at least {low}, got {came!r}"
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
  names = [key for key in flat if key.startswith("ilg.loss.scale_losses.")]
  if names != ["ilg.loss.scale_losses.sc"] and not flat["plugins"]:
    yield (
      "--config.ilg.loss.scale_losses: expected sc alone where no plugin adds "
      f"others, got {', '.join(n.rpartition('.')[2] for n in names) or 'none'}"
    )


def freeze_config(config: Mapping[str, Any]) -> FrozenConfigDict:
  """The configuration that a run goes by: complete, checked, unchangeable.

  Raises:
    InputError: a line for every value that is out of its range.
  """
  frozen = config_tree.completed(config)
  try:
    problems = list(_problems(config_tree.flatten(frozen)))
  except KeyError as error:
    raise InputError(
      f"--config.{error.args[0]}: the configuration lacks this key; begin from "
      "configs/base.py"
    ) from None
  if problems:
    raise InputError(*problems)
  return frozen


def apply_compat(config: ConfigDict, given: Iterable[str] = ()) -> None:
  """Sets the keys that `config.compat` stands for.

  `given` are the keys that the user has set by hand.

  Raises:
    InputError: one of them has another value than `compat` stands for.
  """
  name = config.get("compat", "")
  flat, chosen = config_tree.flatten(config), COMPAT.get(name, {})
  problems = [
    f"--config.{key}: expected {chosen[key]!r}, as --config.compat={name} sets "
    f"it, got {flat[key]!r}; leave one of the two out"
    for key in given
    if key in chosen and flat[key] != chosen[key]
  ]
  if problems:
    raise InputError(*problems)
  config.update_from_flattened_dict(chosen)
