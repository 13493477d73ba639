"""Programs of tests run for moments: they are compiled without optimisation."""

import atexit
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

# Before any test imports JAX; half of the suite's time, more or less.
QUICK = (
  "--xla_backend_optimization_level=0",
  "--xla_cpu_use_fusion_emitters=false",
  "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))
# Threads of PyTorch and of NumPy's BLAS would wait for each other, busy, on
# cores that the other processes of the suite need.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
  os.environ.setdefault(_name, "1")

# The user's own compile cache is not for tests.
_CACHE = tempfile.mkdtemp(prefix="ptlr_jax-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_test_ends_its_process(monkeypatch):
  """A command that a signal stops ends by an exception here."""
  monkeypatch.setattr("ptlr_jax.cli.command_line.leave", sys.exit)


@pytest.fixture(autouse=True)
def _no_stop_is_late(monkeypatch):
  """However slow the machine is, what is stopped ends in its own way."""
  monkeypatch.setattr("ptlr_jax.runtime.signals.GRACE", 3600.0)


@pytest.fixture(scope="session")
def cache():
  """Where the runs that tests start, and those in this process, keep what they
  compiled. Each process of the suite has its own: JAX writes in place."""
  folder = pathlib.Path(_CACHE, "ptlr_jax", "compiled")
  folder.mkdir(parents=True, exist_ok=True)
  return folder


# These take longest, and a file's tests stay together: they come first, so that
# no core waits for another at the end.
FIRST = (
  "test_tables_end_to_end",
  "test_end_to_end",
  "test_spread_runs",
  "test_real_features",
  "test_slurm",
  "test_interrupted_runs",
  "test_activitynet",
  "test_disk_full",
)


def pytest_collection_modifyitems(items):
  """Puts the files of FIRST first."""
  place = {name: i for i, name in enumerate(FIRST)}
  items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))
