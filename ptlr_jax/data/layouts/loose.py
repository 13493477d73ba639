"""Loose feature files beside one annotation file: `video_features` and `own`.

video_features (v-iashin/video_features):
  ROOT/VIDEO_rgb.npy  ROOT/VIDEO_flow.npy      each (T, D)
own, in any of three forms, in ROOT/features or in ROOT itself:
  rgb/VIDEO.npy  flow/VIDEO.npy                each (T, D), or rgb alone
  VIDEO_rgb.npy  VIDEO_flow.npy                each (T, D), or rgb alone
  VIDEO.npy                                    (T, D): one stream, called rgb

and ROOT/NAME.csv or ROOT/NAME.json: video-level labels, with segments where
there are any. Without subsets, labelled videos train and all others are tested.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from ptlr_jax.data.files.annotations import Entry
from ptlr_jax.data.files.features import STREAMS, Folder
from ptlr_jax.data.files.label_tables import read_entries
from ptlr_jax.data.files.text import canonical_id, is_file_name
from ptlr_jax.data.geometry import FILE
from ptlr_jax.data.layouts.source import (
  Located,
  ReadOptions,
  Source,
  locate,
  note_unused,
  only_file,
  sort_into,
)


def claims_video_features(root: Path) -> str:
  """What speaks for the layout: the files that are there."""
  count = len(list(root.glob("*_rgb.npy")))
  return f"{count} files VIDEO_rgb.npy" if count else ""


def claims_own(root: Path) -> str:
  """What speaks for the layout: the files that are there."""
  files = [path.name for path in _annotation_files(root)]
  there = ["features"] if (root / "features").is_dir() else []
  return ", ".join([*there, *files])


def read_video_features(
  root: Path, options: ReadOptions, problems: list[str]
) -> Source:
  """The output of video_features with an annotation file beside it."""
  return _read("video_features", root, options, problems, canonical_id)


def read_own(root: Path, options: ReadOptions, problems: list[str]) -> Source:
  """A folder of features and a table of labels. Ids stay as they are."""
  return _read("own", root, options, problems, str)


def _annotation_files(root: Path) -> list[Path]:
  return sorted(
    path
    for path in root.iterdir()
    if path.suffix.lower() in (".csv", ".json")
    and path.name != FILE
    and path.is_file()
  )


class _Place(NamedTuple):
  """Where the files of some streams are: FOLDER/VIDEO`end`.npy."""

  folder: Folder
  end: str
  streams: tuple[str, ...]

  def ids(self) -> set[str]:
    """The videos that have a file here."""
    end = f"{self.end}.npy"
    names = (n for n in self.folder.unused() if n.endswith(end))
    return {i for n in names if is_file_name(i := n.removesuffix(end))}

  def file(self, video_id: str) -> Path:
    """The file of a video, with or without ActivityNet's v_."""
    return self.folder.file(f"{video_id}{self.end}", f"v_{video_id}{self.end}")


def _places(
  root: Path, options: ReadOptions, problems: list[str]
) -> list[_Place]:
  """The places of the features in the form that they have; a stream that is
  asked for and has none is one problem, not one a video."""
  path = root / "features"
  path = path if path.is_dir() else root
  flat = Folder(path)
  names = options.streams or STREAMS
  if any((path / s).is_dir() for s in (*names, *STREAMS)):
    found = [_Place(Folder(path / s), "", (s,)) for s in names]
  else:
    found = [_Place(flat, f"_{s}", (s,)) for s in names]
  there = [place for place in found if place.ids()]
  if not there:  # neither form: a file a video
    streams = options.streams or ("rgb",)
    return [_Place(flat, "", STREAMS if len(streams) > 1 else streams)]
  if options.streams:
    problems += [
      f"{place.folder.path}: expected features of the stream "
      f"{place.streams[0]}, came none; put them there or leave it out of "
      "--config.data.streams"
      for place in found
      if place not in there
    ]
  return there


def _read(
  name: str, root: Path, options: ReadOptions, problems: list[str], canonical
) -> Source:
  source = Source(name, root, {"train": [], "test": []}, {})
  places = _places(root, options, problems)
  path = _annotations(root, options, problems)
  if path is None:
    return source
  source.files = (path,)
  entries = read_entries(path, problems, canonical, source.notes)
  if any(entry.subset for entry in entries.values()):
    _check_subsets(entries, problems)
    sort_into(source, list(entries.values()), options, problems)
  elif options.train_subset or options.test_subset:
    sort_into(source, list(entries.values()), options, problems)
  else:
    found = {canonical(i) for place in places for i in place.ids()}
    _by_labels(source, entries, found)
  located: dict[str, Located] = {
    e.id: [(place.file(e.id), place.streams) for place in places]
    for videos in source.entries.values()
    for e in videos
  }
  source.parts = locate(
    source.entries, located, options, problems, source.notes
  )
  names = (*STREAMS, *options.streams)
  if places[0].end == "" and places[0].folder.path.name not in names:
    source.notes.append(
      f"{places[0].folder.path}: one file a video is read as "
      f"{' and '.join(places[0].streams)}; --config.data.streams="
      "\"('rgb','flow')\" reads it as both joined, rgb first"
    )
  for folder in {id(place.folder): place.folder for place in places}.values():
    note_unused(folder.path, folder.unused(), source.notes)
  return source


def _annotations(
  root: Path, options: ReadOptions, problems: list[str]
) -> Path | None:
  if options.annotations:
    return root / options.annotations
  return only_file(
    _annotation_files(root),
    root,
    "one .csv or .json file with labels",
    "put it there or pass --config.data.annotations=FILE",
    problems,
  )


def _check_subsets(entries: dict[str, Entry], problems: list[str]) -> None:
  problems += [
    f"{entry.where}: expected a subset, as other videos have, came none; write "
    "train or test"
    for entry in entries.values()
    if not entry.subset
  ]


def _by_labels(
  source: Source, entries: dict[str, Entry], found: set[str]
) -> None:
  """No subsets: labelled videos train, the others are tested."""
  known = {*entries, *(f"v_{i}" for i in entries)}
  rest = found - known
  for entry in entries.values():
    labelled = entry.events or entry.labels
    source.entries["train" if labelled else "test"].append(entry)
  source.entries["test"] += [
    Entry(i, str(source.root / i), "test") for i in sorted(rest)
  ]
  source.entries["train"] = [
    dataclasses.replace(e, subset="train") for e in source.entries["train"]
  ]
  source.notes.append(
    f"{source.files[0]}: names no subsets: the {len(source.entries['train'])} "
    f"videos with labels train, the {len(source.entries['test'])} others are "
    "only predicted"
  )
