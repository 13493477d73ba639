"""Fuzzed files: reading gives a data set or an InputError, and nothing else.

Nor does it give a wrong record in silence: what was not damaged is unchanged.
"""

import io
import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from basnet_fixture import read_root
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layout_fixture import (
  ALL_COLUMNS,
  CLASSES,
  WRITERS,
  Videos,
  joined,
  tiny_splits,
  write_objects,
  write_own,
  write_wtalc,
)

from ptlr_jax.data.dataset import Dataset
from ptlr_jax.runtime.errors import InputError

FILES = {  # one of each kind
  "basnet": (
    *("gt.json", "split_test.txt"),
    "features/train/rgb/train0001.npy",
  ),
  "acmnet": ("gt.json", "split_train.txt", "test/test0001.npy"),
  "wtalc": (
    "Thumos14reduced-I3D-JOINTFeatures.npy",
    *(
      f"Thumos14reduced-Annotations/{name}"
      for name in (
        *("videoname.npy", "subset.npy", "classlist.npy", "duration.npy"),
        *("labels.npy", "labels_all.npy", "segments.npy"),
        "Ambiguous_test.txt",
      )
    ),
  ),
  "actionformer": (
    *("annotations/thumos14.json", "i3d_features/test0001.npy"),
    "geometry.json",
  ),
  "video_features": ("labels.csv", "train0001_flow.npy"),
  "own": ("labels.csv", "features/rgb/test0001.npy", "geometry.json"),
}
CASES = [(layout, name) for layout, names in FILES.items() for name in names]
ARRAYS = [case for case in CASES if "wtalc" not in case and ".npy" in case[1]]
DATABASES = [
  ("basnet", "gt.json"),
  ("acmnet", "gt.json"),
  ("actionformer", "annotations/thumos14.json"),
  ("own", "labels.json"),
]


def _fuzz(examples: int) -> settings:
  return settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=examples,
    suppress_health_check=[
      HealthCheck.too_slow,
      HealthCheck.data_too_large,
      HealthCheck.filter_too_much,
    ],
  )


class Folder(NamedTuple):
  """A small sound data set, and what is in it."""

  root: Path
  layout: str
  contents: dict[str, bytes]
  videos: Videos

  def read_with(self, name: str, content: bytes) -> Dataset | None:
    """The data set with another file, or None where it is refused."""
    path = self.root / name
    path.write_bytes(content)
    try:
      return _read(self.root, self.layout)
    finally:
      if name in self.contents:
        path.write_bytes(self.contents[name])
      else:
        path.unlink()


def _read(root: Path, layout: str) -> Dataset | None:
  """What is read, or None and sound lines that say why nothing is."""
  try:
    found = read_root(root, layout)
  except InputError as error:
    lines, found = error.problems, None
  else:
    lines = found.notes
  assert lines
  for line in lines:
    assert line.strip()
    assert len(line.splitlines()) == 1, repr(line)
    line.encode()  # no half of a character
  return found


