"""The features of `ptlr_jax.extract` on many machines, by Apache Beam.

python -m ptlr_jax.features.beam --videos=DIR_OR_LIST --output=DIR \\
  --rgb_weights=FILE --flow_weights=FILE [--runner=DirectRunner] [...]

The flags are those of `ptlr_jax.extract` without --jobs; all others, in the
form --name=value, go to Beam: --runner=DataflowRunner --project=P --region=R
--temp_location=gs://B/tmp --sdk_container_image=I, --runner=FlinkRunner
--flink_master=H:8081, --runner=SparkRunner and so on. Workers need ptlr_jax
with the extras video and beam. Paths are on a disk that all machines share or
anything that Beam opens (gs://, s3://, hdfs://).

A video is one element: it is copied to the worker where it is not on a disk,
and its features are written by the worker, as by `ptlr_jax.extract` and with
the same bytes on the same kind of machine.
"""

import contextlib
import functools
import importlib
import logging
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.cli import command_line
from ptlr_jax.features import extraction, listing, optical_flow, output
from ptlr_jax.features.options import (
  EXTRACTION_USAGE,
  SETTINGS,
  ExtractionFlags,
  check_packages,
  parse_extraction_flags,
)
from ptlr_jax.features.segments import Settings
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import say, show

USAGE = EXTRACTION_USAGE.format("features.beam", "[--runner=DirectRunner]")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://")
_loading = threading.Lock()


def _beam() -> Any:
  """Apache Beam, or what to install."""
  try:
    import apache_beam  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise InputError(
      f"expected the package apache-beam, came: {error}; pip install "
      "'ptlr-jax[beam]', best in an environment of its own, as it pins older "
      "versions of what others need"
    ) from None
  return apache_beam


def _systems() -> Any:
  return _beam().io.filesystems.FileSystems


class RemoteFiles(output.Files):
  """Files that Beam opens, by address."""

  def read(self, path: str) -> bytes | None:
    """What a file holds; None where there is none."""
    if not self.exists(path):
      return None
    with _opened(path) as file:
      return file.read()

  def write(self, path: str, data: bytes) -> None:
    """Writes a file under another name, then gives it its own."""
    systems = _systems()
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.tmp-{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):  # it is there; some have no folders
      systems.mkdirs(folder)
    with _plain(systems.create, temporary) as file:
      file.write(data)
    if self.exists(path):  # not every file system replaces what is there
      systems.delete([path])
    systems.rename([temporary], [path])

  def exists(self, path: str) -> bool:
    """Whether there is a file."""
    return _systems().exists(path)

  def move(self, path: str, target: str) -> None:
    """Gives a file another place."""
    with contextlib.suppress(OSError):
      _systems().mkdirs(target.rpartition("/")[0])
    _systems().rename([path], [target])


def _plain(how: Any, path: str) -> Any:
  """Opens a file as it is, whatever its ending says of compression."""
  kinds = _beam().io.filesystem.CompressionTypes
  return how(path, compression_type=kinds.UNCOMPRESSED)


def _opened(path: str) -> Any:
  return _plain(_systems().open, path)


def is_remote(path: str) -> bool:
  """Whether a path is an address (gs://...) rather than one of a disk."""
  return bool(_REMOTE.match(path))


def _output(command: ExtractionFlags) -> output.Output:
  remote = is_remote(command.output)
  root = command.output if remote else str(Path(command.output).expanduser())
  files = RemoteFiles() if remote else output.Files()
  return output.Output(root, command.layout, command.split, files)


@contextlib.contextmanager
def _on_disk(path: str) -> Iterator[str]:
  """A file on this machine's disk; a copy of one that is elsewhere."""
  if not path or not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory(prefix="ptlr_jax-") as folder:
    name = f"{folder}/{path.rpartition('/')[2]}"
    with _opened(path) as source, open(name, "wb") as target:
      shutil.copyfileobj(source, target, 1 << 20)
    yield name


def videos_of(said: str) -> list[str]:
  """The paths or addresses of the videos, sorted. Raises InputError."""
  if not is_remote(said):
    return [str(path.absolute()) for path in listing.videos_of(said)]
  name = said.rpartition("/")[2]
  if listing.is_video(name):
    return [said]
  if name.endswith(".txt"):
    folder = said.rpartition("/")[0]
    lines = (RemoteFiles().read(said) or b"").decode().splitlines()
    found = [line.strip() for line in lines if line.strip()]
    found = [line for line in found if not line.startswith("#")]
    found = [x if is_remote(x) else f"{folder}/{x}" for x in found]
  else:
    (matched,) = _systems().match([f"{said.rstrip('/')}/*"])
    names = [file.path for file in matched.metadata_list]
    found = [x for x in names if listing.is_video(x.rpartition("/")[2])]
  if not found:
    raise InputError(f"--videos={said}: expected {listing.FORM}, came none")
  listing.check_names(found)
  return sorted(found)


