"""ilg, ots and rts on one tiny batch: totals, options, symmetries.

Nothing is jitted: operation by operation each shape compiles once for all
options, in place of every stage once for each.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from ptlr_jax import losses
from ptlr_jax.data import sampling
from ptlr_jax.models.rts import NetworkRTS, combine
from ptlr_jax.scale import scale_transform
from ptlr_jax.stages import STAGES

B, T, C = 2, 16, 2
WIDTHS = {"rgb": 3, "flow": 2}
LENGTHS = (16, 11)  # top-k takes k = 2 and 1
KEY = jax.random.key(0)


def batch_of(scale=(0.75, 0.75), grid=26):
  rng = np.random.default_rng(0)
  targets = np.eye(C + 1, dtype=np.float32)[rng.integers(0, C + 1, (B, T))]
  mask = np.arange(T)[None] < np.array(LENGTHS)[:, None]
  selected = mask & (rng.random((B, T)) < [[0.9], [0.4]])
  return {
    "features": {
      name: rng.normal(size=(B, T, width)).astype(np.float32)
      for name, width in WIDTHS.items()
    },
    "mask": mask,
    "labels": np.array([[1, 0], [1, 1]], np.float32),
    "scale": np.array(scale, np.float32),
    "scale_grid": np.zeros(grid, np.float32),
    "targets": targets * selected[..., None],
    "selected": selected,
  }


def options(name, changes=()):
  """configs/base.py's options of a stage at test width, and changes to them."""
  config = base.get_config()[name]
  sizes = {"filter_width": 4, "cas_width": 4} if name == "ilg" else {"width": 4}
  config.model.update(sizes)
  config.update_from_flattened_dict(dict(changes))
  return config


@functools.cache
def stage(name, *changes):
  return STAGES[name](C, options(name, changes))


@functools.cache
def params_of(name, *changes):
  """Random parameters of the shapes that init gives; nothing to compile.

  Large enough for CASs that are not nearly uniform.
  """
  made = jax.eval_shape(lambda: stage(name, *changes).init(KEY, WIDTHS))
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.uniform(-0.9, 0.9, leaf.shape), leaf.dtype),
    made,
  )


def loss_of(name, *changes):
  return stage(name, *changes).loss


def gradient_of(name, *changes):
  return jax.grad(stage(name, *changes).loss, has_aux=True)


def predict_of(name, *changes):
  return stage(name, *changes).predict


def leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


NO_DROPOUT = ("model.dropout", 0.0)


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
  csc = losses.cross_stream_consistency(cas["rgb"], cas["flow"], mask)
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
  ("loss.topk_ratio", 4),
  ("loss.reference_classes", 0),
  ("loss.norm_weight", 1.0),
  ("loss.consistency_space", "raw"),
  ("loss.consistency_space", "minmax"),
  ("loss.consistency_reduce", "sum"),
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
  params, batch = params_of("ilg"), batch_of()
  results = {}
  for value in ("none", "original", "transformed"):
    change = ("loss.consistency_stop_gradient", value)
    results[value] = gradient_of("ilg", change)(params, batch, KEY)
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
  tested = {name for name, _ in LOSS_OPTIONS}
  tested |= {f"scale.{name}" for name, *_ in SCALE_OPTIONS}
  tested.add("loss.consistency_stop_gradient")
  assert tested == {
    *(f"loss.{name}" for name in ilg.loss),
    *(f"scale.{name}" for name in ilg.scale),
  }


def test_unknown_stop_gradient_is_refused():
  with pytest.raises(ValueError, match="none, original or transformed, got"):
    stage("ilg", ("loss.consistency_stop_gradient", "both"))


def test_streams_share_no_parameters():
  params = params_of("ilg")
  assert set(params) == {"rgb", "flow"}

  # Without L_csc nothing of one stream reaches the other.
  def loss_of_rgb(params):
    _, terms = stage("ilg").loss(params, batch_of(), KEY)
    return sum(terms[f"rgb/{name}"] for name in ("base", "supp", "norm", "sc"))

  gradient = jax.grad(loss_of_rgb)(params)
  assert all((g == 0).all() for g in leaves(gradient["flow"]))
  assert all((g != 0).any() for g in leaves(gradient["rgb"]))


