"""Every setting and its default: THUMOS14, as the paper has it.

Where the paper is silent the default is BaS-Net's or the field's custom; each
such choice is a key here, with its alternatives beside it.
"""

import importlib
from collections.abc import Callable

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The base that the other configurations change."""
  config = ConfigDict()
  config.seed = 0
  # k > 1: the seeds from `seed` on, trained at once, in WORKDIR/seed-N each.
  config.seeds = 1
  # True: equal bits run to run on a GPU too, where that costs speed
  # (docs/RELIABILITY.md); a CPU has them anyway.
  config.deterministic = False
  # Of each process, over which every batch is spread; 0: all that it sees.
  config.devices = 0
  config.compat = ""  # or basnet: what `config_checks.COMPAT` lists
  # Where compiled programs are kept: auto (the user's cache directory), a
  # folder, or off.
  config.compile_cache = "auto"
  # What shows metrics.jsonl besides: docs/LOGS.md.
  config.log = ConfigDict(
    {
      # Event files in WORKDIR/tensorboard: auto (where tensorboardX is
      # installed), always or never.
      "tensorboard": "auto",
      "wandb": "",  # a project of Weights & Biases, to which numbers are sent
    }
  )
  # Modules that add stages, networks or losses: docs/FORKING.md.
  config.plugins = ()

  config.data = ConfigDict(
    {
      # auto: found by its files. basnet, acmnet, wtalc, actionformer,
      # video_features, own; prepared (by ptlr_jax.prepare), simulated.
      "layout": "auto",
      "root": "",
      "annotations": "",  # file or folder in root, where it cannot be found
      "classes": (),  # (): the layout's list, or the training labels, sorted
      "streams": (),  # (): all that the layout has; or ("rgb",), ("flow",)
      "train_subset": "",  # "": training, or where there is none validation
      "test_subset": "",  # "": validation, or with it in training test
      "video_labels": "instances",  # or listed, as W-TALC's labels_all
      "width": 0,  # D of each stream; 0: what the files have
      # Frames: of the extraction; 0: geometry.json beside the features, or the
      # layout's own (25 fps, 16 every 16; actionformer also 16 every 4).
      "fps": 0.0,
      "stride": 0.0,
      "window": 0.0,
      "offset": 0.0,  # frames before the first segment
      "length_tolerance": 2.0,  # seconds that T may be off a video's duration
      "trim": False,  # cut streams that differ by a segment or two
      "min_segments": 2,
      "end_tolerance": 2.0,  # seconds an annotation may outlast its features
      "overrun_ids": (),  # videos known to outlast them by more
      "skip_missing": False,  # leave out videos that have no feature file
      "check_finite": True,  # read all features once before training
      "memory_gb": 8.0,  # larger sets stay on disk and are streamed
      "stream_threads": 2,  # that read ahead of training
      # On the device while training: auto (a GPU with room for them), always
      # or never.
      "resident": "auto",
      # k > 1: k consecutive parts of the training set, of each of which every
      # batch takes as many; a process reads and labels its own parts only.
      "parts": 1,
      "holdout": 0.0,  # > 0: test on this share of the training videos instead
      "holdout_seed": 0,
      "simulated": {
        "seed": 0,
        "num_classes": 6,
        "train_videos": 60,
        "test_videos": 40,
        "min_segments": 80,
        "max_segments": 200,
      },
    }
  )

  config.optimizer = ConfigDict(
    {
      "weight_decay": 5e-4,
      "decoupled": False,  # True: AdamW; else L2 in the gradient
      "decay_biases": True,
    }
  )

  config.train = ConfigDict(
    {
      "log_every": 50,
      "checkpoint_every": 250,
    }
  )

  arithmetic = {
    # How the convolutions are computed: direct, winograd2 or winograd4, see
    # models/convolution.py; auto: winograd2 for float32 on a CPU from 1024
    # channels on.
    "convolution": "auto",
    # What products are rounded to, float32, tf32 or bf16; the rest is float32.
    "precision": "float32",
  }
  memory = {  # for small cards; the same results up to rounding
    "remat": False,  # activations are computed again, not kept
    "accumulate": 1,  # parts that a batch is computed in
  }
  config.ilg = ConfigDict(
    {
      **memory,
      "streams": ("rgb", "flow"),  # ("fused",): early-fusion Bas-Net
      "network": "basnet",  # of each stream
      "steps": 1500,
      "batch_size": 16,
      "learning_rate": 1e-4,
      "segments": 750,
      "sampling": "random",  # or uniform
      # The first layers' products serve all branches of a stream; False: each
      # branch multiplies its own, which is the same and slower.
      "share_products": True,
      "model": {
        "filter_width": 512,
        "cas_width": 2048,
        "dropout": 0.7,
        "leaky_slope": 0.01,
        **arithmetic,
      },
      "loss": {
        "alpha": 0.5,  # L_csc; beta, gamma: L_sc of rgb (or fused) and flow
        "beta": 0.5,
        "gamma": 0.5,
        "topk_ratio": 8,
        "reference_classes": 21,  # the MIL loss times (C+1)/21; 0: not
        "norm_weight": 1e-4,  # 1 in Eq. (1)
        "scale_losses": {"sc": 1.0},  # what L_sc is the sum of
        "consistency_space": "softmax",  # or minmax, raw
        # Over segments and classes; sum: over them, a mean over videos; as_mil:
        # a mean times (C+1)/21, as the MIL loss.
        "consistency_reduce": "mean",
        "consistency_stop_gradient": "none",  # or original, transformed
        "transformed_mil_weight": 0.0,
      },
      "scale": {
        "min": 0.5,
        "max": 2.0,
        "lengths": 4,  # padded lengths, each compiled once
        "shared": True,  # the same s for both streams
        "align_corners": False,
      },
    }
  )

  config.fusion = ConfigDict({"rgb": 1.0, "flow": 1.5})

  config.labels = ConfigDict(
    {
      # Or softmax_minmax, minmax, raw_minmax, softmax, raw:
      # method/cas_space.py.
      "cas": "softmax_stream_minmax",
      "fusion": "sum",  # or average, of the streams by their weights
      "network_cas": "probability",  # or minmax, of OTS and RTS
      "high": 0.7,
      "low": 0.1,
      "class_filter": True,  # only the video's own classes label frames
      "background_sum": "own",  # over the classes of class_filter, or all
      "several": "highest",  # or multi_hot, where two classes pass
      "keep_empty": True,  # no action frame left: keep the labels before
      # expand: labelled frames keep their labels, new frames join; merge: new
      # labels override; replace: the new ones alone, as Algorithm 1 prints.
      "update_rule": "expand",
    }
  )

  config.ptlr = ConfigDict(
    {
      "stages": 3,
      "thresholds": (0.7, 0.65, 0.6, 0.55),  # theta_p of each stage
      "networks": ("ots", "rts"),
      "sampling": "own",  # own length, or uniform: ilg.segments of a video
      "window": 750,  # longer videos train on a random run; 0: whole
      # A batch's videos lie one after the other; False: each padded to the
      # longest, which is the same up to rounding, and slower.
      "pack": True,
      "warm_start": False,  # parameters of the stage before
      # A folder of another method's CASs, which replace the ILG:
      # docs/OWN_CAS.md.
      "cas": "",
      "cas_values": "probability",  # or logit
      "cas_resample": False,  # True: those of another length, linearly
    }
  )

  network = {
    **memory,
    "steps": 1500,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "loss_average": "batch",  # or video
    "class_balance": False,  # True: actions and background weigh the same
    "label_smoothing": 0.0,
    "temperature": 1.0,  # of the softmax in prediction
  }
  model = {"width": 2048, "dropout": 0.7, "leaky_slope": 0.01, **arithmetic}
  config.ots = ConfigDict({**network, "model": model})
  config.rts = ConfigDict(
    {
      **network,
      "upsampling": "copy",  # or nearest, linear
      "average": "probability",  # or logit
      "model": {**model, "branches": 3, "centred": True},
    }
  )

  config.predict = ConfigDict(
    {
      "batch_size": 8,
      "sampling": "own",  # own length, or uniform: ilg.segments of a video
    }
  )

  config.detect = ConfigDict(
    {
      "sources": ("ots", "rts", "ilg"),  # whose proposals count
      "ilg_cas": "raw_minmax",  # the ILG's own CAS: as labels.cas, relu_minmax
      "class_scores": "ilg",  # or ptlr: mean of OTS and RTS
      "class_threshold": 0.25,
      "class_fallback": True,  # none passes: keep the best one
      "cas": "probability",  # or minmax, logit_minmax, of OTS and RTS
      "threshold_first": 0.0,
      "threshold_last": 0.5,
      "threshold_step": 0.025,
      "upsampling": 24,
      "ring": 0.25,  # outer area, in lengths of the proposal
      "contrast": "cas",  # or thresholded
      "class_weight": 0.2,
      "class_score": "value",  # or binary: 1 where it passes, 0 elsewhere
      "nms": 0.5,  # 0.7 in the paper
      # Quirks of BaSNet-pytorch; `compat` sets them all.
      "nms_plus_one": False,  # True: a second is added to every length
      "nms_drop_equal": False,  # True: an IoU equal to `nms` is dropped too
      "lone_first_class": True,  # False: class 0 is dropped when alone
      "positive_runs": False,  # True: runs need values above 0
      "ring_rounding": "up",  # or towards_start
      "upsampling_grid": "centres",  # or left, extrapolated at the end
    }
  )

  config.evaluate = ConfigDict(
    {
      # thumos14-212, thumos14-snippet, activitynet:
      # python -m ptlr_jax.evaluate --protocol=list
      "protocol": "thumos14",
      # Detections over the data's ambiguous stretches: kit, wtalc; "" as others
      "ambiguous": "",
    }
  )
  return config


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
