"""Tests of ptlr_jax.cli.compile_cache: where compiled programs are kept."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tiny_config import ROOT

from ptlr_jax.cli import compile_cache

AUTO = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
KEYS = (
  "jax_enable_compilation_cache",
  "jax_compilation_cache_dir",
  "jax_persistent_cache_min_compile_time_secs",
)


def _settings():
  return [getattr(jax.config, key) for key in KEYS]


@pytest.fixture(autouse=True)
def _restored():
  """Every test leaves JAX's settings as it found them."""
  before = dict(zip(KEYS, _settings(), strict=True))
  yield
  for key, value in before.items():
    jax.config.update(key, value)


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A home, and an environment that names no cache."""
  for name in (*AUTO, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  return tmp_path / "home"


def test_off_names_no_folder(home, monkeypatch):
  assert compile_cache.cache_directory("off") is None
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
  assert compile_cache.cache_directory("off") is None


def test_auto_is_in_the_users_cache(home, monkeypatch):
  found = [compile_cache.cache_directory("auto")]
  monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
  found.append(compile_cache.cache_directory("auto"))
  assert found == [
    home / ".cache" / "ptlr_jax" / "compiled",
    Path("/caches/ptlr_jax/compiled"),
  ]


def test_what_jaxs_own_variable_names_is_left_to_jax(home, monkeypatch, capsys):
  # Such as a bucket, which is no folder of this machine.
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/programs")
  before = _settings()[:2]
  assert compile_cache.use_cache("auto") is None
  assert _settings() == [*before, 0.1]
  assert not home.exists()
  assert capsys.readouterr().out == ""


def test_a_home_that_is_not_there_is_one_line(home, capsys):
  assert compile_cache.use_cache("~nosuch/programs") is None
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith("compile cache: ~nosuch/programs cannot be written (")
  assert _settings()[0] is False


def test_an_empty_variable_names_nothing(home, monkeypatch):
  for name in AUTO:
    monkeypatch.setenv(name, "")
  found = compile_cache.cache_directory("auto")
  assert found == home / ".cache" / "ptlr_jax" / "compiled"


def test_a_folder_is_taken_as_it_is_and_a_tilde_is_the_home(home, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/not/this")
  assert compile_cache.cache_directory("~/kept") == home / "kept"
  assert compile_cache.cache_directory("/a/b") == Path("/a/b")


def test_a_folder_is_made_and_told_to_jax(home, tmp_path):
  folder = tmp_path / "new" / "cache"
  assert compile_cache.use_cache(str(folder)) == folder
  assert list(folder.iterdir()) == []
  assert _settings() == [True, str(folder), 0.1]


def test_what_the_user_says_of_short_programs_stays(
  home, tmp_path, monkeypatch
):
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
  compile_cache.use_cache(str(tmp_path))
  assert _settings() == [True, str(tmp_path), 7.0]


def test_off_switches_jax_off_too(home, tmp_path, capsys):
  compile_cache.use_cache(str(tmp_path))
  assert compile_cache.use_cache("off") is None
  assert _settings()[0] is False
  assert capsys.readouterr().out == ""


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_cannot_be_written_is_one_line_and_done_without(
  below, home, tmp_path, capsys
):
  (tmp_path / "file").write_text("in the way")
  folder = tmp_path / "file" / below
  before = _settings()[1]
  assert compile_cache.use_cache(str(folder)) is None
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f"compile cache: {folder} cannot be written (")
  assert line.endswith("another is --config.compile_cache=FOLDER")
  assert _settings()[:2] == [False, before]
  assert (tmp_path / "file").read_text() == "in the way"
  # A folder that can be written is used again afterwards.
  assert compile_cache.use_cache(str(tmp_path / "good")) == tmp_path / "good"
  assert _settings()[0] is True


PROGRAM = """
import sys
import jax
from ptlr_jax.cli import compile_cache

heard = []
jax.monitoring.register_event_listener(lambda name, **_: heard.append(name))
compile_cache.use_cache(sys.argv[1])
f = jax.jit(lambda x: (x @ x + float(sys.argv[2])).sum())
print(float(f(jax.numpy.eye(3))))
for word in ("hits", "misses"):
  print(word, heard.count(f"/jax/compilation_cache/cache_{word}"))
"""


def _process(setting, number):
  """(result, hits, misses) of a process that compiles a small program."""
  unnamed = {k: v for k, v in os.environ.items() if k not in AUTO}
  every = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, str(setting), str(number)],
    cwd=ROOT,
    env={**unnamed, **every, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  result, hits, misses = done.stdout.splitlines()
  return float(result), int(hits.split()[1]), int(misses.split()[1])


def _programs(folder):
  return {path.name for path in folder.glob("*-cache")}


def test_a_second_process_finds_what_the_first_has_compiled(tmp_path):
  folder = tmp_path / "cache"
  first, hits, misses = _process(folder, 1)
  assert first == 3 + 9
  assert hits == 0 < misses
  kept = _programs(folder)
  assert len(kept) == misses
  again, hits, missed = _process(folder, 1)
  assert again == first
  assert (hits, missed) == (misses, 0)
  assert _programs(folder) == kept
  # Another program is another file.
  other, _, missed = _process(folder, 2)
  assert other == 3 + 18
  assert missed
  assert _programs(folder) > kept


def test_off_keeps_nothing(tmp_path):
  code = PROGRAM.replace("sys.argv[1]", "'off'")
  assert "'off'" in code
  home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
  named = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "named")}
  done = subprocess.run(
    [sys.executable, "-c", code, "", "1"],
    cwd=ROOT,
    env={**os.environ, **home, **named, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.stdout.splitlines() == ["12.0", "hits 0", "misses 0"]
  assert list(tmp_path.iterdir()) == []


DAMAGED = """
import pathlib, random, sys, warnings, zlib
import jax
from ptlr_jax.cli import compile_cache

folder, rng = pathlib.Path(sys.argv[1]), random.Random(0)
assert compile_cache.use_cache(str(folder)) == folder
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
x = jax.numpy.arange(64.0).reshape(8, 8)
program = lambda x: (jax.numpy.tanh(x @ x.T) + jax.numpy.sort(x)).sum()
wanted = float(jax.jit(program)(x))
(path,) = folder.glob("jit__lambda*-cache")
whole = path.read_bytes()

def content(data):
  try:
    return zlib.decompress(data)
  except zlib.error:
    return None

for _ in range(40):
  data, at = bytearray(whole), rng.randrange(8 * len(whole))
  data[at // 8] ^= 1 << at % 8
  damaged = rng.choice([bytes(data), whole[: at // 8]])
  path.write_bytes(damaged)
  jax.clear_caches()
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert float(jax.jit(program)(x)) == wanted
  told = any("Error reading" in str(warning.message) for warning in said)
  # A few bits of what is compressed change nothing.
  assert told or content(damaged) == content(whole) != None, (at, said)
"""


def test_a_program_that_was_damaged_is_told_and_compiled_again(tmp_path):
  """By bits that are turned, and by a kill while it was written."""
  done = subprocess.run(
    [sys.executable, "-c", DAMAGED, str(tmp_path)],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