def test_streams_start_from_different_draws():
  # Of equal widths, so that equal draws would be equal kernels.
  params = stage("ilg").init(KEY, {"rgb": 2, "flow": 2})
  for a, b in zip(leaves(params["rgb"]), leaves(params["flow"]), strict=True):
    assert a.shape == b.shape
    assert (a != b).all()


def test_every_parameter_and_no_padding_is_trained():
  batch: dict[str, Any] = batch_of()

  @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
  def gradient(params, features):
    return stage("ilg").loss(params, {**batch, "features": features}, KEY)

  (of_params, of_features), _ = gradient(params_of("ilg"), batch["features"])
  assert all((g != 0).any() for g in leaves(of_params))
  for g in leaves(of_features):
    assert (g[~batch["mask"]] == 0).all()
    assert (g[batch["mask"]] != 0).any()


def test_a_single_stream_of_both_features():
  early = base.early_fusion(base.get_config()).ilg
  changes = (
    ("streams", tuple(early.streams)),
    *(
      (f"loss.{name}", early.loss[name]) for name in ("alpha", "beta", "gamma")
    ),
  )
  params = params_of("ilg", *changes)
  assert set(params) == {"fused"}
  kernel = params["fused"]["cas_module"]["conv1"]["kernel"]
  assert kernel.shape == (3, sum(WIDTHS.values()), 4)
  batch = batch_of(scale=(0.75,))
  total, terms = loss_of("ilg", *changes)(params, batch, KEY)
  assert set(terms) == {"fused/base", "fused/supp", "fused/norm"}
  np.testing.assert_allclose(total, sum(terms.values()), rtol=1e-6)
  prediction = predict_of("ilg", *changes)(params, batch)
  assert prediction["logits"]["fused"].shape == (B, T, C + 1)
  # rgb comes first.
  joined = np.concatenate([batch["features"][s] for s in ("rgb", "flow")], -1)
  alone = stage("ilg", ("streams", ("rgb",))).predict(
    {"rgb": params["fused"]},
    {"features": {"rgb": joined}, "mask": batch["mask"]},
  )
  np.testing.assert_allclose(
    alone["logits"]["rgb"], prediction["logits"]["fused"], atol=1e-5
  )


@pytest.mark.parametrize("name", STAGES)
def test_predictions_follow_their_videos(name):
  params, batch = params_of(name), batch_of()
  predict = predict_of(name)
  swapped = jax.tree.map(lambda x: x[::-1], batch)
  for a, b in zip(
    leaves(predict(params, batch)),
    leaves(predict(params, swapped)),
    strict=True,
  ):
    assert len(a) == B
    np.testing.assert_allclose(a, b[::-1], atol=1e-6)
    assert np.abs(a[0] - a[1]).max() > 1e-4


@pytest.mark.parametrize("name", STAGES)
def test_predictions_are_deterministic_and_losses_follow_their_key(name):
  params, batch = params_of(name), batch_of()
  twice = [leaves(predict_of(name)(params, batch)) for _ in range(2)]
  for a, b in zip(*twice, strict=True):
    np.testing.assert_array_equal(a, b)
  # In training dropout is on, and the key alone draws it.
  first, again, other = (
    float(loss_of(name)(params, batch, jax.random.key(i))[0]) for i in (0, 0, 1)
  )
  assert first == again
  assert first != other
  # No dropout in a prediction.
  for a, b in zip(
    twice[0], leaves(predict_of(name, NO_DROPOUT)(params, batch)), strict=True
  ):
    np.testing.assert_array_equal(a, b)


