"""Programs of tests run for moments: they are compiled without optimisation."""

import os

# Before any test imports JAX; a fifth to two fifths of the suite's time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
