"""A layout with one .npz a video, whose arrays f[T,D] are its streams."""

import json
from pathlib import Path

import numpy as np

from ptlr_jax.data import layouts
from ptlr_jax.data.files.annotations import parse_entry
from ptlr_jax.data.files.features import Part
from ptlr_jax.data.layouts.source import ReadOptions, Source, sort_into

ANNOTATIONS = "database.json"  # as ActivityNet's


def claims(root: Path) -> str:
  """What speaks for the layout in a folder."""
  is_there = (root / ANNOTATIONS).is_file() and any(root.glob("*.npz"))
  return ANNOTATIONS if is_there else ""


def read(root: Path, options: ReadOptions, problems: list[str]) -> Source:
  """Annotations by split, and the streams of every video."""
  path = root / ANNOTATIONS
  entries = [
    parse_entry(video, f"{path}: {video}", said, problems)
    for video, said in json.loads(path.read_text())["database"].items()
  ]
  source = Source("npz", root, {"train": [], "test": []}, {}, files=(path,))
  sort_into(source, entries, options, problems)
  for video in (x.id for split in source.entries.values() for x in split):
    with np.load(root / f"{video}.npz") as file:
      source.parts[video] = {
        name: Part(f"{file.fid.name}: {name}", file[name])
        for name in options.streams or file.files
      }
  return source


form = f"{ANNOTATIONS} and VIDEO.npz"
layouts.LAYOUTS["npz"] = layouts.Layout(read, claims, form, names_streams=True)
