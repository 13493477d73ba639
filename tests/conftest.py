"""Programs of tests run for moments: they are compiled without optimisation."""

import atexit
import os
import shutil
import tempfile

# Before any test imports JAX; a fifth to two fifths of the suite's time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# The user's own compile cache is not for tests.
_CACHE = tempfile.mkdtemp(prefix="ptlr_jax-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
