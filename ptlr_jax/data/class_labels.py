"""Class names of annotations as indexes into the classes of a data set."""

import difflib
from collections.abc import Sequence

from ptlr_jax.data.dataset import Instance
from ptlr_jax.data.files.annotations import Entry, Event
from ptlr_jax.data.layouts.source import ReadOptions, Source


def classes_of(
  source: Source, options: ReadOptions, problems: list[str]
) -> tuple[str, ...]:
  """The classes that are given, or listed, or that training videos show."""
  if options.classes:
    return tuple(options.classes)
  if source.classes:
    return source.classes
  shown = {
    name
    for entry in source.entries["train"]
    for name in (*entry.labels, *(label for *_, label in entry.events))
  }
  # With annotations in pieces, each label would be one more problem.
  return () if problems else tuple(sorted(shown))


def index_labels(
  where: str,
  events: Sequence[Event],
  classes: Sequence[str],
  problems: list[str],
) -> tuple[Instance, ...]:
  """Events with their class names as indexes into `classes`.

  -> [Instance]; names outside `classes` are appended to `problems`.
  """
  index = {name: c for c, name in enumerate(classes)}
  _check_names(where, {label for *_, label in events}, classes, problems)
  return tuple(Instance(s, e, index[n]) for s, e, n in events if n in index)


def _check_names(
  where: str, names: set[str], classes: Sequence[str], problems: list[str]
) -> None:
  for name in sorted(names - set(classes)):
    near = difflib.get_close_matches(name, classes, 1, 0.0)[0]
    problems.append(
      f"{where}: expected a label of the {len(classes)} classes, came {name!r} "
      f"(nearest: {near!r}); correct it or pass --config.data.classes with it"
    )


def video_labels(
  entry: Entry,
  classes: Sequence[str],
  options: ReadOptions,
  instances: Sequence[Instance],
  problems: list[str],
) -> tuple[int, ...]:
  """The video-level labels: of the instances, or those that are listed."""
  listed = options.video_labels == "listed" and entry.labels
  if instances and not listed:
    return tuple(sorted({i.label for i in instances}))
  _check_names(entry.where, set(entry.labels), classes, problems)
  return tuple(sorted(classes.index(n) for n in entry.labels if n in classes))
