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
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from absl import flags

from ptlr_jax import command_line, interruption, lock, storage, writers
from ptlr_jax.errors import InputError
from ptlr_jax.features import extraction, listing, optical_flow, output
from ptlr_jax.features.segments import Settings, check, count
from ptlr_jax.features.video import Video, pyav
from ptlr_jax.progress import Progress, show

USAGE = (
  "usage: python -m ptlr_jax.extract --videos=DIR_OR_LIST --output=DIR "
  "[--rgb_weights=FILE] [--flow_weights=FILE] [--layout=basnet] [--jobs=N] "
  "[--KEY=VALUE ...]"
)
SETTINGS = ("fps", "window", "stride", "crops", "flow", "batch", "damaged")


class Command(NamedTuple):
  """What the user asked for."""

  videos: str
  output: str
  rgb_weights: str
  flow_weights: str
  layout: str
  split: str
  jobs: int


def parse(argv: Sequence[str], usage: str = USAGE) -> tuple[Command, Settings]:
  """The command, and how to extract.

  Raises:
    InputError: a line for everything that is wrong with it.
  """
  values = flags.FlagValues()
  for name in ("videos", "output", "rgb_weights", "flow_weights"):
    flags.DEFINE_string(name, "", "", flag_values=values)
  flags.DEFINE_string("layout", output.LAYOUTS[0], "", flag_values=values)
  flags.DEFINE_string("split", "", "", flag_values=values)
  flags.DEFINE_integer("jobs", 0, "", 0, flag_values=values)
  define: dict[type, Any] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
  }
  for name in SETTINGS:
    default = getattr(Settings(), name)
    define[type(default)](name, default, "", flag_values=values)
  command_line.read_flags(values, argv, usage)
  own: Any = {name: values[name].value for name in Command._fields}
  chosen: Any = {name: values[name].value for name in SETTINGS}
  command, settings = Command(**own), Settings(**chosen)
  _check(command, settings, usage)
  return command, settings


def _check(command: Command, settings: Settings, usage: str) -> None:
  problems = [
    f"--{name}: expected {what}, got none; {usage}"
    for name, what in (("videos", listing.FORM), ("output", "a folder"))
    if not getattr(command, name)
  ]
  if not command.rgb_weights and not command.flow_weights:
    problems.append(
      "--rgb_weights, --flow_weights: expected one or both, got none; "
      "docs/I3D_WEIGHTS.md says where they come from"
    )
  problems += [
    f"--{name}: expected one of {', '.join(known)}, got "
    f"{getattr(command, name)!r}"
    for name, known in (("layout", output.LAYOUTS), ("split", output.SPLITS))
    if getattr(command, name) not in known
  ]
  if command.split and command.layout != "basnet":
    problems.append(
      f"--split: expected none with --layout={command.layout}, which has no "
      f"folders of splits, got {command.split}; leave it out"
    )
  try:
    check(settings)
  except InputError as error:
    problems += [f"--{line}" for line in error.problems]
  if problems:
    raise InputError(*problems)


def check_packages(command: Command) -> None:
  """Decoding and flow need packages that training does without.

  Raises:
    InputError: one is missing; what to install.
  """
  pyav()
  if command.flow_weights:
    optical_flow.opencv()


def cores() -> int:
  """How many cores this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # not Linux
    return os.cpu_count() or 1


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
      path: max(1, count(Video(path).look(), settings)) for path in videos
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


def run(argv: Sequence[str]) -> None:
  """Extracts what is missing."""
  command, settings = parse(argv)
  check_packages(command)
  videos = listing.videos_of(command.videos)
  root = Path(command.output).expanduser()
  try:
    writers.make_writable(root / output.FOLDER)
  except OSError as error:
    raise InputError(
      f"--output={command.output}: expected a folder that can be written, "
      f"came: {error.strerror}; choose another"
    ) from None
  with interruption.watched(), _held(root):
    for left in output.unfinished(root):
      storage.remove(left)
    _extract(command, settings, videos, root)


@contextlib.contextmanager
def _held(root: Path) -> Iterator[None]:
  """One extraction an output."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(lock.held(root / output.FOLDER))
    except InputError as error:
      said = str(error).replace("--workdir", "--output")
      said = said.replace("no other run", "no other extraction")
      raise InputError(said) from None
    yield


def _extract(
  command: Command, settings: Settings, videos: Sequence[Path], root: Path
) -> None:
  from ptlr_jax import startup  # it imports JAX

  startup.settle(SimpleNamespace(deterministic=False, compile_cache="auto"))
  towers = extraction.load_towers(command.rgb_weights, command.flow_weights)
  out = output.Output(str(root), command.layout, command.split)
  out.settle(settings, towers.digests())
  state = _Run(out, towers.streams)
  left = state.sort_out(videos)
  tell_places(out, [path.stem for path in left])
  jobs = command.jobs or cores()
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


def tell_places(out: output.Output, names: Sequence[str]) -> None:
  """Says where basnet's features go when their split is not known."""
  lost = [name for name in names if not out.split_of(name)]
  if out.layout == "basnet" and lost:
    show(
      f"{out.root}: of {len(lost)} videos nothing says whether they train or "
      "are tested (split_train.txt and split_test.txt there, or --split): "
      "their features go to features/{rgb,flow}, which training reads as the "
      "layout own"
    )


def main() -> None:
  """Command line entry."""
  command_line.execute(run, __doc__ or "", USAGE)


if __name__ == "__main__":
  main()
