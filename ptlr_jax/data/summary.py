"""What a data set holds, in lines: for `prepare --check`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ptlr_jax.data.dataset import Dataset
from ptlr_jax.data.files.annotations import Entry
from ptlr_jax.data.reading import Report


def of_report(report: Report) -> Iterator[str]:
  """Lines on a source, sound or not."""
  source = report.source
  yield from report.notes
  for split, entries in source.entries.items():
    hours = sum(
      report.lengths[e.id] * report.geometries[e.id].seconds_per_segment / 3600
      for e in entries
      if e.id in report.lengths
    )
    yield _split_line(
      split,
      len(entries),
      hours,
      sum(len(e.events) for e in entries),
      Counter(len(_names(e)) for e in entries),
    )
  per_class = Counter(
    name for e in source.entries["train"] for name in _names(e)
  )
  yield _classes_line(report.classes, per_class)
  arrays = [p for parts in source.parts.values() for p in parts.values()]
  yield _features_line(
    sorted({s for parts in source.parts.values() for s in parts})[::-1],
    Counter(part.width for part in arrays),
    Counter(str(part.array.dtype) for part in arrays),
    list(report.lengths.values()),
    sum(part.nbytes for part in arrays),
  )
  broken = sum("NaN or infinity" in problem for problem in report.problems)
  yield (
    f"not finite: {broken} of {len(arrays)} streams of a video"
    if report.looked_at
    else "not finite: not looked for, with check_finite off"
  )


def of_dataset(data: Dataset) -> Iterator[str]:
  """Lines on a data set that has been read."""
  yield from data.notes
  for split, videos in (("train", data.train), ("test", data.test)):
    hours = sum(
      v.num_segments * v.geometry.seconds_per_segment / 3600 for v in videos
    )
    instances = sum(len(v.instances) for v in videos)
    labels = Counter(len(v.labels) for v in videos)
    yield _split_line(split, len(videos), hours, instances, labels)
  per_class = Counter(data.classes[c] for v in data.train for c in v.labels)
  yield _classes_line(data.classes, per_class)
  arrays = [
    x for v in (*data.train[:1], *data.test[:1]) for x in v.load().values()
  ]
  yield _features_line(
    data.streams,
    Counter(x.shape[1] for x in arrays),
    Counter(str(x.dtype) for x in arrays),
    [v.num_segments for v in (*data.train, *data.test)],
    0,
  )


def _names(entry: Entry) -> set[str]:
  return {name for *_, name in entry.events} or set(entry.labels)


def _counts(found: Mapping) -> str:
  return ", ".join(f"{key} ({n})" for key, n in sorted(found.items()))


def _split_line(
  split: str, videos: int, hours: float, instances: int, labels: Mapping
) -> str:
  return (
    f"{split}: {videos} videos, {hours:.2f} hours, {instances} instances; "
    f"labels a video (videos): {_counts(labels) or 'none'}"
  )


def _classes_line(classes: Sequence[str], per_class: Mapping[str, int]) -> str:
  if not classes:
    return "classes: none"
  counts = [per_class.get(name, 0) for name in classes]
  empty = [name for name in classes if not per_class.get(name)]
  none = f"; without a training video: {', '.join(empty)}" if empty else ""
  return (
    f"classes: {len(classes)}, {min(counts)} to {max(counts)} training videos "
    f"each{none}"
  )


def _features_line(
  streams: Iterable[str],
  widths: Mapping[int, int],
  dtypes: Mapping[str, int],
  lengths: Sequence[int],
  nbytes: int,
) -> str:
  spread = "none"
  if lengths:
    low, middle, high = np.percentile(lengths, [0, 50, 100]).astype(int)
    spread = f"{low} to {high}, median {middle}"
  size = f", {nbytes / 1e9:.2f} GB" if nbytes else ""
  return (
    f"features: {' and '.join(streams) or 'none'}, width {_counts(widths)}, "
    f"{_counts(dtypes)}, segments {spread}{size}"
  )
