"""The terms of the ILG's loss one by one, as a subclass may override them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import KEY, B, C, T, batch_of, options, params_of

from ptlr_jax.method import losses
from ptlr_jax.method.ilg import ILG


def _ilg(cls=ILG, **loss):
  changed = [(f"loss.{name}", value) for name, value in loss.items()]
  return cls(C, options("ilg", changed).to_dict())


def _cas(seed):
  return jax.random.normal(jax.random.key(seed), (B, T, C + 1))


def test_the_cross_stream_term_is_eq_2_and_0_for_equal_streams():
  ilg, mask = _ilg(), jnp.asarray(batch_of()["mask"])
  cas = {"rgb": _cas(1), "flow": _cas(2)}
  rgb, flow = (jax.nn.softmax(x) for x in cas.values())
  expected = losses.cross_stream_consistency(rgb, flow, mask)
  assert ilg.cross_stream_terms(cas, mask) == {"csc": expected}
  assert expected > 0
  assert ilg.cross_stream_terms({**cas, "flow": cas["rgb"]}, mask)["csc"] == 0


@pytest.mark.parametrize(("reference", "size"), [(21, 3 / 21), (0, 1)])
def test_consistency_can_be_of_the_mil_loss_s_size(reference, size):
  plain, own = (
    _ilg(consistency_reduce=reduce, reference_classes=reference)
    for reduce in ("mean", "as_mil")
  )
  mask, cas = jnp.asarray(batch_of()["mask"]), {"rgb": _cas(1), "flow": _cas(2)}
  np.testing.assert_allclose(
    own.cross_stream_terms(cas, mask)["csc"],
    size * plain.cross_stream_terms(cas, mask)["csc"],
    rtol=1e-6,
  )
  params, x = params_of("ilg")["rgb"], batch_of()["features"]["rgb"]
  (terms, _), (same, _) = (
    ilg.scale_terms(params, x, cas["rgb"], batch_of(), jnp.float32(0.75), KEY)
    for ilg in (own, plain)
  )
  np.testing.assert_allclose(terms["sc"], size * same["sc"], rtol=1e-6)


@pytest.mark.parametrize("i", [0, 1])
def test_a_stream_adds_its_mil_terms_and_its_weighted_scale_term(i):
  ilg = _ilg(beta=0.3, gamma=0.7)
  stream, weight = (("rgb", 0.3), ("flow", 0.7))[i]
  params = params_of("ilg")[stream]
  (mil, pull), terms, cas = ilg.stream_terms(i, params, batch_of(), KEY)
  assert set(terms) == {"base", "supp", "norm", "sc"}
  assert cas.shape == (B, T, C + 1)
  expected = terms["base"] + terms["supp"] + terms["norm"]
  np.testing.assert_allclose(mil, expected, rtol=1e-6)
  np.testing.assert_allclose(pull, weight * terms["sc"], rtol=1e-6)


def test_without_weights_the_transformed_branch_is_not_computed(monkeypatch):
  ilg = _ilg(beta=0.0)
  params = params_of("ilg")["rgb"]
  monkeypatch.setattr(ilg, "scale_terms", None)  # what calls it fails
  added, terms, _ = ilg.stream_terms(0, params, batch_of(), KEY)
  assert len(added) == 1
  assert "sc" not in terms


class _Squared(ILG):
  """Another cross-stream term, and nothing else."""

  def cross_stream_terms(self, cas, mask):
    apart = jnp.where(mask[..., None], cas["rgb"] - cas["flow"], 0)
    return {"csc": (apart**2).mean()}


def test_an_overridden_term_takes_the_place_of_the_paper_s():
  params, batch = params_of("ilg"), batch_of()
  plain, terms = _ilg().loss(params, batch, KEY)
  total, others = _ilg(_Squared).loss(params, batch, KEY)
  assert others["csc"] != terms["csc"]
  assert {n for n in terms if others[n] != terms[n]} == {"csc"}
  alpha = options("ilg").loss.alpha
  change = alpha * (others["csc"] - terms["csc"])
  np.testing.assert_allclose(total - plain, change, rtol=1e-4)
