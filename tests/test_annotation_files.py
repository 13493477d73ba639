"""Tests of ptlr_jax.data.files.annotations."""

import json
from pathlib import Path

import pytest

from ptlr_jax.data.files import annotations
from ptlr_jax.data.files.annotations import (
  Entry,
  parse_entry,
  parse_event,
  splits_by_subset,
)
from ptlr_jax.data.files.label_tables import read_entries, read_label_table
from ptlr_jax.data.files.text import (
  canonical_id,
  is_file_name,
  read_database,
  read_ids,
)

SHARED = Path(__file__).parents[2] / "shared"
# A name of the 11 characters that YouTube's have.
YOUTUBE = "a-B_c1d2E3f"


def _write(tmp_path, name, content):
  path = tmp_path / name
  content = content if isinstance(content, str) else json.dumps(content)
  path.write_text(content)
  return path


def _sound(read, *args):
  """What is read, without a problem."""
  problems = []
  found = read(*args, problems)
  assert not problems
  return found


def _one(read, *args, said=()):
  """What is read in spite of one problem, a line with all of `said`."""
  problems = []
  found = read(*args, problems)
  (line,) = problems
  assert len(line.splitlines()) == 1
  assert not [part for part in said if part not in line], line
  return found


# Ids.


@pytest.mark.parametrize(
  ("raw", "canonical"),
  [
    (f"v_{YOUTUBE}", YOUTUBE),
    (YOUTUBE, YOUTUBE),
    ("v_-----------", "-----------"),
    ("v_0123456789", "v_0123456789"),  # ten characters
    ("v_0123456789ab", "v_0123456789ab"),  # twelve
    ("v_0123456789\u00e9", "v_0123456789\u00e9"),  # not of YouTube's
    (f"v_v_{YOUTUBE[2:]}", f"v_{YOUTUBE[2:]}"),  # once, and not twice
    (f"v_{YOUTUBE}\n", f"v_{YOUTUBE}\n"),
    (f"V_{YOUTUBE}", f"V_{YOUTUBE}"),
    ("video_test_0000004", "video_test_0000004"),
    ("", ""),
  ],
)
def test_canonical_ids_lack_activitynets_prefix(raw, canonical):
  assert canonical_id(raw) == canonical


@pytest.mark.parametrize(
  "video_id",
  [
    *("", ".", "..", "../up", "a/b", "a\\b", "a\0b", "a\nb", "a\tb", 'a"b'),
    *(" a", "a ", "a\x1b[0m", "x" * 201, "\u00e9" * 101, "\u2028"),
  ],
)
def test_what_is_no_name_of_a_file(video_id):
  assert not is_file_name(video_id)


@pytest.mark.parametrize(
  "video_id", ["a", "video_test_0000004", "-x", "x" * 200, "a b.c", "\u00e9"]
)
def test_what_is_a_name_of_a_file(video_id):
  assert is_file_name(video_id)


def test_read_ids_takes_a_line_each(tmp_path):
  text = f"\ufeffone\r\n\r\n  two \nv_{YOUTUBE}\n"
  path = _write(tmp_path, "split_train.txt", text)
  assert _sound(read_ids, path, "train") == ["one", "two", YOUTUBE]
  kept = read_ids(path, "train", [], str)
  assert kept == ["one", "two", f"v_{YOUTUBE}"]


@pytest.mark.parametrize(
  ("text", "ids", "said"),
  [
    ("", [], ("one video id a line", "empty file", "the train ids")),
    ("\n \n", [], ("empty file",)),
    ("a\n../b\n", ["a"], ("can be a file's name", "'../b'")),
    ("a\nb\na\na\n", ["a", "b"], ("every id once", "came a 3 times")),
    (f"{YOUTUBE}\nv_{YOUTUBE}\n", [YOUTUBE], (f"{YOUTUBE} 2 times",)),
  ],
)
def test_read_ids_names_what_is_wrong(tmp_path, text, ids, said):
  path = _write(tmp_path, "split_train.txt", text)
  assert _one(read_ids, path, "train", said=(str(path), *said)) == ids


