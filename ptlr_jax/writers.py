"""The files of a workdir besides checkpoints, each written atomically."""

import io
import json
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax import storage
from ptlr_jax.errors import InputError
from ptlr_jax.pseudo_labels import PseudoLabels


def make_writable(folder: pathlib.Path) -> None:
  """Makes a folder, and in it a file that goes at once; raises OSError."""
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=folder):
    pass


def write_json(
  path: pathlib.Path, value: Mapping[str, Any], indent: int | None = 2
) -> None:
  """Writes a JSON object atomically, with version and digest."""
  storage.write_bytes(path, storage.sealed_json(value, indent))


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads what `write_json` wrote.

  Raises:
    Damaged: it is not as it was written.
    OtherVersion: it is of another version.
  """
  return storage.parsed_json(path, storage.read_bytes(path))


# The comment of the zip file that an .npz is; its length is always the same.
_COMMENT = f"ptlr_jax labels {storage.VERSION:04d} sha256 ".encode()


def write_labels(
  path: pathlib.Path, ids: Sequence[str], labels: Sequence[PseudoLabels]
) -> None:
  """Pseudo labels of all videos as one npz without pickles.

  ids U[N]; lengths i64[N]; labels u8[sum T, ceil((C+1)/8)], bits packed;
  selected bool[sum T]; columns i64[] = C + 1. Version and digest are the zip
  file's comment, which ends it.
  """
  buffer = io.BytesIO()
  np.savez_compressed(
    buffer,
    ids=np.array(ids),
    lengths=np.array([len(item.selected) for item in labels]),
    labels=np.packbits(
      np.concatenate([item.labels for item in labels]), axis=1
    ),
    selected=np.concatenate([item.selected for item in labels]),
    columns=np.array(labels[0].labels.shape[1]),
  )
  with zipfile.ZipFile(buffer, "a") as archive:
    archive.comment = _COMMENT + storage.PLACE
  storage.write_bytes(path, storage.seal(buffer.getvalue()))


def check_labels(path: pathlib.Path) -> bytes:
  """The bytes of `write_labels`' file.

  Raises:
    Damaged: they are not as they were written.
    OtherVersion: they are of another version.
  """
  data = storage.read_bytes(path)
  at = len(data) - len(storage.PLACE)
  comment = data[max(at - len(_COMMENT), 0) : max(at, 0)]
  if storage.is_sealed(data, at):
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


def read_labels(
  path: pathlib.Path, ids: Sequence[str], lengths: Sequence[int]
) -> list[PseudoLabels]:
  """Reads `write_labels`' file; the videos must be the ones expected.

  Raises:
    Damaged, OtherVersion: see `check_labels`.
  """
  with np.load(io.BytesIO(check_labels(path)), allow_pickle=False) as file:
    found = dict(
      zip(file["ids"].tolist(), file["lengths"].tolist(), strict=True)
    )
    if found != dict(zip(ids, lengths, strict=True)):
      raise InputError(
        f"{path}: the videos or their lengths are not those of the data "
        "(did the features change?); use a new --workdir"
      )
    edges = np.cumsum(file["lengths"])[:-1]
    bits = np.unpackbits(
      file["labels"], axis=1, count=int(file["columns"])
    ).astype(bool)
    parts = np.split(bits, edges), np.split(file["selected"], edges)
    order = {name: i for i, name in enumerate(file["ids"].tolist())}
  return [PseudoLabels(parts[0][order[i]], parts[1][order[i]]) for i in ids]


def write_detections(
  path: pathlib.Path, results: Mapping[str, list[dict[str, Any]]]
) -> None:
  """Detections in the ActivityNet results form."""
  whole = {"version": "VERSION 1.3", "results": results, "external_data": {}}
  write_json(path, whole, indent=None)


class MetricsLog:
  """metrics.jsonl: a line an interval, {"phase", "step", terms...}, and its
  version and CRC-32."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def _lines(self) -> list[tuple[str, dict[str, Any] | None]]:
    """Each line with its values, or None where it is not as written."""
    if not self.path.exists():
      return []
    text = storage.read_bytes(self.path).decode(errors="replace")
    *whole, cut = text.split("\n")
    lines = [(line, _unsealed_line(self.path, line)) for line in whole]
    return [*lines, (cut, None)] if cut else lines

  def read(self) -> list[dict[str, Any]]:
    """All sound lines; one cut off by a kill is left out."""
    return [values for _, values in self._lines() if values is not None]

  def mend(self) -> int:
    """Drops what is not as it was written; how many lines besides one that was
    cut off at the end."""
    lines = self._lines()
    bad = sum(values is None for _, values in lines)
    if bad:
      cut = not self.path.read_bytes().endswith(b"\n")
      self._rewrite([values for _, values in lines if values is not None])
      bad -= cut
    return bad

  def rewind(self, phase: str, step: int) -> None:
    """Forgets what `phase` wrote after `step`, before it goes on from there."""
    lines = self._lines()
    kept = [
      values
      for _, values in lines
      if values and (values["phase"] != phase or values["step"] <= step)
    ]
    if len(kept) < len(lines):
      self._rewrite(kept)

  def _rewrite(self, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(_sealed_line(values) for values in lines)
    storage.write_bytes(self.path, text.encode())

  def append(self, phase: str, step: int, values: Mapping[str, float]) -> None:
    """Adds a line."""
    line = _sealed_line({"phase": phase, "step": step, **values})
    with storage.room_for(self.path, len(line)), self.path.open("a") as file:
      file.write(line)


def _sealed_line(values: Mapping[str, Any]) -> str:
  whole = {**values, storage.VERSION_KEY: storage.VERSION}
  text = json.dumps(whole)
  return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def _unsealed_line(path: pathlib.Path, line: str) -> dict[str, Any] | None:
  """The values of a line; None where it is not as written."""
  body, _, crc = line.rpartition(', "crc32": "')
  sound = crc == f'{zlib.crc32(f"{body}}}".encode()):08x}"}}'
  try:
    values = json.loads(line)
    version = values.pop(storage.VERSION_KEY, None)
    old = not sound and "crc32" not in values and "phase" in values
  except (ValueError, AttributeError, TypeError):
    return None
  if (sound or old) and version != storage.VERSION:
    raise storage.other_version(path, version)
  if not sound:
    return None
  del values["crc32"]
  return values
