"""The layouts with split files: `basnet` and `acmnet`.

basnet (BaSNet-pytorch, UM, LACP, CoLA, ASL):
  ROOT/gt.json  ROOT/split_train.txt  ROOT/split_test.txt
  ROOT/features/{train,test}/{rgb,flow}/VIDEO.npy    each (T, D)
acmnet (ACM-Net, ASM-Loc, FTCL):
  ROOT/gt.json  ROOT/split_train.txt  ROOT/split_test.txt
  ROOT/{train,test}/VIDEO.npy                        each (T, 2 D), rgb first
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ptlr_jax.data.files.annotations import SUBSETS, Entry, parse_entry
from ptlr_jax.data.files.features import STREAMS, Folder
from ptlr_jax.data.files.text import read_database, read_ids
from ptlr_jax.data.layouts.source import (
  Located,
  ReadOptions,
  Source,
  locate,
  note_unused,
  streams_of,
)

# What copies for ActivityNet call the folder or split file of a split.
NAMES = {"train": ("train",), "test": ("test", "val", "validation")}


def claims_basnet(root: Path) -> str:
  """What speaks for the layout: the files that are there."""
  if (root / "features").is_dir() or not _split_folders(root):
    return _claims(root, root / "features")
  return ""


def claims_acmnet(root: Path) -> str:
  """What speaks for the layout: the files that are there."""
  if (root / "features").is_dir() or not _split_folders(root):
    return ""
  return _claims(root, root)


def _claims(root: Path, features: Path) -> str:
  there = _split_folders(features)
  texts = [root / "gt.json", *(_split_file(root, split) for split in NAMES)]
  there += [path for path in texts if path.is_file()]
  found = [str(path.relative_to(root)) for path in there]
  return ", ".join(found) if len(found) >= 2 else ""


def _split_file(root: Path, split: str) -> Path:
  paths = [root / f"split_{name}.txt" for name in NAMES[split]]
  return next((path for path in paths if path.is_file()), paths[0])


def _split_folders(parent: Path) -> list[Path]:
  paths = [_split_folder(parent, split) for split in NAMES]
  return [path for path in paths if path.is_dir()]


def _split_folder(parent: Path, split: str) -> Path:
  paths = [parent / name for name in NAMES[split]]
  return next((path for path in paths if path.is_dir()), paths[0])


def read_basnet(
  root: Path, options: ReadOptions, problems: list[str]
) -> Source:
  """The data set under `root` in the layout of BaSNet-pytorch."""

  def find(split: str, ids: Sequence[str], notes: list[str]):
    located: dict[str, Located] = {i: [] for i in ids}
    for stream in streams_of(options):
      folder = _split_folder(root / "features", split) / stream
      if _is_there(folder, f"the {stream} features", ids, problems):
        for i, path in _files(folder, ids, notes).items():
          located[i] = [*located[i], (path, (stream,))]
    return located

  return _read("basnet", root, options, problems, find)


def read_acmnet(
  root: Path, options: ReadOptions, problems: list[str]
) -> Source:
  """The data set under `root` in the layout of ACM-Net."""

  def find(split: str, ids: Sequence[str], notes: list[str]):
    folder = _split_folder(root, split)
    if not _is_there(folder, "the features", ids, problems):
      return {}
    files = _files(folder, ids, notes)
    return {i: [(path, STREAMS)] for i, path in files.items()}

  return _read("acmnet", root, options, problems, find)


def _is_there(
  folder: Path, what: str, ids: Sequence[str], problems: list[str]
) -> bool:
  """A missing folder is one problem, not hundreds."""
  if folder.is_dir():
    return True
  if ids:
    problems.append(
      f"{folder}: expected {what} of {len(ids)} videos, came no such folder; "
      "extract them into it or pass another --config.data.root="
    )
  return False


def _files(path: Path, ids: Sequence[str], notes: list[str]) -> dict[str, Path]:
  """id -> its file, with or without ActivityNet's v_."""
  folder = Folder(path)
  found = {i: folder.file(i, f"v_{i}") for i in ids}
  note_unused(path, folder.unused(), notes)
  return found


def _read(
  name: str,
  root: Path,
  options: ReadOptions,
  problems: list[str],
  find: Callable[[str, Sequence[str], list[str]], Mapping[str, Located]],
) -> Source:
  notes: list[str] = []
  problems += [
    f"{root}: expected no --config.data.{split}_subset, as the layout's split "
    "files say which videos train, came one; leave it out"
    for split in NAMES
    if getattr(options, f"{split}_subset")
  ]
  gt = root / "gt.json"
  if options.annotations:
    gt = root / options.annotations
  paths = {split: _split_file(root, split) for split in NAMES}
  ids = {s: read_ids(path, s, problems) for s, path in paths.items()}
  both = set(ids["train"]) & set(ids["test"])
  problems += [
    f"{paths['test']}: expected ids that {paths['train'].name} does not have, "
    f"came {i}; take it out of one of the two files"
    for i in sorted(both)
  ]
  before = len(problems)
  database = read_database(gt, problems, notes=notes)
  entries: dict[str, list[Entry]] = {}
  for split, listed in ids.items():
    alone = [i for i in listed if i not in both]
    if len(problems) == before:
      problems += [
        f"{paths[split]}: expected ids that {gt.name} has, came {i}; annotate "
        f"it in {gt} or take it out of this file"
        for i in alone
        if i not in database
      ]
    entries[split] = [
      parse_entry(i, f"{gt}: {i}", database[i], problems)
      for i in alone
      if i in database
    ]
    for entry in entries[split]:
      _check_subset(entry, split, paths[split], problems)
    if not database:  # the features are looked at all the same
      entries[split] = [Entry(i, f"{gt}: {i}", faulty=True) for i in alone]
  located: dict[str, Located] = {}
  for split, videos in entries.items():
    located |= find(split, [e.id for e in videos], notes)
  parts = locate(entries, located, options, problems, notes)
  return Source(
    name, root, entries, parts, files=(gt, *paths.values()), notes=notes
  )


def _check_subset(
  entry: Entry, split: str, path: Path, problems: list[str]
) -> None:
  allowed = SUBSETS[split]
  if entry.subset and entry.subset not in allowed:
    problems.append(
      f"{entry.where}: expected a subset of {', '.join(allowed)} for an id of "
      f"{path.name}, came {entry.subset!r}; correct the one or the other"
    )