@functools.cache
def _loaded(rgb: str, flow: str) -> extraction.Towers:
  with _on_disk(rgb) as ours, _on_disk(flow) as other:
    return extraction.load_towers(ours, other)


def _towers(command: ExtractionFlags) -> extraction.Towers:
  """The networks, once a process."""
  with _loading:
    return _loaded(command.rgb_weights, command.flow_weights)


def extract_one(
  path: str, command: ExtractionFlags, settings: Settings
) -> tuple[str, str, str]:
  """Extracts a video on a worker: (path, what became of it, why)."""
  out, towers, name = _output(command), _towers(command), listing.stem(path)
  try:
    with _on_disk(path) as file:
      size = Path(file).stat().st_size
      if out.is_done(name, size, towers.streams):
        return path, "done before", ""
      if "flow" in towers.streams:
        optical_flow.use_threads(1)  # Beam has workers for all cores
      found = extraction.features_of(file, towers, settings)
  except InputError as error:
    return path, "failed", str(error)
  except OSError as error:
    why = error.strerror or " ".join(str(error).split())
    return path, "failed", f"{path}: expected a video, came: {why}"
  out.write(name, size, found)
  return path, "extracted", "; ".join(found.faults)


def report(
  outcomes: Sequence[tuple[str, str, str]], command: ExtractionFlags
) -> str:
  """Writes what became of all videos; returns the path."""
  kinds = [kind for _, kind, _ in outcomes]
  failed = {path: why for path, kind, why in outcomes if kind == "failed"}
  return _output(command).report(
    kinds.count("extracted"), kinds.count("done before"), failed
  )


def _sorted_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Our own flags, and Beam's."""
  names = "|".join({*ExtractionFlags._fields, *SETTINGS} - {"jobs"})
  ours = [a for a in argv[1:] if re.match(rf"--?({names})(=|$)", a)]
  return [argv[0], *ours], [a for a in argv[1:] if a not in ours]


def run_command(argv: Sequence[str]) -> None:
  """Runs the pipeline, and tells what failed."""
  ours, theirs = _sorted_flags(argv)
  command, settings = parse_extraction_flags(ours, USAGE)
  if wrong := [flag for flag in theirs if not re.match(r"--\w+(=|$)", flag)]:
    raise InputError(f"expected flags only, got {wrong[0]!r}; {USAGE}")
  if any(re.match(r"--jobs(=|$)", flag) for flag in theirs):
    raise InputError(
      "--jobs: expected none, as the runner says how many work, got one; leave "
      "it out, see the runner's own flags (--direct_num_workers)"
    )
  beam = _beam()
  check_packages(command)
  from ptlr_jax.cli import startup  # it imports JAX

  logging.getLogger("apache_beam").setLevel(logging.ERROR)
  startup.settle_jax()
  videos, out = videos_of(command.videos), _output(command)
  out.settle(settings, _towers(command).digests())
  output.tell_places(out, [listing.stem(video) for video in videos])
  say(f"{len(videos)} videos")
  options = beam.options.pipeline_options.PipelineOptions(theirs)
  with beam.Pipeline(options=options) as pipeline:
    _ = (
      pipeline
      | "videos" >> beam.Create(videos)
      | "spread" >> beam.Reshuffle()
      | "extract" >> beam.Map(extract_one, command, settings)
      | "gather" >> beam.combiners.ToList()
      | "report" >> beam.Map(report, command)
    )
  _tell(out)


def _tell(out: output.Output) -> None:
  """What the report says, on the machine that started the pipeline."""
  found = out.read_report()
  for line in found["failed"].values():
    show(f"bad video: {line}")
  show(
    f"{out.root}: {found['extracted']} videos extracted, "
    f"{found['done_before']} done before, {len(found['failed'])} failed"
  )
  if found["failed"]:
    raise InputError(
      f"{len(found['failed'])} videos have no features, see above; the others "
      "are done"
    )


def main() -> None:
  """Command line entry."""
  command_line.execute(run_command, __doc__ or "", USAGE)


if __name__ == "__main__":
  # What workers unpickle by name is this module, not __main__.
  importlib.import_module("ptlr_jax.features.beam").main()
