"""Every setting: its default (THUMOS14, as in the paper), range and meaning.

Where the paper is silent the default is BaS-Net's or the field's custom; each
such choice is a key here, with its alternatives beside it.
`python -m ptlr_jax.main --help_config` prints the list.
"""

import importlib
from collections.abc import Callable

from ml_collections import ConfigDict

from ptlr_jax.runtime.schema import Key, Open, default_config

FROM_0, FROM_1, RATE = "[0, inf)", "[1, inf)", "[0, 1)"
NETWORK_CHOICES = ("ots", "rts")
CAS_SPACES = (
  *("softmax_minmax", "softmax_stream_minmax", "minmax", "raw_minmax"),
  *("relu_minmax", "softmax", "raw"),
)

ARITHMETIC = {
  "convolution": Key(
    "auto",
    "How convolutions are computed (models/convolution.py); auto: winograd2 "
    "for float32 on a CPU from 1024 channels on.",
    choices=("auto", "direct", "winograd2", "winograd4"),
  ),
  "precision": Key(
    "float32",
    "What factors of products are rounded to; the rest is float32.",
    choices=("float32", "tf32", "bf16"),
  ),
}
LAYERS = {
  "dropout": Key(0.7, "Dropout rate before the classifier.", RATE),
  "leaky_slope": Key(0.01, "Slope of leaky ReLU below 0.", "[0, 1]"),
  **ARITHMETIC,
}
MEMORY = {
  "remat": Key(
    False,
    "Recompute activations instead of storing them: less memory, the same "
    "results up to rounding.",
  ),
  "accumulate": Key(
    1, "Parts in which a batch is computed; a divisor of batch_size.", FROM_1
  ),
}


def _training(learning_rate: float) -> dict[str, Key]:
  return {
    "steps": Key(1500, "Updates.", FROM_1),
    "batch_size": Key(16, "Videos of an update.", FROM_1),
    "learning_rate": Key(learning_rate, "Of Adam.", FROM_0),
  }


REFINEMENT = {
  **MEMORY,
  **_training(1e-3),
  "loss_average": Key(
    "batch",
    "Mean of Eqs. (6) and (7): over the frames of a batch, or of each video.",
    choices=("batch", "video"),
  ),
  "class_balance": Key(False, "Give actions and background the same weight."),
  "label_smoothing": Key(0.0, "Share taken from the label.", RATE),
  "temperature": Key(1.0, "Of the softmax in prediction.", "[1e-3, inf)"),
}

