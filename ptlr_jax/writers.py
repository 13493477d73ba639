"""The files of a workdir besides checkpoints, each written atomically."""

import io
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptlr_jax.errors import InputError
from ptlr_jax.pseudo_labels import PseudoLabels


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
  try:
    with temporary.open("wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def make_writable(folder: pathlib.Path) -> None:
  """Makes a folder, and in it a file that goes at once; raises OSError."""
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=folder):
    pass


def write_json(path: pathlib.Path, value: Any, indent: int | None = 2) -> None:
  """Writes JSON atomically; NaN is refused."""
  text = json.dumps(value, indent=indent, allow_nan=False)
  write_bytes(path, (text + "\n").encode())


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file of the workdir."""
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise InputError(
      f"{path}: expected JSON, got {error}; remove the file to write it again"
    ) from error


def write_labels(
  path: pathlib.Path, ids: Sequence[str], labels: Sequence[PseudoLabels]
) -> None:
  """Pseudo labels of all videos as one npz without pickles.

  ids U[N]; lengths i64[N]; labels u8[sum T, ceil((C+1)/8)], bits packed;
  selected bool[sum T]; columns i64[] = C + 1.
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
  write_bytes(path, buffer.getvalue())


def read_labels(
  path: pathlib.Path, ids: Sequence[str], lengths: Sequence[int]
) -> list[PseudoLabels]:
  """Reads `write_labels`' file; the videos must be the ones expected."""
  with np.load(path, allow_pickle=False) as file:
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
  write_json(
    path,
    {"version": "VERSION 1.3", "results": results, "external_data": {}},
    indent=None,
  )


class MetricsLog:
  """metrics.jsonl: a line an interval, {"phase", "step", terms...}."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def read(self) -> list[dict[str, Any]]:
    """All lines; a line cut off by a kill is left out."""
    if not self._path.exists():
      return []
    lines = []
    for line in self._path.read_text().splitlines():
      try:
        lines.append(json.loads(line))
      except ValueError:
        continue
    return lines

  def rewind(self, phase: str, step: int) -> None:
    """Forgets what `phase` wrote after `step`, before it goes on from there."""
    lines = self.read()
    kept = [
      line for line in lines if line["phase"] != phase or line["step"] <= step
    ]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    if self._path.exists() and text != self._path.read_text():
      write_bytes(self._path, text.encode())

  def append(self, phase: str, step: int, values: Mapping[str, float]) -> None:
    """Adds a line."""
    line = json.dumps({"phase": phase, "step": step, **values})
    with self._path.open("a") as file:
      file.write(line + "\n")
