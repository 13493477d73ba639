"""What libraries print from C++, past Python, on standard output."""

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator

GLOO = b"[Gloo] "  # begins what XLA's collectives on CPUs print as they meet


@contextlib.contextmanager
def without(beginning: bytes) -> Iterator[None]:
  """Inside, lines that begin so are left out of what is printed, by whomever;
  all others come at the end."""
  sys.stdout.flush()
  try:
    own = os.dup(1)
  except OSError:  # it is closed
    yield
    return
  with tempfile.TemporaryFile() as file:
    os.dup2(file.fileno(), 1)
    try:
      yield
    finally:
      sys.stdout.flush()
      ctypes.CDLL(None).fflush(None)
      os.dup2(own, 1)
      os.close(own)
      file.seek(0)
      with contextlib.suppress(BrokenPipeError):
        for line in file:
          if not line.startswith(beginning):
            os.write(1, line)