KEYS = {
  "seed": Key(
    0, "Of parameters, batches and dropout.", range="[0, 4294967295]"
  ),
  "seeds": Key(
    1,
    "k > 1: trains the seeds from `seed` on at once, in WORKDIR/seed-N each.",
    FROM_1,
  ),
  "deterministic": Key(
    False,
    "Equal bits from run to run on a GPU too, at a cost in speed; a CPU has "
    "them anyway (docs/RELIABILITY.md).",
  ),
  "devices": Key(
    0,
    "Devices of each process, over which every batch is spread; 0: all.",
    FROM_0,
  ),
  "compat": Key(
    "",
    "basnet: all quirks of BaSNet-pytorch (`config_checks.COMPAT`).",
    choices=("", "basnet"),
  ),
  "compile_cache": Key(
    "auto",
    "Folder of compiled programs; auto: the user's cache directory; off.",
  ),
  "log": {
    "tensorboard": Key(
      "auto",
      "Event files in WORKDIR/tensorboard; auto: where tensorboardX is "
      "installed (docs/LOGS.md).",
      choices=("auto", "always", "never"),
      added=("auto",),
    ),
    "wandb": Key(
      "", "Project of Weights & Biases that is sent the log.", added=("",)
    ),
  },
  "plugins": Key(
    (),
    "Modules that add networks, losses, label rules or layouts, as "
    "('my_fork.stage',) (docs/FORKING.md).",
    elements=str,
    added=((),),
  ),
  "data": {
    "layout": Key(
      "auto",
      "Layout of the folder; auto: detected by its files; prepared: written by "
      "ptlr_jax.prepare.",
      choices=(
        *("auto", "basnet", "acmnet", "wtalc", "actionformer"),
        *("video_features", "own", "prepared", "simulated"),
      ),
      extensible=True,
    ),
    "root": Key("", "Folder of features and annotations."),
    "annotations": Key("", "File or folder in root, where it is not found."),
    "classes": Key(
      (),
      "Names in the order of the columns; (): the layout's list, or the "
      "training labels, sorted.",
      elements=str,
    ),
    "streams": Key(
      (), "Streams to read, as ('rgb',); (): all of the layout.", elements=str
    ),
    "train_subset": Key(
      "", "Training subset; '': training, or where there is none validation."
    ),
    "test_subset": Key(
      "", "Test subset; '': validation, or if that is trained on test."
    ),
    "video_labels": Key(
      "instances",
      "Where video-level labels come from: temporal instances, or the list "
      "beside them, as W-TALC's labels_all.",
      choices=("instances", "listed"),
    ),
    "width": Key(0, "Channels D of a stream; 0: those of the files.", FROM_0),
    "fps": Key(
      0.0,
      "Frame rate of the extraction; 0: geometry.json beside the features, or "
      "the layout's own (25 fps, 16 frames every 16; actionformer also every "
      "4).",
      FROM_0,
    ),
    "stride": Key(0.0, "Frames between segments; 0: as fps.", FROM_0),
    "window": Key(0.0, "Frames of a segment; 0: as fps.", FROM_0),
    "offset": Key(0.0, "Frames before the first segment.", FROM_0),
    "length_tolerance": Key(
      2.0, "Seconds that T may differ from a video's duration.", FROM_0
    ),
    "trim": Key(False, "Cut streams that differ by a segment or two."),
    "min_segments": Key(2, "Segments that a video needs.", FROM_1),
    "end_tolerance": Key(
      2.0,
      "Seconds that an annotation may end after its features.",
      FROM_0,
    ),
    "overrun_ids": Key(
      (), "Videos known to exceed end_tolerance.", elements=str
    ),
    "skip_missing": Key(False, "Leave out videos without a feature file."),
    "check_finite": Key(True, "Read all features once before training."),
    "memory_gb": Key(
      8.0, "Larger data sets stay on disk and are streamed.", FROM_0
    ),
    "stream_threads": Key(2, "Threads that read ahead.", FROM_1),
    "resident": Key(
      "auto",
      "Features on the device while training; auto: on a GPU with room.",
      choices=("auto", "always", "never"),
    ),
    "parts": Key(
      1,
      "k > 1: k consecutive parts of the training set, of each of which every "
      "batch takes as many; a process reads its own parts only.",
      FROM_1,
    ),
    "holdout": Key(
      0.0,
      "Above 0: tests on this share of the training videos instead.",
      RATE,
    ),
    "holdout_seed": Key(0, "Of the draw of these videos.", FROM_0),
    "simulated": {
      "seed": Key(0, "Of the simulated data set.", FROM_0),
      "num_classes": Key(6, "Classes.", "[2, inf)"),
      "train_videos": Key(60, "Training videos.", FROM_1),
      "test_videos": Key(40, "Test videos.", FROM_1),
      "min_segments": Key(80, "Shortest video.", "[20, inf)"),
      "max_segments": Key(200, "Longest video.", "[20, inf)"),
    },
  },
  "optimizer": {
    "weight_decay": Key(5e-4, "Of Adam.", FROM_0),
    "decoupled": Key(False, "AdamW; else L2 in the gradient."),
    "decay_biases": Key(True, "Whether biases decay too."),
  },
  "train": {
    "log_every": Key(50, "Updates.", FROM_1),
    "checkpoint_every": Key(250, "Updates.", FROM_1),
  },
  "ilg": {
    **MEMORY,
    "streams": Key(
      ("rgb", "flow"),
      "Two streams, or one; ('fused',): early-fusion Bas-Net.",
      elements=str,
    ),
    "network": Key(
      "basnet",
      "Network of each stream.",
      choices=("basnet",),
      extensible=True,
      added=("basnet",),
    ),
    **_training(1e-4),
    "segments": Key(750, "Positions at which a video is sampled.", "[8, inf)"),
    "sampling": Key(
      "random", "Of these positions.", choices=("random", "uniform")
    ),
    "share_products": Key(
      True,
      "The first layers' products serve all branches of a stream; False: the "
      "same, slower.",
    ),
    "model": Open(
      {
        "filter_width": Key(512, "Channels of the filter module.", FROM_1),
        "cas_width": Key(2048, "Channels of the CAS module.", FROM_1),
        **LAYERS,
      },
      to_plugins=True,
    ),
    "loss": {
      "alpha": Key(0.5, "Weight of L_csc, Eq. (5).", FROM_0),
      "beta": Key(0.5, "Weight of L_sc of the first stream.", FROM_0),
      "gamma": Key(0.5, "Weight of L_sc of the second stream.", FROM_0),
      "topk_ratio": Key(8, "Top T / 8 segments make the video score.", FROM_1),
      "reference_classes": Key(
        21, "Multiplies the MIL loss by (C + 1) / 21; 0: not.", FROM_0
      ),
      "norm_weight": Key(1e-4, "Weight of L_norm; 1 in Eq. (1).", FROM_0),
      "cross_stream_losses": Open(
        {"csc": Key(1.0, "Terms of L_csc and their weights.", added=(1.0,))},
        to_plugins=True,
      ),
      "scale_losses": Open(
        {"sc": Key(1.0, "Terms of L_sc and their weights.", added=(1.0,))},
        to_plugins=True,
      ),
      "consistency_space": Key(
        "softmax",
        "Space of the CASs that the consistency losses compare.",
        choices=("softmax", "minmax", "raw"),
      ),
      "consistency_reduce": Key(
        "mean",
        "Over segments and classes; sum: over them, a mean over videos; "
        "as_mil: a mean times (C + 1) / 21, as the MIL loss.",
        choices=("mean", "sum", "as_mil"),
      ),
      "consistency_stop_gradient": Key(
        "none",
        "Branch of L_sc without gradient.",
        choices=("none", "original", "transformed"),
      ),
      "transformed_mil_weight": Key(
        0.0, "Weight of the transformed branch's own MIL loss.", FROM_0
      ),
    },
    "scale": {
      "min": Key(0.5, "Smallest s.", "[1e-3, inf)"),
      "max": Key(2.0, "Largest s.", "[1e-3, inf)"),
      "lengths": Key(4, "Padded lengths, each compiled once.", FROM_1),
      "shared": Key(True, "The same s for both streams."),
      "align_corners": Key(False, "Of the linear interpolation."),
    },
  },
  "fusion": Open(
    {
      "rgb": Key(1.0, "Weight of a stream, by its name.", FROM_0),
      "flow": Key(1.5, "Weight of a stream, by its name.", FROM_0),
    }
  ),
  "labels": {
    "cas": Key(
      "softmax_stream_minmax",
      "Space of the CAS that is thresholded (method/cas_space.py).",
      choices=CAS_SPACES,
    ),
    "fusion": Key(
      "sum",
      "Of the streams, by their weights.",
      choices=("average", "sum"),
      added=("average",),
    ),
    "network_cas": Key(
      "probability",
      "Space of OTS and RTS.",
      choices=("probability", "minmax"),
    ),
    "high": Key(0.7, "Above: action."),
    "low": Key(0.1, "Sum below: background."),
    "class_filter": Key(True, "Only a video's own classes label its frames."),
    "background_sum": Key(
      "own",
      "Classes whose sum `low` is compared with: class_filter's, or all.",
      choices=("own", "all"),
    ),
    "several": Key(
      "highest",
      "Label of a frame for which several classes pass.",
      choices=("highest", "multi_hot"),
    ),
    "keep_empty": Key(
      True, "A video without any new action frame keeps its labels."
    ),
    "update_rule": Key(
      "expand",
      "expand: labelled frames keep their labels, new frames join; merge: new "
      "labels override; replace: the new ones alone, as Algorithm 1 prints.",
      choices=("replace", "merge", "expand"),
      extensible=True,
    ),
  },
  "ptlr": {
    "stages": Key(3, "Stages of the refinement.", FROM_0),
    "thresholds": Key(
      (0.7, 0.65, 0.6, 0.55),
      "theta_p of each stage.",
      "[0, 1]",
      elements=float,
    ),
    "networks": Key(
      NETWORK_CHOICES,
      "Networks that exchange labels, in this order.",
      choices=NETWORK_CHOICES,
      extensible=True,
    ),
    "sampling": Key(
      "own",
      "Of OTS's and RTS's videos: own length, or uniform at ilg.segments.",
      choices=("own", "uniform"),
      added=("own",),
    ),
    "window": Key(
      750, "Longer videos train on a random run of it; 0: whole.", FROM_0
    ),
    "pack": Key(
      True,
      "A batch's videos lie one after the other; False: each padded to the "
      "longest, the same up to rounding, and slower.",
    ),
    "warm_start": Key(False, "Start from the parameters of the stage before."),
    "cas": Key(
      "",
      "Folder of another method's CASs, which replace the ILG "
      "(docs/OWN_CAS.md).",
      added=("",),
    ),
    "cas_values": Key(
      "probability",
      "What they hold.",
      choices=("probability", "logit"),
      added=("probability",),
    ),
    "cas_resample": Key(
      False, "Interpolate those of another length.", added=(False,)
    ),
  },
  "ots": {
    **REFINEMENT,
    "model": {"width": Key(2048, "Channels.", FROM_1), **LAYERS},
  },
  "rts": {
    **REFINEMENT,
    "upsampling": Key(
      "copy",
      "Of a branch's scores to the segments.",
      choices=("copy", "nearest", "linear"),
    ),
    "average": Key(
      "probability",
      "What is averaged over branches.",
      choices=("probability", "logit"),
    ),
    "model": {
      "width": Key(2048, "Channels.", FROM_1),
      **LAYERS,
      "branches": Key(3, "Branches, of stride 2, 4, 8, ...", "[1, 20]"),
      "centred": Key(True, "Centre a value on the segments it covers."),
    },
  },
  "predict": {
    "batch_size": Key(8, "Videos of a batch in prediction.", FROM_1),
    "sampling": Key(
      "own",
      "The ILG's videos: own length, or uniform at ilg.segments.",
      choices=("own", "uniform"),
    ),
  },
  "detect": {
    "sources": Key(
      ("ots", "rts", "ilg"),
      "Networks whose proposals count.",
      choices=("ilg", *NETWORK_CHOICES),
      extensible=True,
    ),
    "ilg_cas": Key(
      "raw_minmax",
      "Space of the ILG's own CAS, as labels.cas.",
      choices=CAS_SPACES,
    ),
    "class_scores": Key(
      "ilg",
      "Source of the video's class scores; ptlr: mean of OTS and RTS.",
      choices=("ilg", "ptlr"),
    ),
    "class_threshold": Key(0.25, "Score from which a class counts.", "[0, 1]"),
    "class_fallback": Key(True, "If none passes, keep the best class."),
    "cas": Key(
      "probability",
      "Space of OTS and RTS.",
      choices=("probability", "minmax", "logit_minmax"),
    ),
    "threshold_first": Key(0.0, "First threshold of the CAS."),
    "threshold_last": Key(0.5, "Last threshold."),
    "threshold_step": Key(0.025, "Between thresholds.", "[1e-6, inf)"),
    "upsampling": Key(24, "Positions of the CAS to a segment.", FROM_1),
    "ring": Key(0.25, "Outer area, in lengths of the proposal.", FROM_0),
    "contrast": Key(
      "cas",
      "CAS of the outer-inner contrast.",
      choices=("cas", "thresholded"),
    ),
    "class_weight": Key(0.2, "Of the class score in a proposal's.", FROM_0),
    "class_score": Key(
      "value",
      "binary: 1 where the class passes, 0 elsewhere.",
      choices=("value", "binary"),
    ),
    "nms": Key(0.5, "IoU from which NMS drops; 0.7 in the paper.", "[0, 1]"),
    "nms_plus_one": Key(False, "Quirk: add a second to every length."),
    "nms_drop_equal": Key(False, "Quirk: drop an IoU equal to nms too."),
    "lone_first_class": Key(True, "False: quirk, drop class 0 when alone."),
    "positive_runs": Key(False, "Quirk: runs need values above 0."),
    "ring_rounding": Key(
      "up",
      "Of the outer area's ends.",
      choices=("up", "towards_start"),
    ),
    "upsampling_grid": Key(
      "centres",
      "Positions of the values; left: quirk, extrapolated at the end.",
      choices=("centres", "left"),
    ),
  },
  "evaluate": {
    "protocol": Key(
      "thumos14",
      "Protocol of the scores (python -m ptlr_jax.evaluate --protocol=list).",
      choices=(
        *("thumos14", "thumos14-212", "thumos14-snippet", "activitynet"),
      ),
    ),
    "ambiguous": Key(
      "",
      "Detections over ambiguous stretches: as others, or the rule of the "
      "THUMOS kit or of W-TALC.",
      choices=("", "kit", "wtalc"),
    ),
  },
}


def get_config() -> ConfigDict:
  """The base that the other configurations change."""
  return default_config(KEYS)


def named(name: str) -> ConfigDict:
  """What configs/`name`.py says."""
  return importlib.import_module(f"configs.{name}").get_config()


def delta(change: Callable[[ConfigDict], ConfigDict]):
  """get_config of a file whose `change` goes on top of a configuration.

  --config=FILE.py:NAME is the change on configs/NAME.py.
  """

  def get_config(name: str = "thumos14") -> ConfigDict:
    return change(named(name))

  return get_config


def early_fusion(config: ConfigDict) -> ConfigDict:
  """Turns a configuration into the paper's baseline, early-fusion Bas-Net."""
  config.ilg.streams = ("fused",)
  config.ilg.loss.update({"alpha": 0.0, "beta": 0.0, "gamma": 0.0})
  config.ptlr.stages = 0
  return config
