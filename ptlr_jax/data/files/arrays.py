"""Where the data of an array lie on disk, from the header of its .npy file."""

import contextlib
import dataclasses
import io
import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAX_HEADER = 1 << 14  # bytes; NumPy takes headers of up to 10,000
MAX_AXES = 32
NUMBERS = "biufc"  # dtype.kind
AGAIN = "save it again as plain arrays"


@dataclasses.dataclass(frozen=True)
class StoredArray:
  """An array of plain numbers on disk: where its data lie in a file."""

  path: Path
  offset: int
  shape: tuple[int, ...]
  dtype: np.dtype
  fortran: bool = False

  @property
  def nbytes(self) -> int:
    """Bytes of the data."""
    return math.prod(self.shape) * self.dtype.itemsize

  def map(self) -> np.ndarray:
    """The array left on disk, read-only."""
    if not self.nbytes:  # which can't be mapped
      return np.empty(self.shape, self.dtype)
    order = "F" if self.fortran else "C"
    return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)

  def read(self) -> np.ndarray:
    """The array in memory."""
    count = math.prod(self.shape)
    x = np.fromfile(self.path, self.dtype, count, offset=self.offset)
    return x.reshape(self.shape, order="F" if self.fortran else "C")


def stored_npy(path: Path) -> StoredArray | None:
  """Where the data of an .npy file of plain numbers lie; None for objects."""
  with one_line(), open(path, "rb") as file:
    array, size = header(path, file), os.fstat(file.fileno()).st_size
    if array.dtype.hasobject:
      return None
    end, what = array.offset + array.nbytes, f"{array.shape} of {array.dtype}"
    expect(size == end, f"{end} bytes for shape {what}", str(size))
    return array


@contextlib.contextmanager
def one_line() -> Iterator[None]:
  """Makes one line of ValueError of whatever the bytes of a file cause."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # NumPy's at a header of Python 2
      yield
  except OSError:
    raise
  except Exception as error:
    line = " ".join((str(error) or type(error).__name__).split())[:300]
    line = "".join(c if c.isprintable() else "?" for c in line)
    raise ValueError(line) from error


def expect(ok: object, what: str, came: str = "a damaged pickle") -> None:
  """Raises ValueError unless `ok`."""
  if not ok:
    raise ValueError(f"expected {what}, came {came}")


def header(path: Path, file: BinaryIO) -> StoredArray:
  """What an .npy file's header says; leaves the file where the data begin."""
  head = io.BytesIO(file.read(MAX_HEADER))
  version = np.lib.format.read_magic(head)
  expect(version in ((1, 0), (2, 0)), ".npy version 1.0 or 2.0", str(version))
  if version == (1, 0):
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
  else:
    shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
  is_plain = dtype.kind in NUMBERS + "SUO"
  expect(is_plain, "plain numbers or text", f"{dtype}; {AGAIN}")
  shape = tuple(int(n) for n in shape)
  check_shape(shape, dtype)
  file.seek(head.tell())
  return StoredArray(path, head.tell(), shape, dtype, fortran)


def check_shape(shape: tuple[int, ...], dtype: np.dtype) -> None:
  """Refuses lengths that no array can have."""
  expect(all(n >= 0 for n in shape), "lengths of 0 or more", f"shape {shape}")
  expect(dtype.itemsize, "values of at least a byte", str(dtype))
  size = math.prod(max(n, 1) for n in shape) * dtype.itemsize
  fits = len(shape) <= MAX_AXES and size <= sys.maxsize
  expect(fits, "an array that fits into memory", f"shape {shape}")


def readable(x: np.ndarray) -> np.ndarray:
  """An array as it is, where the text it may hold is made of characters."""
  if x.dtype.kind == "U" and x.size:
    codes = np.frombuffer(x.tobytes(), x.dtype.byteorder + "u4")
    expect(codes.max() <= sys.maxunicode, "text", "what is no Unicode")
  return x
