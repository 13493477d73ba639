"""Which files, or arrays, are of which video.

Functions append to `problems`, one line each, and go on without what is wrong.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data.files.features import STREAMS


class InputFile(NamedTuple):
  """An array, or a file that is not yet opened, of some streams."""

  id: str
  source: Any
  streams: tuple[str, ...]


AGAIN = "extract this video again"


def file_name(file: InputFile) -> str:
  """What problems call a file."""
  if isinstance(file.source, np.ndarray):
    return "array of " + " and ".join(file.streams)
  return str(file.source)


def grouped_files(
  needed: Sequence[str],
  streams: Mapping[str, Sequence[Any]],
  features: Sequence[Any],
  problems: list[str],
) -> Iterator[list[InputFile]]:
  """The files of every video."""
  if streams:
    yield from _paired(needed, streams, problems)
  joined = _joined_streams(needed)
  for source in features:
    if isinstance(source, np.ndarray):
      yield [InputFile("video", source, joined)]
    elif source.is_dir():
      yield from _of_folder(needed, source, problems)
    else:
      yield [InputFile(_name(source, ""), source, joined)]


def _joined_streams(needed: Sequence[str]) -> tuple[str, ...]:
  """The streams that one file may hold: rgb and flow, or those of a model that
  has others."""
  return STREAMS if set(needed) <= set(STREAMS) else tuple(needed)


def _words(streams: Sequence[str]) -> str:
  return " and ".join(streams)


def _paired(
  needed: Sequence[str],
  streams: Mapping[str, Sequence[Any]],
  problems: list[str],
) -> Iterator[list[InputFile]]:
  """Files of streams that are given apart: one of each are of one video,
  arrays go by their order, and others by their names."""
  if lacking := [s for s in needed if not streams.get(s)]:
    problems.append(
      f"--{lacking[0]}: expected features of {_words(needed)}, which the model "
      f"learned from, came {_words(tuple(streams))} alone; give --{lacking[0]}"
    )
    return
  counts = {len(sources) for sources in streams.values()}
  lone = counts == {1} and not any(
    isinstance(x, Path) and x.is_dir() for own in streams.values() for x in own
  )
  arrays = any(
    isinstance(x, np.ndarray) for own in streams.values() for x in own
  )
  if lone or arrays:
    if len(counts) > 1:
      problems.append(
        "expected as many arrays of every stream, came "
        + " and ".join(f"{len(own)} of {s}" for s, own in streams.items())
      )
      return
    for i, sources in enumerate(
      zip(*(streams[s] for s in needed), strict=True)
    ):
      named = [
        _name(x, f"_{s}")
        for s, x in zip(needed, sources, strict=True)
        if isinstance(x, Path)
      ]
      name = named[0] if named else f"video_{i}" if not lone else "video"
      yield [
        InputFile(name, x, (s,)) for s, x in zip(needed, sources, strict=True)
      ]
    return
  yield from _matched(
    needed,
    {s: _listed(own, f"_{s}", problems) for s, own in streams.items()},
    _words([f"--{s}" for s in needed]),
    problems,
  )


def _listed(
  sources: Sequence[Path], end: str, problems: list[str]
) -> dict[str, Path]:
  """{name: file} of files and of all in folders."""
  files: list[Path] = []
  for path in sources:
    own = sorted(path.glob(f"*{end}.npy")) if path.is_dir() else [path]
    files += own or sorted(path.glob("*.npy"))
  found: dict[str, Path] = {}
  for path in files:
    name = _name(path, end)
    if found.setdefault(name, path) != path:
      problems.append(
        f"{path}: expected every video once, came {found[name]} too; rename "
        "one of them or leave it out"
      )
  return found


def _matched(
  needed: Sequence[str],
  named: Mapping[str, Mapping[str, Path]],
  place: str,
  problems: list[str],
) -> Iterator[list[InputFile]]:
  """Videos that all streams have a file of, by name."""
  names = dict.fromkeys(name for own in named.values() for name in own)
  if not names:
    problems.append(
      f"{place}: expected feature files (.npy) of {_words(needed)}, came none; "
      "give a folder that has some"
    )
  for name in names:
    lacking = [s for s in needed if name not in named.get(s, {})]
    if not lacking:
      yield [InputFile(name, named[s][name], (s,)) for s in needed]
    elif any(name in named[s] for s in needed if s in named):
      there = next(own[name] for own in named.values() if name in own)
      problems.append(
        f"{there}: expected a file of {' and of '.join(lacking)} of the same "
        f"name, came none; {AGAIN}"
      )


def _of_folder(
  needed: Sequence[str], folder: Path, problems: list[str]
) -> Iterator[list[InputFile]]:
  inner = folder / "features"
  folder = inner if inner.is_dir() else folder
  names = (*STREAMS, *needed)
  if any((folder / s).is_dir() for s in names):
    folders = {s: [folder / s] for s in needed if (folder / s).is_dir()}
    named = {s: _listed(own, "", problems) for s, own in folders.items()}
  elif any(any(folder.glob(f"*_{s}.npy")) for s in names):
    named = {
      s: {_name(p, f"_{s}"): p for p in sorted(folder.glob(f"*_{s}.npy"))}
      for s in needed
    }
  else:
    files = sorted(folder.glob("*.npy"))
    if not files:
      problems.append(
        f"{folder}: expected feature files, rgb/VIDEO.npy and flow/VIDEO.npy, "
        "VIDEO_rgb.npy and VIDEO_flow.npy, or VIDEO.npy, came none; give a "
        "folder that has some"
      )
    joined = _joined_streams(needed)
    for path in files:
      yield [InputFile(_name(path, ""), path, joined)]
    return
  yield from _matched(needed, named, str(folder), problems)


def _name(path: Path, end: str) -> str:
  """VIDEO of VIDEO.npy or VIDEO`end`.npy, in one Unicode form."""
  name = path.name.removesuffix(".npy")
  name = name.removesuffix(end) if end else name
  return unicodedata.normalize("NFC", name)