def _assert_sound(found: Dataset, videos: Videos, damaged: str) -> None:
  """Shapes and labels that fit, and features that were not damaged."""
  written = {video.id: video for video in videos}
  assert found.train
  ids = [video.id for video in (*found.train, *found.test)]
  assert len(ids) == len(set(ids))
  assert all(video.labels for video in found.train)
  for video in (*found.train, *found.test):
    assert all(0 <= c < len(found.classes) for c in video.labels)
    assert all(
      0 <= start <= end and np.isfinite(end) and 0 <= c < len(found.classes)
      for start, end, c in video.instances
    )
    g = video.geometry
    assert g.fps > 0
    assert g.stride > 0
    assert np.isfinite([g.seconds_per_segment, g.start]).all()
    assert set(video.features) == {"rgb", "flow"}
    for stream, x in video.features.items():
      assert x.ndim == 2
      assert len(x) == video.num_segments
      assert np.isfinite(x).all()
      if video.id not in written or video.id in damaged:
        continue
      whole = written[video.id].features[stream]
      np.testing.assert_array_equal(x, whole, strict=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """{layout: Folder}; every test leaves them as they were."""
  train, test = tiny_splits()
  found = {}
  for layout, write in WRITERS.items():
    root = write(tmp_path_factory.mktemp(layout), train, test, CLASSES)
    for name in FILES[layout]:
      if name == "geometry.json":
        (root / name).write_text('{"fps": 25, "stride": 16, "window": 16}')
      if name.endswith("Ambiguous_test.txt"):
        (root / name).write_text("test0000  0.0 1.4\r\ntest0001  3.0 4.5\r\n")
    paths = [path for path in root.rglob("*") if path.is_file()]
    contents = {str(p.relative_to(root)): p.read_bytes() for p in paths}
    found[layout] = Folder(root, layout, contents, (*train, *test))
    assert _read(root, layout) is not None
  return found


@st.composite
def _damaged(draw, content: bytes) -> bytes:
  """Bytes with a flipped bit, a cut, a strange or a repeated piece."""
  at = draw(st.integers(0, max(len(content) - 1, 0)))
  if draw(st.booleans()):  # where headers and annotations begin
    at = min(at, draw(st.integers(0, 200)))
  match draw(st.sampled_from(("bit", "cut", "bytes", "repeat", "insert"))):
    case "bit" if content:
      flipped = content[at] ^ 1 << draw(st.integers(0, 7))
      return content[:at] + bytes([flipped]) + content[at + 1 :]
    case "cut":
      return content[:at]
    case "bytes":
      some = draw(st.binary(min_size=1, max_size=12))
      return content[:at] + some + content[at + len(some) :]
    case "repeat":
      length = draw(st.integers(1, 300))
      return content[: at + length] + content[at:]
    case _:
      some = draw(st.binary(min_size=1, max_size=12))
      return content[:at] + some + content[at:]


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_damaged_bytes_are_read_or_refused(folders, layout, name):
  folder = folders[layout]

  @given(_damaged(folder.contents[name]))
  @_fuzz(50)
  def fuzz(content):
    found = folder.read_with(name, content)
    if found is not None:
      # wtalc's features are all in one file.
      inside = "JOINTFeatures" in name
      ids = " ".join(video.id for video in folder.videos)
      _assert_sound(found, folder.videos, ids if inside else name)

  fuzz()


# JSON with other values, keys and forms.

DEEP = 400
ODD = (
  *(None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, 10**400, 2**64),
  *(float("nan"), float("inf"), "", " ", "nan", "1e999", "1_0", "١"),
  *("a/b", "..", "x\ny", "x\u2028y", "\x00", "\ud800", "é", "e\u0301"),
  *("Diving", "HighJump", "train", "test", "validation", "v_abcdefghijk"),
  *("x" * 300, [], {}, [[]], [1], [1, 2], [2, 1], ["1", "2"], [1, 2, 3]),
  *([None, None], ["Diving"], {"database": {}}, {"segment": [1, 2]}),
)


def _deep(levels: int) -> Any:
  value: Any = 1
  for _ in range(levels):
    value = [value]
  return value


def _places(value: Any) -> list[tuple[Any, Any]]:
  """Every (container, key) of a JSON value."""
  keys: Any = []
  if isinstance(value, dict):
    keys = list(value)
  elif isinstance(value, list):
    keys = range(len(value))
  found = [(value, key) for key in keys]
  return found + [place for key in keys for place in _places(value[key])]


@st.composite
def _changed_json(draw, text: bytes) -> bytes:
  """A JSON text with one to three changes, in one of several encodings."""
  tree = json.loads(text)
  for _ in range(draw(st.integers(1, 3))):
    container, key = draw(st.sampled_from(_places(tree) or [({}, "x")]))
    odd = json.loads(json.dumps(draw(st.sampled_from(ODD))))
    what = draw(st.sampled_from(("value", "value", "deep", "drop", "key")))
    if key not in container and not isinstance(container, list):
      continue
    if what == "deep":
      container[key] = _deep(draw(st.integers(1, DEEP)))
    elif what == "drop":
      del container[key]
    elif what == "key" and isinstance(container, dict):
      container[odd if isinstance(odd, str) else str(odd)[:50]] = container.pop(
        key
      )
    else:
      container[key] = odd
  ascii_only = draw(st.booleans())
  changed = json.dumps(
    tree, ensure_ascii=ascii_only, indent=draw(st.sampled_from((None, 1)))
  )
  if draw(st.booleans()):
    changed = changed.replace("\n", "\r\n")
  if draw(st.integers(0, 5)) == 0:
    changed = "\ufeff" + changed
  if draw(st.integers(0, 5)) == 0:  # a key twice
    changed = changed.replace('"test0001"', '"test0000"')
  return changed.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(("layout", "name"), DATABASES)
def test_changed_json_is_read_or_refused(
  folders, tmp_path_factory, layout, name
):
  folder = folders[layout]
  if name not in folder.contents:
    train, test = tiny_splits()
    root = tmp_path_factory.mktemp("json")
    write_own(root, train, test, CLASSES, table=name)
    folder = folder._replace(root=root, contents={})
    folder.contents[name] = (root / name).read_bytes()

  @given(_changed_json(folder.contents[name]))
  @_fuzz(100)
  def fuzz(content):
    found = folder.read_with(name, content)
    if found is not None:
      _assert_sound(found, folder.videos, "")

  fuzz()


@pytest.mark.parametrize("levels", [100, 300, 600, 900, 950, 980, 1000, 5000])
@pytest.mark.parametrize(
  "key", ["annotations", "segment", "subset", "duration"]
)
@pytest.mark.parametrize(("layout", "name"), DATABASES[:1] + DATABASES[2:3])
def test_json_of_any_depth_is_refused(folders, layout, name, key, levels):
  """Lists in lists, up to where the reader of JSON gives up, and beyond."""
  said = json.loads(folders[layout].contents[name])
  entry = said["database"]["test0001"]
  place = entry["annotations"][0] if key == "segment" else entry
  place[key] = "DEEP"
  deep = "[" * levels + "]" * levels
  text = json.dumps(said).replace('"DEEP"', deep)
  assert folders[layout].read_with(name, text.encode()) is None


def test_a_key_twice_is_refused(folders):
  text = folders["basnet"].contents["gt.json"].decode()
  twice = text.replace('"test0001"', '"test0000"')
  assert folders["basnet"].read_with("gt.json", twice.encode()) is None
  twice = text.replace('"subset"', '"annotations": [], "subset"', 1)
  assert folders["basnet"].read_with("gt.json", twice.encode()) is None


GEOMETRIES = st.dictionaries(
  st.sampled_from(("fps", "stride", "window", "offset", "Fps", "")),
  st.sampled_from((*ODD, 1e-320, 1e-9, 1e9, 16, 25, 30, 4))
  | st.floats()
  | st.integers(),
)


@pytest.mark.parametrize("layout", ["actionformer", "own"])
def test_any_geometry_json_is_read_or_refused(folders, layout):
  folder = folders[layout]

  @given(GEOMETRIES)
  @_fuzz(150)
  def fuzz(said):
    found = folder.read_with("geometry.json", json.dumps(said).encode())
    if found is not None:
      _assert_sound(found, folder.videos, "")

  fuzz()


# Tables.

CELLS = st.sampled_from(
  (
    *("", " ", "train0000", "test0001", "Diving", "HighJump", "train", "test"),
    *("1", "2.5", "-1", "nan", "inf", "1e308", "1e999", "1_0", '"', '""', "|"),
    *("Diving|HighJump", "a/b", "..", "é", "x" * 300, "\x00", "\u2028", "\x0b"),
    *("'", ";", "5.12", "25", "v_abcdefghijk", "=1+1", "\ud7ff"),
  )
)


@st.composite
def _table(draw, text: bytes) -> bytes:
  """A CSV text with other cells, columns, ends of lines and encodings."""
  rows = [line.split(",") for line in text.decode().splitlines()]
  for _ in range(draw(st.integers(1, 3))):
    row = draw(st.sampled_from(rows))
    n = draw(st.integers(0, max(len(row) - 1, 0)))
    match draw(st.sampled_from(("cell", "cell", "cell", "add", "drop", "row"))):
      case "cell" if row:
        row[n] = draw(CELLS)
      case "add":
        row.insert(n, draw(CELLS))
      case "drop" if row:
        del row[n]
      case _:
        rows.insert(draw(st.integers(0, len(rows))), list(row))
  names = draw(st.sampled_from((None, ALL_COLUMNS.replace("start", "label"))))
  if names:
    rows[0] = names.split(",")
  end = draw(st.sampled_from(("\n", "\r\n", "\r", "\n\n")))
  mark = draw(st.sampled_from(("", "\ufeff")))
  encoding = draw(st.sampled_from(("utf-8", "utf-8", "utf-16")))
  return (mark + end.join(map(",".join, rows)) + end).encode(encoding)


@pytest.mark.parametrize("layout", ["own", "video_features"])
def test_changed_tables_are_read_or_refused(folders, layout):
  folder = folders[layout]

  @given(_table(folder.contents["labels.csv"]))
  @_fuzz(100)
  def fuzz(content):
    found = folder.read_with("labels.csv", content)
    if found is not None:
      _assert_sound(found, folder.videos, "")

  fuzz()


# Arrays: what comes back is what NumPy itself says of the file.

DTYPES = (
  *("f2", "f4", "f8", ">f4", ">f8", "i4", "u1", "?", "c8", "c16", "U3", "S3"),
  *("M8[s]", "V4", "f4,f4", "i8"),
)
SHAPES = (
  *((8, 8), (8, 4), (8, 2), (9, 8), (7, 4), (8, 3), (1, 8), (2, 4), (0, 8)),
  *((8, 0), (), (8,), (64,), (8, 2, 2), (8, 8, 1), (2000, 8)),
)


@st.composite
def _npy(draw) -> bytes:
  """An .npy file of some dtype, shape, order and version."""
  shape = draw(st.sampled_from(SHAPES))
  dtype = np.dtype(draw(st.sampled_from(DTYPES)))
  count = int(np.prod(shape))
  if dtype.names or dtype.kind == "V":
    x = np.zeros(shape, dtype)
  else:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      x = (np.arange(count) % 100).astype(dtype).reshape(shape)
  if draw(st.booleans()):
    x = np.asfortranarray(x)
  if draw(st.integers(0, 4)) == 0 and x.dtype.kind == "f" and x.size:
    x.flat[draw(st.integers(0, x.size - 1))] = draw(
      st.sampled_from((np.nan, np.inf, -np.inf))
    )
  file = io.BytesIO()
  version = draw(st.sampled_from(((1, 0), (2, 0), (3, 0))))
  np.lib.format.write_array(file, x, version)
  content = file.getvalue()
  match draw(st.integers(0, 9)):
    case 0:
      return content + b"\0"
    case 1:
      return content[:-1]
    case 2:  # a header of the same length that says something else
      shapes = [s for s in SHAPES if len(str(s)) == len(str(shape))]
      other = draw(st.sampled_from(shapes))
      return content.replace(str(shape).encode(), str(other).encode(), 1)
  return content


def _numpys(content: bytes) -> np.ndarray | None:
  """What NumPy loads of an .npy file without objects."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return np.load(io.BytesIO(content), allow_pickle=False)
  except Exception:
    return None


def _assert_as_numpy(folder: Folder, name: str, content: bytes) -> None:
  """That features of a damaged file are NumPy's, or refused."""
  found = folder.read_with(name, content)
  if found is None:
    return
  _assert_sound(found, folder.videos, name)
  whole = _numpys(content)
  assert whole is not None
  (video,) = [v for v in (*found.train, *found.test) if v.id in name]
  if "flow" in name or "rgb" in name:
    streams = {s: whole for s in ("rgb", "flow") if s in name}
  else:
    half = whole.shape[1] // 2
    streams = {"rgb": whole[:, :half], "flow": whole[:, half:]}
  for stream, x in streams.items():
    came = video.features[stream]
    np.testing.assert_array_equal(came, x, strict=True)


@pytest.mark.parametrize(("layout", "name"), ARRAYS)
def test_an_array_of_any_kind_is_numpys_or_refused(folders, layout, name):
  @given(_npy())
  @_fuzz(80)
  def fuzz(content):
    _assert_as_numpy(folders[layout], name, content)

  fuzz()


@pytest.mark.parametrize(("layout", "name"), ARRAYS)
def test_damaged_headers_are_numpys_or_refused(folders, layout, name):
  content = folders[layout].contents[name]
  head = content[:128]

  @given(_damaged(head))
  @_fuzz(50)
  def fuzz(damaged):
    _assert_as_numpy(folders[layout], name, damaged + content[128:])

  fuzz()


@pytest.mark.parametrize("size", [9_000, 20_000, 200_000])
@pytest.mark.parametrize("version", [1, 2])
def test_a_huge_header_is_read_or_refused(folders, size, version):
  layout, name = ARRAYS[0]
  content = folders[layout].contents[name]
  header = content[10:128].rstrip() + b" " * size + b"\n"
  length = (
    len(header).to_bytes(2 * version, "little")
    if (version == 2 or len(header) < 65536)
    else b"\xff\xff"
  )
  head = b"\x93NUMPY" + bytes([version, 0]) + length
  _assert_as_numpy(folders[layout], name, head + header + content[128:])


@pytest.mark.parametrize("name", FILES["wtalc"][:-1])
def test_any_array_in_the_place_of_another(folders, name):
  @given(_npy())
  @_fuzz(50)
  def fuzz(content):
    found = folders["wtalc"].read_with(name, content)
    if found is not None:
      videos = () if "JOINTFeatures" in name else folders["wtalc"].videos
      _assert_sound(found, videos, "")

  fuzz()


# Objects in the annotations of wtalc.

VALUES = st.recursive(
  st.sampled_from(
    (
      *(None, True, 1, -1, 2.5, float("nan"), float("inf"), 1e308, 2**63),
      *("", "Diving", "HighJump", "nothing", b"Diving", "x\ny", 1j),
      *(np.arange(2.0), np.zeros((0, 2)), np.float32(1), np.array("a")),
      *(np.arange(3000.0), np.arange(2) + 1j, np.array(1.0)),
    )
  ),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
  ),
  max_leaves=4,
)


