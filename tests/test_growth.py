"""Tests of benchmarks/growth.py: the fit by hand, a tiny run, its table."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import growth, growth_report

ROOT = Path(__file__).absolute().parents[1]


def test_exponent_by_hand():
  assert growth_report.exponent([1, 10], [3, 3]) == pytest.approx(0)
  assert growth_report.exponent([1, 10], [2, 2000]) == pytest.approx(3)
  # From the middle on: what is constant before it does not count.
  sizes = [1, 2, 4, 8, 16]
  assert growth_report.exponent(sizes, [9, 9, 16, 64, 256]) == pytest.approx(2)
  assert growth_report.exponent(sizes[:4], [9, 9, 8, 16]) == pytest.approx(1)
  # Logs of 1, 2, 4: 0, 1, 2; values 0, 1, 3: slope 3 / 2.
  assert growth_report.exponent([1, 2, 4], [1, 2, 8]) == pytest.approx(2)
  five = [1, 1, *(2.0**n for n in (0, 1, 3))]
  assert growth_report.exponent(sizes, five) == pytest.approx(3 / 2)


def _point(work, size, seconds, **more):
  named = {"axis": "batch", "work": work, "size": size, "seconds": seconds}
  return {**named, "mb": 12.0, "peak_mb": 212.0, **more}


def test_table_says_time_memory_and_what_grows_faster():
  found = [
    _point("OTS step", 1, 0.001, compile_s=2.5),
    _point("OTS step", 10, 0.1, compile_s=2.5),
    _point("RTS step", 1, 1.0),
    _point("RTS step", 10, 10.0),
  ]
  assert growth_report.table(found, "batch").splitlines() == [
    "| batch |  | 1 | 10 | exponent |",
    "| --- | --- | ---: | ---: | ---: |",
    "| OTS step | ms | 1 | 100 | **2.00** |",
    "|  | MB (peak) | 12 (212) | 12 (212) |  |",
    "|  | compiling, s | 2.5 | 2.5 |  |",
    "| RTS step | ms | 1,000 | 10,000 | 1.00 |",
    "|  | MB (peak) | 12 (212) | 12 (212) |  |",
  ]
  assert growth_report.table(found, "videos") == ""


def test_timed_is_of_one_run(monkeypatch):
  runs = []  # a run takes a second of the clocks
  for clock in ("process_time", "perf_counter"):
    monkeypatch.setattr(growth.time, clock, lambda: len(runs))
  found = growth.timed(lambda: runs.append(math.sqrt(2)), 0.0)
  assert len(runs) >= 3
  assert found == {"seconds": 1, "wall_s": 1}


def test_every_work_is_there():
  for sizes, _, works in growth.AXES.values():
    assert set(works) <= set(growth.WORKS)
    assert list(sizes) == sorted(sizes)


@pytest.mark.parametrize(
  "work", ["ILG batch", "OTS batch", "labels", "detection", "evaluation"]
)
def test_works_run_at_the_smallest_size(work):
  run, more = growth.WORKS[work](growth.Shape(3, 16, 4, 2))
  run()
  run()
  assert more.get("detections", 1) > 0


def test_a_quick_run_prints_a_table_and_saves_it(tmp_path):
  saved = tmp_path / "growth.json"
  command = (sys.executable, "benchmarks/growth.py", "--quick")
  done = subprocess.run(
    [*command, "--only=videos:labels", f"--json={saved}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  first, _, row, memory = done.stdout.strip().splitlines()
  assert first == "| videos |  | 16 | 32 | exponent |"
  assert row.startswith("| labels | ms | ")
  found = json.loads(saved.read_text())
  assert [p["size"] for p in found] == [16, 32]
  for point in found:
    assert point["seconds"] > 0
    assert 0 < point["mb"] < point["peak_mb"]
    assert f"({point['peak_mb']:.0f})" in memory
