"""evaluation.columns: entries of files as columns, a line for each fault."""

import copy
import math

import numpy as np
import pytest
from evaluation_cases import detection, instance, random_case

from ptlr_jax.evaluation import columns

HUGE = 10**400
NAN, INF = math.nan, math.inf


def _read(entries, scored=True):
  problems = []
  found = columns.read_columns(entries, scored, "f.json", problems)
  return found, problems


def _rows(found):
  """As tuples, for comparison bit for bit."""
  return list(
    zip(
      found.video.tolist(),
      found.labels,
      found.start.tolist(),
      found.end.tolist(),
      found.score.tolist(),
      strict=True,
    )
  )


def _without_faults(entries, scored):
  return {
    video: [item for item in items if not _read({"v": [item]}, scored)[1]]
    for video, items in entries.items()
    if isinstance(items, list)
  }


def test_a_row_an_entry_in_the_order_of_the_file():
  found, problems = _read(
    {
      "b": [detection("Run", 1, 2.5, 3), detection("Jump", -1, -0.5, -7)],
      "none": [],
      "a": ({"label": "Run", "segment": (4, 4), "score": 0.1, "more": {}},),
    }
  )
  assert problems == []
  assert _rows(found) == [
    (0, "Run", 1.0, 2.5, 3.0),
    (0, "Jump", -1.0, -0.5, -7.0),
    (2, "Run", 4.0, 4.0, 0.1),
  ]
  assert found.video.dtype == np.int64
  for column in (found.start, found.end, found.score):
    assert column.dtype == np.float64


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("entries", [{}, {"v": []}, {"v": 3}, {"v": [3]}])
def test_nothing_that_is_sound_is_no_row(entries, scored):
  found, problems = _read(entries, scored)
  assert _rows(found) == []
  assert found.start.shape == found.end.shape == found.score.shape == (0,)
  assert len(problems) == int(3 in [*entries.values()] or entries == {"v": [3]})


def test_ground_truth_has_no_scores_and_numbers_may_be_text():
  entries = {"v": [instance("Jump", "67.5", " 8e1 "), instance("Run", 1, "2")]}
  found, problems = _read(entries, scored=False)
  assert problems == []
  assert _rows(found) == [
    (0, "Jump", 67.5, 80.0, 0.0),
    (0, "Run", 1.0, 2.0, 0.0),
  ]


@pytest.mark.parametrize("score", [0.7, "high", None, NAN])
def test_a_score_of_ground_truth_is_of_no_interest(score):
  entries = {"v": [{**instance("Jump", 1, 2), "score": score}]}
  found, problems = _read(entries, scored=False)
  assert problems == []
  assert _rows(found) == [(0, "Jump", 1.0, 2.0, 0.0)]
  # Nor beside an entry with a fault.
  again, problems = _read({**entries, "u": [None]}, scored=False)
  assert len(problems) == 1
  assert _rows(again) == _rows(found)


def test_numbers_of_numpy_are_numbers():
  item = detection("Jump", np.float32(0.5), np.int64(9), np.float64(0.25))
  found, problems = _read({"v": [item]})
  assert problems == []
  assert _rows(found) == [(0, "Jump", 0.5, 9.0, 0.25)]


NUMBERS = "a segment of two numbers in seconds, came "
PAIR = "a segment [start, end], came "
CLASS = "a class name as label, came "
SCORE = "a score that is a finite number, came "
OF_BOTH = {
  "label": {
    None: CLASS,
    "": CLASS,
    7: CLASS,
    True: CLASS,
    "two\nlines": CLASS,
    "\x00": CLASS,
    "\ud800": CLASS,
  },
  "segment": {
    None: PAIR,
    7: PAIR,
    "12": PAIR,
    (): PAIR,
    (1,): PAIR,
    (1, 2, 3): PAIR,
    ((1, 2),): PAIR,
    ((1, 2), (3, 4)): NUMBERS,
    (None, 2): NUMBERS,
    (False, True): NUMBERS,
    (0, HUGE): NUMBERS,
    (-HUGE, 0): NUMBERS,
    (NAN, 2): NUMBERS,
    (1, NAN): NUMBERS,
    (1, INF): NUMBERS,
    (-INF, 1): NUMBERS,
    (0, 1e9): NUMBERS,
    ("", "2"): NUMBERS,
    ("1", "nan"): NUMBERS,
    ("1", "inf"): NUMBERS,
    ("0x1", "2"): NUMBERS,
    ("1:02", "2:03"): NUMBERS,
    (2, 1): "a segment that does not end before its start, came ",
  },
}
FAULTS = [
  (scored, key, value, said)
  for scored in (False, True)
  for key, values in OF_BOTH.items()
  for value, said in values.items()
]
FAULTS += [
  (True, "segment", ("1", "2"), NUMBERS),
  (True, "segment", (1, "2"), NUMBERS),
]
FAULTS += [
  (True, "score", value, SCORE)
  for value in (None, NAN, INF, -INF, "0.9", "", True, (0.9,), HUGE)
]
FAULTS += [(False, "label", ("Jump",), CLASS), (True, "label", {}, CLASS)]


