"""What holds of any batch and of any CAS: random ones, and awkward ones."""

import functools
import itertools

import jax
import numpy as np
import pytest
from stage_batches import (
  KEY,
  NO_DROPOUT,
  QUICK,
  C,
  batch_of,
  leaves,
  padded,
  params_of,
  stage,
)

from configs import base
from ptlr_jax.data.dataset import Video
from ptlr_jax.method import pseudo_labels
from ptlr_jax.method.cas_space import softmax
from ptlr_jax.runs import label_phases

# 21 and its half, 11, are odd: strided filters reach past the end.
LENGTHS, SIZE, SEEDS = (21, 10, 1), 21, (0, 1, 2)
BASELINE = tuple((f"loss.{name}", 0.0) for name in ("alpha", "beta", "gamma"))
CASES = {
  "ilg": ("ilg",),
  "fused": ("ilg", ("streams", ("fused",)), *BASELINE),
  "ots": ("ots",),
  "rts": ("rts", ("loss_average", "video")),
}
FILLS = (np.zeros, lambda shape: np.full(shape, 1e4))


def random_batch(seed, scale=(0.75, 1.6)):
  """Videos of LENGTHS with small random numbers in their padding."""
  return batch_of(scale, 2 * SIZE, LENGTHS, seed, SIZE)


@functools.cache
def compiled(case):
  """params, batch -> {name: all of that kind a step or a prediction gives}."""
  ours = stage(*CASES[case], NO_DROPOUT)

  def run(params, batch):
    def loss(params, features):
      return ours.loss(params, {**batch, "features": features}, KEY)

    run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    loss_and_terms, gradients = run(params, batch["features"])
    return {
      "loss": loss_and_terms,
      "gradients": gradients[0],
      "gradients of features": gradients[1],
      "predictions": ours.predict(params, batch),
    }

  return jax.jit(run, compiler_options=QUICK)


def results(case, batch):
  """The same as {name: list of arrays}, all of them finite and not 0."""
  found = compiled(case)(params_of(*CASES[case]), batch)
  found = {name: leaves(tree) for name, tree in found.items()}
  for x in itertools.chain(*found.values()):
    assert np.isfinite(x).all()
    assert (x != 0).any()
  return found


