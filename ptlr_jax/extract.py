"""I3D features of videos: decoding, TV-L1 flow, two towers, .npy files.

python -m ptlr_jax.extract --videos=DIR_OR_LIST --output=DIR \\
  --rgb_weights=FILE --flow_weights=FILE

VIDEOS is a folder, a text file with a path a line, or one video; features go by
the names of the files. One of the weights is enough: the other stream is left
out. Where the files come from: docs/I3D_WEIGHTS.md. Flags:

  --layout=basnet     or own, video_features: where main finds the features
  --split=            train or test, of basnet, where OUTPUT has no split files
  --jobs=N            processes that decode and compute flow; 0: one a core
  --crops=center      ten: corners and centre, also mirrored, averaged;
                      ten_apart keeps them apart, (T, 10, 1024)
  --flow=tvl1         tvl1_fast stops its iterations earlier
  --window=16         frames of a segment
  --stride=16         frames from one segment to the next
  --fps=25            frames a second
  --batch=4           segments that go through a network at once
  --damaged=refuse    use: take what decodes of a damaged video

Videos that are done are skipped; the same command goes on after a stop. A bad
video is a line, is listed in OUTPUT/extraction/report.json, and makes the exit
status 2 once all others are done.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptlr_jax.cli import command_line
from ptlr_jax.features import extraction, listing, output
from ptlr_jax.features.options import (
  EXTRACTION_USAGE,
  ExtractionFlags,
  available_cores,
  check_packages,
  parse_extraction_flags,
)
from ptlr_jax.features.segments import Settings, count_segments
from ptlr_jax.features.video import Video
from ptlr_jax.io import disk_space, lock, storage
from ptlr_jax.runtime import signals
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import Progress, show

USAGE = EXTRACTION_USAGE.format("extract", "[--jobs=N]")


class _Run:
  """What became of each video so far, and how far the bar is."""

  def __init__(self, out: output.Output, streams: tuple[str, ...]):
    self.out, self.streams = out, streams
    self.sizes: dict[Path, int] = {}
    self.done = self.skipped = 0
    self.failed: dict[str, str] = {}

  def sort_out(self, videos: Sequence[Path]) -> list[Path]:
    """The videos that are to be extracted."""
    left = []
    for path in videos:
      try:
        self.sizes[path] = path.stat().st_size
        if self.out.is_done(path.stem, self.sizes[path], self.streams):
          self.skipped += 1
        else:
          left.append(path)
      except OSError as error:
        self.fail(
          path,
          f"{path}: expected a video, came: {error.strerror}; correct the list",
        )
      except InputError as error:
        self.fail(path, str(error))
    return left

  def fail(self, path: Path, line: str) -> None:
    """Tells a bad video, and goes on."""
    self.failed[str(path)] = line
    show(f"bad video: {line}")

  def take(self, path: Path, found: extraction.Features | InputError) -> None:
    """Writes the features of a video."""
    if isinstance(found, InputError):
      self.fail(path, str(found))
      return
    self.out.write(path.stem, self.sizes[path], found)
    self.done += 1
    for fault in found.faults:
      show(f"{path}: used as far as it decodes: {fault}")


class _Bar:
  """A bar over the segments of all videos, as far as headers tell them."""

  def __init__(self, videos: Sequence[Path], settings: Settings):
    self._expected = {
      path: max(1, count_segments(Video(path).look(), settings))
      for path in videos
    }
    self._done = dict.fromkeys(videos, 0)
    self._total = sum(self._expected.values())
    self._bar = Progress("extract", self._total, unit="segment")

  def at(self, path: Path, done: int, expected: int) -> None:
    """Hears of a segment."""
    del expected
    self._done[path] = min(done, self._expected[path])
    self._bar.at(min(self._total - 1, sum(self._done.values())))

  def end(self) -> None:
    """All videos are through."""
    self._bar.at(self._total)

  def close(self) -> None:
    """Ends the bar."""
    self._bar.close()


def run_command(argv: Sequence[str]) -> None:
  """Extracts what is missing."""
  command, settings = parse_extraction_flags(argv, USAGE)
  check_packages(command)
  videos = listing.videos_of(command.videos)
  root = Path(command.output).expanduser()
  try:
    disk_space.make_writable(root / output.FOLDER)
  except OSError as error:
    raise InputError(
      f"--output={command.output}: expected a folder that can be written, "
      f"came: {error.strerror}; choose another"
    ) from None
  with signals.watched(), _held(root):
    for left in output.unfinished(root):
      storage.remove(left)
    _extract(command, settings, videos, root)


@contextlib.contextmanager
def _held(root: Path) -> Iterator[None]:
  """One extraction an output."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(lock.hold_lock(root / output.FOLDER))
    except InputError as error:
      said = str(error).replace("--workdir", "--output")
      said = said.replace("no other run", "no other extraction")
      raise InputError(said) from None
    yield


def _extract(
  command: ExtractionFlags,
  settings: Settings,
  videos: Sequence[Path],
  root: Path,
) -> None:
  from ptlr_jax.cli import startup  # it imports JAX

  startup.settle_jax()
  towers = extraction.load_towers(command.rgb_weights, command.flow_weights)
  out = output.Output(str(root), command.layout, command.split)
  out.settle(settings, towers.digests())
  state = _Run(out, towers.streams)
  left = state.sort_out(videos)
  output.tell_places(out, [path.stem for path in left])
  jobs = command.jobs or available_cores()
  bar = _Bar(left, settings)
  try:
    with contextlib.closing(
      extraction.features_of_many(left, towers, settings, jobs, bar.at)
    ) as results:
      for path, found in results:
        state.take(path, found)
    if left:
      bar.end()
  finally:
    bar.close()
    report = out.report(state.done, state.skipped, state.failed)
  show(
    f"{root}: {state.done} videos extracted, {state.skipped} done before, "
    f"{len(state.failed)} failed"
  )
  if state.failed:
    raise InputError(
      f"{len(state.failed)} of {len(videos)} videos have no features, see "
      f"above and {report}; the others are done"
    )


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