def test_a_split_file_that_is_not_there(tmp_path):
  said = ("none.txt", "no such file", "--config.data.root=")
  assert _one(read_ids, tmp_path / "none.txt", "test", said=said) == []
  assert _one(read_ids, tmp_path, "test", said=("directory",)) == []


# Databases.


def test_read_database(tmp_path):
  database = {f"v_{YOUTUBE}": {"subset": "train"}, "b": 7}
  path = _write(tmp_path, "gt.json", {"version": 1, "database": database})
  found = _sound(read_database, path)
  assert found == {YOUTUBE: {"subset": "train"}, "b": 7}
  assert read_database(path, [], str) == database


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("{", ("came no JSON", "line 1")),
    ("[" * 100_000, ("came no JSON", "recursion")),
    ("[1]", ("came list",)),
    ('{"results": 1}', ("came ['results']",)),
    ('{"database": [1]}', ("came ['database']",)),
    (
      '{"database": {"a": 1, "b": 2, "a": 3}}',
      ("came the key 'a' twice", "leave one of them"),
    ),
    (
      '{"database": {"a": {"annotations": [], "annotations": []}}}',
      ("came the key 'annotations' twice",),
    ),
    ('{"database": {}, "database": {"a": 1}}', ("the key 'database' twice",)),
  ],
)
def test_read_database_names_what_is_wrong(tmp_path, text, said):
  path = _write(tmp_path, "gt.json", text)
  said = (f"{path}: expected", "database", *said)
  assert _one(read_database, path, said=said) == {}


@pytest.mark.parametrize(
  ("ids", "kept", "said"),
  [
    ((YOUTUBE, f"v_{YOUTUBE}"), YOUTUBE, "with and without v_"),
    (("a", "a/b"), "a", "can be a file's name, came 'a/b'"),
    (("a", ""), "a", "can be a file's name, came ''"),
  ],
)
def test_read_database_refuses_ids(tmp_path, ids, kept, said):
  content = {"database": {i: n for n, i in enumerate(ids)}}
  path = _write(tmp_path, "gt.json", content)
  assert _one(read_database, path, said=(str(path), said)) == {kept: 0}


def _segment(start, end, label):
  return {"segment": [start, end], "label": label}


def test_parse_entry():
  raw = {
    "subset": "Validation",
    "duration": "12.5",
    "fps": 29.97,
    "url": "https://example.org",
    "annotations": [
      _segment("3", "4.5", "b"),
      _segment(1, 2, "b"),
      _segment(1, 2, "a"),
      _segment(0.5, 0.5, "a"),
    ],
  }
  assert _sound(parse_entry, "x", "gt.json: x", raw) == Entry(
    "x",
    "gt.json: x",
    "validation",
    ((0.5, 0.5, "a"), (1, 2, "a"), (1, 2, "b"), (3, 4.5, "b")),
    (),
    12.5,
    29.97,
  )


@pytest.mark.parametrize(
  ("raw", "entry"),
  [
    ({"annotations": []}, Entry("x", "w")),
    ([_segment(0, 1, "a")], Entry("x", "w", events=((0, 1, "a"),))),
    ({"labels": ["b", "a", "b"]}, Entry("x", "w", labels=("a", "b"))),
    ({"labels": "a"}, Entry("x", "w", labels=("a",))),
    (
      {"labels": ["b"], "annotations": [_segment(0, 1, "a")]},
      Entry("x", "w", events=((0, 1, "a"),), labels=("b",)),
    ),
    ({"annotations": [], "duration_second": 3}, Entry("x", "w", duration=3)),
    (
      {"annotations": [], "duration": 2, "duration_second": 3},
      Entry("x", "w", duration=2),
    ),
    ({"annotations": [], "duration": None, "fps": None}, Entry("x", "w")),
  ],
)
def test_parse_entry_in_other_forms(raw, entry):
  assert _sound(parse_entry, "x", "w", raw) == entry


