"""Tests of ptlr_jax.runtime.mesh."""

import ctypes
import os

import pytest

from ptlr_jax.runtime import mesh


def test_lines_that_begin_so_are_left_out_and_others_come_in_order(capfd):
  libc = ctypes.CDLL(None)
  print("before", flush=True)
  with mesh.without_output(b"[Gloo] "):
    os.write(1, b"one\n[Gloo] Rank 0 is connected\n")
    libc.puts(b"two [Gloo]")  # stays in C's own buffer for now
    libc.puts(b"[Gloo] Rank 1 is connected")
  print("after")
  lines = capfd.readouterr().out.splitlines()
  assert lines == ["before", "one", "two [Gloo]", "after"]


def test_what_was_printed_comes_after_an_error_too(capfd):
  def fail():
    with mesh.without_output(b"[Gloo] "):
      os.write(1, b"[Gloo] x\nwhy\n")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert capfd.readouterr().out == "why\n"
