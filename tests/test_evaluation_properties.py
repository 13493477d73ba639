"""What any evaluator must do, on random ground truth and detections."""

import numpy as np
import plain_map
import pytest
from evaluation_cases import database, detection, random_case, scored

from ptlr_jax.evaluation.protocols import THUMOS14

SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whole", [False, True])
def test_equals_the_official_algorithm_as_loops(seed, whole):
  truth, results = random_case(seed, whole)
  ours = scored(truth, results)
  expected = plain_map.average_precisions(database(truth), results, THUMOS14)
  assert list(ours.truth.labels) == list(expected)
  np.testing.assert_allclose(
    ours.ap, list(expected.values()), rtol=0, atol=1e-12
  )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whole", [False, True])
def test_perfect_detections_have_a_map_of_1(seed, whole):
  truth, _ = random_case(seed, whole)
  rng = np.random.default_rng(seed)
  results = {
    video: [{**x, "score": int(rng.integers(3))} for x in items]
    for video, items in truth.items()
  }
  assert (scored(truth, results).ap == 1.0).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whole", [False, True])
def test_shuffling_the_files_changes_nothing(seed, whole):
  truth, results = random_case(seed, whole)
  before = scored(truth, results)
  rng = np.random.default_rng(seed)

  def shuffled(videos):
    names = rng.permutation(list(videos)).tolist()
    return {
      name: [videos[name][n] for n in rng.permutation(len(videos[name]))]
      for name in names
    }

  after = scored(shuffled(truth), shuffled(results))
  order = [after.truth.labels.index(label) for label in before.truth.labels]
  np.testing.assert_array_equal(after.ap[order], before.ap)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wrong_detection_never_raises_an_ap(seed):
  truth, results = random_case(seed)
  before = scored(truth, results)
  rng = np.random.default_rng(seed)
  lower = 0
  for _ in range(4):
    video = str(rng.choice([*truth, "another"]))
    label = str(rng.choice(before.truth.labels))
    # After everything: it overlaps nothing, and is wrong at every threshold.
    wrong = detection(label, 500, 501, rng.uniform(0, 1.2))
    more = {**results, video: [*results.get(video, []), wrong]}
    after = scored(truth, more)
    assert (after.ap <= before.ap + 1e-15).all()
    lower += bool((after.ap < before.ap).any())
  if before.ap.max() > 0:
    top = detection(
      before.truth.labels[int(before.ap.max(1).argmax())], 500, 501, 2
    )
    more = {**results, "another": [top]}
    assert (scored(truth, more).ap < before.ap).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_duplicate_detections_count_once(seed):
  truth, results = random_case(seed, separate=True)
  twice = {
    video: [
      {**x, "score": score}
      for x in items
      for score in (x["score"], x["score"] - 1e-9)
    ]
    for video, items in results.items()
  }
  once, ours = scored(truth, results), scored(truth, twice)
  for k in range(len(THUMOS14)):
    found = ours.matched[k][ours.matched[k] >= 0]
    assert len(set(found)) == len(found)
    assert set(found) == set(once.matched[k][once.matched[k] >= 0])
  assert (ours.ap <= once.ap + 1e-12).all()
  # Perfect detections written twice: the second of each is a false positive,
  # behind its hit.
  perfect = {
    video: [{**x, "score": score} for x in items for score in (2, 1)]
    for video, items in truth.items()
  }
  assert (scored(truth, perfect).ap == 1.0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_ap_falls_with_the_threshold_and_scores_may_be_rescaled(seed):
  truth, results = random_case(seed, separate=True)
  before = scored(truth, results)
  assert (np.diff(before.ap, axis=1) <= 1e-12).all()
  rescaled = {
    video: [{**x, "score": 7 * x["score"] ** 3 - 40} for x in items]
    for video, items in results.items()
  }
  np.testing.assert_array_equal(scored(truth, rescaled).ap, before.ap)