@pytest.mark.parametrize(
  ("raw", "said"),
  [
    ({}, ('a list "annotations"', "came None")),
    ({"annotations": "a"}, ('a list "annotations"', "came 'a'")),
    (7, ('a list "annotations"', "came 7")),
    ([7], ("annotation 0", "a class name as label, came None")),
    ({"annotations": [], "subset": 3}, ("a subset's name, came 3",)),
    ({"annotations": [], "labels": ["a", 3]}, ("list of class names", "3]")),
    ({"annotations": [], "labels": [""]}, ("list of class names", "['']")),
    ({"annotations": [], "labels": {"a": 1}}, ("list of class names", "{'a'")),
    ({"annotations": [], "duration": 0}, ("a duration above 0, came 0",)),
    ({"annotations": [], "duration": "long"}, ("above 0, came 'long'",)),
    ({"annotations": [], "duration": True}, ("above 0, came True",)),
    ({"annotations": [], "duration": float("inf")}, ("above 0, came inf",)),
    (
      {"annotations": [], "duration": 10**400},
      ("duration above 0, came 1000",),
    ),
    ({"annotations": [], "duration": [1]}, ("above 0, came [1]",)),
    ({"annotations": [], "fps": -25}, ("a fps above 0, came -25",)),
    ({"annotations": [], "fps": float("nan")}, ("a fps above 0, came nan",)),
  ],
)
def test_parse_entry_names_what_is_wrong(raw, said):
  entry = _one(parse_entry, "x", "gt.json: x", raw, said=("gt.json: x", *said))
  read = (entry.id, entry.subset, entry.events, entry.labels)
  assert read == ("x", "", (), ())
  assert (entry.duration, entry.fps) == (None, None)


def test_parse_entry_goes_on_without_what_is_wrong():
  raw = {
    "annotations": [_segment(0, 1, "a"), _segment(2, 1, "a"), None],
    "duration": -1,
  }
  problems = []
  entry = parse_entry("x", "w", raw, problems)
  assert entry.events == ((0, 1, "a"),)
  assert [p.partition(" expected")[0] for p in problems] == [
    *("w: annotation 1:", "w: annotation 2:", "w:"),
  ]


@pytest.mark.parametrize(
  ("segment", "label", "said"),
  [
    ([0, 1], "", "a class name as label, came ''"),
    ([0, 1], 3, "a class name as label, came 3"),
    ([1], "a", "two finite numbers, came [1]"),
    ([1, 2, 3], "a", "two finite numbers"),
    (["1", "two"], "a", "two finite numbers"),
    ([False, True], "a", "two finite numbers"),
    ([0, [1]], "a", "two finite numbers"),
    ([0, 10**400], "a", "two finite numbers"),
    ({"0": 1, "1": 2}, "a", "two finite numbers"),
    ("12", "a", "two finite numbers, came '12'"),
    (None, "a", "two finite numbers, came None"),
    ([0, float("nan")], "a", "two finite numbers"),
    (["0", "inf"], "a", "two finite numbers"),
    ([-0.5, 1], "a", "starts at 0 s or later"),
    (["2", "1.5"], "a", "ends at its start or later"),
  ],
)
def test_parse_event_names_what_is_wrong(segment, label, said):
  where = "gt.json: x: annotation 0"
  said = (f"{where}: expected ", said, "; correct it")
  assert _one(parse_event, where, segment, label, said=said) is None


def test_activitynets_official_annotations_are_sound():
  path = SHARED / "data" / "activitynet13" / "val_gt.json"
  if not path.is_file():
    pytest.skip(f"{path} is not here")
  entries = _sound(read_entries, path)
  assert sum(len(entry.events) for entry in entries.values()) == 7654
  database = _sound(read_database, path)
  assert entries == {
    i: _sound(parse_entry, i, f"{path}: {i}", raw)
    for i, raw in database.items()
  }


# Tables of labels.


def _table(tmp_path, *lines):
  return _write(tmp_path, "labels.csv", "".join(f"{x}\n" for x in lines))


def test_a_table_of_one_label_a_line(tmp_path):
  path = _table(tmp_path, "video,label", "x,b", "y,a", "", "x,a", "x,b", " , ")
  assert _sound(read_label_table, path) == {
    "x": Entry("x", f"{path}: x", labels=("a", "b")),
    "y": Entry("y", f"{path}: y", labels=("a",)),
  }


