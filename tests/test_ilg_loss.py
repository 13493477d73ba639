"""The ILG's loss on one tiny batch: Eqs. (1) to (5), and its options."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import (
  KEY,
  LENGTHS,
  NO_DROPOUT,
  WIDTHS,
  T,
  batch_of,
  gradient_of,
  leaves,
  loss_of,
  options,
  params_of,
  predict_of,
)

from configs import base
from ptlr_jax.data import sampling
from ptlr_jax.method import losses
from ptlr_jax.method.registry import STAGES
from ptlr_jax.method.temporal_scale import scale_transform


def by_hand_params(slope):
  """A stream of width 1 that sees max(x, 0) twice; foreground weights 1/2.

  Class scores are `slope` times that, the background's are 0.
  """
  kernel, middle = np.zeros((1, 1, 1)), np.array([0.0, 1, 0])[:, None, None]
  return {
    "filter_module": {
      name: {"kernel": kernel, "bias": np.zeros(1)}
      for name in ("conv1", "conv2")
    },
    "cas_module": {
      "conv1": {"kernel": middle, "bias": np.zeros(1)},
      "conv2": {"kernel": middle, "bias": np.zeros(1)},
      "classifier": {"kernel": np.array([[[slope, 0.0]]])},
    },
  }


@pytest.mark.parametrize("weights", [(0.5, 0.5, 0.5), (1.0, 2.0, 4.0)])
def test_eqs_1_to_5_by_hand(weights):
  # One class, two valid segments and one to ignore; s = 1/2 and s = 2.
  values = {"rgb": [-4, 4, 9], "flow": [2, -2, 9]}
  batch = {
    "features": {n: np.array(v, "f")[None, :, None] for n, v in values.items()},
    "mask": np.array([[True, True, False]]),
    "labels": np.ones((1, 1), np.float32),
    "scale": np.array([0.5, 2], np.float32),
    "scale_grid": np.zeros(5, np.float32),
  }
  ln3 = math.log(3)
  params = {"rgb": by_hand_params(ln3 / 2), "flow": by_hand_params(2 * ln3)}
  changes = {
    "model.dropout": 0.0,
    "model.leaky_slope": 0.0,
    "model.filter_width": 1,
    "model.cas_width": 1,
    **dict(
      zip(("loss.alpha", "loss.beta", "loss.gamma"), weights, strict=True)
    ),
  }
  tiny = STAGES["ilg"](1, options("ilg", changes))
  total, terms = tiny.loss(params, batch, KEY)

  # Softmax of the class at both segments, base branch: 1/2, 9/10 (rgb), 81/82,
  # 1/2 (flow); suppression branch: 1/2, 3/4 and 9/10, 1/2.
  expected = {
    # The best segment against (1/2, 1/2) and (1, 0), times (C + 1)/21.
    "rgb/base": -math.log(9 / 100) / 21,
    "rgb/supp": -math.log(3 / 4) * 2 / 21,
    "flow/base": -math.log(81 / 6724) / 21,
    "flow/supp": -math.log(9 / 10) * 2 / 21,
    # 1/2 + 1/2, times 1e-4.
    "rgb/norm": 1e-4,
    "flow/norm": 1e-4,
    # |1/2 - 9/10| and |3/4 - 1/2|.
    "csc": 0.325,
    # ST(F, 1/2) is 0, of softmax 1/2; ST(A, 1/2) the mean of 1/2 and 3/4.
    "rgb/sc": 0.125,
    # ST(F, 2) is 2, 1, -1, -2, of softmax 9/10, 3/4, 1/2, 1/2; ST(A, 2) is 0.9,
    # 0.8, 0.6, 0.5.
    "flow/sc": 0.0375,
  }
  assert terms.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
  # 0.1146641 + 0.0273983 + 0.2104281 + 0.0100343 + 0.0002
  basnet = 0.3627247
  consistency = {0.5: 0.24375, 1.0: 0.725}[weights[0]]
  np.testing.assert_allclose(total, basnet + consistency, rtol=1e-5)


def test_ilg_total_is_eq_5():
  total, terms = loss_of("ilg")(params_of("ilg"), batch_of(), KEY)
  basnet = [
    f"{s}/{t}" for s in ("rgb", "flow") for t in ("base", "supp", "norm")
  ]
  assert set(terms) == {*basnet, "csc", "rgb/sc", "flow/sc"}
  consistency = terms["csc"] + terms["rgb/sc"] + terms["flow/sc"]
  expected = sum(terms[name] for name in basnet) + 0.5 * consistency
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  assert all(value > 1e-5 for value in terms.values())


def test_ilg_terms_are_eqs_1_to_4_of_the_predicted_cas():
  # Without dropout the CAS in the loss is the one that predict returns.
  params, batch = params_of("ilg"), batch_of(scale=(0.75, 1.5))
  _, terms = loss_of("ilg", NO_DROPOUT)(params, batch, KEY)
  predict = predict_of("ilg", NO_DROPOUT)
  cas = predict(params, batch)["logits"]
  mask, labels = batch["mask"], batch["labels"]
  rgb, flow = (jax.nn.softmax(cas[stream]) for stream in ("rgb", "flow"))
  csc = losses.cross_stream_consistency(rgb, flow, mask)
  np.testing.assert_allclose(terms["csc"], csc, rtol=1e-5)

  transformed, valid = {}, {}
  for i, stream in enumerate(WIDTHS):
    np.testing.assert_allclose(
      terms[f"{stream}/supp"],
      losses.video_bce(
        losses.topk_mean(cas[stream], mask),
        jnp.pad(labels, ((0, 0), (0, 1))),
      ),
      rtol=1e-5,
    )
    transformed[stream], valid[stream] = scale_transform(
      batch["features"][stream], jnp.array(LENGTHS), batch["scale"][i], 26
    )
  assert valid["rgb"].sum(1).tolist() == [12, 8]
  assert valid["flow"].sum(1).tolist() == [24, 16]
  for i, stream in enumerate(WIDTHS):
    # predict wants one mask for both streams; the other's scores are unused.
    theirs = predict(params, {"features": transformed, "mask": valid[stream]})
    ours, _ = scale_transform(
      jax.nn.softmax(cas[stream]), jnp.array(LENGTHS), batch["scale"][i], 26
    )
    np.testing.assert_allclose(
      terms[f"{stream}/sc"],
      losses.scale_consistency(
        ours, jax.nn.softmax(theirs["logits"][stream]), valid[stream]
      ),
      rtol=1e-4,
    )


def test_without_dropout_and_scaling_the_streams_are_scale_consistent():
  batch = batch_of(scale=(1, 1), grid=T)
  _, terms = loss_of("ilg", NO_DROPOUT)(params_of("ilg"), batch, KEY)
  assert terms["rgb/sc"] < 1e-6
  assert terms["flow/sc"] < 1e-6
  # The transformed branch draws its own dropout.
  _, terms = loss_of("ilg")(params_of("ilg"), batch, KEY)
  assert terms["rgb/sc"] > 1e-3
  assert terms["flow/sc"] > 1e-3


LOSS_OPTIONS = [
  ("loss.alpha", 0.25),
  ("loss.beta", 0.25),
  ("loss.gamma", 0.25),
  ("loss.cross_stream_losses.csc", 0.5),
  ("loss.scale_losses.sc", 0.5),
  ("loss.topk_ratio", 4),
  ("loss.reference_classes", 0),
  ("loss.norm_weight", 1.0),
  ("loss.consistency_space", "raw"),
  ("loss.consistency_space", "minmax"),
  ("loss.consistency_reduce", "sum"),
  ("loss.consistency_reduce", "as_mil"),
  ("loss.transformed_mil_weight", 0.5),
  ("scale.align_corners", True),
]


@pytest.mark.parametrize("change", LOSS_OPTIONS, ids=lambda c: f"{c[0]}={c[1]}")
def test_every_option_changes_the_loss(change):
  params, batch = params_of("ilg"), batch_of()
  before, _ = loss_of("ilg")(params, batch, KEY)
  after, _ = loss_of("ilg", change)(params, batch, KEY)
  assert np.isfinite(after)
  assert abs(after - before) > 1e-5 * before


def test_stop_gradient_changes_the_gradient_alone():
  one = (("streams", ("rgb",)), ("loss.alpha", 0.0))
  params, batch = params_of("ilg", *one), batch_of()
  results = {}
  for value in ("none", "original", "transformed"):
    change = ("loss.consistency_stop_gradient", value)
    results[value] = gradient_of("ilg", *one, change)(params, batch, KEY)
  terms = {name: leaves(aux) for name, (_, aux) in results.items()}
  for other in ("original", "transformed"):
    np.testing.assert_allclose(terms[other], terms["none"], rtol=1e-6)
  flat = {
    name: np.concatenate([g.ravel() for g in leaves(gradient)])
    for name, (gradient, _) in results.items()
  }
  pairs = (("none", "original"), ("none", "transformed"))
  for a, b in (*pairs, ("original", "transformed")):
    assert np.abs(flat[a] - flat[b]).max() > 1e-4


SCALE_OPTIONS = [
  ("min", 0.6, True),
  ("max", 1.5, True),
  ("shared", False, True),
  ("lengths", 1, False),  # only more padding
]


@pytest.mark.parametrize(("name", "value", "changes_loss"), SCALE_OPTIONS)
def test_options_of_the_drawn_scale(name, value, changes_loss):
  def draw(*changes):
    scale = options("ilg", changes).scale
    return sampling.draw_scale(np.random.default_rng(0), T, 2, scale)

  def loss(scale, grid):
    batch = batch_of(scale, grid)
    return loss_of("ilg", NO_DROPOUT)(params_of("ilg"), batch, KEY)[0]

  default, changed = draw(), draw((f"scale.{name}", value))
  if changes_loss:
    before, after = (loss(drawn["scale"], 26) for drawn in (default, changed))
    assert abs(after - before) > 1e-5 * before
  else:
    grids = [len(drawn["scale_grid"]) for drawn in (default, changed)]
    assert grids == [26, 32]
    values = [loss(default["scale"], grid) for grid in grids]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_every_loss_and_scale_option_is_tested():
  ilg = base.get_config().ilg
  tested = {".".join(name.split(".")[:2]) for name, _ in LOSS_OPTIONS}
  tested |= {f"scale.{name}" for name, *_ in SCALE_OPTIONS}
  tested.add("loss.consistency_stop_gradient")
  assert tested == {
    *(f"loss.{name}" for name in ilg.loss),
    *(f"scale.{name}" for name in ilg.scale),
  }
