"""ptlr_jax against a PyTorch reading of the paper that knows nothing of it.

Same weights, same inputs: outputs, loss terms, gradients and trained
parameters agree to 1e-5 in float32 and 1e-10 in float64, each array relative
to its largest absolute value. Dropout draws differ between the two libraries,
so its rate is 0 here.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from torch_cases import (
  KEY,
  QUICK,
  TOLERANCE,
  Case,
  assert_close,
  assert_trees_close,
  batch_of,
  load,
  network,
  parameters,
  reference,
  stage,
  torch_inputs,
)
from torch_weights import from_torch

from configs import base
from ptlr_jax.method.registry import STAGES
from ptlr_jax.training.train_step import adam

DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def both(cases, rounded):
  """Cases in float64, and a few of them in float32, as each shape compiles."""
  pairs = [(c, "float64") for c in cases]
  pairs += [(c, "float32") for c in cases if c.size == rounded]
  return pytest.mark.parametrize(("case", "dtype"), pairs, ids=str)


FULL, PADDED = Case(21, (21, 21, 21)), Case(21, (21, 10, 5))
EVEN, ONE = Case(20, (20, 20)), Case(6, (6,))
# Few shapes, for each compiles; lengths are even and odd, long and short.
ILG_CASES = [
  *(FULL._replace(scale=s) for s in (0.5, 0.7312, 1.0, 2.0)),
  *(PADDED._replace(scale=s) for s in (0.5, 1.0, 1.6789, 2.0)),
  FULL._replace(lengths=(20, 14, 6)),
  *(ONE._replace(scale=s, streams=("fused",)) for s in (0.5, 0.7312, 1.6789)),
]
CASES = [FULL, PADDED, EVEN, EVEN._replace(lengths=(18, 11)), ONE]


@pytest.fixture
def precise(dtype):
  """JAX computes in `dtype` inside, and in float32 again after."""
  wide = jax.enable_x64(True) if dtype == "float64" else None
  with wide or contextlib.nullcontext():
    yield
  assert jnp.zeros(()).dtype == np.float32


@functools.cache
def compiled(name, streams):
  """params, batch -> ((loss, terms), gradients), prediction."""
  ours = stage(name, streams)

  def run(params, batch):
    loss = jax.value_and_grad(ours.loss, has_aux=True)
    return loss(params, batch, KEY), ours.predict(params, batch)

  return jax.jit(run, compiler_options=QUICK)


def gradients(net, loss):
  loss.backward()
  return {n: p.grad.numpy() for n, p in net.named_parameters()}


def own(case, values):
  """f[B,T,C] of ours as a list of f[C,T] at each video's own length."""
  return [
    np.asarray(v)[:n].T for v, n in zip(values, case.lengths, strict=True)
  ]


@both(ILG_CASES, 21)
@pytest.mark.usefixtures("precise")
def test_ilg_is_the_reference(case, dtype):
  state = parameters("ilg", case.streams, dtype)
  batch = batch_of(case, dtype)
  run = compiled("ilg", case.streams)
  ((total, terms), grads), predicted = run(from_torch(state), batch)

  net = load(network("ilg", case.streams), state)
  inputs = torch_inputs("ilg", case, batch)
  theirs = reference.ilg_losses(net, *inputs)
  expected = {n: value.detach().numpy() for n, value in theirs.items()}
  assert_close(total, expected.pop("total"), dtype)
  for stream in case.streams:
    expected[f"{stream}/norm"] *= 1e-4  # ours is weighted
    if case.scale == 1:  # both branches see the same: 0, but for rounding
      limit = TOLERANCE[dtype] / 10
      assert (
        max(terms.pop(f"{stream}/sc"), expected.pop(f"{stream}/sc")) < limit
      )
  assert terms.keys() == expected.keys()
  for n, value in terms.items():
    assert_close(value, expected[n], dtype)
  assert_trees_close(grads, gradients(net, theirs["total"]), dtype)

  for stream in case.streams:
    cas = own(case, predicted["logits"][stream])
    for b, n in enumerate(case.lengths):
      part = inputs[0][stream][b : b + 1, :, :n]
      logits = net.streams[stream](part)[1].detach()
      assert_close(cas[b], logits[0], dtype)
      scores = reference.video_scores(logits)[0]
      assert_close(predicted["scores"][stream][b], scores, dtype)


@pytest.mark.parametrize("name", ["ots", "rts"])
@both(CASES, 21)
@pytest.mark.usefixtures("precise")
def test_ots_and_rts_are_the_reference(name, case, dtype):
  state = parameters(name, case.streams, dtype)
  batch = batch_of(case, dtype)
  run = compiled(name, case.streams)
  ((total, terms), grads), predicted = run(from_torch(state), batch)

  net = load(network(name), state)
  x, targets, selected, lengths = torch_inputs(name, case, batch)
  loss_of = {"ots": reference.ots_loss, "rts": reference.rts_loss}[name]
  loss = loss_of(net, x, targets, selected, lengths)
  assert_close(total, loss.detach(), dtype)
  assert terms.keys() == {name}
  assert_trees_close(grads, gradients(net, loss), dtype)

  cas = own(case, predicted["cas"])
  for b, n in enumerate(case.lengths):
    out = net(x[b : b + 1, :, :n])
    theirs = out.softmax(1) if name == "ots" else reference.rts_cas(out, n)
    assert_close(cas[b], theirs[0].detach(), dtype)


@DTYPES
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.usefixtures("precise")
def test_20_updates_give_the_same_parameters(name, dtype):
  learning_rate = float(base.get_config()[name].learning_rate)
  case = PADDED
  state = parameters(name, case.streams, dtype)
  params, tx = from_torch(state), adam(learning_rate)
  opt_state = tx.init(params)

  @functools.partial(jax.jit, compiler_options=QUICK)
  def update(params, opt_state, grads):
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  net = load(network(name), state)
  optimizer = reference.adam(net, learning_rate)
  their_step = getattr(reference, f"{name}_step")
  for i in range(20):
    case = case._replace(scale=(0.6, 1.3, 1.9)[i % 3])
    batch = batch_of(case, dtype, seed=i)
    ((loss, _), grads), _ = compiled(name, case.streams)(params, batch)
    params, opt_state = update(params, opt_state, grads)
    their_loss = their_step(net, optimizer, *torch_inputs(name, case, batch))
    assert_close(loss, their_loss, dtype)
  trained = {n: p.detach().numpy() for n, p in net.named_parameters()}
  assert_trees_close(params, trained, dtype)
  assert all((trained[n] != p).any() for n, p in state.items())