def test_a_table_of_several_labels_a_line(tmp_path):
  path = _write(
    tmp_path,
    "labels.csv",
    '\ufeff Video , LABELS,subset\r\nx, b | a|,Train\r\n"y,1",,test\r\n',
  )
  assert _sound(read_label_table, path) == {
    "x": Entry("x", f"{path}: x", "train", labels=("a", "b")),
    "y,1": Entry("y,1", f"{path}: y,1", "test"),
  }


def test_a_table_of_segments(tmp_path):
  path = _table(
    tmp_path,
    "video,start,end,label,duration,fps",
    "x,3,4.5,b,20,25",
    "x,1,2,a|b,20,",
    "x,,,c,,25",
    "y,,,,9,",
  )
  assert _sound(read_label_table, path) == {
    "x": Entry(
      "x",
      f"{path}: x",
      events=((1, 2, "a"), (1, 2, "b"), (3, 4.5, "b")),
      labels=("a", "b", "c"),
      duration=20,
      fps=25,
    ),
    "y": Entry("y", f"{path}: y", duration=9),
  }


@pytest.mark.parametrize(
  ("lines", "said"),
  [
    ((), ("columns video and label", "came ''", "first line")),
    (("x,b", "y,a"), ("columns video and label", "came 'x,b'")),
    (("video,class", "x,b"), ("columns video and label", "'video,class'")),
    (("label", "b"), ("columns video and label",)),
    (("video,label,tiou", "x,b,1"), ("subset, start, end", "label,tiou'")),
    (("video,label", 'x,"b'), ("comma-separated values",)),
    (("video,label", 'x,"b"c'), ("line 2", "comma-separated values")),
  ],
)
def test_a_table_that_cannot_be_read(tmp_path, lines, said):
  path = _table(tmp_path, *lines)
  assert _one(read_label_table, path, said=(str(path), *said)) == {}


HEADER = "video,label,start,end,subset,duration,fps"


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ("x,b", ("line 3", "expected 7 columns, came 2")),
    ("x,b,1,2,train,9,25,", ("line 3", "expected 7 columns, came 8")),
    (",b,,,,,", ("line 3", "can be a file's name, came ''")),
    ("../x,b,,,,,", ("line 3", "can be a file's name, came '../x'")),
    ("x,,1,2,,,", ("line 3", "expected a label, came none; add it")),
    ("x,b,1,,,,", ("x: annotation 0", "two finite numbers")),
    ("x,b,,2,,,", ("x: annotation 0", "two finite numbers")),
    ("x,b,one,2,,,", ("x: annotation 0", "two finite numbers")),
    ("x,b,-1,2,,,", ("x: annotation 0", "starts at 0 s or later")),
    ("x,b,2,1,,,", ("x: annotation 0", "ends at its start or later")),
    ("x,b,,,,0,", ("x: expected a duration above 0, came '0'",)),
    ("x,b,,,,,fast", ("x: expected a fps above 0, came 'fast'",)),
    ("y,a,,,test,,", ("line 3", "subset train as in a line before", "test")),
    ("y,a,,,,8,", ("line 3", "the duration 9 as in a line before, came 8")),
    ("y,a,,,,,30", ("line 3", "the fps 25 as in a line before, came 30")),
  ],
)
def test_a_line_of_a_table_that_is_wrong(tmp_path, line, said):
  path = _table(tmp_path, HEADER, "y,a,,,train,9,25", line)
  found = _one(read_label_table, path, said=(str(path), *said))
  labels = ("a",)
  assert found["y"] == Entry("y", f"{path}: y", "train", (), labels, 9, 25)


def test_a_table_that_is_not_there(tmp_path):
  said = ("none.csv", "no such file")
  assert _one(read_label_table, tmp_path / "none.csv", said=said) == {}


# Entries in any form.


def test_ids_of_a_table_are_canonical_as_those_of_json_are(tmp_path):
  path = _table(tmp_path, "video,label", f"v_{YOUTUBE},a", f"{YOUTUBE},b")
  entry = Entry(YOUTUBE, f"{path}: {YOUTUBE}", labels=("a", "b"))
  assert _sound(read_entries, path) == {YOUTUBE: entry}
  found = read_entries(path, [], str)
  assert found.keys() == {f"v_{YOUTUBE}", YOUTUBE}


