"""Tests of ptlr_jax.cli.startup."""

import os
import socket
import subprocess
import sys

import pytest
from tiny_config import ROOT

from ptlr_jax.cli import startup
from ptlr_jax.runtime.errors import InputError

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


def _leads_to(monkeypatch, address):
  def found(host):
    if address is None:
      raise socket.gaierror(-2, "Name or service not known")
    return address

  monkeypatch.setattr(socket, "gethostbyname", found)


@pytest.mark.parametrize("address", ["127.0.1.1", None])
def test_a_host_whose_name_leads_to_itself_alone_is_told(address, monkeypatch):
  _leads_to(monkeypatch, address)
  with pytest.raises(InputError, match="node7: expected an address at which"):
    startup._check_name("node7")


def test_a_host_that_others_reach_by_its_name_passes(monkeypatch):
  _leads_to(monkeypatch, "10.0.0.7")
  startup._check_name("node7")
