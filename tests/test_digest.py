"""Tests of ptlr_jax.data.digest: what changes a digest, and what does not."""

import dataclasses
import hashlib

import numpy as np
import pytest

from ptlr_jax.data import digest
from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.data.geometry import Geometry
from tests.damage import flipped


def _features(seed, segments=5):
  draw = np.random.default_rng(seed)
  return {
    stream: draw.standard_normal((segments, 3)).astype(np.float32)
    for stream in ("rgb", "flow")
  }


def _video(name, seed=0, **changes):
  instances = (Instance(0.5, 1.25, 0), Instance(2.0, 3.0, 1))
  video = Video(name, _features(seed), (0, 1), instances)
  return dataclasses.replace(video, **changes)


TRAIN = (_video("a", 1), _video("b", 2))
DATA = Dataset(("Run", "Jump"), TRAIN, (_video("c", 3),))


def _first_is(**changes):
  """The data set with a changed first training video."""
  first = dataclasses.replace(TRAIN[0], **changes)
  return dataclasses.replace(DATA, train=(first, TRAIN[1]))


# Features.


def test_the_digest_of_features_by_hand():
  x = np.array([[1, 2]], "<f4")
  text = b"rgb <f4 (1, 2)" + x.tobytes()
  assert digest.features_digest({"rgb": x}) == hashlib.sha256(text).digest()


def test_every_bit_of_features_counts():
  features = _features(0, segments=1)
  digests = {digest.features_digest(features)}
  data = features["flow"].tobytes()
  for bit in range(8 * len(data)):
    other = np.frombuffer(flipped(data, bit), np.float32).reshape(1, 3)
    digests.add(digest.features_digest({**features, "flow": other}))
  assert len(digests) == 8 * len(data) + 1


def test_shape_type_and_name_of_features_count():
  x = np.zeros((2, 3), np.float32)
  found = [
    digest.features_digest(features)
    for features in (
      {"rgb": x},
      {"flow": x},
      {"rgb": x.T},
      {"rgb": x.reshape(1, 6)},
      {"rgb": x.astype(np.int32)},
      {"rgb": x.astype(">f4")},
      {"rgb": x.astype(np.float16)},
      {"rgb": x, "flow": x},
      {"rgb": x[:0]},
      {"rgb": np.zeros((0, 4), np.float32)},
      {},
    )
  ]
  assert len(set(found)) == len(found)


def test_the_layout_in_memory_and_the_order_of_streams_do_not_count():
  one = _features(0)
  wanted = digest.features_digest(one)
  assert wanted == digest.features_digest(dict(reversed(one.items())))
  other = {k: np.asfortranarray(x) for k, x in one.items()}
  assert wanted == digest.features_digest(other)
  other = {k: np.repeat(x, 2, axis=0)[::2] for k, x in one.items()}
  assert wanted == digest.features_digest(other)


def test_videos_combine_in_any_order_but_not_under_other_ids():
  a, b = (bytes([i]) * 32 for i in (1, 2))
  wanted = digest.combined({"x": a, "y": b})
  assert wanted == digest.combined({"y": b, "x": a})
  others = [{"x": b, "y": a}, {"x": a}, {"x": a, "z": b}, {"xy": a, "": b}, {}]
  found = [digest.combined(other) for other in others]
  assert len({wanted, *found}) == len(others) + 1


# Data sets.


def test_a_data_set_has_two_digests():
  found = digest.data_digest(DATA)
  assert found.keys() == {"annotations", "features"}
  assert all(len(x or "") == 64 for x in found.values())
  assert found == digest.data_digest(dataclasses.replace(DATA))


CHANGES = [
  {"id": "d"},
  {"labels": (0,)},
  {"labels": (1, 0)},
  {"instances": ()},
  {"instances": (Instance(0.5, 1.25, 0), Instance(2.0, 3.0, 0))},
  {"instances": (Instance(0.5, 1.25, 0), Instance(2.0, 3.0000000001, 1))},
  {"instances": TRAIN[0].instances[::-1]},
  {"ambiguous": ((1.0, 2.0),)},
  *(
    {"geometry": dataclasses.replace(Geometry(), **{field.name: 17.5})}
    for field in dataclasses.fields(Geometry)
  ),
]


@pytest.mark.parametrize("changes", CHANGES)
def test_what_is_said_of_a_video_changes_the_annotations(changes):
  before = digest.data_digest(DATA)
  after = digest.data_digest(_first_is(**changes))
  assert before["annotations"] != after["annotations"]
  assert (before["features"] == after["features"]) == ("id" not in changes)


def test_numpy_numbers_are_as_good_as_python_s():
  same = {
    "labels": tuple(np.array([0, 1], np.int32)),
    "instances": tuple(
      Instance(np.float64(s), np.float64(e), np.int64(c))  # type: ignore
      for s, e, c in TRAIN[0].instances
    ),
    "geometry": Geometry(25, 16, 16, 0),
  }
  assert digest.data_digest(_first_is(**same)) == digest.data_digest(DATA)


def test_classes_splits_and_order_change_the_annotations_alone():
  before = digest.data_digest(DATA)
  for other in (
    dataclasses.replace(DATA, classes=("Jump", "Run")),
    dataclasses.replace(DATA, train=TRAIN[::-1]),
    dataclasses.replace(DATA, train=TRAIN[:1], test=(TRAIN[1], *DATA.test)),
  ):
    after = digest.data_digest(other)
    assert before["annotations"] != after["annotations"]
    assert before["features"] == after["features"]


def test_one_bit_of_a_feature_changes_the_features_alone():
  x = TRAIN[0].features["rgb"].copy()
  x.view(np.uint8)[0, 0] ^= 1
  after = digest.data_digest(
    _first_is(features={**TRAIN[0].features, "rgb": x})
  )
  before = digest.data_digest(DATA)
  assert before["annotations"] == after["annotations"]
  assert before["features"] != after["features"]


def test_features_on_the_disk_are_not_read_for_a_digest():
  class Unread(dict):
    num_segments = 5

    def load(self):
      raise AssertionError

  data = dataclasses.replace(_first_is(features=Unread()), on_disk=True)
  found = digest.data_digest(data)
  assert found["features"] is None
  assert found["annotations"] == digest.data_digest(DATA)["annotations"]
  known = dataclasses.replace(data, features_digest="ab")
  assert digest.data_digest(known)["features"] == "ab"


# Whether two contradict each other.


@pytest.mark.parametrize(
  ("one", "other", "wanted"),
  [
    (("x", "y"), ("x", "y"), []),
    (("x", "y"), ("z", "y"), ["annotations"]),
    (("x", "y"), ("x", "z"), ["features"]),
    (("x", "y"), ("y", "x"), ["annotations", "features"]),
    (("x", None), ("x", "y"), []),
    (("x", "y"), ("x", None), []),
    (("x", None), ("z", None), ["annotations"]),
    (("x", ""), ("x", "y"), []),
  ],
)
def test_what_is_not_known_contradicts_nothing(one, other, wanted):
  known = [{"annotations": x, "features": y} for x, y in (one, other)]
  found = digest.contradict(*known)
  assert found == wanted
  assert digest.contradict({}, {"annotations": "x"}) == []
