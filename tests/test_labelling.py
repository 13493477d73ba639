"""Pseudo labels of a training set, with the options of thumos14_letter."""

import numpy as np

from configs import base, thumos14_letter
from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.method import label_quality, pseudo_labels
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runs import label_phases

A, B, BG, NONE = ([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0])


def options(**changes):
  labels = thumos14_letter.get_config().labels
  labels.update(changes)
  return labels


def video(*labels):
  return Video("v", {"rgb": np.zeros((2, 1))}, labels, ())


def labels_of(*rows):
  labels = np.array(rows, bool)
  return PseudoLabels(labels, np.asarray(labels.any(1)))


def ints(labels):
  return labels.labels.astype(int).tolist()


def test_allowed_classes_are_the_videos_own_or_all():
  videos = [video(1), video(0, 2), video()]
  own = pseudo_labels.allowed_classes(videos, 3, class_filter=True)
  assert [row.tolist() for row in own] == [
    [False, True, False],
    [True, False, True],
    [False, False, False],
  ]
  everything = pseudo_labels.allowed_classes(videos, 3, class_filter=False)
  assert all(row.all() for row in everything)
  assert len(everything) == 3


# Logits of 3 segments: rgb is undecided, flow is sure of a, b, background.
OUTPUT = {
  "logits": {
    "rgb": np.zeros((3, 3)),
    "flow": np.array([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]]),
  }
}
OWN = [np.array([True, False]), np.array([True, True])]


def initial(**changes):
  got = label_phases.initial_labels(
    [OUTPUT, OUTPUT], OWN, options(**changes), base.get_config().fusion
  )
  return [ints(labels) for labels in got]


def test_initial_labels_of_each_videos_own_classes():
  # Min-max makes the CAS the unit matrix: class sums (1, 0, 0) and (1, 1, 0).
  assert initial() == [[A, BG, BG], [A, B, BG]]


def test_initial_labels_follow_the_options():
  # Without min-max the best score is (1/3 + 1.5) / 2.5 = 0.73, the least sum
  # of a and b 2/3 / 2.5 = 0.27, of a alone 1/3 / 2.5 = 0.133.
  assert initial(cas="softmax") == [[A, NONE, NONE], [A, B, NONE]]
  assert initial(cas="softmax", high=0.74) == [[NONE] * 3] * 2
  assert initial(cas="softmax", low=0.2) == [[A, BG, BG], [A, B, NONE]]
  # Of a alone frames 2 and 3 are background, of both only the third.
  assert initial(background_sum="all")[0] == [A, NONE, BG]
  # Both streams undecided everywhere but for a: raw logits 5.4 and 0.
  assert initial(cas="raw", high=5.3) == [[A, BG, BG], [A, B, BG]]
  assert initial(cas="raw", high=5.5) == [[NONE, BG, BG], [NONE, NONE, BG]]


def test_initial_labels_have_the_papers_weights_and_thresholds():
  # (0.5 + 1.5 x 0.84) / 2.5 = 0.704 and, with 0.83, 0.698;
  # (0.2 + 1.5 x 0.03) / 2.5 = 0.098 and, with 0.04, 0.104.
  rows = {"rgb": [0.5, 0.5, 0.2, 0.2], "flow": [0.84, 0.83, 0.03, 0.04]}
  logits = {
    name: np.array(row)[:, None] * [1, 0, 0] for name, row in rows.items()
  }
  (got,) = label_phases.initial_labels(
    [{"logits": logits}],
    OWN[1:],
    options(cas="raw"),
    base.get_config().fusion,
  )
  assert ints(got) == [A, NONE, BG, NONE]


# Softmaxes of two videos; the second has no action above 0.6.
REFINED = [
  {"cas": np.array([[0.65, 0.1, 0.25], [0.1, 0.1, 0.8]])},
  {"cas": np.array([[0.4, 0.4, 0.2], [0.2, 0.1, 0.7]])},
]
OLD = [labels_of(NONE, A), labels_of(B, NONE)]


def refine(threshold=0.6, **changes):
  got, kept = label_phases.refined_labels(
    REFINED, OLD, OWN, threshold, options(**changes)
  )
  return [ints(labels) for labels in got], kept


def test_refine_keeps_and_counts_videos_without_action():
  assert refine() == ([[A, BG], [B, NONE]], 1)
  assert refine(keep_empty=False) == ([[A, BG], [NONE, BG]], 0)


def test_refine_follows_the_options():
  assert refine(0.7) == ([[NONE, A], [B, NONE]], 2)
  assert refine(keep_empty=False, update_rule="merge") == (
    [[A, BG], [B, BG]],
    0,
  )
  assert refine(0.3, update_rule="expand") == ([[A, A], [B, BG]], 0)
  both = [1, 1, 0]
  assert refine(0.3, several="multi_hot") == ([[A, BG], [both, BG]], 0)
  assert refine(0.3) == ([[A, BG], [A, BG]], 0)


def annotated(*instances):
  return Video("v", {"rgb": np.zeros((2, 1))}, (0,), instances)


def quality(labels, data):
  tally = label_quality.tally_labels(labels, data.train, len(data.classes))
  return label_quality.label_quality(tally)


def test_quality_is_that_of_the_annotated_videos():
  # Segments of 0.64 s: the first is of class a, the second background.
  video = annotated(Instance(0, 0.64, 0))
  labels = [labels_of(A, A), labels_of(NONE, NONE)]
  data = Dataset(("a", "b"), (video, annotated()), ())
  alone = Dataset(("a", "b"), (video,), ())
  found = quality(labels, data)
  assert found == quality(labels[:1], alone)
  assert found["precision"] == found["recall"] == 0.5
  assert found["selected"] == 1


def test_quality_without_annotations_is_what_needs_none():
  labels = [labels_of(A, NONE), labels_of(BG, NONE)]
  data = Dataset(("a", "b"), (annotated(), annotated()), ())
  found = quality(labels, data)
  assert found == {"selected": 0.5, "videos_without_action": 1}
