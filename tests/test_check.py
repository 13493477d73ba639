"""Tests of ptlr_jax.prepare --check: what it prints, and what it refuses."""

import json
import re

import numpy as np
import pytest
from basnet_fixture import edit_entry, read_root, write_basnet
from layout_fixture import (
  CLASSES,
  WRITERS,
  joined,
  save,
  tiny_splits,
  write_actionformer,
  write_objects,
  write_own,
  write_wtalc,
)
from test_layouts import BAD

from ptlr_jax import prepare
from ptlr_jax.cli import command_line
from ptlr_jax.data.layouts import source
from ptlr_jax.runtime.errors import InputError


def _check(root, *flags):
  prepare.run_command(["prepare", "--check", f"--source={root}", *flags])


def _printed(capsys, root, *flags):
  """Lines printed, and the InputError there may be."""
  try:
    _check(root, *flags)
    error = None
  except InputError as came:
    error = came
  out, err = capsys.readouterr()
  assert err == ""
  return out.splitlines(), error


def _problems(lines):
  head = "problem: "
  return [line.removeprefix(head) for line in lines if line.startswith(head)]


@pytest.fixture(params=WRITERS)
def sound(request, tmp_path):
  return WRITERS[request.param](tmp_path, *tiny_splits(), CLASSES)


# A sound folder.


def test_a_sound_folder_is_described(sound, capsys):
  lines, error = _printed(capsys, sound)
  assert error is None
  assert lines[0].startswith(f"{sound}: found the layout")
  assert lines[-1] == "no problem: training can start"
  assert _problems(lines) == []
  for line in (
    # 4 x 8 segments of 0.64 s are 20.48 s.
    "train: 4 videos, 0.01 hours, 4 instances; labels a video (videos): 1 (4)",
    "test: 2 videos, 0.00 hours, 2 instances; labels a video (videos): 1 (2)",
    "classes: 2, 2 to 2 training videos each",
    "not finite: 0 of 12 streams of a video",
  ):
    assert line in lines
  (features,) = [line for line in lines if line.startswith("features: ")]
  assert features.startswith(
    "features: rgb and flow, width 4 (12), float32 (12), segments 8 to 8, "
    "median 8"
  )


def test_hours_labels_and_lengths_are_counted(tmp_path, capsys):
  """600 segments of 0.64 s are 384 s; two videos, 0.11 hours each."""
  train, test = tiny_splits()
  write_basnet(tmp_path, train, test, CLASSES)
  for video, length in zip(train, (600, 10, 20, 600), strict=True):
    for stream in ("rgb", "flow"):
      path = tmp_path / f"features/train/{stream}/{video.id}.npy"
      np.save(path, np.ones((length, 4), np.float16))
  both = [{"segment": ["1", "2"], "label": name} for name in CLASSES]
  edit_entry(tmp_path, "train0003", annotations=both)
  edit_entry(tmp_path, "test0001", annotations=[])
  lines, error = _printed(capsys, tmp_path)
  assert error is None
  for line in (
    "train: 4 videos, 0.22 hours, 5 instances; labels a video (videos): "
    "1 (3), 2 (1)",
    "test: 2 videos, 0.00 hours, 1 instances; labels a video (videos): "
    "0 (1), 1 (1)",
    "classes: 2, 2 to 3 training videos each",
  ):
    assert line in lines
  (features,) = [line for line in lines if line.startswith("features: ")]
  assert "float16 (8), float32 (4), segments 8 to 600, median 15" in features


def test_classes_without_a_training_video_are_named(tmp_path, capsys):
  write_basnet(tmp_path, *tiny_splits(), CLASSES)
  lines, error = _printed(capsys, tmp_path, "--classes=Diving,HighJump,Shotput")
  assert error is None
  assert (
    "classes: 3, 0 to 2 training videos each; without a training video: Shotput"
  ) in lines


def test_notes_are_printed(tmp_path, capsys):
  write_wtalc(tmp_path, *tiny_splits(), CLASSES)
  path = tmp_path / "Thumos14reduced-Annotations/labels_all.npy"
  write_objects(path, [list(CLASSES)] * 6)
  lines, _ = _printed(capsys, tmp_path)
  assert any(line.startswith("rule listed_labels: 6 videos") for line in lines)
  assert any(line.startswith("geometry: fps 25, stride 16") for line in lines)


def test_nothing_is_written(sound, capsys):
  before = sorted(sound.rglob("*"))
  _printed(capsys, sound)
  assert sorted(sound.rglob("*")) == before


