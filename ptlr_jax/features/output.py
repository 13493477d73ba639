"""Where features are written, and what says that they are whole.

  ROOT/geometry.json                 fps, stride, window: read by training
  ROOT/features/{train,test}/{rgb,flow}/V.npy    the layout basnet
  ROOT/features/{rgb,flow}/V.npy     own, and basnet where no split is known
  ROOT/V_rgb.npy  ROOT/V_flow.npy    video_features
  ROOT/extraction/settings.json      what all of them were made with
  ROOT/extraction/videos/V.json      SHA-256 of V's files, size of the video
  ROOT/extraction/report.json        of the last run: what failed, and why

A video's record is written before its features: what has no record was not
written here, and is never replaced; what is not as its record says is made
again. Nothing here knows whether ROOT is on a disk, see `Files`.
"""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlr_jax.data.files import sealing
from ptlr_jax.data.geometry import FILE, Geometry, as_dict
from ptlr_jax.features.extraction import Features
from ptlr_jax.features.segments import STREAMS, Settings
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import Damaged, InputError
from ptlr_jax.runtime.progress import show

LAYOUTS = ("basnet", "own", "video_features")
SPLITS = ("", "train", "test")
FOLDER = "extraction"
VERSION = 1  # of what the same settings make
_FREE = ("batch", "damaged")  # settings that do not make other features
_THUMOS = {"train": r"video_validation_\d{7}", "test": r"video_test_\d{7}"}


