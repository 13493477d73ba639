"""Tests of ptlr_jax.data.files.pickled: pickles are followed, never run."""

import builtins
import io
import os
import pickle
import pickletools
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptlr_jax.data.files import pickled
from ptlr_jax.data.files.arrays import StoredArray, stored_npy
from ptlr_jax.data.files.pickled import read_npy

SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL = sorted(SHARED.glob("*/Thumos14reduced-Annotations/*.npy"))
REAL += sorted(SHARED.glob("*/wtalc_annotations/*.npy"))
FUZZ = settings(
  derandomize=True,
  deadline=None,
  max_examples=200,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PROTOCOLS = (0, 1, 2, 3, 4)  # np.save of NumPy 2 writes 4, of NumPy 1 3 or 2
SMALL = np.arange(6, dtype=np.float32).reshape(2, 3)
LARGE = np.arange(30_000, dtype=np.float32).reshape(10_000, 3)


_PurePython: Any = pickle._Pickler


class _Python2(_PurePython):
  """Writes text and raw data as Python 2 does, both as str."""

  dispatch = _PurePython.dispatch.copy()

  def _save(self, x):
    raw = x if isinstance(x, bytes) else x.encode("latin-1")
    if self.proto == 0:
      self.write(b"S" + repr(raw).encode()[1:] + b"\n")
    elif len(raw) < 256:
      self.write(b"U" + bytes([len(raw)]) + raw)
    else:
      self.write(b"T" + struct.pack("<i", len(raw)) + raw)
    self.memoize(x)

  dispatch[str] = dispatch[bytes] = _save


def _python2(x, protocol: int) -> bytes:
  _Python2(file := io.BytesIO(), protocol).dump(x)
  return file.getvalue()


def _npy(path, content: bytes, shape=(1,), descr="|O"):
  """An .npy file of objects, or of a dtype, with any content."""
  fields = {"descr": descr, "fortran_order": False, "shape": shape}
  with open(path, "wb") as file:
    np.lib.format.write_array_header_1_0(file, fields)
    file.write(content)
  return path


def _objects(*items):
  x = np.empty(len(items), object)
  x[:] = items
  return x


def _save(path, items, protocol=4, dumps=pickle.dumps):
  """An .npy file of objects, as np.save writes it."""
  return _npy(path, dumps(_objects(*items), protocol), (len(items),))


def _raises(path, part, *parts, read=read_npy):
  with pytest.raises(ValueError, match=re.escape(part)) as caught:
    read(path)
  line, cause = str(caught.value), caught.value.__cause__
  assert type(caught.value) is type(cause) is ValueError
  assert len(line) <= 300
  assert line.isprintable()
  assert all(part in line for part in parts)


def _assert_same(came, x):
  """That a value came as it was, arrays in any place, scalars as Python's."""
  x = x.item() if isinstance(x, np.generic) else x
  if isinstance(x, np.ndarray):
    came = came.read() if isinstance(came, StoredArray) else came
    np.testing.assert_array_equal(came, x, strict=True)
  elif isinstance(x, list):
    for pair in zip(came, x, strict=True):
      _assert_same(*pair)
  else:
    assert repr(came) == repr(x)  # True is not 1


# Real files.


@pytest.mark.skipif(not REAL, reason="needs shared/data")
def test_real_files_are_read_as_pickle_loads_them():
  assert len(REAL) == 9 + 7
  for path in REAL:
    x = np.load(path, allow_pickle=True, encoding="latin1")  # which we trust
    _assert_same(read_npy(path), x.tolist() if x.dtype.hasobject else x)


# Round trips.

MANY = np.arange(90_000).reshape(450, 200) % 7
TEXTS = np.array(["Diving", "é"] * 9000)
VALUES = {
  "lists": [[[0.5, 1.5], [2.0, 1e300]], [], [[-0.0, float("inf")]]],
  "labels": [["Diving", "HighJump"], ["é" * 5000, ""], "x" * 9000],
  "integers": [0, -1, 255, 65536, -(2**31), 2**40, 2**63],
  "constants": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
  "numbers": [np.float64(0.1), np.float32(0.5), np.int64(-3), np.bool_(True)],
  "text": [np.str_("Diving é"), np.str_(""), np.bytes_(b"x"), np.bytes_(b"")],
  "of Python 3": ["日本", b"", b"Diving", bytes(range(256)), b"\xff" * 5000],
  "shared": [[np.float64(1)] * 3, [[0.5, 1.5]] * 3, [SMALL] * 3],
  "small arrays": [SMALL, SMALL.T, SMALL.astype(">f8"), SMALL == 0],
  "arrays of text": [TEXTS[:3], TEXTS, np.array([b"Diving"] * 20_000)],
} | {
  dtype: [MANY.astype(dtype), MANY.T.astype(dtype), MANY[:0].astype(dtype)]
  for dtype in ("f2", "f4", "f8", ">f4", "i8", "u1", "?")
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", VALUES)
def test_round_trip(tmp_path, case, protocol):
  x = VALUES[case]
  _assert_same(read_npy(_save(tmp_path / "x.npy", x, protocol)), x)
  if protocol <= 2 and case != "of Python 3":
    path = _save(tmp_path / "x.npy", x, protocol, _python2)
    _assert_same(read_npy(path), x)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_objects_are_lists(tmp_path, protocol):
  inner = _objects(np.array([["a"], [None]], object), np.array(["b", "cd"]))
  came = read_npy(_save(tmp_path / "x.npy", [inner, [inner]], protocol))
  expected = [[["a"], [None]], np.array(["b", "cd"])]
  _assert_same(came, [expected, [expected]])
  x = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
  for y in (x, np.asfortranarray(x)):
    path = _npy(tmp_path / "x.npy", pickle.dumps(y, protocol), y.shape)
    assert read_npy(path) == x.tolist()


@pytest.mark.parametrize("shape", [(), (2, 0), (0,), (0, 3)])
def test_objects_without_a_row(tmp_path, shape):
  content = pickle.dumps(np.empty(shape, object), 4)
  path = _npy(tmp_path / "x.npy", content, shape)
  if shape[:1] == (0,):
    assert read_npy(path) == []
  else:
    _raises(path, "objects along an axis", f"came shape {shape}")


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_module_names_of_numpy_1_and_2(tmp_path, module):
  content = pickle.dumps(_objects(SMALL, np.float64(0.5)), 2)
  assert b"cnumpy._core.multiarray" in content
  content = content.replace(b"numpy._core", module)
  _assert_same(read_npy(_npy(tmp_path / "x.npy", content, (2,))), [SMALL, 0.5])


# What stays on disk.


@pytest.mark.parametrize(
  ("dumps", "protocol"), [(pickle.dumps, 4), (pickle.dumps, 3), (_python2, 2)]
)
def test_large_arrays_stay_on_disk(tmp_path, dumps, protocol):
  large = np.asfortranarray(LARGE)
  path = tmp_path / "x.npy"
  _save(path, [SMALL, LARGE, large], protocol, dumps)
  small, c, fortran = read_npy(path)
  at = path.read_bytes().index(LARGE.tobytes())
  assert isinstance(small, np.ndarray)
  assert c == StoredArray(path, at, (10_000, 3), np.dtype("f4"))
  assert fortran.fortran
  for stored in (c, fortran):
    assert isinstance(stored.map(), np.memmap)
    assert not stored.map().flags.writeable
    np.testing.assert_array_equal(stored.map(), LARGE, strict=True)
    np.testing.assert_array_equal(stored.read(), LARGE, strict=True)


def test_a_file_larger_than_memory(tmp_path):
  """200 GB, of which the disk holds the ends: a file with a hole."""
  n = 50_000_000_000
  content = pickle.dumps(_objects(np.zeros(0x5000, np.float32)), 3)
  head, tail = content.split(b"B\x00\x40\x01\x00" + b"\0" * 0x14000)
  shape, length = b"M\x00\x50\x85", b"\x8a\x08" + struct.pack("<q", n) + b"\x85"
  assert head.count(shape) == 1
  head = head.replace(shape, length)
  path = _npy(tmp_path / "x.npy", head + b"\x8e" + struct.pack("<Q", 4 * n))
  with open(path, "r+b") as file:
    file.seek(4 * n, os.SEEK_END)
    try:
      file.write(tail)
    except OSError:
      pytest.skip("the file system holds no files of 200 GB")
  (array,) = read_npy(path)
  assert (array.shape, array.nbytes) == ((n,), 4 * n)
  assert array.map()[-1] == 0


# Plain .npy files.


def test_plain_npy(tmp_path):
  fortran, text = np.asfortranarray(LARGE), np.array(["Diving", "é"])
  path = tmp_path / "x.npy"
  for x in (LARGE, fortran, np.float64(3), SMALL[:0], text, text == "é"):
    np.save(path, x)
    stored = stored_npy(path)
    assert stored is not None
    for y in (stored.map(), stored.read(), read_npy(path)):
      np.testing.assert_array_equal(y, np.asarray(x), strict=True)


def test_header_of_python_2(tmp_path):
  path = _npy(tmp_path / "x.npy", SMALL.tobytes(), (2, 3), "<f4")
  content = path.read_bytes().replace(b"(2, 3), ", b"(2L, 3),", 1)
  path.write_bytes(content)
  np.testing.assert_array_equal(read_npy(path), SMALL)


@pytest.mark.parametrize(
  ("shape", "descr", "size", "parts"),
  [
    ((2, 3), "<f4", 23, ("expected 152 bytes", "came 151")),
    ((2, 3), "<f4", 25, ("expected 152 bytes", "came 153")),
    ((-2, -3), "<f4", 24, ("came shape (-2, -3)",)),
    ((0, 10**30), "<f4", 0, ("fits into memory",)),
    ((2**62, 2**62), "<f4", 0, ("fits into memory",)),
    ((1,) * 33, "<f4", 4, ("fits into memory",)),
    ((10**18,), "|S0", 0, ("at least a byte",)),
    ((2,), [("a", "<f4"), ("b", "|O")], 8, ("plain numbers", "save it again")),
    ((2,), "<M8[s]", 16, ("plain numbers", "datetime64")),
    ((2,), "|V4", 8, ("plain numbers",)),
  ],
)
def test_damaged_npy(tmp_path, shape, descr, size, parts):
  path = _npy(tmp_path / "x.npy", b"\0" * size, shape, descr)
  for read in (stored_npy, read_npy):
    _raises(path, *parts, read=read)


def test_other_npy(tmp_path):
  path = _npy(tmp_path / "x.npy", b"A\0\0\0\0\0\x11\0", (2,), "<U1")
  _raises(path, "Unicode")
  path.write_bytes(path.read_bytes().replace(b"Y\x01", b"Y\x03", 1))
  _raises(path, "version 1.0 or 2.0", "(3, 0)")
  for read in (read_npy, stored_npy):
    with pytest.raises(FileNotFoundError):
      read(tmp_path / "none.npy")
    with pytest.raises(IsADirectoryError):
      read(tmp_path)
  assert stored_npy(_save(tmp_path / "x.npy", [1])) is None


# Hostile pickles.


class _Call(tuple):
  """Pickles as a call of a function."""

  def __reduce__(self):
    return self[0], self[1:]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_calls_are_refused_and_not_run(tmp_path, protocol):
  ran = tmp_path / "ran"
  code = f"open({str(ran)!r}, 'w')"
  for call in (
    *((os.system, f"touch {ran}"), (Path, str(ran)), (getattr, Path, "touch")),
    *((eval, code), (builtins.exec, code)),
  ):
    for items in ([_Call(call)], ["first", [_objects(_Call(call))]]):
      path = _save(tmp_path / "x.npy", items, protocol)
      _raises(path, f".{call[0].__name__}", "never run")
      assert not ran.exists()


OPCODES = {x.name: x.code.encode("latin-1") for x in pickletools.opcodes}
REFUSED = """
  INST OBJ NEWOBJ NEWOBJ_EX PERSID BINPERSID EXT1 EXT2 EXT4 EMPTY_DICT DICT
  SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET BYTEARRAY8 NEXT_BUFFER
  READONLY_BUFFER BINUNICODE8 LONG4
"""


@pytest.mark.parametrize("name", REFUSED.split())
def test_other_opcodes_are_refused(tmp_path, name):
  content = ARRAY + b"(K\x01" + OPCODES[name] + b"os\nsystem\n" + b"\0" * 9
  _raises(_npy(tmp_path / "x.npy", content), f"{name};")


def _text(value: str) -> bytes:
  return b"\x8c" + bytes([len(value)]) + value.encode()


def _dtype(name: str, size=b"J\xff\xff\xff\xff", fields=b"NNN") -> bytes:
  state = b"(K\x03" + _text("<") + fields + size + b"K\xffK\x00tb"
  return b"cnumpy\ndtype\n" + _text(name) + b"K\x00K\x01\x87R" + state


def _array(shape=b"\x02", dtype="f4", order=b"\x89", raw=b"C\x08" + b"-" * 8):
  shape = b"(K" + shape + b"t"
  return NEW + b"(K\x01" + shape + _dtype(dtype) + order + raw + b"tb"


def _row(*items: bytes) -> bytes:
  return b"](" + b"".join(items) + b"e."


ARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"
ENCODE = b"c_codecs\nencode\n"
NEW = RECONSTRUCT + ARRAY + b"K\x00\x85C\x01b\x87R"
RAW = b"B\x60\xea\0\0" + b"x" * 60_000 + b"q\x00"  # as memo 0
ON_DISK = b"B\0\0\x01\0" + b"x" * 65_536
WIDE = b"\0\x8a\x08" + b"\xff" * 7 + b"\x7f"  # of a shape
TEXT, LATIN1 = b"X" + RAW[1:], _text("latin1") + b"\x86R"
ROW = _array(b"\x01M\xe8\x03", "O", raw=b"h\0")
IN_ITSELF = (NEW, b"q\x00(K\x01K\x01\x85", _dtype("O8"), b"\x89](h\x00")
HOSTILE = {
  "never run": [
    _text("numpy") + _text("dtype.fromkeys") + b"\x93.",
    _text("builtins") + _text("bytes.join") + b"\x93.",
    *(_row(b"cos\nsystem\n"), b"c_pickle\nloads\n.", b"c\\d\n\\d\n."),
    b"cptlr_jax.data.files.arrays\nStoredArray\n.",
    RECONSTRUCT + b"cnumpy\nmatrix\n.",
    b"cnumpy._core.numeric\n_frombuffer\n.",  # of protocol 5
  ],
  "os?[31m.system": [b"cos\x1b[31m\nsystem\n."],
  "_codecs encode": [ENCODE + _text("x") + _text("hex") + b"\x86R."],
  "builtins bytes": [b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R."],
  "no function": [b"])R."],
  "calls numpy ndarray": [ARRAY + b"K\x02\x85\x85R."],
  "Name.NDARRAY": [ARRAY + b".", _row(ARRAY), _row(ARRAY, b"\x85"), _row(NEW)],
  "array or a dtype to build": [b"]Nb.", ARRAY + b"(N" + ARRAY + b"tb."],
  "pickle of float32": [_dtype("f4") + b"."],
  "came dtype": [_dtype(x) for x in ("V8", "M8", "m8", "f4,f4", "(2,)f4", "")],
  "state of an array or a dtype": [
    _dtype("f4", fields=b"N" + _text("a") + b"\x85]"),
    _dtype("f4", fields=_dtype("f4") + b"K\x02\x86NN"),
    *(NEW + b"Nb.", _array(b"\0\x8a\xff" + b"\x7f" * 255), _array(b"\0\x88")),
    *(_array(b"\0" + _text("ab")), _array(order=b"K\x01")),
  ],
  "the size of float32": [_dtype("f4", size=b"K\x08")],
  "one float32, came 1": [SCALAR + _dtype("f4") + b"C\x01x\x86R."],
  "multiarray scalar": [
    SCALAR + _dtype("O8") + b"C\x08" + b"\1" * 8 + b"\x86R."
  ],
  "values of object": [_array(dtype="O8")],
  "3 values of float32": [_array(b"\x03")],
  "1 values of float32": [_array(b"\1", raw=raw) for raw in (b"C\0", ON_DISK)],
  "0 or more": [_array(b"\0J\xfe\xff\xff\xff")],
  "fits into memory": [_array(WIDE, raw=b"C\0")],
  "raw data": [_array(raw=b"N")],
  "no Unicode": [_array(dtype="U1"), _array(b"\x01M\x98\x3a", "U1", raw=RAW)],
  "in one another": [
    *(b"]q\x00(h\x00h\x00h\x00h\x00e.", b")" + b"\x85" * 9000 + b"."),
    b"](" * 9000 + b"e" * 9000 + b".",
    *(_row(*IN_ITSELF, b"etb"), _row(*IN_ITSELF, b"\x85etb")),
  ],
  "at most 50000 values": [
    *(b"]" + b"2\x86" * 19 + b".", b"(" * 60_000, b"N" + b"\x94" * 60_000),
    _row(RAW, (SCALAR + _dtype("S60000") + b"h\x00\x86R") * 2),
    _row(b"](" + b"N" * 1000 + b"eq\0", ROW * 60),
  ],
  "multiplies them": [
    *(_row(RAW, b"h\0" * 99), _row(TEXT, (ENCODE + b"h\0" + LATIN1) * 99)),
    _row(_array(b"\x01M\x60\xea", "u1", raw=RAW), b"q\x01", b"h\x01" * 99),
    _row(RAW, _array(b"\x01M\x60\xea", "u1", raw=b"h\0") * 99),
  ],
  "damaged": [ARRAY + b"Na.", b"", *b"](NN 0. NR. NNa. h\5. ]]\x93.".split()],
  "memos from 0": [b"Np-1\n.", b"Np99999999999999999999\n."],
  "64 bits": [b"\x8a\x10" + b"\x7f" * 16 + b"."],
  "digits": [b"L" + b"9" * 5000 + b"L\n."],
  "expected 4611686018427387904 bytes": [b"\x8e" + b"\0" * 7 + b"\x40"],
  "expected 4294967295 bytes": [b"X\xff\xff\xff\xffx.", b"B\xff\xff\xff\xffx."],
  "bytes, came -1": [b"T\xff\xff\xff\xffx."],
  "unknown opcode 255": [b"\xff."],
  "4 bytes more": [b"](Ne.more"],
  "objects of shape (1,)": [b"](NNe.", b"N.", b"N" + b"r\xff\xff\xff\xff."],
}


def test_the_parts_of_the_cases_above_make_an_array(tmp_path):
  came = read_npy(_npy(tmp_path / "x.npy", _row(_array(b"\x08", "u1"))))
  _assert_same(came, [np.full(8, ord("-"), np.uint8)])


@pytest.mark.parametrize(
  ("part", "content"),
  [(part, content) for part in HOSTILE for content in HOSTILE[part]],
)
def test_hostile_pickle(tmp_path, monkeypatch, part, content):
  """Refused, in memory that the file's size and the steps bound."""
  monkeypatch.setattr(pickled, "MAX_STEPS", 50_000)
  path = _npy(tmp_path / "x.npy", content)
  tracemalloc.start()
  _raises(path, part)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 10_000_000 + 10 * len(content)


# Fuzz.

PIECES = [NEW, _dtype("f4"), _array(), ARRAY, RECONSTRUCT, SCALAR, ENCODE]
PIECES += [_text("f4"), _text("latin1"), b"K\x00", b"(K\x01K\x02\x85", b"h\x00"]
PIECES += [b"C\x08" + b"\1" * 8, b"q\x00", b"](NNe", b"\x89", b"\x88", b"\x94"]
PIECES = 3 * PIECES + list(OPCODES.values())


def _try(path, content):
  """Reads a value or a ValueError, raised as one: nothing else in between."""
  try:
    came = read_npy(_npy(path, content, (4,)))
  except ValueError as error:
    came = [error.__cause__]
  repr([x.read() if isinstance(x, StoredArray) else x for x in came])


@FUZZ
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=4)))
def test_fuzz_of_opcodes(tmp_path, pieces):
  _try(tmp_path / "x.npy", b"".join(pieces) + b".")


def test_all_flips_and_cuts(tmp_path):
  rows = ["Diving", 0.5, (1, 2)], SMALL, TEXTS[:2], _objects("a", np.float64(1))
  for content in (
    pickle.dumps(_objects(*rows), 4),
    _python2(_objects(*rows), 2),
  ):
    for at in range(len(content)):
      flipped = bytearray(content)
      flipped[at] ^= 1 << at % 8
      _try(tmp_path / "x.npy", bytes(flipped))
      _try(tmp_path / "x.npy", content[:at])