def _rows(videos: Videos) -> dict[str, list[Any]]:
  """What the files of wtalc hold, by name, as objects."""
  labels = [[CLASSES[i.label] for i in v.instances] for v in videos]
  segments = [[[i.start, i.end] for i in v.instances] for v in videos]
  folder = "Thumos14reduced-Annotations"
  return {
    f"{folder}/labels.npy": labels,
    f"{folder}/labels_all.npy": labels,
    f"{folder}/segments.npy": segments,
    f"{folder}/videoname.npy": [video.id for video in videos],
    f"{folder}/subset.npy": ["validation"] * 4 + ["test"] * 2,
    f"{folder}/classlist.npy": list(CLASSES) * 3,
    f"{folder}/duration.npy": [5.12] * 6,
    "Thumos14reduced-I3D-JOINTFeatures.npy": [joined(v) for v in videos],
  }


@pytest.mark.parametrize("name", FILES["wtalc"][:-1])
def test_any_object_in_a_row_is_read_or_refused(folders, name):
  folder = folders["wtalc"]
  rows = _rows(folder.videos)[name]

  @given(st.integers(0, 5), VALUES, st.sampled_from((2, 4)))
  @_fuzz(50)
  def fuzz(row, value, protocol):
    changed = [*rows[:row], value, *rows[row + 1 :]]
    write_objects(folder.root / name, changed, protocol)
    found = folder.read_with(name, (folder.root / name).read_bytes())
    if found is not None:
      damaged = folder.videos[row].id if "JOINTFeatures" in name else ""
      _assert_sound(found, folder.videos, damaged)

  fuzz()