@pytest.mark.parametrize("label", ["\ud800", "High\nJump", "High\u2028Jump"])
def test_a_label_of_any_text_is_printed_as_one_line(tmp_path, capsys, label):
  """Half of a character or a line break in a class name: lines stay lines."""
  write_basnet(tmp_path, *tiny_splits(), CLASSES)
  both = [{"segment": ["1", "2"], "label": name} for name in ("Diving", label)]
  edit_entry(tmp_path, "train0000", annotations=both)
  lines, error = _printed(capsys, tmp_path)
  heads = "/|rule |geometry: |train: |test: |classes: |features: |not finite: "
  heads += "|problem: |no problem: "
  assert not [line for line in lines if not re.match(heads, line)]
  assert error is None or _problems(lines)


# Ways out are flags of this command.


def _with_notes(root):
  """Folders whose notes name settings."""
  train, test = tiny_splits()
  write_wtalc(root / "wtalc", train, test, CLASSES)
  path = root / "wtalc/Thumos14reduced-Annotations/labels_all.npy"
  write_objects(path, [list(CLASSES)] * 6)
  write_actionformer(
    root / "actionformer", train, test, CLASSES, subsets=("training", "val")
  )
  path = root / "actionformer/annotations/thumos14.json"
  said = json.loads(path.read_text())
  said["database"]["test0001"]["subset"] = "testing"
  path.write_text(json.dumps(said))
  write_own(root / "own", train, test, CLASSES, form="single")
  return [root / "wtalc", root / "actionformer", root / "own"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_notes_name_flags_of_this_command(tmp_path, capsys, which):
  root = _with_notes(tmp_path)[which]
  lines, error = _printed(capsys, root)
  assert error is None
  assert any("--" in line for line in lines)
  assert not [line for line in lines if "config.data" in line]


def test_a_way_out_works_as_it_is_printed(tmp_path, capsys):
  root = write_own(tmp_path, *tiny_splits(), CLASSES, form="single")
  lines, _ = _printed(capsys, root)
  (said,) = [x for line in lines for x in re.findall(r"--\S*streams=\S+", line)]
  flag = said.replace("--config.data.", "--").replace('"', "")
  lines, error = _printed(capsys, root, flag)
  assert error is None
  expected = "features: rgb and flow, width 4"
  assert any(line.startswith(expected) for line in lines)


@pytest.mark.parametrize("case", BAD)
def test_problems_name_flags_of_this_command(tmp_path, capsys, case):
  corrupt, _ = BAD[case]
  corrupt(write_basnet(tmp_path, *tiny_splits(), CLASSES))
  lines, error = _printed(capsys, tmp_path, "--layout=basnet")
  assert error is not None
  assert not [x for x in (*lines, *error.problems) if "config.data" in x]
  named = {x for line in lines for x in re.findall(r"--(\w+)", line)}
  assert named <= {*source.ReadOptions.__dataclass_fields__, "source"}


# All problems in one pass.


def test_five_faults_are_all_printed_at_once(tmp_path, capsys):
  train, test = tiny_splits()
  write_basnet(tmp_path, train, test, CLASSES)
  features = tmp_path / "features"
  (features / "train/rgb/train0001.npy").unlink()
  broken = np.ones((8, 4), np.float32)
  broken[3:5, 1] = np.nan
  np.save(features / "test/flow/test0000.npy", broken)
  np.save(features / "train/flow/train0002.npy", np.ones((9, 4), np.float32))
  np.save(features / "train/rgb/train0003.npy", np.ones((8, 5), np.float32))
  edit_entry(tmp_path, "test0001", subset="train")
  lines, error = _printed(capsys, tmp_path)
  problems = _problems(lines)
  assert len(problems) == 5
  for part in (
    "train0001.npy: expected a feature file, came no such file",
    "train0002.npy: expected 8 segments as rgb has, came 9",
    "train0003.npy: expected shape (T, 4), came (8, 5)",
    "in 2 of 8 segments, first in segment 3",
    "test0001: expected a subset of test",
  ):
    assert sum(part in line for line in problems) == 1, part
  assert "not finite: 1 of 11 streams of a video" in lines
  assert error is not None
  assert error.problems == (
    f"{tmp_path}: 5 problems, see above; training would refuse this data set",
  )
  assert "no problem: training can start" not in lines


def test_faults_of_labels_and_files_are_printed_at_once(tmp_path, capsys):
  """A label outside the classes beside a damaged file and a bad segment."""
  train, test = tiny_splits()
  write_own(tmp_path, train, test, CLASSES, table="labels.json")
  path = tmp_path / "labels.json"
  said = json.loads(path.read_text())
  said["database"]["train0001"]["annotations"][0]["segment"] = [2, 1]
  said["database"]["train0002"]["duration"] = "long"
  said["database"]["test0001"]["annotations"][0]["label"] = "HighJmup"
  path.write_text(json.dumps(said))
  (tmp_path / "features/rgb/test0000.npy").write_bytes(b"")
  (tmp_path / "geometry.json").write_text("{}}")
  lines, _ = _printed(capsys, tmp_path, "--classes=Diving,HighJump")
  problems = _problems(lines)
  parts = (
    "train0001",
    "train0002",
    "test0001",
    "test0000.npy",
    "geometry.json",
  )
  for part in parts:
    assert any(part in line for line in problems), part
  for part in parts[:2]:
    assert sum(part in line for line in problems) == 1, part


def test_more_than_twenty_problems_are_all_printed(tmp_path, capsys):
  write_basnet(tmp_path, *tiny_splits(), CLASSES)
  for path in tmp_path.rglob("*.npy"):
    path.write_bytes(b"\x93NUMPY")
  path = tmp_path / "split_test.txt"
  path.write_text(path.read_text() + "\n".join(f"x{n}" for n in range(30)))
  lines, error = _printed(capsys, tmp_path)
  assert len(_problems(lines)) == 12 + 30
  assert "42 problems" in str(error)


# It fails exactly where loading fails.


def _spoil(name, content=b""):
  return lambda root: (root / name).write_bytes(content)


def _array(name, x):
  return lambda root: save(root / name, x)


X = np.ones((8, 8), np.float32)
ROWS = [joined(v) for videos in tiny_splits() for v in videos]
WTALC = "Thumos14reduced-Annotations/"
JOINT = "Thumos14reduced-I3D-JOINTFeatures.npy"


def _objects(name, items):
  return lambda root: write_objects(root / name, items)


def _moved(name, to=""):
  def damage(root):
    if to:
      (root / name).rename(root / to)
    else:
      (root / name).unlink()

  return damage


def _json(change, name="annotations/thumos14.json"):
  """Changes the database of a JSON file."""

  def damage(root):
    said = json.loads((root / name).read_text())
    change(said["database"])
    (root / name).write_text(json.dumps(said))

  return damage


def _all(**changes):
  return _json(lambda d: [entry.update(changes) for entry in d.values()])


LATE = [{"segment": [1, 50], "label": "Diving"}]
FAULTS = {
  "acmnet": {
    "empty file": _spoil("train/train0001.npy"),
    "integers": _array("train/train0001.npy", X.astype(int)),
    "half floats": _array("train/train0001.npy", X.astype("f2")),
    "order": _array("train/train0001.npy", np.asfortranarray(X)),
    "odd width": _array("test/test0001.npy", X[:, :7]),
    "other width": _array("test/test0001.npy", X[:, :6]),
    "one segment": _array("test/test0001.npy", X[:1]),
    "no segment": _array("test/test0001.npy", X[:0]),
    "infinity": _array("test/test0001.npy", X * np.inf),
    "no entry": _json(lambda d: d.update(test0001=1), "gt.json"),
    "unused": _array("test/other.npy", X),
  },
  "wtalc": {
    "empty row": _objects(JOINT, [*ROWS[:5], X[:0]]),
    "few rows": _objects(JOINT, ROWS[:5]),
    "text row": _objects(JOINT, [*ROWS[:5], "x"]),
    "one array": _array(JOINT, np.stack(ROWS)),
    "a number": _array(JOINT, np.float32(1)),
    "labels": _objects(WTALC + "labels.npy", [["Diving"]] * 5),
    "a label": _array(WTALC + "labels.npy", np.array(1)),
    "durations": _array(WTALC + "duration.npy", np.full(6, 500.0)),
    "no durations": _array(WTALC + "duration.npy", np.full(6, np.nan)),
    "a duration": _array(WTALC + "duration.npy", np.array(5.12)),
    "ambiguous": _spoil(WTALC + "Ambiguous_test.txt", b"test0001 1"),
  },
  "actionformer": {
    "overrun": _json(lambda d: d["test0001"].update(annotations=LATE)),
    "no subset": _json(lambda d: d["test0001"].pop("subset")),
    "durations": _all(duration=50),
    "no durations": _all(duration=None),
  },
  "own": {
    "no table": _moved("labels.csv"),
    "table": _spoil("labels.csv", b"video,label\ntrain0000,Diving\n"),
    "no label": _spoil("labels.csv", b"video,label\n"),
    "geometry": _spoil("geometry.json", b'{"fps": 50, "stride": 32}'),
    "wrong geometry": _spoil("geometry.json", b'{"fps": 50}'),
    "missing": _moved("features/rgb/test0000.npy"),
  },
  "video_features": {
    "missing": _moved("test0000_rgb.npy"),
    "renamed": _moved("test0000_rgb.npy", "labels"),
    "objects": _objects("test0000_rgb.npy", ["a"]),
  },
}
CASES = [(layout, name) for layout, each in FAULTS.items() for name in each]


def _same_as_loading(capsys, root, layout):
  """That the same problems stop both, each with its own way to name flags."""
  lines, error = _printed(capsys, root, f"--layout={layout}")
  try:
    read_root(root, layout)
    loading = ()
  except InputError as came:
    loading = came.problems
  assert (error is not None) == bool(loading)
  said = [p.replace("--config.data.root", "--source") for p in loading]
  said = [p.replace("--config.data.", "--") for p in said]
  assert _problems(lines) == said
  assert ("no problem: training can start" in lines) == (not loading)


@pytest.mark.parametrize("layout", WRITERS)
def test_it_fails_nowhere_where_loading_works(tmp_path, capsys, layout):
  root = WRITERS[layout](tmp_path, *tiny_splits(), CLASSES)
  _same_as_loading(capsys, root, layout)


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_it_fails_exactly_where_loading_fails(tmp_path, capsys, layout, name):
  root = WRITERS[layout](tmp_path, *tiny_splits(), CLASSES)
  FAULTS[layout][name](root)
  _same_as_loading(capsys, root, layout)


@pytest.mark.parametrize("case", BAD)
def test_it_fails_on_what_loading_of_basnet_refuses(tmp_path, capsys, case):
  write_basnet(tmp_path, *tiny_splits(), CLASSES)
  BAD[case][0](tmp_path)
  _same_as_loading(capsys, tmp_path, "basnet")


def test_the_exit_status_is_2_where_there_are_problems(
  tmp_path, capsys, monkeypatch
):
  root = write_own(tmp_path, *tiny_splits(), CLASSES)
  (root / "features/rgb/test0000.npy").unlink()
  argv = ["prepare", "--check", f"--source={root}"]
  monkeypatch.setattr("sys.argv", argv)
  with pytest.raises(SystemExit) as caught:
    command_line.execute(
      prepare.run_command, prepare.__doc__ or "", prepare.USAGE
    )
  assert caught.value.code == 2
  out, err = capsys.readouterr()
  assert "problem: " in out
  assert "1 problem" in err
  assert "Traceback" not in err


# Flags.


@pytest.mark.parametrize(
  "flag",
  [
    "--streams=rgb,rgb",
    "--video_labels=labels_all",
    "--fps=-25",
    "--stride=nan",
    "--window=-16",
    "--offset=-1",
    "--layout=nothing",
    "--no_such_flag=1",
    "--width=-4",
  ],
)
@pytest.mark.parametrize("layout", WRITERS)
def test_an_impossible_flag_is_refused(tmp_path, capsys, layout, flag):
  root = WRITERS[layout](tmp_path, *tiny_splits(), CLASSES)
  lines, error = _printed(capsys, root, flag)
  assert error is not None
  name = flag[2:].partition("=")[0]
  assert any(name in line for line in (*_problems(lines), *error.problems))


@pytest.mark.parametrize("streams", ["flow", "rgb,flow", "flow,rgb"])
@pytest.mark.parametrize("layout", WRITERS)
def test_streams_are_a_list(tmp_path, capsys, layout, streams):
  root = WRITERS[layout](tmp_path, *tiny_splits(), CLASSES)
  lines, error = _printed(capsys, root, f"--streams={streams}")
  assert error is None
  names = "rgb and flow" if "," in streams else "flow"
  expected = f"features: {names}, width 4"
  assert any(line.startswith(expected) for line in lines)


def test_without_a_look_at_the_numbers_none_are_called_finite(tmp_path, capsys):
  root = write_own(tmp_path, *tiny_splits(), CLASSES)
  save(root / "features/rgb/test0000.npy", np.full((8, 4), np.nan))
  lines, error = _printed(capsys, root, "--nocheck_finite")
  assert error is None
  assert not [line for line in lines if line.startswith("not finite: 0")]


def test_a_folder_is_needed():
  with pytest.raises(InputError, match="--source: expected a folder"):
    prepare.run_command(["prepare", "--check"])


@pytest.mark.parametrize("source", [True, False])
def test_the_simulated_set_is_refused_or_checked(tmp_path, capsys, source):
  """--layout=simulated is no crash, with a folder or without."""
  root = tmp_path if source else ""
  lines, error = _printed(capsys, root, "--layout=simulated")
  assert error is None or "simulated" in str(error)
  assert error or any(line.startswith("train: 60 videos") for line in lines)