class Files:
  """Files of a disk by path; `beam` has one for object stores."""

  def read(self, path: str) -> bytes | None:
    """What a file holds; None where there is none."""
    try:
      return Path(path).read_bytes()
    except FileNotFoundError:
      return None

  def write(self, path: str, data: bytes) -> None:
    """Writes a file whole or not at all. Raises NoSpace."""
    storage.write_bytes(Path(path), data)

  def exists(self, path: str) -> bool:
    """Whether there is a file."""
    return Path(path).is_file()

  def move(self, path: str, target: str) -> None:
    """Gives a file another place on the same disk."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(path).replace(target)


class Output:
  """The folder that features are written to."""

  def __init__(
    self,
    root: str,
    layout: str = "basnet",
    split: str = "",
    files: Files | None = None,
  ):
    self.root, self.layout = root.rstrip("/") or "/", layout
    self.files = files or Files()
    self._split = split
    self._splits = {} if split else self._read_splits()

  def _read_splits(self) -> dict[str, str]:
    """{name: train or test} of the split files that may lie in ROOT."""
    found = {}
    for split in SPLITS[1:]:
      text = self.files.read(f"{self.root}/split_{split}.txt") or b""
      names = text.decode("utf-8-sig", "replace").split()
      found |= {name: split for name in names}
    return found

  def split_of(self, name: str) -> str:
    """`train`, `test`, or "" where nothing says it."""
    if self.layout != "basnet":
      return ""
    for known in (name, name.removeprefix("v_")):
      if known in self._splits:
        return self._splits[known]
    by_name = (s for s, form in _THUMOS.items() if re.fullmatch(form, name))
    return self._split or next(by_name, "")

  def path(self, name: str, stream: str) -> str:
    """The file of a stream of a video."""
    return self._path(name, stream, self.split_of(name))

  def _path(self, name: str, stream: str, split: str) -> str:
    if self.layout == "video_features":
      return f"{self.root}/{name}_{stream}.npy"
    parts = [self.root, "features", split, stream, f"{name}.npy"]
    return "/".join(part for part in parts if part)

  def _adopt(self, name: str, stream: str, digest: str) -> bool:
    """Whether a file of that digest was in the place of another split, as
    before there were split files; it is moved to its own."""
    for split in SPLITS if self.layout == "basnet" else ():
      path = self._path(name, stream, split)
      data = self.files.read(path)
      if data is not None and _sha256(data) == digest:
        self.files.move(path, self.path(name, stream))
        return True
    return False

  # What all videos have in common.

  def settle(self, settings: Settings, weights: Mapping[str, str]) -> None:
    """Writes what features are made with, or holds it against what is there.

    `weights`: {stream: digest}. A stream may come to others later.

    Raises:
      InputError: what is there was made otherwise.
    """
    path = f"{self.root}/{FOLDER}/settings.json"
    ours: dict[str, Any] = {
      **{
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in _FREE
      },
      "layout": self.layout,
      "version": VERSION,
    }
    found = self._json(path)
    theirs = found.pop("weights", {})
    wrong = [
      f"{name} {found.get(name)!r} (now {ours.get(name)!r})"
      for name in sorted(ours.keys() | found.keys())
      if found and found.get(name) != ours.get(name)
    ]
    wrong += [
      f"other weights of {stream}"
      for stream, digest in sorted(weights.items())
      if theirs.get(stream, digest) != digest
    ]
    if wrong:
      raise InputError(
        f"{path}: expected features made as asked for now, came "
        f"{', '.join(wrong)}; give the same settings or another --output"
      )
    self._settle_geometry(settings)
    whole = {**ours, "weights": {**theirs, **weights}}
    if whole != {**found, "weights": theirs}:
      self._write_json(path, whole)

  def _settle_geometry(self, settings: Settings) -> None:
    """ROOT/geometry.json, as training reads it."""
    path = f"{self.root}/{FILE}"
    ours = as_dict(Geometry(settings.fps, settings.stride, settings.window))
    there = self.files.read(path)
    if there is None:
      self.files.write(path, (json.dumps(ours) + "\n").encode())
      return
    try:
      found = {**as_dict(Geometry()), **json.loads(there)}
    except (ValueError, TypeError):
      found = {}
    if found != ours:
      raise InputError(
        f"{path}: expected {json.dumps(ours)}, came {there.decode()!r:.100}; "
        "give the same settings or another --output"
      )

  # Videos.

  def is_done(self, name: str, size: int, streams: tuple[str, ...]) -> bool:
    """Whether a video of so many bytes has its features, to the bit.

    Raises:
      InputError: features are there that were not written here.
    """
    record = self._record(name)
    if not record:
      for stream in streams:
        path = self.path(name, stream)
        if self.files.exists(path):
          raise InputError(
            f"{path}: expected no features but those written here, came a "
            f"file without a record in {FOLDER}/videos; it stays as it is: "
            "move it away or give another --output"
          )
      return False
    if record["bytes"] != size:
      return False
    for stream in streams:
      data = self.files.read(self.path(name, stream))
      digest = record["digests"].get(stream, "")
      whole = data is not None and _sha256(data) == digest
      if not whole and not self._adopt(name, stream, digest):
        return False
    return True

  def write(self, name: str, size: int, found: Features) -> None:
    """Writes the features of a video of so many bytes. Raises NoSpace."""
    data = {stream: _npy(x) for stream, x in found.streams.items()}
    before = self._record(name)
    kept = before.get("digests", {}) if before.get("bytes") == size else {}
    record = {
      "bytes": size,
      "seconds": found.duration,
      "segments": len(next(iter(found.streams.values()))),
      "faults": list(found.faults),
      "digests": {**kept, **{s: _sha256(x) for s, x in data.items()}},
    }
    self._write_json(f"{self.root}/{FOLDER}/videos/{name}.json", record)
    for stream, npy in data.items():
      self.files.write(self.path(name, stream), npy)

  def _record(self, name: str) -> dict[str, Any]:
    try:
      return self._json(f"{self.root}/{FOLDER}/videos/{name}.json")
    except Damaged:
      return {"bytes": -1, "digests": {}}  # ours, and to be made again

  def read_report(self) -> dict[str, Any]:
    """The report of the last run."""
    return self._json(f"{self.root}/{FOLDER}/report.json")

  def report(self, done: int, skipped: int, failed: Mapping[str, str]) -> str:
    """Writes what became of the videos of a run; returns the path."""
    path = f"{self.root}/{FOLDER}/report.json"
    self._write_json(
      path,
      {"extracted": done, "done_before": skipped, "failed": dict(failed)},
    )
    return path

  def _json(self, path: str) -> dict[str, Any]:
    data = self.files.read(path)
    return storage.parsed_json(Path(path), data) if data is not None else {}

  def _write_json(self, path: str, value: Mapping[str, Any]) -> None:
    self.files.write(path, sealing.sealed_json(value))


def unfinished(root: Path) -> list[Path]:
  """What a stop in the middle of writing left below a folder."""
  places = ("", f"{FOLDER}/", f"{FOLDER}/videos/")
  folders = [f"features/{split}/{s}/" for split in SPLITS for s in STREAMS]
  found = []
  for place in (*places, *(f.replace("//", "/") for f in folders)):
    found += (root / place).glob(".*.tmp-*")
  return found


def _npy(x: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, x, allow_pickle=False)
  return file.getvalue()


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def tell_places(out: Output, names: Sequence[str]) -> None:
  """Says where basnet's features go when their split is not known."""
  lost = [name for name in names if not out.split_of(name)]
  if out.layout == "basnet" and lost:
    show(
      f"{out.root}: of {len(lost)} videos nothing says whether they train or "
      "are tested (split_train.txt and split_test.txt there, or --split): "
      "their features go to features/{rgb,flow}, which training reads as the "
      "layout own"
    )