# Hostile pickles.


class Hostile:
  """Unpickling it makes a file."""

  def __init__(self, marker: Path, call=os.mkdir):
    self.marker, self.call = marker, call

  def __reduce__(self):
    return self.call, (str(self.marker),)


HOSTILE = [
  "Thumos14reduced-I3D-JOINTFeatures.npy",
  *(
    f"Thumos14reduced-Annotations/{name}.npy"
    for name in ("labels", "labels_all", "segments", "videoname", "duration")
  ),
]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
  ("call", "named"), [(os.mkdir, ".mkdir"), (eval, ".eval")]
)
def test_a_hostile_pickle_of_wtalc_is_refused_by_name(
  tmp_path, name, protocol, call, named
):
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  marker = tmp_path / "marker"
  rows: list[Any] = [Hostile(marker, call), *range(5)]
  write_objects(tmp_path / name, rows, protocol)
  with pytest.raises(InputError) as caught:
    read_root(tmp_path, "auto")
  lines = [p for p in caught.value.problems if str(tmp_path / name) in p]
  assert lines
  assert named in lines[0]
  assert "never run" in lines[0]
  assert not marker.exists()


@pytest.mark.parametrize(("layout", "name"), ARRAYS)
def test_objects_in_the_place_of_features_are_refused(folders, layout, name):
  folder = folders[layout]
  marker = folder.root / "marker"
  write_objects(folder.root / name, [Hostile(marker), np.ones((8, 8))])
  content = (folder.root / name).read_bytes()
  assert folder.read_with(name, content) is None
  assert not marker.exists()
