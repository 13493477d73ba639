"""Readers of the layouts in which users hold I3D features and annotations.

A reader checks everything it reads and reports all problems together; it goes
on without what it could not read. `LAYOUTS` names them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ptlr_jax.data.files.features import STREAMS
from ptlr_jax.data.layouts import actionformer, loose, split_files, wtalc
from ptlr_jax.data.layouts.source import ReadOptions, Source, check_read_options
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.plugins import registered


class Layout(NamedTuple):
  """A reader, what speaks for it in a folder ("" where nothing does), its form
  in words, and whether its streams have names of the user's own."""

  read: Callable[[Path, ReadOptions, list[str]], Source]
  claims: Callable[[Path], str]
  form: str
  names_streams: bool = False


# By `config.data.layout`; plugins add others.
LAYOUTS: dict[str, Layout] = {
  "basnet": Layout(
    split_files.read_basnet,
    split_files.claims_basnet,
    "gt.json, split_train.txt, split_test.txt and "
    "features/{train,test}/{rgb,flow}/VIDEO.npy",
  ),
  "acmnet": Layout(
    split_files.read_acmnet,
    split_files.claims_acmnet,
    "gt.json, split_train.txt, split_test.txt and {train,test}/VIDEO.npy",
  ),
  "wtalc": Layout(
    wtalc.read_wtalc,
    wtalc.claims_wtalc,
    "NAME-I3D-JOINTFeatures.npy and NAME-Annotations/",
  ),
  "actionformer": Layout(
    actionformer.read_actionformer,
    actionformer.claims_actionformer,
    "annotations/NAME.json and i3d_features/VIDEO.npy",
  ),
  "video_features": Layout(
    loose.read_video_features,
    loose.claims_video_features,
    "VIDEO_rgb.npy, VIDEO_flow.npy and one .csv or .json",
  ),
  "own": Layout(
    loose.read_own,
    loose.claims_own,
    "features/ and one .csv or .json with labels",
    names_streams=True,
  ),
}


def existing_folder(root: str) -> Path:
  """`root` as a path. Raises InputError where it is no folder."""
  path = Path(root).expanduser()
  if root and path.is_dir():
    return path
  came = "a file" if root and path.is_file() else "no such folder"
  raise InputError(
    f"{root!r}: expected the folder of a data set, came {came}; pass "
    "--config.data.root=FOLDER"
  )


def detect(root: Path) -> tuple[str, str]:
  """The layout of a folder, and what speaks for it.

  `own` is what is left where none of the named layouts fits.

  Raises:
    InputError: none fits, or more than one.
  """
  found = {name: layout.claims(root) for name, layout in LAYOUTS.items()}
  own = found.pop("own")
  found = {name: said for name, said in found.items() if said}
  if not found and own:
    found = {"own": own}
  if len(found) == 1:
    return next(iter(found.items()))
  if found:
    raise InputError(
      f"{root}: expected the files of one layout, came those of "
      + " and ".join(f"{name} ({said})" for name, said in found.items())
      + "; pass --config.data.layout= with one of them"
    )
  there = sorted(path.name for path in root.iterdir())[:5]
  forms = "; ".join(f"{name}: {lay.form}" for name, lay in LAYOUTS.items())
  raise InputError(
    f"{root}: expected the files of a layout ({forms}), came "
    f"{', '.join(there) or 'an empty folder'}; pass another --config.data.root="
  )


def read_source(options: ReadOptions, problems: list[str]) -> Source:
  """Reads annotations and file headers of a data set on disk.

  Raises:
    InputError: the folder or its layout is not there.
  """
  check_read_options(options)
  root = existing_folder(options.root)
  name = options.layout
  note = f"{root}: layout {name}"
  if name == "auto":
    name, said = detect(root)
    note = f"{root}: found the layout {name} ({said})"
  layout = registered(LAYOUTS, name, "data.layout")
  if not layout.names_streams and not set(options.streams) <= set(STREAMS):
    raise InputError(
      f"--config.data.streams: expected rgb, flow or both in the layout {name},"
      f" got {', '.join(options.streams)}; other names go with the layout own"
    )
  source = layout.read(root, options, problems)
  source.notes.insert(0, note)
  return source