def assert_close(ours, theirs):
  """Equal to 1e-5 of the largest absolute value of each array."""
  assert len(ours) == len(theirs) > 0
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [SIZE, SIZE + 9])
def test_padding_never_changes_an_output_or_gradient(case, size):
  for seed, fill in itertools.product(SEEDS, FILLS):
    batch = random_batch(seed)
    more = padded(batch, size, fill)
    before, after = results(case, batch), results(case, more)
    for name in ("loss", "gradients"):
      assert_close(after[name], before[name])
    for name in ("predictions", "gradients of features"):
      # Scores of videos as they are, arrays over time at valid segments.
      assert_close(
        [x[more["mask"]] if x.ndim == 3 else x for x in after[name]],
        [x[batch["mask"]] if x.ndim == 3 else x for x in before[name]],
      )
    for gradient in after["gradients of features"]:
      assert (gradient[~more["mask"]] == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_permuting_videos_permutes_outputs_and_leaves_the_loss(case):
  shared = ("scale", "scale_grid")
  for seed, order in zip(SEEDS, ([1, 2, 0], [2, 0, 1], [2, 1, 0]), strict=True):
    batch = random_batch(seed)
    videos = {name: x for name, x in batch.items() if name not in shared}
    moved = jax.tree.map(lambda x, order=order: x[order], videos)
    before, after = results(case, batch), results(case, {**batch, **moved})
    for name in ("loss", "gradients"):
      assert_close(after[name], before[name])
    for name in ("predictions", "gradients of features"):
      assert_close(after[name], [x[order] for x in before[name]])
    # And the videos do differ.
    for x in before["predictions"]:
      assert np.abs(x - x[order]).max() > 1e-2


@functools.cache
def compiled_consistency():
  """params, batch -> {(space, reduce): L_sc of both streams}."""
  spaces, reductions = ("softmax", "minmax", "raw"), ("mean", "sum")
  names = ("loss.consistency_space", "loss.consistency_reduce")

  def run(params, batch):
    found = {}
    for choice in itertools.product(spaces, reductions):
      ours = stage("ilg", NO_DROPOUT, *zip(names, choice, strict=True))
      _, terms = ours.loss(params, batch, KEY)
      found[choice] = (terms["rgb/sc"], terms["flow/sc"])
    return found

  return jax.jit(run, compiler_options=QUICK)


@pytest.mark.parametrize("seed", SEEDS)
def test_scale_one_makes_the_scale_consistency_zero(seed):
  def consistency(scale):
    batch = random_batch(seed, (scale, scale))
    return compiled_consistency()(params_of("ilg"), batch)

  for (_, reduce), values in consistency(1).items():
    # A sum has the roundings of SIZE segments of C + 1 classes.
    limit = 1e-6 if reduce == "mean" else 1e-6 * SIZE * (C + 1)
    assert max(values) < limit
  for scale in (0.5, 0.9, 1.1, 2):
    assert min(map(min, consistency(scale).values())) > 1e-3


def every(**values):
  """Parametrises `how` with all combinations of the values of some options."""
  rows = itertools.product(*values.values())
  return pytest.mark.parametrize(
    "how",
    [dict(zip(values, row, strict=True)) for row in rows],
    ids=lambda how: "-".join(map(str, how.values())),
  )


CLASSES, SEVERAL = 4, ("highest", "multi_hot")
NETWORK_CAS = ("probability", "minmax")
RELATIVE = ("softmax_minmax", "minmax", "raw_minmax", "relu_minmax")
INITIAL = every(
  cas=(*RELATIVE, "softmax", "raw"),
  several=SEVERAL,
  background_sum=("own", "all"),
)


def options(changes):
  labels = base.get_config().labels
  labels.update(changes)
  return labels


@functools.cache
def videos():
  """50 videos of 1 to 29 segments, and the logits of both streams.

  Some have ties; some are constant, over time or altogether.
  """
  rng, made = np.random.default_rng(0), []
  for i in range(50):
    shape = int(rng.integers(1, 30)), CLASSES + 1
    logits = {s: 2 * rng.normal(size=shape) for s in ("rgb", "flow")}
    if i % 5 == 0:
      logits = {s: x.round() for s, x in logits.items()}
    if i % 5 == 1:
      logits = {s: 0 * x + x[:1] for s, x in logits.items()}
    if i % 10 == 2:
      logits = {s: np.ones_like(x) for s, x in logits.items()}
    own = rng.permutation(CLASSES)[: rng.integers(1, CLASSES)]
    made.append((Video(str(i), {}, tuple(own.tolist()), ()), logits))
  return made


def allowed(class_filter=True):
  data = [video for video, _ in videos()]
  return pseudo_labels.allowed_classes(data, CLASSES, class_filter)


def initial(own, **changes):
  outputs = [{"logits": logits} for _, logits in videos()]
  fusion = base.get_config().fusion
  return label_phases.initial_labels(outputs, own, options(changes), fusion)


def refine(old, own, theta, stream="rgb", **changes):
  """As if `stream` were the logits of Network-OTS or RTS."""
  outputs = [{"cas": softmax(logits[stream])} for _, logits in videos()]
  return label_phases.refined_labels(
    outputs, old, own, theta, options(changes)
  )[0]


def joined(labels):
  """Action labels and background of all segments, and which are selected."""
  rows = np.concatenate([video.labels for video in labels])
  selected = np.concatenate([video.selected for video in labels])
  return rows[:, :-1], rows[:, -1], selected


def assert_never_adds(steps):
  """Each of the boolean arrays is within the one before; they do shrink."""
  for before, after in itertools.pairwise(steps):
    assert not (after & ~before).any()
  assert steps[-1].sum() < steps[0].sum()


@INITIAL
def test_raising_the_initial_thresholds_adds_no_label(how):
  own = allowed()
  raised = [joined(initial(own, high=h, **how)) for h in (0.3, 0.5, 0.7, 0.9)]
  assert_never_adds([actions for actions, _, _ in raised])
  assert_never_adds([selected for _, _, selected in raised])
  # The lower the other threshold, the less background, and actions stay.
  lowered = [joined(initial(own, low=x, **how)) for x in (0.4, 0.2, 0.1, 0)]
  assert_never_adds([background for _, background, _ in lowered])
  for actions, _, _ in lowered:
    np.testing.assert_array_equal(actions, lowered[0][0])


@every(several=SEVERAL, network_cas=NETWORK_CAS)
def test_raising_theta_adds_no_label(how):
  own, thetas = allowed(), (0.2, 0.3, 0.4, 0.6, 0.7, 0.9)
  old, how = initial(own), {**how, "update_rule": "replace"}
  steps = [refine(old, own, t, keep_empty=False, **how) for t in thetas]
  assert_never_adds([joined(labels)[0] for labels in steps])
  assert_never_adds([joined(labels)[2] for labels in steps])
  # Or a video left without an action has its labels before, as they were.
  for theta, new in zip(thetas, steps, strict=True):
    kept = refine(old, own, theta, keep_empty=True, **how)
    for video, after, before in zip(kept, new, old, strict=True):
      expected = after if after.labels[:, :-1].any() else before
      np.testing.assert_array_equal(video.labels, expected.labels)


def assert_of_own_classes(labels, own, several):
  """No foreign class; background stands alone; every class is somewhere."""
  for video, classes in zip(labels, own, strict=True):
    assert not video.labels[:, :-1][:, ~classes].any()
    assert not (video.labels[:, -1] & video.labels[:, :-1].any(1)).any()
    np.testing.assert_array_equal(video.selected, video.labels.any(1))
    if several == "highest":
      assert video.labels.sum(1).max() <= 1
  assert joined(labels)[0].any(0).all()


@INITIAL
def test_initial_labels_never_name_a_class_outside_the_videos_own(how):
  own, every = allowed(), allowed(class_filter=False)
  for high, low in ((0.7, 0.1), (0.3, 0.5), (0, 0)):
    labels = initial(own, high=high, low=low, **how)
    assert_of_own_classes(labels, own, how["several"])
    # Without the filter they do.
    actions, _, _ = joined(initial(every, high=high, low=low, **how))
    foreign = np.repeat(~np.array(own), [len(x.labels) for x in labels], 0)
    assert (actions & foreign).any()


@every(
  several=SEVERAL,
  network_cas=NETWORK_CAS,
  keep_empty=(True, False),
  update_rule=("replace", "merge", "expand"),
)
def test_refined_labels_never_name_a_class_outside_the_videos_own(how):
  own = allowed()
  labels = initial(own, several=how["several"])
  for i, theta in enumerate((0.7, 0.65, 0.5, 0.3, 0.1, 0.9)):
    labels = refine(labels, own, theta, ("rgb", "flow")[i % 2], **how)
    assert_of_own_classes(labels, own, how["several"])
