"""Programs of tests run for moments: they are compiled without optimisation."""

import atexit
import os
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

# The user's own compile cache is not for tests.
_CACHE = tempfile.mkdtemp(prefix="ptlr_jax-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_test_ends_its_process(monkeypatch):
  """A command that a signal stops ends by an exception here."""
  monkeypatch.setattr("ptlr_jax.command_line.leave", sys.exit)
