"""Objects in .npy files, read without running a pickle.

An array of objects is stored as a pickle, a program that can run anything. It
is never run here: a small machine follows those of its opcodes that make plain
data and knows, as symbols, the few calls that NumPy writes for arrays, dtypes
and scalars. All else is refused by name. Large data stay on disk.
"""

import dataclasses
import enum
import functools
import math
import os
import pickletools
import re
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

SPAN = 4096  # bytes; raw data from here on stay on disk
MAX_LINE = 1 << 24  # bytes of an argument written as text
MAX_DEPTH = 20  # lists in lists
MAX_ITEMS = 10_000_000  # of a value, a shared one counted wherever it stands
DTYPES = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|O[48]?|[SU]\d{1,8}")
LITERALS = (  # opcodes whose argument is the value
  r"(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|((SHORT_)?BIN)?(STRING|UNICODE)"
  r"|(SHORT_)?BINBYTES|BIN(BYTES|UNICODE)8"
)
IS_LITERAL = {
  opcode.name: bool(re.fullmatch(LITERALS, opcode.name))
  for opcode in pickletools.opcodes
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
TAKES = {"APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
TAKES |= dict.fromkeys(("APPENDS", "SETITEMS", "TUPLE", "LIST", "DICT"))
ON_DISK = (b"T", b"B", b"\x8e")  # BINSTRING, BINBYTES, BINBYTES8


class Symbol(enum.Enum):
  """All that a pickle may name. None of it is ever imported or called."""

  RECONSTRUCT = "numpy.core.multiarray _reconstruct"
  SCALAR = "numpy.core.multiarray scalar"
  NDARRAY = "numpy ndarray"
  DTYPE = "numpy dtype"
  ENCODE = "_codecs encode"
  BYTES = "builtins bytes"  # Python 3's b"" in protocol 2


SYMBOLIC = (Symbol, np.dtype)  # parts of a call, no data


def read_npy(path: Path) -> np.ndarray | list:
  """An .npy file in memory; an array of objects as lists in lists.

  Objects [N] come as N plain Python values, lists, dicts and arrays: arrays of
  numbers of 4096 bytes or more as a StoredArray, others as an np.ndarray.
  """
  array = stored_npy(path)
  with one_line(), open(path, "rb") as file:
    if array is not None:
      return readable(array.read())
    shape = header(path, file).shape
    value = _Machine(path, file).run()
    is_array = isinstance(value, list) and shape[:1] == (len(value),)
    expect(is_array, f"objects of shape {shape}", "a pickle of something else")
    return value


@dataclasses.dataclass(eq=False)
class _Span:
  """Bytes left in a file; or text, where Python 2 wrote it, in Latin-1."""

  file: BinaryIO
  offset: int
  length: int
  is_text: bool = False

  def __len__(self) -> int:
    return self.length

  def decode(self, encoding: str) -> "_Span":
    """What pickletools asks of a string of Python 2."""
    self.is_text = encoding == "latin-1"
    return self

  @functools.cached_property
  def value(self) -> bytes | str:
    """The bytes or the text."""
    here = self.file.tell()
    self.file.seek(self.offset)
    data = self.file.read(self.length)
    self.file.seek(here)
    return data.decode("latin-1") if self.is_text else data


class _Source:
  """A file for pickletools.genops that leaves large raw data where they are."""

  def __init__(self, file: BinaryIO, size: int):
    self._file = file
    self._size = size
    self._opcode = b""

  def read(self, n: int) -> Any:
    """The next n bytes, or a span of them."""
    if n < SPAN:
      data = self._file.read(n)
      if n == 1:  # an opcode, or a length that is below SPAN
        self._opcode = data
      return data
    offset = self._file.tell()
    expect(offset + n <= self._size, f"{n} bytes", f"{self._size - offset}")
    if self._opcode not in ON_DISK:
      return self._file.read(n)
    self._file.seek(offset + n)
    return _Span(self._file, offset, n)

  def readline(self) -> bytes:
    """The next line, cut where it is overlong."""
    return self._file.readline(MAX_LINE)


class _Parts(tuple):
  """Arguments of a call, or the state of an array: no value of its own."""


@dataclasses.dataclass(eq=False)
class _Unbuilt:
  """An array, or a dtype of some name, between REDUCE and BUILD."""

  name: str = ""
  value: Any = None


class _Machine:
  """Follows a pickle's opcodes and makes plain values and arrays.

  Time and memory are bounded by the file's size: a byte of it makes a few at
  most, and what is copied is counted.
  """

  def __init__(self, path: Path, file: BinaryIO):
    self._path = path
    self._file = file
    self._size = os.fstat(file.fileno()).st_size
    self._to_copy = 4 * self._size
    self._stack: list = []
    self._marks: list[list] = []
    self._memo: dict[int, Any] = {}

  def run(self) -> Any:
    """The value that a pickle describes."""
    source: Any = _Source(self._file, self._size)
    for opcode, arg, _ in pickletools.genops(source):
      if IS_LITERAL[opcode.name]:
        if isinstance(arg, int):
          expect(arg.bit_length() <= 64, "integers of 64 bits", "a larger one")
        self._stack.append(arg)
      elif opcode.name in CONSTANTS:
        self._stack.append(CONSTANTS[opcode.name])
      elif opcode.name in EMPTY:
        self._stack.append(EMPTY[opcode.name]())
      elif opcode.name in TAKES:
        self._collect(opcode.name)
      else:
        self._step(opcode.name, arg)
    value = _value(self._pop())
    more = self._size - self._file.tell()
    expect(not more, "a pickle that ends the file", f"{more} bytes more")
    items, depth = _extent(value, {}, 0)
    is_small = depth <= MAX_DEPTH and items <= max(MAX_ITEMS, self._size)
    expect(is_small, "plain lists", "too many lists in one another")
    return value

  def _step(self, name: str, arg: Any) -> None:
    """An opcode that moves values."""
    match name:
      case "PROTO" | "FRAME" | "STOP":
        pass
      case "MARK":
        self._marks.append(self._stack)
        self._stack = []
      case "POP" if self._stack:
        self._pop()
      case "POP" | "POP_MARK":
        self._taken(None)
      case "DUP":
        self._stack.append(self._top())
      case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
        key = len(self._memo) if arg is None else arg
        expect(0 <= key < 1 << 32, "memos from 0 to 2^32")
        self._memo[key] = self._top()
      case "GET" | "BINGET" | "LONG_BINGET":
        expect(arg in self._memo, "a memo to get")
        self._stack.append(self._memo[arg])
      case "STACK_GLOBAL":
        names = self._taken(2)
        expect(all(isinstance(x, str) for x in names), "the name of a global")
        self._stack.append(_symbol(" ".join(names)))
      case "GLOBAL":
        self._stack.append(_symbol(arg))
      case "REDUCE":
        self._stack.append(self._call(*self._taken(2)))
      case "BUILD":
        state = self._pop()
        unbuilt = self._top(_Unbuilt, "an array or a dtype to build")
        make = _dtype if unbuilt.name else self._array
        self._stack[-1] = unbuilt.value = make(unbuilt.name, state)
      case _:
        what = f"{name} {arg}" if isinstance(arg, str) else name
        raise ValueError(f"a pickle with {what}, which is never run; {AGAIN}")

  def _collect(self, name: str) -> None:
    """An opcode that makes a collection of values or adds to one."""
    items = self._taken(TAKES[name])
    match name:
      case "LIST":
        self._stack.append([_value(x) for x in items])
      case "DICT":
        self._stack.append(_dict(items))
      case "APPEND" | "APPENDS":
        self._top(list, "a list").extend([_value(x) for x in items])
      case "SETITEM" | "SETITEMS":
        self._top(dict, "a dict").update(_dict(items))
      case _:
        self._stack.append(_tuple(items))

  def _pop(self) -> Any:
    expect(self._stack, "a value")
    return self._stack.pop()

  def _top(self, kind: type = object, what: str = "a value") -> Any:
    expect(self._stack and isinstance(self._stack[-1], kind), what)
    return self._stack[-1]

  def _taken(self, n: int | None) -> list:
    """The last n values, or those since the last mark."""
    if n is not None:
      return [self._pop() for _ in range(n)][::-1]
    expect(self._marks, "a mark")
    items, self._stack = self._stack, self._marks.pop()
    return items

  def _copied(self, n: int) -> None:
    """Counts bytes or items made of what the file may hold only once."""
    self._to_copy -= n
    expect(self._to_copy >= 0, "data", "a pickle that multiplies them")

  def _raw(self, data: Any) -> bytes:
    data = _value(data)
    if isinstance(data, str):  # of Python 2
      self._copied(len(data))
      data = data.encode("latin-1")
    expect(isinstance(data, bytes), "raw data")
    self._copied(len(data))
    return data

  def _call(self, symbol: Any, args: Any) -> Any:
    """What NumPy or Python would return of the calls that are known."""
    match symbol, args:
      case Symbol.RECONSTRUCT, (Symbol.NDARRAY, _, _):
        return _Unbuilt()
      case Symbol.DTYPE, (str(name), _, _):
        is_plain = DTYPES.fullmatch(name)
        expect(is_plain, "plain numbers", f"dtype {name}; {AGAIN}")
        return _Unbuilt("O" if name[0] == "O" else name)
      case Symbol.SCALAR, (np.dtype() as dtype, data) if not dtype.hasobject:
        raw = self._raw(data)
        expect(len(raw) == dtype.itemsize, f"one {dtype}", f"{len(raw)} bytes")
        if not raw:
          return "" if dtype.kind == "U" else b""
        return readable(np.ndarray((), dtype, raw)).item()
      case Symbol.ENCODE, (str(text), "latin1" | "latin-1"):
        return self._raw(text)
      case Symbol.BYTES, ():
        return b""
    what = symbol.value if isinstance(symbol, Symbol) else "what is no function"
    raise ValueError(f"a pickle that calls {what} in a way unknown; {AGAIN}")

  def _array(self, _: str, state: Any) -> StoredArray | np.ndarray | list:
    """An array of its pickled state; where it holds objects, lists."""
    is_state = isinstance(state, _Parts) and len(state) == 5
    expect(is_state, "the state of an array")
    _, shape, dtype, fortran, raw = state
    is_shape = isinstance(shape, tuple) and all(type(n) is int for n in shape)
    expect(is_shape and isinstance(dtype, np.dtype), "a shape and a dtype")
    expect(isinstance(fortran, bool), "a bool for the order")
    check_shape(shape, dtype)
    count, order = math.prod(shape), "F" if fortran else "C"
    expected = f"{count} values of {dtype} for shape {shape}"
    if dtype.hasobject:
      expect(isinstance(raw, list) and len(raw) == count, expected)
      self._copied(count)
      return _nested(raw, shape)
    is_stored = isinstance(raw, _Span) and dtype.kind in NUMBERS
    data = raw if is_stored else self._raw(raw)
    size = len(data)
    expect(size == count * dtype.itemsize, expected, f"{size} bytes")
    if isinstance(data, _Span):
      return StoredArray(self._path, data.offset, shape, dtype, fortran)
    return readable(np.ndarray(shape, dtype, data, order=order))


def _symbol(name: str) -> Symbol:
  """A global, "module name", as the symbol that it is here."""
  known = name.replace("numpy._core.", "numpy.core.")  # of NumPy 2
  try:
    return Symbol(known.replace("__builtin__ ", "builtins "))
  except ValueError:
    name = name.replace(" ", ".")[:100]
    refusal = f"a pickle that names {name}, which is never run; {AGAIN}"
    raise ValueError(refusal) from None


def _value(x: Any) -> Any:
  """A value that may stand among the data."""
  if isinstance(x, _Unbuilt):
    expect(x.value is not None, "arrays of plain data", "one inside itself")
    x = x.value
  if isinstance(x, _Span):
    return x.value
  if isinstance(x, SYMBOLIC):
    raise ValueError(f"expected data, came a pickle of {x}; {AGAIN}")
  expect(not isinstance(x, _Parts), "data", "the arguments of a call")
  return x


def _tuple(items: list) -> tuple:
  """A tuple of values, or the parts of a call or of an array's state."""
  parts = [
    x.value if isinstance(x, _Unbuilt) and x.value is not None else x
    for x in items
  ]
  as_is = [isinstance(x, SYMBOLIC) for x in parts]
  if not any(as_is):
    return tuple([_value(x) for x in parts])
  as_is[4:] = [True] * len(as_is[4:])  # a state's raw data stay on disk
  pairs = zip(parts, as_is, strict=True)
  return _Parts(x if keep else _value(x) for x, keep in pairs)


def _dict(items: list) -> dict[str | bytes, Any]:
  """A dict of keys and values in turn."""
  expect(not len(items) % 2, "a value for each key")
  keys, values = map(_value, items[::2]), map(_value, items[1::2])
  made = {}
  for key, value in zip(keys, values, strict=True):
    # The hashes of text can't be made to clash, nor nested deep.
    expect(isinstance(key, str | bytes), "text as keys of a dict")
    made[key] = value
  return made


def _dtype(name: str, state: Any) -> np.dtype:
  """A dtype with the byte order of its pickled state."""
  dtype = np.dtype(name)
  match state:
    case (_, "<" | ">" | "=" | "|" as order, None, None, None, int(size), *_):
      expect(size in (-1, dtype.itemsize), f"the size of {dtype}")
      return dtype.newbyteorder(order)
  raise ValueError(f"expected the state of {dtype}, came a damaged pickle")


def _nested(items: list, shape: tuple[int, ...]) -> list:
  """Objects, which are stored in C order, as lists in lists."""
  expect(
    shape and (items or not shape[0]), "objects along an axis", f"shape {shape}"
  )
  if len(shape) == 1:
    return items
  step = max(len(items) // max(shape[0], 1), 1)
  starts = range(0, len(items), step)
  return [_nested(items[i : i + step], shape[1:]) for i in starts]


def _extent(value: Any, known: dict[int, tuple[int, int]], depth: int):
  """Items and levels of lists, tuples and dicts in one another."""
  if not isinstance(value, list | tuple | dict):
    return 1, 0
  if id(value) not in known:
    known[id(value)] = 1, MAX_DEPTH + 1  # till known: a list may hold itself
    if depth < MAX_DEPTH:
      inside = value.values() if isinstance(value, dict) else value
      parts = [_extent(x, known, depth + 1) for x in inside]
      levels = 1 + max((below for _, below in parts), default=0)
      known[id(value)] = 1 + sum(n for n, _ in parts), levels
  return known[id(value)]
