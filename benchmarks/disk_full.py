"""Fills the disk at random writes of the main command and compares its ends.

python benchmarks/disk_full.py --config=configs/simulated.py --times=5 \
  --workdir=runs/disk_full [--megabytes=512] [--seed=0] \
  [--config.SECTION.KEY=VALUE ...]

Mounts a tmpfs on WORKDIR/disk (where that is not allowed: put `unshare -Urm`
before the command) and runs the command on it once undisturbed. Then, `--times`
times, it is started anew, and right before a random one of its writes the disk
is filled up to a random part of what is to be written. The run must end with
status 1 and one line, leave nothing half, and, with room again, end with the
same labels, detections and metrics, byte by byte.
"""

import argparse
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from kill_resume import parsed, parser_of
from ml_collections import FrozenConfigDict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from ptlr_jax.cli import command_line  # noqa: E402
from ptlr_jax.workdir.artefacts import Artefacts  # noqa: E402
from tests import small_disk  # noqa: E402

# The main command; {note} is told the write at which the disk was filled, or,
# at the end, how many there were.
DISTURBED = """
import pathlib, sys
sys.path.insert(0, {root!r})
from ptlr_jax import main
from ptlr_jax.io import disk_space
from tests import small_disk

disk, writes = small_disk.Disk(pathlib.Path({disk!r})), 0
note = pathlib.Path({note!r})

def moment(path, size):
  global writes
  writes += 1
  if writes == {number}:
    note.write_text(str(path.relative_to(disk.workdir)))
  return writes == {number}

disk_space.room_for = small_disk.filling(
  disk, moment, left={left}, looked={looked}
)
main.main()
note.write_text(str(writes))
"""


class Try(NamedTuple):
  """The write before which the disk is filled, from 1; see `filling`."""

  number: int = 0
  left: float = 0.0
  looked: bool = True


def start(
  disk: small_disk.Disk, note: Path, options: list[str], chosen: Try
) -> subprocess.CompletedProcess:
  """The main command on a disk that is filled at a write, or never."""
  code = DISTURBED.format(
    root=str(ROOT), disk=str(disk.root), note=str(note), **chosen._asdict()
  )
  command = [sys.executable, "-c", code, f"--workdir={disk.workdir}", *options]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def faults(
  disk: small_disk.Disk,
  note: Path,
  options: list[str],
  expected: Path,
  chosen: Try,
) -> list[str]:
  """What is not as it has to be of a run that meets a full disk."""
  found = []
  ended = start(disk, note, options, chosen)
  if ended.returncode != 1:
    found.append(f"status {ended.returncode}")
  lines = ended.stderr.splitlines()
  if len(lines) != 1 or "no space left on the disk" not in lines[0]:
    found.append(f"{len(lines)} lines on stderr")
  argv = ["main", f"--workdir={disk.workdir}", *options]
  config = FrozenConfigDict(command_line.parse(argv).config)
  try:
    small_disk.assert_sound(Artefacts(config, disk.workdir))
  except AssertionError as error:
    found.append(f"not whole: {error}")
  where = note.read_text()
  disk.make_room()
  if status := start(disk, note, options, Try()).returncode:
    return [*found, f"status {status} with room again"]
  try:
    small_disk.assert_same(disk.workdir, expected)
  except AssertionError as error:
    found.append(f"DIFFERENT {error}")
  note.write_text(where)
  return found


def tried(
  disk: small_disk.Disk,
  root: Path,
  args: argparse.Namespace,
  options: list[str],
) -> int:
  """Prints a line a try; how many were not as they have to be."""
  rng, note = random.Random(args.seed), root / "note"
  ended = start(disk, note, options, Try())
  if ended.returncode:
    raise SystemExit(f"the command failed:\n{ended.stderr}")
  expected, writes = root / "undisturbed", int(note.read_text())
  shutil.copytree(disk.workdir, expected)
  print(f"undisturbed: {writes} writes", flush=True)
  wrong = 0
  for _ in range(args.times):
    shutil.rmtree(disk.workdir)
    left, looked = rng.random(), rng.random() < 0.5
    chosen = Try(rng.randint(1, writes), left, looked)
    found = faults(disk, note, options, expected, chosen)
    when = "after" if chosen.looked else "before"
    print(
      f"write {chosen.number} of {writes} ({note.read_text()}; filled {when} "
      f"its look at the room, {100 * chosen.left:.0f} % left): "
      f"{'; '.join(found) or 'a line, then equal'}",
      flush=True,
    )
    wrong += bool(found)
  return wrong


def main() -> None:
  """Command line entry; exits with 1 if any try was not as it has to be."""
  parser = parser_of(__doc__, times=5, megabytes=512, seed=0)
  args, root, options = parsed(parser)
  (root / "disk").mkdir()
  try:
    with small_disk.mounted(root / "disk", args.megabytes << 20) as disk:
      wrong = tried(disk, root, args, options)
  except OSError as error:
    parser.error(f"{root / 'disk'}: {error}; try it below `unshare -Urm`")
  print(f"{args.times - wrong} of {args.times} tries stop and end as they must")
  sys.exit(wrong > 0)


if __name__ == "__main__":
  main()
