"""Pseudo labels on disk: a file for each part of the training set.

An npz without pickles: ids U[N]; lengths i64[N]; labels u8[sum T,
ceil((C+1)/8)], bits packed; selected bool[sum T]; columns i64[] = C + 1.
Version and digest are the zip file's comment, which ends it.
"""

import io
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np

from ptlr_jax.data.files import sealing
from ptlr_jax.io import storage
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runtime.errors import InputError

# Its length is always the same.
_COMMENT = f"ptlr_jax labels {sealing.VERSION:04d} sha256 ".encode()


class _Packed(NamedTuple):
  """The arrays of a file; what is packed stays so, eight classes a byte."""

  ids: np.ndarray
  lengths: np.ndarray
  labels: np.ndarray
  selected: np.ndarray
  columns: np.ndarray


class Labels(Sequence[PseudoLabels]):
  """Labels of `total` videos, of which some are here: [(number of the first,
  file)]. They are unpacked one at a time, and iterated without the others."""

  def __init__(self, total: int, files: Sequence[tuple[int, _Packed]]):
    self._total = total
    self._files = [
      (range(first, first + len(file.lengths)), file, _starts(file.lengths))
      for first, file in files
    ]

  def __len__(self) -> int:
    return self._total

  @overload
  def __getitem__(self, video: int) -> PseudoLabels: ...
  @overload
  def __getitem__(self, video: slice) -> list[PseudoLabels]: ...
  def __getitem__(self, video):
    if isinstance(video, slice):
      return [self[i] for i in range(*video.indices(self._total))]
    video = range(self._total)[video]
    for here, file, starts in self._files:
      if video in here:
        i = video - here.start
        own = slice(starts[i], starts[i + 1])
        bits = np.unpackbits(file.labels[own], axis=1, count=int(file.columns))
        return PseudoLabels(bits.astype(bool), file.selected[own])
    raise IndexError(f"labels of video {video} are those of another process")

  def __iter__(self) -> Iterator[PseudoLabels]:
    return (self[i] for here, *_ in self._files for i in here)


def _starts(lengths: np.ndarray) -> np.ndarray:
  return np.concatenate([[0], np.cumsum(lengths)])


def write_labels(
  path: pathlib.Path, ids: Sequence[str], labels: Sequence[PseudoLabels]
) -> None:
  """Writes the labels of some videos."""
  _write(
    path,
    _Packed(
      ids=np.array(ids),
      lengths=np.array([len(item.selected) for item in labels]),
      labels=np.packbits(
        np.concatenate([item.labels for item in labels]), axis=1
      ),
      selected=np.concatenate([item.selected for item in labels]),
      columns=np.array(labels[0].labels.shape[1]),
    ),
  )


def _write(path: pathlib.Path, packed: _Packed) -> None:
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **packed._asdict())
  with zipfile.ZipFile(buffer, "a") as archive:
    archive.comment = _COMMENT + sealing.PLACE
  storage.write_bytes(path, sealing.seal(buffer.getvalue()))


def join_label_files(
  path: pathlib.Path, pieces: Sequence[pathlib.Path]
) -> None:
  """Makes one file of several, which go; the videos are in their order."""
  files = [_read(piece) for piece in pieces]
  ids, lengths, labels, selected, _ = map(list, zip(*files, strict=True))
  joined = map(np.concatenate, (ids, lengths, labels, selected))
  _write(path, _Packed(*joined, columns=files[0].columns))
  for piece in pieces:
    piece.unlink()


def check_labels(path: pathlib.Path) -> bytes:
  """The bytes of a file of labels.

  Raises:
    Damaged: they are not as they were written.
    OtherVersion: they are of another version.
  """
  data = storage.read_bytes(path)
  at = len(data) - len(sealing.PLACE)
  comment = data[max(at - len(_COMMENT), 0) : max(at, 0)]
  if sealing.is_sealed(data, at):
    if comment != _COMMENT:
      raise storage.other_version(path, comment.decode(errors="replace"))
    return data
  if _is_bare(data):
    raise storage.other_version(path, None)
  raise storage.damaged(path, "came another content than its digest is of")


def _is_bare(data: bytes) -> bool:
  """Whether it is a sound zip file without a comment, which says so itself."""
  if not data.endswith(b"\0\0"):  # the length of its comment
    return False
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      return not archive.comment and archive.testzip() is None
  except Exception:  # of a damaged one, any
    return False


def _read(path: pathlib.Path) -> _Packed:
  with np.load(io.BytesIO(check_labels(path)), allow_pickle=False) as file:
    return _Packed(*(file[name] for name in _Packed._fields))


def read_by_id(paths: Sequence[pathlib.Path]) -> dict[str, PseudoLabels]:
  """{video: labels} of all that files have.

  Raises:
    Damaged, OtherVersion: see `check_labels`.
  """
  found: dict[str, PseudoLabels] = {}
  for packed in map(_read, paths):
    labels = Labels(len(packed.ids), [(0, packed)])
    found |= zip(packed.ids.tolist(), labels, strict=True)
  return found


def read_labels(
  path: pathlib.Path, ids: Sequence[str], lengths: Sequence[int]
) -> Labels:
  """Reads a file of labels, which must be of these videos, in any order.

  Raises:
    Damaged, OtherVersion: see `check_labels`.
  """
  return Labels(len(ids), [(0, _expected(path, ids, lengths))])


def read_parts(
  paths: Sequence[tuple[range, pathlib.Path]],
  ids: Sequence[str],
  lengths: Sequence[int],
) -> Labels:
  """Reads files of labels of some of the videos: [(their numbers, file)].

  Raises:
    Damaged, OtherVersion: see `check_labels`.
  """
  files = []
  for own, path in paths:
    there = slice(own.start, own.stop)
    files.append((own.start, _expected(path, ids[there], lengths[there])))
  return Labels(len(ids), files)


def _expected(
  path: pathlib.Path, ids: Sequence[str], lengths: Sequence[int]
) -> _Packed:
  """A file with its videos in the order that is asked for."""
  found = _read(path)
  names = found.ids.tolist()
  if dict(zip(names, found.lengths.tolist(), strict=True)) != dict(
    zip(ids, lengths, strict=True)
  ):
    raise InputError(
      f"{path}: the videos or their lengths are not those of the data "
      "(did the features change?); use a new --workdir"
    )
  if names == list(ids):
    return found
  place, starts = {n: i for i, n in enumerate(names)}, _starts(found.lengths)
  order = [place[name] for name in ids]
  rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
  return _Packed(
    found.ids[order],
    found.lengths[order],
    found.labels[rows],
    found.selected[rows],
    found.columns,
  )
