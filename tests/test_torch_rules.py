"""What the PyTorch reading says beyond outputs: weights, dropout, labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain_basnet
import pytest
from torch_cases import (
  KEY,
  QUICK,
  WIDTHS,
  C,
  load,
  network,
  parameters,
  reference,
  stage,
  torch,
)
from torch_weights import from_torch, to_torch

from benchmarks import torch_labels
from configs import base, thumos14_basnet, thumos14_letter
from ptlr_jax.cli import config_checks
from ptlr_jax.data.dataset import Video
from ptlr_jax.localization import detection
from ptlr_jax.method import pseudo_labels
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.method.registry import STAGES
from ptlr_jax.method.temporal_scale import scaled_lengths
from ptlr_jax.runs import label_phases
from ptlr_jax.training import prediction

NETWORKS = [
  *((name, ("rgb", "flow")) for name in STAGES),
  ("ilg", ("fused",)),
]


@pytest.mark.parametrize(("name", "streams"), NETWORKS)
def test_weights_travel_both_ways(name, streams):
  state = network(name, streams).state_dict()
  tree = from_torch({n: p.numpy() for n, p in state.items()})
  made = jax.eval_shape(lambda: stage(name, streams).init(KEY, WIDTHS))
  assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, made)
  back = to_torch(tree)
  assert list(back) == list(back | dict(state))
  assert all((back[n] == p.numpy()).all() for n, p in state.items())


@pytest.mark.parametrize(("name", "streams"), NETWORKS)
def test_initial_weights_have_the_same_distribution(name, streams):
  """Each parameter over 40 seeds: its bound, and Kolmogorov and Smirnov."""
  stats = pytest.importorskip("scipy.stats")
  init = jax.jit(
    jax.vmap(lambda key: stage(name, streams).init(key, WIDTHS)),
    compiler_options=QUICK,
  )
  ours = init(jax.random.split(KEY, 40))
  ours = [to_torch(jax.tree.map(lambda x, i=i: x[i], ours)) for i in range(40)]
  theirs = []
  for seed in range(40):
    torch.manual_seed(seed)
    theirs.append(network(name, streams).state_dict())
  for layer, weight in theirs[0].items():
    draws = [
      np.concatenate([np.asarray(state[layer]).ravel() for state in states])
      for states in (ours, theirs)
    ]
    # PyTorch's bound is of the fan-in, of a bias that of its weight.
    fan_in = theirs[0][layer.replace("bias", "weight")][0].numel()
    for drawn in draws:
      assert np.abs(drawn).max() <= fan_in**-0.5 * (1 + 1e-6), layer
      assert np.abs(drawn).max() > fan_in**-0.5 * 0.8, layer
    assert weight.numel() * 40 == len(draws[0]) == len(draws[1])
    assert stats.ks_2samp(*draws).pvalue > 1e-3, layer


def test_dropout_keeps_the_same_share_at_the_same_scale():
  """Each hidden unit is 1 and adds its own power of two to the logits."""
  rate, segments = 0.7, 2000
  state = {n: 0 * p.numpy() for n, p in network("ots").state_dict().items()}
  state["cas.2.bias"] += 1
  state["cas.5.weight"] += 2.0 ** np.arange(6)[None, :, None]
  x = torch.zeros(1, sum(WIDTHS.values()), segments)
  theirs = load(network("ots", dropout=rate), state).train()(x)[0].detach()

  loss = stage("ots", dropout=rate).loss
  batch = {
    "features": {n: np.zeros((1, segments, d)) for n, d in WIDTHS.items()},
    "mask": np.ones((1, segments), bool),
    "targets": np.eye(C + 1)[np.zeros((1, segments), int)],
    "selected": np.ones((1, segments), bool),
  }

  # The gradient of the classifier's weights for class 0, of probability 1/4
  # whatever dropout does: -3/4 of the mean hidden unit.
  grads = jax.jit(jax.grad(lambda p: loss(p, batch, KEY)[0]))(from_torch(state))
  kept = -4 / 3 * to_torch(grads)["cas.5.weight"][0, :, 0]
  masks = (theirs.numpy()[0] * (1 - rate)).round().astype(int)
  units = (masks[:, None] >> np.arange(6)) & 1
  expected = units.mean(0) / (1 - rate)
  # The mean of 2,000 draws of 1/0.3 with probability 0.3: 1 +- 0.034.
  np.testing.assert_allclose(expected, 1, atol=0.15)
  np.testing.assert_allclose(kept, 1, atol=0.15)
  assert np.ptp(kept) > 0
  np.testing.assert_allclose(kept * segments * 0.3, (kept * 600).round(), 1e-3)


def test_scaled_lengths_are_those_of_interpolate():
  rng = np.random.default_rng(0)
  lengths = np.array([2, 7, 100, 750, 1999])
  compute = jax.jit(functools.partial(scaled_lengths, jnp.asarray(lengths)))
  for s in rng.uniform(0.5, 2, 300).astype(np.float32):
    theirs = [
      reference.scale_transform(torch.zeros(1, 1, n), float(s)).shape[2]
      for n in lengths
    ]
    assert compute(s).tolist() == theirs


def _videos(rng, count=200):
  """Logits of both streams, some of them constant, and the videos' labels."""
  for i in range(count):
    segments = int(rng.integers(1, 40))
    logits = {
      name: rng.normal(size=(segments, C + 1)) * 10 ** rng.uniform(-1, 1)
      for name in WIDTHS
    }
    if i % 5 == 0:  # frames and classes that are equal
      logits = {n: x.round() for n, x in logits.items()}
    if i % 20 == 0:
      logits = {n: np.ones_like(x) for n, x in logits.items()}
    own = rng.permutation(C)[: rng.integers(1, C + 1)]
    yield Video(str(i), {}, tuple(sorted(own.tolist())), ()), logits


