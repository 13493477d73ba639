"""Objects in .npy files, unpickled without importing or calling anything.

An array of objects is stored as a pickle, a program that can run anything. Of
its opcodes only those of plain data are followed; the few names that NumPy
writes for arrays, dtypes and scalars stay names, and what calls of them would
return is made here. All else is refused by name. Large data stay on disk.
"""

import dataclasses
import enum
import functools
import math
import os
import pickle
import pickletools
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ptlr_jax.data.files.arrays import (
  AGAIN,
  NUMBERS,
  StoredArray,
  check_shape,
  expect,
  header,
  one_line,
  readable,
  stored_npy,
)

LARGE = 1 << 16  # bytes; raw data from here on stay on disk
MAX_DEPTH = 20  # lists in lists
MAX_STEPS = 5_000_000  # ActivityNet's segments.npy takes 344,199
DTYPES = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|O[48]?|[SU]\d{1,8}")
PLAIN = int | float | complex | str | bytes | np.ndarray | StoredArray | None
NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
FOLLOWED = (
  *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
  *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
  *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NONE", "NEWTRUE", "NEWFALSE"),
  *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
  *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
  *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
  *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
  *("LIST", "EMPTY_LIST", "APPEND", "APPENDS"),
  *("TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
)
# In C it would allocate what a length declares, and read what stays on disk.
_PurePython: Any = pickle._Unpickler


class Name(enum.Enum):
  """All that a pickle may name. None of it is ever imported or called."""

  RECONSTRUCT = "numpy.core.multiarray _reconstruct"
  SCALAR = "numpy.core.multiarray scalar"
  NDARRAY = "numpy ndarray"
  DTYPE = "numpy dtype"
  ENCODE = "_codecs encode"
  BYTES = "builtins bytes"  # Python 3's b"" in protocol 2


def read_npy(path: Path) -> np.ndarray | list:
  """An .npy file in memory; an array of objects as lists in lists.

  Objects [N] come as N plain Python values, lists, tuples and arrays: raw data
  of 65536 bytes or more as a StoredArray, others as an np.ndarray.
  """
  array = stored_npy(path)
  with one_line(), open(path, "rb") as file:
    if array is not None:
      return readable(array.read())
    shape = header(path, file).shape
    try:
      value = _Unpickler(path, file).load()
    except (ValueError, OSError):
      raise
    except Exception as error:
      raise ValueError(
        f"expected data, came a damaged pickle: {error}"
      ) from None
    is_array = isinstance(value, list) and shape[:1] == (len(value),)
    expect(is_array, f"objects of shape {shape}", "a pickle of something else")
    return value


@dataclasses.dataclass(eq=False)
class _Unbuilt:
  """An array, or a dtype, that BUILD gives its state."""

  value: Any = Name.NDARRAY


class _Opcodes(dict):
  """What follows an opcode, by its byte."""

  def __missing__(self, code: int):
    came = f"a pickle with {NAMES.get(code, f'the unknown opcode {code}')}"
    raise ValueError(f"expected plain data, came {came}; {AGAIN}")


class _Source:
  """A file that never reads more than it has, and counts how often it does."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self._steps = 0
    self.size = os.fstat(file.fileno()).st_size
    self.readline = file.readline

  def step(self, n: int = 1) -> None:
    """Counts opcodes, their arguments and what is made of shared values."""
    self._steps += n
    is_small = self._steps <= MAX_STEPS
    expect(is_small, f"at most {MAX_STEPS} values", "a pickle that makes more")

  def left(self) -> int:
    """Bytes to come."""
    return self.size - self._file.tell()

  def read(self, n: int) -> bytes:
    """The next n bytes."""
    self.step()
    expect(n < LARGE or n <= self.left(), f"{n} bytes", "fewer")
    return self._file.read(n)

  def skip(self, n: int) -> int:
    """Where the next n bytes begin, which are left where they are."""
    expect(n <= self.left(), f"{n} bytes", "fewer")
    return self._file.seek(n, os.SEEK_CUR) - n


class _Unpickler(_PurePython):
  """Follows a pickle's opcodes and makes plain values and arrays.

  Opcodes, and whatever a few of them can make much of, are counted.
  """

  dispatch = _Opcodes(
    (code, _PurePython.dispatch[code])
    for code, name in NAMES.items()
    if name in FOLLOWED
  )

  def __init__(self, path: Path, file: BinaryIO):
    self._path = path
    self._source = _Source(file)
    self._nbytes = 0
    # Cached, so that what is shared is encoded once.
    self._encoded = functools.cache(lambda text: text.encode("latin-1"))
    super().__init__(self._source, encoding="latin-1")

  def load(self) -> Any:
    """The value that a pickle describes."""
    value = self._plain(super().load())
    more = self._source.left()
    expect(not more, "a pickle that ends the file", f"{more} bytes more")
    return value

  def find_class(self, module: str, name: str) -> Name:
    """A name that is known, as that."""
    known = f"{module} {name}".replace("numpy._core.", "numpy.core.")
    try:
      return Name(known.replace("__builtin__ ", "builtins "))
    except ValueError:
      name = f"{module}.{name}"[:100]
      refusal = f"a pickle that names {name}, which is never run; {AGAIN}"
      raise ValueError(refusal) from None

  def _plain(self, x: Any, depth: int = 0) -> Any:
    """A value with its arrays; a shared one counts wherever it stands."""
    self._source.step()
    expect(depth <= MAX_DEPTH, "plain lists", "too many lists in one another")
    x = x.value if isinstance(x, _Unbuilt) else x
    if isinstance(x, list | tuple):
      return type(x)([self._plain(y, depth + 1) for y in x])
    if not isinstance(x, PLAIN):
      raise ValueError(f"expected data, came a pickle of {x}; {AGAIN}")
    is_short = not isinstance(x, int) or x.bit_length() <= 64
    expect(is_short, "integers of 64 bits", "a larger one")
    is_text = isinstance(x, str | bytes)
    self._nbytes += len(x) if is_text else getattr(x, "nbytes", 0)
    is_once = self._nbytes <= MAX_STEPS + 4 * self._source.size
    expect(is_once, "data", "a pickle that multiplies them")
    return x

  def _load_raw(self, length: str, encoding: str = "") -> None:
    """Bytes, or Python 2's text, after their length; large ones as u1[N]."""
    (n,) = struct.unpack(length, self.read(struct.calcsize(length)))
    expect(n >= 0, "bytes", f"{n}")
    if n < LARGE:
      raw = self.read(n)
      self.append(raw.decode(encoding) if encoding else raw)
    else:
      offset = self._source.skip(n)
      self.append(StoredArray(self._path, offset, (n,), np.dtype("u1")))

  def _load_put(self) -> None:
    index = int(self.readline())
    # The hashes of larger ones could clash.
    expect(0 <= index < 1 << 32, "memos from 0 to 2^32")
    self.memo[index] = self.stack[-1]

  def _load_reduce(self) -> None:
    args = self.stack.pop()
    self.stack[-1] = self._returned(self.stack[-1], args)

  def _returned(self, name: Any, args: Any) -> Any:
    """What NumPy or Python would return of the calls that are known."""
    match name, args:
      case Name.RECONSTRUCT, (Name.NDARRAY, _, _):
        return _Unbuilt()
      case Name.DTYPE, (str(code), _, _):
        is_plain = DTYPES.fullmatch(code)
        expect(is_plain, "plain numbers", f"dtype {code}; {AGAIN}")
        return _Unbuilt(np.dtype("O" if code[0] == "O" else code))
      case Name.SCALAR, (_Unbuilt(np.dtype() as dtype), data) if (
        not dtype.hasobject
      ):
        raw = self._raw(data)
        expect(len(raw) == dtype.itemsize, f"one {dtype}", f"{len(raw)} bytes")
        self._source.step(len(raw))
        x = np.ndarray(1, dtype, raw) if raw else np.zeros(1, dtype)
        return readable(x).item()
      case Name.ENCODE, (str(text), "latin1" | "latin-1"):
        return self._encoded(text)
      case Name.BYTES, ():
        return b""
    what = name.value if isinstance(name, Name) else "what is no function"
    raise ValueError(f"a pickle that calls {what} in a way unknown; {AGAIN}")

  def _load_build(self) -> None:
    state = self.stack.pop()
    unbuilt = self.stack[-1]
    expect(isinstance(unbuilt, _Unbuilt), "an array or a dtype to build")
    match unbuilt.value, state:
      case (
        np.dtype() as dtype,
        (_, "<" | ">" | "=" | "|" as order, None, None, None, int(size), *_),
      ):
        expect(size in (-1, dtype.itemsize), f"the size of {dtype}")
        unbuilt.value = dtype.newbyteorder(order)
      case _, (
        _,
        tuple(shape),
        _Unbuilt(np.dtype() as dtype),
        bool(fortran),
        raw,
      ) if all(type(n) is int and abs(n) < 1 << 63 for n in shape):
        unbuilt.value = self._array(shape, dtype, fortran, raw)
      case _:
        raise ValueError("expected the state of an array or a dtype")

  def _array(
    self, shape: tuple[int, ...], dtype: np.dtype, fortran: bool, raw: Any
  ) -> StoredArray | np.ndarray | list:
    """An array; where it holds objects, which are in C order, lists."""
    check_shape(shape, dtype)
    count, order = math.prod(shape), "F" if fortran else "C"
    expected = f"{count} values of {dtype} for shape {shape}"
    if dtype.hasobject:
      expect(isinstance(raw, list) and len(raw) == count, expected)
      is_row = shape and (count or not shape[0])
      expect(is_row, "objects along an axis", f"shape {shape}")
      self._source.step(count)
      return np.fromiter(raw, object, count).reshape(shape).tolist()
    if isinstance(raw, StoredArray) and dtype.kind in NUMBERS:
      x = dataclasses.replace(raw, shape=shape, dtype=dtype, fortran=fortran)
      expect(x.nbytes == raw.nbytes, expected, f"{raw.nbytes} bytes")
      return x
    data = self._raw(raw)
    size = count * dtype.itemsize
    expect(len(data) == size, expected, f"{len(data)} bytes")
    return readable(np.ndarray(shape, dtype, data, order=order))

  def _raw(self, data: Any) -> bytes:
    if isinstance(data, StoredArray):  # no numbers but text
      self._source.step(data.nbytes)
      return data.read().tobytes()
    data = self._encoded(data) if isinstance(data, str) else data  # Python 2's
    expect(isinstance(data, bytes), "raw data")
    return data

  dispatch.update(
    {
      pickle.FRAME[0]: lambda self: self.read(8),  # its content comes as it is
      pickle.PUT[0]: _load_put,
      pickle.BINSTRING[0]: lambda self: self._load_raw("<i", "latin-1"),
      pickle.BINBYTES[0]: lambda self: self._load_raw("<I"),
      pickle.BINBYTES8[0]: lambda self: self._load_raw("<Q"),
      pickle.REDUCE[0]: _load_reduce,
      pickle.BUILD[0]: _load_build,
    }
  )
