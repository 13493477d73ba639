"""Damage of metrics.jsonl: a line that is not as it was written is left out."""

import json
import random

import pytest

from ptlr_jax.data.files import sealing
from ptlr_jax.io import metrics_log
from ptlr_jax.runtime.errors import Damaged, OtherVersion
from tests.damage import flip_bits, flipped


@pytest.fixture
def log(tmp_path):
  """Six lines of two phases."""
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  for phase in ("ilg", "ots-1"):
    for step in (2, 4, 6):
      log.append(phase, step, {"loss": step / 3, "b/c": 1e-9})
  return log


def _touched(data, bit):
  """The lines that a bit belongs to; a line break to those on both sides."""
  line = data[: bit // 8].count(b"\n")
  return {line, line + 1} if data[bit // 8] == ord("\n") else {line}


def test_a_line_with_a_turned_bit_is_left_out_and_no_other(log):
  """Whatever it hits, version, CRC and line breaks too."""
  lines, data = log.read(), log.path.read_bytes()
  breaks = [8 * i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
  for bit in (*flip_bits(data), *breaks):
    log.path.write_bytes(flipped(data, bit))
    bad = _touched(data, bit)
    kept = [line for i, line in enumerate(lines) if i not in bad]
    assert log.read() == kept, bit


def test_every_byte_of_a_line_counts(tmp_path):
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  log.append("ilg", 2, {"loss": 0.5})
  data = log.path.read_bytes()
  for i in range(len(data)):
    log.path.write_bytes(flipped(data, 8 * i + i % 8))
    assert log.read() == [], i


def test_mending_drops_the_bad_lines_counts_them_and_keeps_the_others(log):
  lines, data = log.read(), log.path.read_bytes()
  last = data[:-1].rindex(b"\n")
  for bit in random.Random(0).sample(range(8 * last), 60):
    log.path.write_bytes(flipped(data, bit))
    bad = _touched(data, bit)
    # Two that have become one are one line.
    assert log.mend() == 1, bit
    kept = [line for i, line in enumerate(lines) if i not in bad]
    assert log.read() == kept
    whole = data.splitlines(keepends=True)
    kept = b"".join(x for i, x in enumerate(whole) if i not in bad)
    assert log.path.read_bytes() == kept
    assert log.mend() == 0


def test_a_bad_last_line_with_its_line_break_is_no_cut_one(log):
  data = log.path.read_bytes()
  log.path.write_bytes(flipped(data, 8 * (len(data) - 60)))
  assert log.mend() == 1


def test_a_lost_end_leaves_the_lines_before_it(log):
  lines, data = log.read(), log.path.read_bytes()
  for length in range(0, len(data), 3):
    log.path.write_bytes(data[:length])
    assert log.read() == lines[: data[:length].count(b"\n")], length


def test_a_cut_line_is_dropped_without_a_word_and_the_next_is_whole(log):
  data = log.path.read_bytes()
  for cut in (1, 2, 10, 40):
    log.path.write_bytes(data[:-cut])
    assert log.mend() == 0
    log.append("ots-1", 6, {"loss": 2.0, "b/c": 1e-9})
    assert log.path.read_bytes() == data


@pytest.mark.parametrize(
  "more", [b"\n", b"{}\n", b"null\n", b"[1]\n", b"\0" * 512, b"\xff\n", b"3"]
)
def test_what_is_no_line_of_ours_is_left_out(log, more):
  lines, data = log.read(), log.path.read_bytes()
  for changed in (data + more, data + more + b"\n" + data):
    log.path.write_bytes(changed)
    assert log.read() == lines * (2 if changed.endswith(data) else 1)
  log.path.write_bytes(data + more)
  log.rewind("none", 0)
  assert log.path.read_bytes() == data


def test_a_log_that_cannot_be_read_is_damaged(tmp_path):
  (tmp_path / "metrics.jsonl").mkdir()
  log = metrics_log.MetricsLog(tmp_path / "metrics.jsonl")
  with pytest.raises(Damaged, match=r"metrics\.jsonl: .*Is a directory"):
    log.read()


def _assert_other(log, came):
  before = log.path.read_bytes()
  for action in (log.read, log.mend, lambda: log.rewind("ilg", 2)):
    with pytest.raises(OtherVersion) as caught:
      action()
    said = f"expected an artefact of version 1, came {came}; use the ptlr_jax"
    assert str(caught.value).startswith(f"{log.path}: {said} that wrote it, or")
    assert log.path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 2, 17])
def test_a_line_of_another_version_is_told(log, monkeypatch, version):
  with monkeypatch.context() as patched:
    patched.setattr(sealing, "VERSION", version)
    log.append("rts-1", 2, {"loss": 1.0})
  _assert_other(log, version)


def test_a_line_of_a_release_without_checks_is_told(log):
  line = json.dumps({"phase": "ilg", "step": 2, "loss": 0.5})
  log.path.write_text(f"{line}\n")
  _assert_other(log, "none")
