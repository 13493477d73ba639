"""Tests of ptlr_jax.cli.startup."""

import os
import subprocess
import sys

import pytest
from tiny_config import ROOT

from ptlr_jax.cli import startup

CODE = """
import os, sys
from ml_collections import ConfigDict
from ptlr_jax.cli import startup

assert "jax" not in sys.modules
config = ConfigDict({"deterministic": %s, "plugins": ()})
config.compile_cache = "off"
startup.settle_jax(config)
startup.settle_jax(config)
import jax.numpy as jnp
print(jnp.ones(3).sum(), os.environ.get("XLA_FLAGS"))
"""


@pytest.mark.parametrize(
  ("deterministic", "flags"),
  [(False, ""), (True, "--xla_cpu_enable_fast_math=false")],
)
def test_the_flag_is_set_once_before_jax_starts(deterministic, flags):
  done = subprocess.run(
    [sys.executable, "-c", CODE % deterministic],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    capture_output=True,
    text=True,
    check=True,
  )
  asked = [startup.DETERMINISTIC] if deterministic else []
  assert done.stdout.split() == ["3.0", *flags.split(), *asked]