@pytest.mark.parametrize(
  ("scored", "key", "value", "said"),
  FAULTS,
  ids=[f"{s}-{k}-{v!a:.30}" for s, k, v, _ in FAULTS],
)
def test_a_fault_is_a_line_and_the_others_stay(scored, key, value, said):
  value = list(value) if isinstance(value, tuple) else value
  make = detection if scored else lambda *x: instance(*x[:3])
  broken = {**make("Jump", 0, 9, 0.5), key: value}
  entries = {"u": [make("Run", 1, 2, 0.1), broken], "v": [make("A", 3, 4, 0)]}
  found, problems = _read(entries, scored)
  (line,) = problems
  noun = "detection" if scored else "annotation"
  assert line.startswith(f"f.json: u: {noun} 1: expected {said}")
  assert line.endswith("; correct it")
  assert line.isprintable()
  assert len(line) < 200
  assert found.labels == ["Run", "A"]
  assert found.video.tolist() == [0, 1]


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("item", [None, 7, True, "label", [], [1, 2], 0.5])
def test_an_entry_that_is_no_object_is_a_line(item, scored):
  _, (line,) = _read({"v": [item]}, scored)
  assert "0: expected an object with label, segment" in line
  assert f"came {item!r}" in line


def test_a_key_that_is_missing_is_named_with_those_that_came():
  sound = detection("Jump", 0, 9, 0.5)
  for key in sound:
    item = {k: x for k, x in sound.items() if k != key}
    _, (line,) = _read({"v": [item]})
    assert f"expected the key {key}, came {list(item)}" in line
  assert _read({"v": [instance("Jump", 0, 9)]}, scored=False)[1] == []


@pytest.mark.parametrize("items", [None, 7, "x", {}, {"label": "Jump"}, True])
def test_a_videos_value_that_is_no_list_is_a_line(items):
  found, (line,) = _read({"u": items, "v": [detection("Jump", 0, 9, 1)]})
  assert line.startswith("f.json: u: expected a list of detections, came ")
  assert "write [] for none" in line
  assert _rows(found) == [(1, "Jump", 0.0, 9.0, 1.0)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scored", [False, True])
def test_the_careful_way_reads_what_the_fast_way_reads(seed, scored):
  entries = dict(enumerate(random_case(seed)[scored].values()))
  fast, problems = _read(entries, scored)
  assert problems == []
  careful, problems = _read({**entries, "last": [None]}, scored)
  assert len(problems) == 1
  assert _rows(careful) == _rows(fast)


ODD = (None, True, False, 0, -1, 7, 2**64, HUGE, -HUGE, 0.5, -0.0, 1e-320)
ODD += (1e9, 1e300, NAN, INF, -INF, "", "x", "0.5", "nan", "\n", "\ud800")
ODD += ([], {}, [1, 2], [2, 1], [[1], 2], [None, None], [NAN, 1], ["1", "2"])
ODD += (detection("Jump", 0, 9, 0.5), "a" * 999, [{}])


def _mutated(entries, rng):
  """A copy with one to three values replaced, on any level."""
  entries = copy.deepcopy(entries)
  for _ in range(int(rng.integers(1, 4))):
    place, key = entries, str(rng.choice(list(entries)))
    while isinstance(place[key], list | dict) and rng.random() < 0.8:
      inner = place[key]
      keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
      if not keys:
        break
      place, key = inner, keys[int(rng.integers(len(keys)))]
    place[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
  return entries


@pytest.mark.parametrize("scored", [False, True])
def test_any_odd_value_is_read_or_a_line_and_never_an_exception(scored):
  sound = {
    "u": [detection("Jump", 0, 9, 0.9), detection("Run", 50.5, 60, 1)],
    "v": [detection("Jump", 5, 14, 0.7)],
    "w": [],
  }
  if not scored:
    for item in (*sound["u"], *sound["v"]):
      del item["score"]
  rng, refused, read = np.random.default_rng(0), 0, 0
  for _ in range(600):
    entries = _mutated(sound, rng)
    found, problems = _read(entries, scored)
    refused, read = refused + bool(problems), read + (not problems)
    items = [len(x) if isinstance(x, list) else 1 for x in entries.values()]
    assert len(found.labels) + len(problems) == sum(items)
    assert all(type(label) is str and label for label in found.labels)
    for column in (found.start, found.end, found.score):
      assert np.isfinite(column).all()
    assert (found.start <= found.end).all()
    for line in problems:
      assert line.isprintable()
      assert len(line) < 250
    # What is left is what a file without the faults has.
    left, none = _read(_without_faults(entries, scored), scored)
    assert none == []
    last = 5 if scored else 4
    assert [row[1:last] for row in _rows(found)] == [
      row[1:last] for row in _rows(left)
    ]
  assert min(refused, read) > 10


def test_positions_are_those_of_the_first_appearance():
  assert columns.positions(["b", "a", "b", "c"]) == {"b": 0, "a": 1, "c": 2}
