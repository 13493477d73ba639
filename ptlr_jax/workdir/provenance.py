"""What a run was made with: versions, commit, device, data and seed.

provenance.json holds it for every start of the run; metrics.json names those
that differ. Neither holds a path, a user's name or a variable of the
environment.
"""

import datetime
import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptlr_jax.data import dataset, digest
from ptlr_jax.data.dataset import Dataset
from ptlr_jax.io import storage
from ptlr_jax.runtime.errors import Damaged, InputError
from ptlr_jax.runtime.progress import show
from ptlr_jax.workdir import identity

FILE = "provenance.json"
_PACKAGES = (
  *("ptlr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
  *("ml_collections", "tensorflow-datasets", "jax-cuda12-plugin"),
  "jax-cuda13-plugin",
)


def packages() -> dict[str, str]:
  """The versions of what is installed of the packages that numbers hang on."""
  found = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


@functools.cache
def commit() -> str | None:
  """The git commit of the checkout that runs, with + where files of it are
  changed; None where it is no checkout."""
  root = Path(__file__).resolve().parents[2]

  def git(*command: str) -> str:
    return subprocess.run(
      # Without a lock, which a kill would leave in the user's repository.
      ["git", "--no-optional-locks", "-C", str(root), *command],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()

  try:
    top, found = git("rev-parse", "--show-toplevel", "HEAD").split("\n")
    if Path(top).resolve() != root:  # that of another repository around us
      return None
    changed = git("status", "--porcelain", "--untracked-files=no")
  except (OSError, ValueError, subprocess.SubprocessError):
    return None
  return f"{found}+" if changed else found


def made_with(
  config: Any, data: Dataset, device: Mapping[str, Any], cas: str = ""
) -> dict[str, Any]:
  """What a run of a configuration on data is made with, here and now, and on
  which device (`mesh.device_info`); `cas` is the digest of another method's
  CASs, where it began with them."""
  known = digest.data_digest(data)
  return {
    "packages": packages(),
    "commit": commit(),
    "device": dict(device),
    "data": {**known, "cas": cas} if cas else known,
    "learned_from": dataset.describe_dataset(data),
    "config": identity.config_digest(config),
    "seed": config.seed,
    "deterministic": config.deterministic,
  }


def read_starts(directory: Path) -> list[dict[str, Any]]:
  """What each start of a run was made with; none of a damaged file."""
  path = directory / FILE
  try:
    return storage.read_json(path)["starts"] if path.exists() else []
  except Damaged:
    return []


def mend_provenance(
  directory: Path, known: Sequence[Mapping[str, Any]]
) -> None:
  """Writes a damaged file anew, from what else is `known` of the starts."""
  path = directory / FILE
  try:
    if path.exists():
      storage.read_json(path)
  except Damaged as error:
    show(
      f"{error}; written anew with the {len(known)} kinds of starts that "
      "metrics.json names"
    )
    storage.write_json(path, {"starts": list(known)})


def record_start(directory: Path, made_with: Mapping[str, Any]) -> None:
  """Adds a start of the run.

  Raises:
    InputError: an earlier one saw other data.
  """
  starts = read_starts(directory)
  for start in starts:
    if other := digest.contradict(start["data"], made_with["data"]):
      before, now = (x["data"][other[0]][:12] for x in (start, made_with))
      raise InputError(
        f"{directory}: this folder holds a run on other {' and '.join(other)} "
        f"(SHA-256 {before}.. -> {now}..); give the same data or a new "
        "--workdir"
      )
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  started = {"time": now, **made_with}
  storage.write_json(directory / FILE, {"starts": [*starts, started]})


def distinct_starts(directory: Path) -> list[dict[str, Any]]:
  """What the starts of a run were made with, each once and without its time."""
  found: list[dict[str, Any]] = []
  for start in read_starts(directory):
    made_with = {key: x for key, x in start.items() if key != "time"}
    if made_with not in found:
      found.append(made_with)
  return found


def same_data(one: Path, other: Path) -> bool:
  """Whether two runs are on the same data, which has to be known."""
  last = [
    starts[-1]["data"] for p in (one, other) if (starts := read_starts(p))
  ]
  known = [data for data in last if data["features"]]
  return len(known) == 2 and not digest.contradict(*known)