@pytest.mark.parametrize("name", ["labels.csv", "labels.CSV"])
def test_read_entries_of_a_table(tmp_path, name):
  path = _write(tmp_path, name, "video,label\nx,a\n")
  entry = Entry("x", f"{path}: x", labels=("a",))
  assert _sound(read_entries, path) == {"x": entry}


def test_read_entries_of_labels(tmp_path):
  content = {"x": ["b", "a"], "y": "a", f"v_{YOUTUBE}": []}
  path = _write(tmp_path, "labels.json", content)
  entries = {
    "x": Entry("x", f"{path}: x", labels=("a", "b")),
    "y": Entry("y", f"{path}: y", labels=("a",)),
    YOUTUBE: Entry(YOUTUBE, f"{path}: {YOUTUBE}"),
  }
  problems = []
  assert read_entries(path, problems) == entries, problems
  assert not problems
  assert read_entries(path, [], str).keys() == content.keys()


@pytest.mark.parametrize("wrapped", [True, False])
def test_read_entries_of_annotations(tmp_path, wrapped):
  content = {
    "x": {"subset": "train", "annotations": [_segment(0, 1, "a")]},
    "y": [_segment(0, 2, "b")],
    "z": {"labels": ["c"], "duration": 4},
  }
  content = {"database": content} if wrapped else content
  path = _write(tmp_path, "gt.json", content)
  assert _sound(read_entries, path) == {
    "x": Entry("x", f"{path}: x", "train", ((0, 1, "a"),)),
    "y": Entry("y", f"{path}: y", "", ((0, 2, "b"),)),
    "z": Entry("z", f"{path}: z", labels=("c",), duration=4),
  }


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("", ("came no JSON",)),
    ("[1]", ("came list",)),
    ('"x"', ("came str",)),
    ('{"x": ["a"], "x": ["b"]}', ("the key 'x' twice",)),
    ('{"../x": ["a"]}', ("can be a file's name, came '../x'",)),
  ],
)
def test_read_entries_names_what_is_wrong(tmp_path, text, said):
  path = _write(tmp_path, "labels.json", text)
  assert _one(read_entries, path, said=(f"{path}: expected", *said)) == {}


@pytest.mark.parametrize(
  ("raw", "said"),
  [
    (7, 'a list "annotations", came 7'),
    (["a", 3], "annotation 0: expected a class name"),
    ({"labels": 3}, '"labels" to be a list of class names, came 3'),
  ],
)
def test_read_entries_names_the_entry_that_is_wrong(tmp_path, raw, said):
  path = _write(tmp_path, "labels.json", {"x": raw, "y": "a"})
  problems = []
  found = read_entries(path, problems)
  assert found["y"].labels == ("a",)
  assert problems[0].startswith(f"{path}: x: ")
  assert said in problems[0]


# Subsets.


@pytest.mark.parametrize(
  ("subsets", "train", "test"),
  [
    (("training", "validation", "testing"), "training", "validation"),
    (("Training", "Validation"), "training", "validation"),
    (("train", "val", "test"), "train", "val"),
    (("train", "test"), "train", "test"),
    (("training", "testing"), "training", "testing"),
    (("validation", "test"), "validation", "test"),
    (("val", "testing"), "val", "testing"),
    (("train",), "train", ""),
    (("validation",), "", "validation"),
    (("test",), "", "test"),
    (("", "other"), "", ""),
    ((), "", ""),
  ],
)
def test_splits_by_custom(subsets, train, test):
  assert splits_by_subset(subsets) == {"train": train, "test": test}


def test_splits_by_name():
  subsets = ("training", "validation", "testing")
  assert splits_by_subset(subsets, test="Testing") == {
    "train": "training",
    "test": "testing",
  }
  assert splits_by_subset(("fold-1", "fold-2"), "fold-1", "fold-2") == {
    "train": "fold-1",
    "test": "fold-2",
  }
  for split, names in annotations.SUBSETS.items():
    assert {name.lower() for name in names} == set(names), split
