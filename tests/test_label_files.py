"""Files of pseudo labels: of all videos, of parts, and joined."""

import numpy as np
import pytest

from ptlr_jax.io import label_files
from ptlr_jax.method.pseudo_labels import PseudoLabels

LENGTHS = [3, 7, 1, 5, 4]
IDS = [f"v{i}" for i in range(5)]


@pytest.fixture
def labels():
  """Labels of five videos, nine columns: two bytes packed."""
  rng = np.random.default_rng(0)
  return [
    PseudoLabels(rng.random((n, 9)) < 0.4, rng.random(n) < 0.7) for n in LENGTHS
  ]


def _assert_equal(found, expected):
  found, expected = list(found), list(expected)
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    for x, y in zip(a, b, strict=True):
      np.testing.assert_array_equal(x, y)
      assert x.dtype == y.dtype


def test_what_is_read_is_what_was_written(labels, tmp_path):
  label_files.write_labels(tmp_path / "all.npz", IDS, labels)
  found = label_files.read_labels(tmp_path / "all.npz", IDS, LENGTHS)
  assert len(found) == 5
  _assert_equal(found, labels)
  _assert_equal(found[1:4], labels[1:4])
  _assert_equal([found[-1], found[0]], [labels[-1], labels[0]])
  with pytest.raises(IndexError):
    found[5]


def test_videos_come_in_the_order_that_is_asked_for(labels, tmp_path):
  label_files.write_labels(tmp_path / "all.npz", IDS, labels)
  order = [4, 0, 3, 1, 2]
  found = label_files.read_labels(
    tmp_path / "all.npz",
    [IDS[i] for i in order],
    [LENGTHS[i] for i in order],
  )
  _assert_equal(found, [labels[i] for i in order])


def test_pieces_joined_are_the_bytes_of_a_file_of_all(labels, tmp_path):
  label_files.write_labels(tmp_path / "all.npz", IDS, labels)
  pieces = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
  bounds = [slice(0, 2), slice(2, 3), slice(3, 5)]
  for piece, own in zip(pieces, bounds, strict=True):
    label_files.write_labels(piece, IDS[own], labels[own])
  label_files.join_label_files(tmp_path / "joined.npz", pieces)
  joined = (tmp_path / "joined.npz").read_bytes()
  assert joined == (tmp_path / "all.npz").read_bytes()
  assert not any(piece.exists() for piece in pieces)


def test_labels_of_some_parts_keep_the_numbers_of_all_videos(labels, tmp_path):
  paths = []
  for own in (range(1, 3), range(4, 5)):
    path = tmp_path / f"{own.start}.npz"
    there = slice(own.start, own.stop)
    label_files.write_labels(path, IDS[there], labels[there])
    paths.append((own, path))
  found = label_files.read_parts(paths, IDS, LENGTHS)
  assert len(found) == 5
  _assert_equal(found, [labels[1], labels[2], labels[4]])
  _assert_equal([found[4], found[2]], [labels[4], labels[2]])
  with pytest.raises(IndexError, match="video 3 are those of another process"):
    found[3]


@pytest.mark.parametrize("lengths", [[3, 7, 1, 5, 5], [3, 7, 1, 5]])
def test_labels_of_other_videos_are_refused(labels, tmp_path, lengths):
  path = tmp_path / "all.npz"
  label_files.write_labels(path, IDS, labels)
  ids = IDS[: len(lengths)]
  with pytest.raises(Exception, match="are not those of the data") as caught:
    label_files.read_labels(path, ids, lengths)
  assert str(path) in str(caught.value)
