"""ilg, ots and rts on one tiny batch: streams, parameters, predictions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import (
  KEY,
  NO_DROPOUT,
  WIDTHS,
  B,
  C,
  T,
  batch_of,
  leaves,
  loss_of,
  params_of,
  predict_of,
  stage,
)

from configs import base
from ptlr_jax.method.registry import STAGES
from ptlr_jax.method.stage import stream_input


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


def test_fused_is_what_streams_there_are_joined_rgb_first():
  rgb, flow = jnp.ones((1, 4, 3)), jnp.zeros((1, 4, 2))
  joined = stream_input({"flow": flow, "rgb": rgb}, "fused")
  np.testing.assert_array_equal(joined, np.concatenate([rgb, flow], -1))
  for stream in ("rgb", "fused"):
    np.testing.assert_array_equal(stream_input({"rgb": rgb}, stream), rgb)
  np.testing.assert_array_equal(stream_input({"flow": flow}, "fused"), flow)


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


def test_the_leaky_slope_reaches_every_network():
  slope = ("model.leaky_slope", 0.5)
  for name in STAGES:
    cas = leaves(predict_of(name)(params_of(name), batch_of()))[0]
    other = leaves(predict_of(name, slope)(params_of(name), batch_of()))[0]
    assert np.abs(cas - other).max() > 1e-4