def _cas(logits):
  return {n: torch.from_numpy(x.T) for n, x in logits.items()}


def _assert_same(ours, theirs):
  labels, selected = theirs
  assert ours.labels.astype(int).tolist() == labels.T.int().tolist()
  assert ours.selected.tolist() == selected.tolist()


def _initial(videos, **changes):
  config = base.get_config()
  config.labels.update(changes)
  allowed = pseudo_labels.allowed_classes([v for v, _ in videos], C, True)
  outputs = [{"logits": logits} for _, logits in videos]
  labels = label_phases.initial_labels(
    outputs, allowed, config.labels, config.fusion
  )
  return labels, allowed


@pytest.mark.parametrize("streams", [("rgb", "flow"), ("fused",)])
def test_initial_labels_follow_the_same_rule(streams):
  videos = list(_videos(np.random.default_rng(0)))
  if streams == ("fused",):
    videos = [(video, {"fused": x["rgb"]}) for video, x in videos]
  letter = thumos14_letter.get_config().labels
  labels, allowed = _initial(videos, **letter)
  for got, own, (_, logits) in zip(labels, allowed, videos, strict=True):
    cas = torch_labels.label_cas(_cas(logits))
    _assert_same(
      got, torch_labels.initial_labels(cas, torch.from_numpy(own), 0.7, 0.1)
    )
  counts = np.sum([got.labels.sum(0) for got in labels], axis=0)
  assert (counts > 50).all()


def test_labels_of_summed_streams_follow_the_same_rule():
  videos = list(_videos(np.random.default_rng(2)))
  labels, allowed = _initial(videos)
  for got, own, (_, logits) in zip(labels, allowed, videos, strict=True):
    cas = torch_labels.summed_cas(_cas(logits))
    own = torch.from_numpy(own)
    _assert_same(got, torch_labels.initial_labels(cas, own, 0.7, 0.1))
  counts = np.sum([got.labels.sum(0) for got in labels], axis=0)
  assert (counts > 50).all()


@pytest.mark.parametrize("rule", ["replace", "expand"])
@pytest.mark.parametrize("theta", base.get_config().ptlr.thresholds)
def test_refined_labels_follow_the_same_rule(theta, rule):
  config = base.get_config()
  config.labels.update_rule = rule
  videos = list(_videos(np.random.default_rng(1)))
  old, allowed = _initial(videos)
  logits = [x["rgb"] for _, x in videos]
  # To hundredths, so that some are theta_p itself.
  outputs = [{"cas": _softmax(x).round(2)} for x in logits]
  labels, kept = label_phases.refined_labels(
    outputs, old, allowed, theta, config.labels
  )
  stayed = 0
  for got, own, out, before in zip(labels, allowed, outputs, old, strict=True):
    new = torch_labels.network_labels(
      torch.from_numpy(out["cas"].T), torch.from_numpy(own), theta
    )
    theirs = torch_labels.keep_empty(new, _torch(before))
    stayed += theirs is not new
    if theirs is new and rule == "expand":
      theirs = torch_labels.expand(_torch(before), new)
    _assert_same(got, theirs)
  assert kept == stayed > 10
  counts = np.sum([got.labels.sum(0) for got in labels], axis=0)
  assert (counts > 50).all()


def _softmax(logits):
  e = np.exp(logits)
  return e / e.sum(1, keepdims=True)


def _torch(labels: PseudoLabels):
  return torch.from_numpy(labels.labels.T), torch.from_numpy(labels.selected)


def test_compat_gives_basnets_detections_from_the_same_weights():
  """Early fusion, uniform sampling, all the way to seconds and scores."""
  state = parameters("ilg", ("fused",), "float32")
  net = load(network("ilg", ("fused",)), state).streams["fused"]
  config = thumos14_basnet.get_config()
  config.compat = "basnet"
  config_checks.apply_compat(config)
  rng = np.random.default_rng(3)
  videos = [
    Video(
      str(n),
      {
        s: rng.normal(size=(n, d)).astype("f").cumsum(0) / 3
        for s, d in WIDTHS.items()
      },
      (),
      (),
    )
    for n in (23, 33, 40, 57, 64, 91)
  ]
  outputs = prediction.predict_videos(
    stage("ilg", ("fused",)),
    from_torch(state),
    videos,
    segments=40,
    read_back=False,
  )
  total = 0
  for video, out in zip(videos, outputs, strict=True):
    at = (np.arange(40) * video.num_segments / 40).astype(int)
    x = np.concatenate([video.features["rgb"], video.features["flow"]], 1)[at]
    with torch.no_grad():
      logits = net.suppression(torch.from_numpy(x.T[None]))
      scores = reference.video_scores(logits)[0, :-1].numpy()
    expected = plain_basnet.detections(
      logits[0].T.double().numpy(), scores, video.num_segments
    )
    found = detection.detect(
      out,
      {},
      "abc",
      video.geometry,
      options=config.detect,
      fusion=config.fusion,
      topk_ratio=8,
      stretch=video.num_segments / 40,
    )
    got = [("abc".index(f["label"]), f["score"], *f["segment"]) for f in found]
    np.testing.assert_allclose(sorted(got), sorted(expected), rtol=0, atol=1e-5)
    total += len(found)
  assert total > 10
