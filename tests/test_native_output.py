"""Tests of ptlr_jax.native_output."""

import ctypes
import os

import pytest

from ptlr_jax import native_output


def test_lines_that_begin_so_are_left_out_and_others_come_in_order(capfd):
  libc = ctypes.CDLL(None)
  print("before", flush=True)
  with native_output.without(b"[Gloo] "):
    os.write(1, b"one\n[Gloo] Rank 0 is connected\n")
    libc.puts(b"two [Gloo]")  # stays in C's own buffer for now
    libc.puts(b"[Gloo] Rank 1 is connected")
  print("after")
  lines = capfd.readouterr().out.splitlines()
  assert lines == ["before", "one", "two [Gloo]", "after"]


def test_what_was_printed_comes_after_an_error_too(capfd):
  def fail():
    with native_output.without(b"[Gloo] "):
      os.write(1, b"[Gloo] x\nwhy\n")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert capfd.readouterr().out == "why\n"