def test_ilg_video_scores_are_the_softmax_of_topk_means():
  batch = batch_of()
  out = predict_of("ilg")(params_of("ilg"), batch)
  for stream in WIDTHS:
    logits = np.asarray(out["logits"][stream])
    two = np.sort(logits[0], axis=0)[-2:].mean(0)  # 16 // 8
    one = logits[1, :11].max(0)  # 11 // 8
    np.testing.assert_allclose(
      out["scores"][stream], jax.nn.softmax(np.stack([two, one])), rtol=1e-5
    )


@pytest.mark.parametrize("average", ["batch", "video"])
def test_ots_loss_is_eq_6(average):
  params, batch = params_of("ots"), batch_of()
  changes = (NO_DROPOUT, ("loss_average", average))
  value, terms = loss_of("ots", *changes)(params, batch, KEY)
  assert terms == {"ots": value}
  cas = predict_of("ots")(params, batch)["cas"]
  np.testing.assert_allclose(cas.sum(-1), 1, rtol=1e-6)
  ce = -(np.log(cas) * batch["targets"]).sum((1, 2))
  count = batch["selected"].sum(1)
  assert count[0] != count[1]
  expected = {"batch": ce.sum() / count.sum(), "video": (ce / count).mean()}
  np.testing.assert_allclose(value, expected[average], rtol=1e-5)
  assert abs(expected["batch"] / expected["video"] - 1) > 1e-3


@pytest.mark.parametrize("average", ["batch", "video"])
def test_rts_loss_is_eq_7(average):
  params, batch = params_of("rts"), batch_of()
  changes = (NO_DROPOUT, ("loss_average", average))
  value, terms = loss_of("rts", *changes)(params, batch, KEY)
  assert terms == {"rts": value}
  expected = losses.branch_cross_entropy(
    rts_logits(params, batch),
    batch["targets"],
    batch["selected"],
    average=average,
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def rts_logits(params, batch) -> Any:
  net = NetworkRTS(C, branches=3, width=4)
  joined = np.concatenate([batch["features"][s] for s in WIDTHS], -1)
  return net.apply({"params": params}, joined, batch["mask"])


def test_rts_loss_options():
  params, batch = params_of("rts"), batch_of()
  values = {
    change: float(loss_of("rts", NO_DROPOUT, change)(params, batch, KEY)[0])
    for change in (
      ("loss_average", "batch"),
      ("loss_average", "video"),
      ("upsampling", "linear"),
      ("model.centred", False),
    )
  }
  reference = values["loss_average", "batch"]
  assert values["loss_average", "video"] != pytest.approx(reference, rel=1e-3)
  assert values["model.centred", False] != pytest.approx(reference, rel=1e-3)
  assert values["upsampling", "linear"] == reference  # of predictions alone


@pytest.mark.parametrize("mode", ["copy", "nearest", "linear"])
@pytest.mark.parametrize("average", ["probability", "logit"])
def test_rts_predicts_the_mean_of_its_branches(mode, average):
  params, batch = params_of("rts"), batch_of()
  changes = (("upsampling", mode), ("average", average))
  cas = np.asarray(predict_of("rts", *changes)(params, batch)["cas"])
  np.testing.assert_allclose(cas.sum(-1), 1, rtol=1e-6)
  logits = rts_logits(params, batch)
  expected = combine(logits, batch["mask"], mode=mode, average=average)
  np.testing.assert_allclose(cas, expected, atol=1e-6)
  default = np.asarray(predict_of("rts")(params, batch)["cas"])
  same = (mode, average) == ("copy", "probability")
  assert (np.abs(cas - default).max() < 1e-6) == same


def test_branches_and_widths_reach_the_networks():
  assert len(rts_logits(params_of("rts"), batch_of())) == 3
  one = params_of("rts", ("model.branches", 1))
  assert set(one) == {"conv", "branch1_conv1", "branch1_classifier"}
  slope = ("model.leaky_slope", 0.5)
  for name in STAGES:
    cas = leaves(predict_of(name)(params_of(name), batch_of()))[0]
    other = leaves(predict_of(name, slope)(params_of(name), batch_of()))[0]
    assert np.abs(cas - other).max() > 1e-4
