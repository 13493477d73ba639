"""The layout `actionformer`: ActionFormer and OpenTAD.

ROOT/annotations/NAME.json    {"database": {VIDEO: {"subset", "duration", "fps",
                              "annotations"}}}
ROOT/i3d_features/VIDEO.npy   each (T, 2 D), rgb first

Two geometries are about: THUMOS14 at the video's own fps with a window of 16
frames every 4, ActivityNet at 25 fps with 16 every 16. Unless it is given, T
against the durations tells which.
"""

from pathlib import Path

from ptlr_jax.data.files.annotations import parse_entry
from ptlr_jax.data.files.features import STREAMS, Folder
from ptlr_jax.data.files.text import read_database
from ptlr_jax.data.geometry import Geometry
from ptlr_jax.data.layouts.source import (
  Located,
  ReadOptions,
  Source,
  locate,
  note_unused,
  only_file,
  sort_into,
)

GEOMETRIES = (
  (Geometry(25.0, 16.0, 16.0), False),
  (Geometry(30.0, 4.0, 16.0), True),
)


def claims_actionformer(root: Path) -> str:
  """What speaks for the layout: the files that are there."""
  folders = [root / "annotations", *_feature_folders(root)]
  there = [path.name for path in folders if path.is_dir()]
  return ", ".join(there) if len(there) > 1 else ""


def _feature_folders(root: Path) -> list[Path]:
  exact = root / "i3d_features"
  if exact.is_dir():
    return [exact]
  return sorted(path for path in root.glob("*_features") if path.is_dir())


def read_actionformer(
  root: Path, options: ReadOptions, problems: list[str]
) -> Source:
  """The data set under `root` in the layout of ActionFormer."""
  source = Source(
    "actionformer", root, {"train": [], "test": []}, {}, GEOMETRIES
  )
  path = _annotations(root, options, problems)
  folders = _feature_folders(root)
  if len(folders) != 1:
    problems.append(
      f"{root}: expected one folder i3d_features, came "
      f"{', '.join(p.name for p in folders) or 'none'}; put the features there"
    )
  if path is None or len(folders) != 1:
    return source
  source.files = (path,)
  database = read_database(path, problems, notes=source.notes)
  entries = [
    parse_entry(i, f"{path}: {i}", raw, problems) for i, raw in database.items()
  ]
  sort_into(source, entries, options, problems)
  folder = Folder(folders[0])
  located: dict[str, Located] = {}
  for videos in source.entries.values():
    for entry in videos:
      file = folder.file(entry.id, f"v_{entry.id}")
      located[entry.id] = [(file, STREAMS)]
  source.parts = locate(
    source.entries, located, options, problems, source.notes
  )
  note_unused(folders[0], folder.unused(), source.notes)
  return source


def _annotations(
  root: Path, options: ReadOptions, problems: list[str]
) -> Path | None:
  if options.annotations:
    return root / options.annotations
  folder = root / "annotations"
  return only_file(
    sorted(folder.glob("*.json")),
    folder,
    "one .json file",
    "pass --config.data.annotations=annotations/NAME.json",
    problems,
  )
