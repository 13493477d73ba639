"""Tests of ptlr_jax.data.files.pickled: pickles are followed, never run."""

import builtins
import contextlib
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptlr_jax.data.files.arrays import StoredArray, stored_npy
from ptlr_jax.data.files.pickled import read_npy

SHARED = Path(__file__).parents[2] / "shared" / "data"
THUMOS14 = SHARED / "thumos14_wtalc" / "Thumos14reduced-Annotations"
ACTIVITYNET = SHARED / "activitynet13" / "wtalc_annotations"
FUZZ = settings(
  derandomize=True,
  deadline=None,
  max_examples=200,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PROTOCOLS = (0, 1, 2, 3, 4)  # np.save of NumPy 2 writes 4, of NumPy 1 3 or 2
SMALL = np.arange(6, dtype=np.float32).reshape(2, 3)
LARGE = np.arange(3000, dtype=np.float32).reshape(1000, 3)


def _header(file, shape, descr="|O"):
  fields = {"descr": descr, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(file, fields)


def _file(path, content: bytes, shape=(1,)):
  """An .npy file of objects with any bytes as its pickle."""
  with open(path, "wb") as file:
    _header(file, shape)
    file.write(content)
  return path


def _save(path, items, protocol=4, shape=None):
  """An .npy file of objects, as np.save writes it."""
  x = np.empty(len(items), object)
  x[:] = items
  x = x.reshape(shape or (-1,))
  return _file(path, pickle.dumps(x, protocol), x.shape)


def _tried(path, read=read_npy):
  """What a file holds, or the ValueError of one line that it leads to."""
  try:
    return read(path)
  except ValueError as error:
    return error


def _raises(path, *parts, read=read_npy):
  error = _tried(path, read)
  assert type(error) is ValueError
  assert isinstance(error.__cause__, ValueError)
  assert len(str(error)) <= 300
  assert str(error).isprintable()
  for part in parts:
    assert part in str(error)


def _in_memory(x):
  return x.read() if isinstance(x, StoredArray) else x


# Real files.


@pytest.mark.skipif(not THUMOS14.is_dir(), reason="needs shared/data")
def test_thumos14():
  x = {p.stem: read_npy(p) for p in sorted(THUMOS14.glob("*.npy"))}
  assert len(x) == 9
  assert {len(rows) for name, rows in x.items() if name != "classlist"} == {412}
  is_test = x["subset"] == b"test"
  count = [
    sum(len(x["segments"][i]) for i in np.flatnonzero(is_test == t))
    for t in (False, True)
  ]
  assert count == [3007, 3358]
  assert x["segments"][0][0] == [67.5, 75.9]
  assert x["labels"][0] == ["Billiards"] * len(x["segments"][0])
  pairs = zip(x["labels"], x["segments"], strict=True)
  assert all(len(labels) == len(segments) for labels, segments in pairs)


@pytest.mark.skipif(not ACTIVITYNET.is_dir(), reason="needs shared/data")
def test_activitynet():
  x = {p.stem: read_npy(p) for p in sorted(ACTIVITYNET.glob("*.npy"))}
  assert len(x.pop("classlist")) == 200
  assert {len(rows) for rows in x.values()} == {13912}
  assert x["labels"][0] == ["Tennis serve with ball bouncing"]
  assert x["segments"][0] == [[0.9283416536661465, 12.28571294851794]]


# Round trips.


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i8", "u1", "?"])
def test_arrays(tmp_path, dtype, order, protocol):
  large = np.arange(9000).reshape(90, 100) % 7
  items = [x.astype(dtype, order=order) for x in (large, large[:2, :3])]
  path = _save(tmp_path / "x.npy", [*items, items[0][:0]], protocol)
  for came, x in zip(read_npy(path), [*items, items[0][:0]], strict=True):
    for y in (
      (_in_memory(came), came.map())
      if protocol > 2 and x is items[0]
      else (_in_memory(came),)
    ):
      assert y.dtype == x.dtype
      np.testing.assert_array_equal(y, x, strict=True)


VALUES = {
  "lists": [[[0.5, 1.5], [2.0, 1e300]], [], [[-0.0, float("inf")]]],
  "labels": [["Diving", "HighJump"], ["é", "日本"], [""]],
  "integers": [0, -1, 255, 65536, -(2**31), 2**40, 2**63],
  "constants": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
  "bytes": [b"", b"Diving", bytes(range(256))],
  "dicts": [{}, {"a": 1}, {"a": [1], "b": {"c": (2.5,)}}],
  "long text": ["x" * 5000, "é" * 4096, b"\xff" * 5000, ["y" * 4096]],
  "long text in tuples": [("x" * 5000, b"y" * 5000), {b"z" * 5000: "x" * 5000}],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", VALUES)
def test_plain_values(tmp_path, case, protocol):
  values = VALUES[case]
  came = read_npy(_save(tmp_path / "x.npy", values, protocol))
  assert came == values
  assert repr(came) == repr(values)  # True is not 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars(tmp_path, protocol):
  scalars = [
    np.float64(0.1),
    np.float32(0.5),
    np.int64(-3),
    np.bool_(True),
    np.str_("Diving é"),
    np.str_(""),
    np.bytes_(b"Diving"),
    np.bytes_(b""),
    np.str_("x" * 5000),
  ]
  came = read_npy(_save(tmp_path / "x.npy", [scalars, scalars[1]], protocol))
  assert came == [[s.item() for s in scalars], 0.5]
  assert [type(x) for x in came[0]] == [type(s.item()) for s in scalars]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nested_arrays(tmp_path, protocol):
  segments = np.empty(2, object)
  segments[:] = [np.array([["a"], [None]], object), np.array(["b", "cd"])]
  came = read_npy(_save(tmp_path / "x.npy", [segments, [segments]], protocol))
  assert came[0][0] == [["a"], [None]]
  np.testing.assert_array_equal(came[0][1], ["b", "cd"])
  assert came[1][0] is came[0]  # as it was


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_arrays_of_text_are_read(tmp_path, protocol):
  items = [np.array(["Diving", "é"] * 500), np.array([b"Diving"] * 1000)]
  came = read_npy(_save(tmp_path / "x.npy", items, protocol))
  for x, y in zip(items, came, strict=True):
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, x, strict=True)


@pytest.mark.parametrize("order", "CF")
def test_objects_of_several_axes(tmp_path, order):
  x = np.array([["a", "b", "c"], ["d", "e", "f"]], object, order=order)
  path = _file(tmp_path / "x.npy", pickle.dumps(x, 4), x.shape)
  assert read_npy(path) == [["a", "b", "c"], ["d", "e", "f"]]


@pytest.mark.parametrize("shape", [(), (2, 0)])
def test_objects_without_a_list(tmp_path, shape):
  x = np.empty(shape, object)
  path = _file(tmp_path / "x.npy", pickle.dumps(x, 4), shape)
  _raises(path, "objects along an axis", f"came shape {shape}")


def test_objects_of_no_rows(tmp_path):
  for shape in ((0,), (0, 3)):
    x = np.empty(shape, object)
    path = _file(tmp_path / "x.npy", pickle.dumps(x, 4), shape)
    assert read_npy(path) == []


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_module_names_of_numpy_1_and_2(tmp_path, module):
  x = np.empty(2, object)
  x[:] = [SMALL, np.float64(0.5)]
  content = pickle.dumps(x, 2)
  assert b"cnumpy._core.multiarray" in content
  content = content.replace(b"numpy._core", module.encode())
  array, scalar = read_npy(_file(tmp_path / "x.npy", content, (2,)))
  np.testing.assert_array_equal(array, SMALL, strict=True)
  assert scalar == 0.5


def test_protocol_5_is_refused(tmp_path):
  path = _save(tmp_path / "x.npy", [SMALL], 5)
  _raises(path, "_frombuffer", "never run", "save it again")


def _string(raw: bytes) -> bytes:
  """SHORT_BINSTRING or BINSTRING, a str of Python 2."""
  n = len(raw)
  return (b"U" + bytes([n]) if n < 256 else b"T" + struct.pack("<i", n)) + raw


def _python2(shape, raw: bytes, dtype=b"f4", order=b"<"):
  """What Python 2 writes for an array: raw data and names are str."""
  return b"".join(
    [
      b"cnumpy.core.multiarray\n_reconstruct\nq\x01",
      b"cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03",
      b"(K\x01(",
      *(b"M" + struct.pack("<H", n) for n in shape),
      b"tcnumpy\ndtype\nq\x04" + _string(dtype) + b"K\x00K\x01\x87Rq\x05",
      b"(K\x03" + _string(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff",
      b"K\x00tb\x89" + _string(raw) + b"tb",
    ]
  )


def _python2_objects(*items: bytes):
  list_ = b"](" + b"".join(items) + b"e"
  array = _python2([len(items)], b"", b"O8", b"|")
  assert array.endswith(b"U\x00tb")
  return b"\x80\x02" + array[: -len(b"U\x00tb")] + list_ + b"tb."


def test_python_2(tmp_path):
  text = _string(b"\xe9" * 5000)
  content = _python2_objects(
    _python2(SMALL.shape, SMALL.tobytes()),
    _python2(LARGE.shape, LARGE.tobytes()),
    _python2(SMALL.shape, SMALL.astype(">f4").tobytes(), order=b">"),
    _string(b"Diving"),
    text,
    b"X\x02\x00\x00\x00\xc3\xa9",
    b"I4294967296\n",
    b"I01\n",
  )
  came = read_npy(_file(tmp_path / "x.npy", content, (8,)))
  np.testing.assert_array_equal(came[0], SMALL, strict=True)
  assert isinstance(came[1], StoredArray)
  np.testing.assert_array_equal(came[1].map(), LARGE, strict=True)
  np.testing.assert_array_equal(came[2], SMALL)
  assert came[3:] == ["Diving", "é" * 5000, "é", 2**32, True]


# What stays on disk.


@pytest.mark.parametrize("protocol", [3, 4])
def test_large_arrays_stay_on_disk(tmp_path, protocol):
  large = np.asfortranarray(LARGE)
  path = _save(tmp_path / "x.npy", [SMALL, LARGE, large], protocol)
  small, c, fortran = read_npy(path)
  content = path.read_bytes()
  assert isinstance(small, np.ndarray)
  assert c == StoredArray(
    path, content.index(LARGE.tobytes()), (1000, 3), np.dtype("f4")
  )
  assert c.nbytes == 12000
  assert fortran.fortran
  assert fortran.offset == content.index(large.tobytes("F"))
  for stored in (c, fortran):
    assert isinstance(stored.map(), np.memmap)
    assert not stored.map().flags.writeable
    np.testing.assert_array_equal(stored.map(), LARGE, strict=True)
    np.testing.assert_array_equal(stored.read(), LARGE, strict=True)


def test_a_file_larger_than_memory(tmp_path):
  """200 GB, of which the disk holds the ends: a file with a hole."""
  n = 50_000_000_000
  raw = b"B\x80\x40\x00\x00" + b"\0" * 0x4080
  content = pickle.dumps(_objects(np.zeros(0x1020, np.float32)), 3)
  assert raw in content
  head, tail = content.split(raw)
  shape = b"M\x20\x10\x85"
  assert head.count(shape) == 1
  head = head.replace(shape, b"\x8a\x08" + struct.pack("<q", n) + b"\x85")
  path = _file(tmp_path / "x.npy", head + b"\x8e" + struct.pack("<Q", 4 * n))
  with open(path, "r+b") as file:
    file.seek(4 * n, os.SEEK_END)
    try:
      file.write(tail)
    except OSError:
      pytest.skip("the file system holds no files of 200 GB")
  (array,) = read_npy(path)
  assert (array.shape, array.nbytes) == ((n,), 4 * n)
  assert array.map()[-1] == 0


def _objects(*items):
  x = np.empty(len(items), object)
  x[:] = items
  return x


# Plain .npy files.


@pytest.mark.parametrize(
  "x",
  [
    SMALL,
    LARGE,
    np.asfortranarray(LARGE),
    np.float64(3),
    SMALL[:0],
    np.array(["Diving", "é"]),
    np.array([b"Diving"]),
    np.array([True]),
  ],
  ids=lambda x: f"{x.dtype}{x.shape}",
)
def test_plain_npy(tmp_path, x):
  path = tmp_path / "x.npy"
  np.save(path, x)
  stored = stored_npy(path)
  assert stored is not None
  assert stored.offset + stored.nbytes == path.stat().st_size
  for y in (stored.map(), stored.read(), read_npy(path)):
    np.testing.assert_array_equal(y, np.asarray(x), strict=True)


def test_header_of_python_2(tmp_path):
  path = tmp_path / "x.npy"
  np.save(path, SMALL)
  path.write_bytes(path.read_bytes().replace(b"(2, 3), ", b"(2L, 3L),"[:9], 1))
  content = path.read_bytes()
  # One byte more in the header: take a space from its end.
  path.write_bytes(content.replace(b" \n", b"\n", 1))
  np.testing.assert_array_equal(read_npy(path), SMALL)


def _npy(path, shape, descr="<f4", data=b""):
  with open(path, "wb") as file:
    _header(file, shape, descr)
    file.write(data)
  return path


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
  path = _npy(tmp_path / "x.npy", shape, descr, b"\0" * size)
  _raises(path, *parts, read=stored_npy)
  _raises(path, *parts)


def test_npy_of_a_later_version(tmp_path):
  path = _npy(tmp_path / "x.npy", (6,), data=SMALL.tobytes())
  np.testing.assert_array_equal(read_npy(path), SMALL.ravel())
  path.write_bytes(path.read_bytes().replace(b"Y\x01", b"Y\x03", 1))
  _raises(path, "version 1.0 or 2.0", "(3, 0)")


def test_text_that_is_no_unicode(tmp_path):
  data = np.array([65, 0x110000], np.uint32).tobytes()
  _raises(_npy(tmp_path / "x.npy", (2,), "<U1", data), "Unicode")


def test_other_failures_are_the_file_systems(tmp_path):
  for read in (read_npy, stored_npy):
    with pytest.raises(FileNotFoundError):
      read(tmp_path / "none.npy")
    with pytest.raises(IsADirectoryError):
      read(tmp_path)
  assert stored_npy(_save(tmp_path / "x.npy", [1])) is None


# Hostile pickles.


class _Calls:
  """Pickles as a call of a function."""

  def __init__(self, function, *args):
    self._call = (function, args)

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("nested", [False, True])
def test_calls_are_refused_and_not_run(tmp_path, nested, protocol):
  ran = tmp_path / "ran"
  code = f"open({str(ran)!r}, 'w')"
  calls = {
    ".system": _Calls(os.system, f"touch {ran}"),
    ".eval": _Calls(eval, code),
    ".exec": _Calls(builtins.exec, code),
    ".getattr": _Calls(getattr, Path, "touch"),
    "Path": _Calls(Path, str(ran)),
  }
  if protocol >= 4:
    calls["Path.touch"] = _Calls(Path.touch, ran)
  for name, call in calls.items():
    item = [_objects([call])] if nested else call
    path = _save(tmp_path / "x.npy", ["first", item], protocol)
    if name == "Path.touch":
      _raises(path, "pathlib.", "never run")
    else:
      _raises(path, f"{name}," if name[0] == "." else name, "never run")
    assert not ran.exists()


def _text(value: str) -> bytes:
  return b"\x8c" + bytes([len(value)]) + value.encode()


ARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
F4 = b"cnumpy\ndtype\n" + _text("f4") + b"K\x00K\x01\x87R(K\x03" + _text("<")
F4 += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"
NEW = RECONSTRUCT + ARRAY + b"K\x00\x85C\x01b\x87R"


def _state(
  shape=b"K\x02\x85", dtype=F4, order=b"\x89", raw=b"C\x08" + b"\0" * 8
):
  return NEW + b"(K\x01" + shape + dtype + order + raw + b"tb"


def test_the_parts_of_the_cases_below_make_an_array(tmp_path):
  (x,) = read_npy(_file(tmp_path / "x.npy", b"](" + _state() + b"e."))
  np.testing.assert_array_equal(x, np.zeros(2, np.float32), strict=True)


HOSTILE = {
  "inst": (b"(S'true'\nios\nsystem\n.", "INST os system"),
  "obj": (b"(cos\nsystem\nS'true'\no.", "os.system"),
  "obj of a known name": (b"(" + ARRAY + b"K\x01o.", "OBJ"),
  "newobj": (ARRAY + b")\x81.", "NEWOBJ"),
  "newobj_ex": (ARRAY + b")}\x92.", "NEWOBJ_EX"),
  "persid": (b"Psecret\n.", "PERSID secret"),
  "binpersid": (b"K\x01Q.", "BINPERSID"),
  "ext1": (b"\x82\x01.", "EXT1"),
  "ext2": (b"\x83\x01\x00.", "EXT2"),
  "ext4": (b"\x84\x01\x00\x00\x00.", "EXT4"),
  "next_buffer": (b"\x97.", "NEXT_BUFFER"),
  "readonly_buffer": (b"K\x01\x98.", "READONLY_BUFFER"),
  "bytearray8": (b"\x96" + struct.pack("<Q", 1) + b"x.", "BYTEARRAY8"),
  "set": (b"\x8f.", "EMPTY_SET"),
  "frozenset": (b"(\x91.", "FROZENSET"),
  "dotted": (_text("numpy") + _text("dtype.fromkeys") + b"\x93.", "dtype.from"),
  "dotted module": (_text("builtins") + _text("bytes.join") + b"\x93.", "join"),
  "no name": (b"]]\x93.", "the name of a global"),
  "names in a list": (b"](cos\nsystem\ne.", "os.system"),
  "a class": (b"cptlr_jax.data.files.arrays\nStoredArray\n.", "StoredArray"),
  "matrix": (RECONSTRUCT + b"cnumpy\nmatrix\n.", "numpy.matrix"),
  "loads": (b"c_pickle\nloads\n.", "_pickle.loads"),
  "frombuffer": (b"cnumpy.core.numeric\n_frombuffer\n.", "_frombuffer"),
  "control characters": (b"cos\x1b[31m\nsystem\n.", "os?[31m.system"),
  "codec": (
    b"c_codecs\nencode\n" + _text("x") + _text("hex") + b"\x86R.",
    "enc",
  ),
  "bytes of a number": (b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.", "bytes"),
  "call of a list": (b"])R.", "no function"),
  "ndarray itself": (ARRAY + b"K\x02\x85\x85R.", "ndarray"),
  "symbol as a value": (b"](" + ARRAY + b"e.", "NDARRAY"),
  "symbol in a tuple": (b"](" + ARRAY + b"\x85e.", "the arguments of a call"),
  "symbol as the result": (ARRAY + b".", "NDARRAY"),
  "dtype as a value": (F4 + b".", "float32"),
  "structured": (
    b"cnumpy\ndtype\n" + _text("V8") + b"K\x00K\x01\x87R.",
    "dtype V8",
  ),
  "fields": (
    F4.replace(b"NNN", b"N" + _text("a") + b"\x85}") + b".",
    "the state of float32",
  ),
  "fields of dtypes": (
    F4.replace(b"NNN", b"NN}" + _text("a") + F4 + b"s") + b".",
    "came a pickle of float32",
  ),
  "another size": (
    F4.replace(b"<NNNJ\xff\xff\xff\xff", b"<NNNK\x08") + b".",
    "size",
  ),
  "time": (b"cnumpy\ndtype\n" + _text("M8") + b"K\x00K\x01\x87R.", "dtype M8"),
  "dtype by words": (
    b"cnumpy\ndtype\n" + _text("f4,f4") + b"K\x00K\x01\x87R.",
    "f4,f4",
  ),
  "scalar too short": (SCALAR + F4 + b"C\x01x\x86R.", "one float32, came 1"),
  "object scalar": (
    SCALAR + F4.replace(b"f4", b"O8") + b"C\x08" + b"\1" * 8 + b"\x86R.",
    "scalar",
  ),
  "objects from bytes": (
    b"]("
    + _state(dtype=F4.replace(b"f4", b"O8"), raw=b"C\x10" + b"\1" * 16)
    + b"e.",
    "2 values of object",
  ),
  "too few bytes": (_state(b"K\x03\x85") + b".", "3 values", "came 8 bytes"),
  "too many bytes": (_state(b"K\x01\x85") + b".", "1 values", "came 8 bytes"),
  "negative shape": (
    _state(b"J\xfe\xff\xff\xffJ\xff\xff\xff\xff\x86") + b".",
    "0 or more",
  ),
  "huge shape": (
    _state(b"K\x00\x8a\x08" + b"\xff" * 7 + b"\x7f\x86", raw=b"C\x00") + b".",
    "fits into memory",
  ),
  "shape of text": (_state(_text("ab")) + b".", "a shape"),
  "shape of bools": (_state(b"\x88\x85") + b".", "a shape"),
  "no state": (NEW + b"Nb.", "the state of an array"),
  "no raw data": (_state(raw=b"N") + b".", "raw data"),
  "no Unicode": (
    _state(dtype=F4.replace(b"f4", b"U1"), raw=b"C\x08" + b"\x7f" * 8) + b".",
    "no Unicode",
  ),
  "overlong": (b"P" + b"x" * 1000 + b"\n.", "PERSID xxx"),
  "order": (_state(order=b"K\x01") + b".", "order"),
  "array in itself": (
    NEW
    + b"\x94(K\x01K\x01\x85"
    + F4.replace(b"f4", b"O8")
    + b"\x89](h\x00etb.",
    "inside itself",
  ),
  "array in a tuple in itself": (
    NEW
    + b"\x94(K\x01K\x01\x85"
    + F4.replace(b"f4", b"O8")
    + b"\x89](h\x00\x85etb.",
    "inside itself",
  ),
  "list in itself": (b"]q\x00(h\x00h\x00h\x00h\x00e.", "in one another"),
  "deep": (b"](" * 30_000 + b"e" * 30_000 + b".", "in one another"),
  "deep tuple": (b")" + b"\x85" * 30_000 + b".", "in one another"),
  "deep tuple as a key": (b"})" + b"\x85" * 30_000 + b"Ns.", "text as keys"),
  "doubled": (b"]" + b"2\x86" * 19 + b".", None),
  "tenfold": (
    b"K\x01"
    + b"".join(b"q\x00(" + b"h\x00" * 10 + b"t" for _ in range(9))
    + b".",
    "in one another",
  ),
  "key": (b"}]Ns.", "text as keys"),
  "odd dict": (b"(Nd.", "a value for each key"),
  "underflow": (b"0.", "a mark"),
  "underflow of a call": (b"NR.", "a value"),
  "append to none": (b"NNa.", "a list"),
  "build of a list": (b"]}b.", "to build"),
  "memo": (b"h\x05.", "a memo to get"),
  "negative memo": (b"Np-1\n.", "memos from 0"),
  "huge memo": (b"Np99999999999999999999\n.", "memos from 0"),
  "large memo": (b"Nr\xff\xff\xff\xffj\xff\xff\xff\xff.", None),
  "huge number": (b"\x8b\x10\x00\x00\x00" + b"\x7f" * 16 + b".", "64 bits"),
  "many digits": (b"L" + b"9" * 5000 + b"L\n.", "digits"),
  "long length": (b"\x8e" + struct.pack("<Q", 2**62) + b"x.", "bytes, came"),
  "negative length": (b"T\xff\xff\xff\xffx.", "string4 byte count < 0"),
  "no end": (b"](NN", "exhausted"),
  "no opcode": (b"\xff.", "unknown"),
  "nothing": (b"", "exhausted"),
  "more": (b"](Ne.more", "4 bytes more"),
  "another length": (b"](NNe.", "objects of shape (1,)"),
  "no list": (b"N.", "objects of shape (1,)"),
  "bad escape": (b"c\\d\n\\d\n.", "never run"),
}


@contextlib.contextmanager
def _at_most(calls):
  """Fails what makes more calls in Python, at the first that is too many."""
  left = calls

  def count(frame, event, arg):
    nonlocal left
    left -= event.endswith("call")
    assert left >= 0, f"more than {calls} calls"

  before = sys.getprofile()
  sys.setprofile(count)
  try:
    yield
  finally:
    sys.setprofile(before)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickle(tmp_path, case):
  """Refused, after work that the file's size bounds."""
  content, *parts = HOSTILE[case]
  path = _file(tmp_path / "x.npy", content)
  if parts == [None]:  # harmless: what it asks for, which is no list
    parts = ["a pickle of something else"]
  with _at_most(10_000 + 50 * len(content)):
    _raises(path, *parts)


def test_copies_are_counted(tmp_path):
  """A megabyte, or a thousand values, asked for a thousand times."""
  text = b"X" + struct.pack("<I", 10**6) + b"x" * 10**6 + b"\x940"
  encode = b"c_codecs\nencode\nh\x00" + _text("latin1") + b"\x86R0"
  _raises(_file(tmp_path / "x.npy", text + encode * 1000 + b"N."), "multiplies")
  items = b"](" + b"N" * 1000 + b"e\x940" + F4.replace(b"f4", b"O8") + b"\x940"
  build = NEW + b"(K\x01M\xe8\x03K\x01\x86h\x01\x89h\x00tb0"
  _raises(_file(tmp_path / "x.npy", items + build * 1000 + b"N."), "multiplies")


def test_copied_scalars_are_counted(tmp_path):
  dtype = F4.replace(b"\x02f4", b"\x05S4000").replace(b"<", b"|")
  raw = b"B" + struct.pack("<I", 4000) + b"x" * 4000 + b"\x940"
  content = dtype + b"\x94" + raw
  assert b"\x05S4000" in dtype
  content += (SCALAR + b"h\x00h\x01\x86R") * 1000 + b"."
  _raises(_file(tmp_path / "x.npy", content), "multiplies")


def test_shared_lists_are_no_copies(tmp_path):
  shared = [[0.5, 1.5]] * 10
  came = read_npy(_save(tmp_path / "x.npy", [shared] * 10_000))
  assert came == [shared] * 10_000


# Fuzz.

VALID = pickle.dumps(
  _objects(
    [["Diving", 0.5, {"a": (1, 2)}], np.float64(1)],
    SMALL,
    np.array(["a", "é"]),
    _objects("nested", None),
  ),
  4,
)
VALID_2 = _python2_objects(
  _python2(SMALL.shape, SMALL.tobytes()),
  _string(b"Diving"),
  b"K\x01",
  b"G" + b"\0" * 8,
)
LONG = pickle.dumps(_objects(LARGE, "x" * 5000, b"y" * 5000, 1), 3)
OPCODES = [bytes([i]) for i in b"().012FGIJKLMNPQRSTUVXabcdeghijloprstu}]q"]
OPCODES += [bytes([i]) for i in range(0x80, 0x99)]
PIECES = [NEW, F4, _state(), ARRAY, RECONSTRUCT, SCALAR, _text("f4"), b"K\x00"]
PIECES += [
  b"(K\x01K\x02\x85",
  b"C\x08" + b"\1" * 8,
  b"q\x00",
  b"h\x00",
  b"](NNe",
]
PIECES += [b"c_codecs\nencode\n", _text("latin1"), b"\x89", b"\x88", b"\x94"]


def _try(path, content):
  """Reads a value or a ValueError, raised as one: nothing else in between."""
  came = _tried(_file(path, content, (4,)))
  if isinstance(came, ValueError):
    assert isinstance(came.__cause__, ValueError)
  else:
    repr([_in_memory(x) for x in came])


@FUZZ
@given(st.data())
def test_fuzz_of_valid_pickles(tmp_path, data):
  content = bytearray(data.draw(st.sampled_from([VALID, VALID_2, LONG])))
  size = len(content) - 1
  offsets = st.integers(0, size) | st.integers(0, 300)
  for at in data.draw(st.lists(offsets, max_size=3)):
    content[min(at, size)] ^= 1 << data.draw(st.integers(0, 7))
  end = data.draw(st.just(size + 1) | st.integers(0, size))
  _try(tmp_path / "x.npy", bytes(content[:end]))


@FUZZ
@given(st.lists(st.sampled_from(OPCODES + 3 * PIECES) | st.binary(max_size=4)))
def test_fuzz_of_opcodes(tmp_path, pieces):
  _try(tmp_path / "x.npy", b"".join(pieces) + b".")


@FUZZ
@given(st.binary(max_size=200), st.integers(0, 128), st.booleans())
def test_fuzz_of_headers(tmp_path, noise, at, is_plain):
  path = tmp_path / "x.npy"
  if is_plain:
    np.save(path, SMALL)
  else:
    _file(path, VALID, (4,))
  content = path.read_bytes()
  path.write_bytes(content[:at] + noise + content[at + len(noise) :])
  for read in (stored_npy, read_npy):
    _tried(path, read)


def test_all_single_flips(tmp_path):
  for content in (VALID, VALID_2):
    for at in range(0, len(content), 2):
      flipped = bytearray(content)
      flipped[at] ^= 1 << at // 2 % 8
      _try(tmp_path / "x.npy", bytes(flipped))
