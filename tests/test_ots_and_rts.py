"""Network-OTS and Network-RTS as stages: Eqs. (6) and (7), and options."""

from typing import Any

import numpy as np
import pytest
from stage_batches import (
  KEY,
  NO_DROPOUT,
  WIDTHS,
  C,
  batch_of,
  loss_of,
  params_of,
  predict_of,
)

from ptlr_jax.method import losses
from ptlr_jax.models.rts import NetworkRTS, combine


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


def test_the_number_of_branches_reaches_the_network():
  assert len(rts_logits(params_of("rts"), batch_of())) == 3
  one = params_of("rts", ("model.branches", 1))
  assert set(one) == {"conv", "branch1_conv1", "branch1_classifier"}
