"""Kinect recordings of gestures, MSRC-12, as a data set in the layout `own`.

python benchmarks/msrc12.py --recordings=DIR --output=ROOT \
  [--statistics=FILE.npz] [--dtype=float16]

The data: S. Fothergill, H. M. Mentis, P. Kohli, S. Nowozin, Instructing people
for training gestural interactive systems, CHI 2012: thirty people do twelve
gestures, one class a recording. No licence lies beside the files; they were
given for research and are no part of this project. Name the paper; pass neither
the files nor what is made of them on.

DIR holds 594 recordings as published. NAME.csv: a frame a line, microseconds
and then x, y, z, w of 20 joints, all zero without a skeleton. NAME.tagstream:
after a heading a line TICK;TAG for each instance, 49.875 ticks a microsecond.
NAME gives gesture and person: P2_1_11A_p06 is gesture 11 by person 6.

Rows. Frames without a skeleton are cut at both ends and filled linearly in
between; time is resampled to 30 Hz; positions are averaged over 5 frames and
divided by the median distance from hip centre to head. A row covers 16 frames,
every 8. Pose: the mean position relative to the hip centre, and the same minus
the recording's median pose. Motion: the mean velocity in the room, a second, by
central differences, and its mean absolute value. Each minus the mean of the
training rows, divided by their deviation (0.001 or more), clipped at 6, and, in
float16, rounded to 1/32.

Segments. People tagged points; the segments are a convention of this script:
point +- 0.75 s, cut at the middle between neighbours and at both ends of the
recording. A score at a high tIoU says little. Times count from the first frame
with a skeleton; tags outside the recording are dropped.

Split. People whose number is a multiple of 3 are the test set.

Writes ROOT/features/{pose,motion}/NAME.npy, each [T, 120], geometry.json,
statistics.npz (mean and deviation used) and, last, labels.csv, to be read with
--config=configs/own.py:pose,motion.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ptlr_jax.runtime.errors import InputError

STREAMS = ("pose", "motion")
GESTURES = (
  *("lift_arms", "duck", "push_right", "goggles", "wind_it_up", "shoot"),
  *("bow", "throw", "had_enough", "change_weapon", "beat_both", "kick"),
)
NAME = re.compile(r"P\d+_\d+_(\d+)A?_p(\d+)")
JOINTS, HIP, HEAD = 20, 0, 3
COLUMNS = 1 + 4 * JOINTS  # of NAME.csv
CHANNELS = 6 * JOINTS  # of a stream
FPS, STRIDE, WINDOW = 30, 8, 16
LEAST = WINDOW + STRIDE  # frames of two rows
SMOOTHED = 5  # frames
REACH = 0.75  # seconds of a segment on either side of its point
LIMIT, STEPS = 6, 32  # in deviations; steps of float16 a deviation
LEAST_DEVIATION = 1e-3
HEADING = ("video", "label", "subset", "start", "end", "duration", "fps")


class Recording(NamedTuple):
  """Points and duration in seconds, rows of both streams f64[T, 120]."""

  gesture: str
  subset: str
  points: np.ndarray
  duration: float
  rows: dict[str, np.ndarray]


def read_frames(path: Path) -> tuple[np.ndarray, np.ndarray]:
  """(microseconds f64[F], joints f64[F, 20, 3]), first to last skeleton.

  A frame without a skeleton is all zero.
  """
  lines = [line.split() for line in path.read_text().splitlines()]
  for n, line in enumerate(lines, 1):
    if len(line) != COLUMNS:
      raise ValueError(
        f"expected {COLUMNS} numbers, got {len(line)} in line {n}"
      )
  table = np.array(lines, float).reshape(-1, COLUMNS)
  times = table[:, 0]
  if not np.isfinite(table).all() or (np.diff(times) < 0).any():
    raise ValueError("expected finite numbers and times that never fall")
  joints = table[:, 1:].reshape(-1, JOINTS, 4)[:, :, :3]
  seen = np.flatnonzero(joints.any((1, 2)))
  if not len(seen):
    raise ValueError("no skeleton")
  used = slice(seen[0], seen[-1] + 1)
  return times[used], joints[used]


def read_tags(path: Path) -> np.ndarray:
  """Times of the tags, microseconds on the clock of the frames. -> f64[N]."""
  lines = path.read_text().splitlines()[1:]
  ticks = sorted({int(line.split(";")[0]) for line in lines if line.strip()})
  return np.array([(tick * 1000 + 24937.5) / 49875 for tick in ticks])


def resampled(times: np.ndarray, joints: np.ndarray) -> np.ndarray:
  """Joints at 30 Hz from the first frame on, gaps filled, smoothed.

  f64[F], f64[F, 20, 3] -> f64[F', 20, 3]; ends are repeated for the average.
  """
  count = int((times[-1] - times[0]) * FPS // 1_000_000) + 1
  at = np.arange(count) / FPS
  seen = joints.any((1, 2))
  seconds = (times[seen] - times[0]) / 1e6
  tracks = joints[seen].reshape(-1, 3 * JOINTS).T
  even = np.stack([np.interp(at, seconds, x) for x in tracks], axis=1)
  half = SMOOTHED // 2
  even = np.pad(even, ((half, half), (0, 0)), mode="edge")
  smooth = sliding_window_view(even, SMOOTHED, axis=0).mean(-1)
  return smooth.reshape(-1, JOINTS, 3)


def features(joints: np.ndarray) -> dict[str, np.ndarray]:
  """Rows before standardisation. f64[F, 20, 3] -> {stream: f64[T, 120]}."""
  if len(joints) < LEAST:
    raise ValueError(f"expected {LEAST} frames or more, got {len(joints)}")
  centred = joints - joints[:, [HIP]]
  torso = np.median(np.linalg.norm(centred[:, HEAD], axis=1))
  if not torso:
    raise ValueError("expected a distance of hip centre and head, got 0")
  pose = centred.reshape(len(joints), -1) / torso
  place = joints.reshape(len(joints), -1) / torso
  velocity = np.gradient(place, axis=0) * FPS
  frames = {
    "pose": np.hstack([pose, pose - np.median(pose, axis=0)]),
    "motion": np.hstack([velocity, np.abs(velocity)]),
  }
  return {
    stream: sliding_window_view(x, WINDOW, axis=0)[::STRIDE].mean(-1)
    for stream, x in frames.items()
  }


def segments(points: np.ndarray, duration: float) -> np.ndarray:
  """(start, end) of each instance, all in seconds. f64[N] -> f64[N, 2]."""
  middles = (points[1:] + points[:-1]) / 2
  starts = np.maximum(points - REACH, np.concatenate([[0], middles]))
  ends = np.minimum(points + REACH, np.concatenate([middles, [duration]]))
  return np.stack([starts, ends], axis=1)


@contextmanager
def naming(path: Path) -> Iterator[Path]:
  """What is wrong with a file is told with its name."""
  try:
    yield path
  except (OSError, ValueError) as error:
    missing = isinstance(error, FileNotFoundError)
    raise InputError(f"no {path}" if missing else f"{path}: {error}") from error


def read_recording(folder: Path, name: str) -> Recording:
  """One recording; an InputError says why it cannot be used."""
  known = NAME.fullmatch(name)
  gesture, person = map(int, known.groups()) if known else (0, 0)
  if not 1 <= gesture <= len(GESTURES):
    raise InputError(f"{folder / name}: expected a name as P2_1_11A_p06")
  with naming(folder / f"{name}.csv") as path:
    times, joints = read_frames(path)
    joints = resampled(times, joints)
    rows = features(joints)
  duration = len(joints) / FPS
  with naming(folder / f"{name}.tagstream") as path:
    points = (read_tags(path) - times[0]) / 1e6
    points = points[(points >= 0) & (points <= duration)]
    if not len(points):
      raise ValueError("no tag within the recording")
  subset = "train" if person % 3 else "test"
  return Recording(GESTURES[gesture - 1], subset, points, duration, rows)


def read_recordings(folder: Path) -> dict[str, Recording]:
  """{name: recording}, by name; prints a line for each that is left out."""
  ends = (".csv", ".tagstream")
  found = {}
  for name in sorted({p.stem for p in folder.iterdir() if p.suffix in ends}):
    try:
      found[name] = read_recording(folder, name)
    except InputError as error:
      print(f"left out: {error}")
  return found


def statistics(recordings: Mapping[str, Recording]) -> dict[str, np.ndarray]:
  """{STREAM_mean, STREAM_std: f32[120]} of the rows of training recordings."""
  training = [r for r in recordings.values() if r.subset == "train"]
  if not training:
    raise InputError(
      "--recordings: expected people whose number is no multiple of 3, got "
      "none; --statistics takes the mean and deviation of other recordings"
    )
  found = {}
  for stream in STREAMS:
    rows = np.concatenate([r.rows[stream] for r in training])
    found[f"{stream}_mean"] = rows.mean(0)
    found[f"{stream}_std"] = np.maximum(rows.std(0), LEAST_DEVIATION)
  return {name: x.astype(np.float32) for name, x in found.items()}


def read_statistics(path: Path) -> dict[str, np.ndarray]:
  """What `statistics` gives, as an earlier call has written it."""
  names = [f"{stream}_{part}" for stream in STREAMS for part in ("mean", "std")]
  try:
    with np.load(path) as file:
      return {name: file[name].reshape(CHANNELS) for name in names}
  except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
    raise InputError(
      f"--statistics: expected {', '.join(names)} of ({CHANNELS},) in {path}, "
      f"got: {error}; without the flag they are computed"
    ) from error


def standardised(
  x: np.ndarray, mean: np.ndarray, deviation: np.ndarray, dtype: str
) -> np.ndarray:
  """Rows as they are written. f64[T, 120], f32[120] twice -> [T, 120]."""
  z = np.clip((x - mean) / deviation, -LIMIT, LIMIT).astype(dtype)
  return np.round(z * STEPS) / STEPS if dtype == "float16" else z


def write(
  root: Path,
  recordings: Mapping[str, Recording],
  scale: Mapping[str, np.ndarray],
  dtype: str,
) -> None:
  """Writes the data set, the table of labels last."""
  for stream in STREAMS:
    folder = root / "features" / stream
    folder.mkdir(parents=True)
    scaling = (scale[f"{stream}_mean"], scale[f"{stream}_std"])
    for name, one in recordings.items():
      x = standardised(one.rows[stream], *scaling, dtype)
      np.save(folder / f"{name}.npy", x)
  np.savez(root / "statistics.npz", allow_pickle=False, **scale)
  geometry = {"fps": FPS, "stride": STRIDE, "window": WINDOW}
  (root / "geometry.json").write_text(json.dumps(geometry) + "\n")
  with (root / "labels.csv").open("w", newline="") as file:
    out = csv.writer(file)
    out.writerow(HEADING)
    for name, one in recordings.items():
      for start, end in segments(one.points, one.duration):
        times = (f"{seconds:.3f}" for seconds in (start, end, one.duration))
        out.writerow([name, one.gesture, one.subset, *times, FPS])


def main(arguments: list[str] | None = None) -> None:
  """Command line entry."""
  parser = argparse.ArgumentParser(
    description=str(__doc__).split("\n")[0], allow_abbrev=False
  )
  parser.add_argument("--recordings", type=Path, required=True)
  parser.add_argument("--output", type=Path, required=True)
  parser.add_argument("--statistics", type=Path)
  parser.add_argument(
    "--dtype", choices=("float16", "float32"), default="float16"
  )
  options = parser.parse_args(arguments)
  root, source = options.output, options.recordings
  if root.exists() and (not root.is_dir() or any(root.iterdir())):
    parser.error(f"--output: expected no or an empty folder, got {root}")
  if not source.is_dir():
    parser.error(f"--recordings: expected a folder, got {source}")
  try:
    scale = read_statistics(options.statistics) if options.statistics else None
    recordings = read_recordings(source)
    if not recordings:
      raise InputError(
        f"--recordings: expected NAME.csv, NAME.tagstream in {source}, got none"
      )
    write(root, recordings, scale or statistics(recordings), options.dtype)
  except InputError as error:
    parser.error(str(error))
  for subset in ("train", "test"):
    points = [len(r.points) for r in recordings.values() if r.subset == subset]
    print(f"{subset}: {len(points)} recordings, {sum(points)} points")


if __name__ == "__main__":
  main()
