"""The forks of docs/FORKING.md: they run, and each takes effect."""

import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stage_batches import KEY, C, batch_of, options

from configs import base, simulated
from ptlr_jax import main
from ptlr_jax.cli import config_checks
from ptlr_jax.data import layouts
from ptlr_jax.inference import model_file, run_model
from ptlr_jax.io import label_files, metrics_log, storage
from ptlr_jax.method import ilg, losses, pseudo_labels, registry
from ptlr_jax.runtime import config_tree, plugins
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.training import networks
from tests import tiny_config

ROOT = Path(__file__).parents[1]
FORKS = (
  *("transformer", "js_consistency", "cosine_streams", "npz_layout"),
  *("withdrawn_labels", "third_network"),
)


@pytest.fixture(autouse=True)
def _jax_stays_as_it_is(monkeypatch):
  monkeypatch.setattr(
    "ptlr_jax.cli.startup.settle_jax",
    lambda config: plugins.import_plugins(config.plugins),
  )


@pytest.fixture(scope="module", autouse=True)
def _names_of_forks_stay_here():
  """Other tests go through the same dicts."""
  yield
  registry.STAGES.pop("dts", None)
  ilg.NETWORKS.pop("transformer", None)
  losses.SCALE_LOSSES.pop("js", None)
  losses.CROSS_STREAM_LOSSES.pop("cosine", None)
  layouts.LAYOUTS.pop("npz", None)
  pseudo_labels.UPDATE_RULES.pop("withdraw", None)
  for name in [n for n in sys.modules if n.startswith("tests.forks.")]:
    del sys.modules[name]


def _of(fork: str, module: str, name: str) -> Any:
  """What a fork's module defines, imported when a test runs, not before."""
  found = importlib.import_module(f"tests.forks.{fork}.{module}")
  return getattr(found, name)


def _tiny() -> list[str]:
  """What makes the demo's configuration as small as the tests'."""
  small = config_tree.flatten(tiny_config.get_config())
  usual = config_tree.flatten(simulated.get_config())
  changed = {key: x for key, x in small.items() if usual[key] != x}
  return [f"--config.{key}={x}" for key, x in changed.items()]


def _run(
  fork: str,
  workdir: Path,
  *overrides: str,
  streams: tuple[str, ...] = ("rgb",),
  without: str = "no section",
) -> Path:
  """Runs a fork on the demo at the size of the tests, and returns `workdir`;
  the sizes of the section `without` stay the fork's own."""
  config = ROOT / "tests" / "forks" / fork / "config.py:simulated"
  small = [flag for flag in _tiny() if without not in flag]
  flags = (*small, f"--config.ilg.streams={streams}", *overrides)
  main.run_command(
    ["main", f"--config={config}", f"--workdir={workdir}", *flags]
  )
  return workdir


def _log(directory: Path, phase: str) -> list[dict]:
  lines = metrics_log.MetricsLog(directory / "metrics.jsonl").read()
  return [line for line in lines if line["phase"] == phase]


# The page.


@pytest.mark.parametrize("fork", FORKS)
def test_the_page_has_the_files_of_a_fork_and_they_are_short(fork):
  page = (ROOT / "docs" / "FORKING.md").read_text()
  paths = list((ROOT / "tests/forks" / fork).glob("*.py"))
  assert len(paths) == 2
  for path in paths:
    name = path.relative_to(ROOT)
    assert f"[`{name}`](../{name})\n" in page
    assert f"```{{literalinclude}} ../{name}\n```\n" in page
  lines = sum(len(path.read_text().splitlines()) for path in paths)
  assert lines < (80 if fork == "third_network" else 60)


@pytest.mark.parametrize("fork", FORKS)
def test_a_fork_changes_nothing_of_the_base_but_what_it_says(fork):
  config = _of(fork, "config", "get_config")("thumos14")
  changed = config_tree.flatten(config)
  usual = config_tree.flatten(base.named("thumos14"))
  names = {k for k in changed if k not in usual or usual[k] != changed[k]}
  sections = ("dts.", "ilg.model.")
  names = {name for name in names if not name.startswith(sections)}
  assert "plugins" in names
  assert len(names) <= 4
  config_checks.freeze_config(config)


# Jensen-Shannon.


def test_jensen_shannon_by_hand():
  jensen_shannon = _of("js_consistency", "loss", "jensen_shannon")
  p = jnp.array([[[1.0, 0.0], [0.5, 0.5], [0.3, 0.7]]])
  q = jnp.array([[[0.0, 1.0], [0.5, 0.5], [0.9, 0.1]]])
  mask = jnp.array([[True, True, False]])
  # Apart as can be: log 2; equal: 0; the third segment is padding.
  assert jensen_shannon(p, q, mask) == pytest.approx(np.log(2) / 2, abs=1e-4)
  total = jensen_shannon(p, q, mask, reduce="sum")
  assert total == pytest.approx(np.log(2), abs=1e-4)
  of_p, of_q = jax.grad(jensen_shannon, argnums=(0, 1))(p, q, mask)
  assert np.isfinite([of_p, of_q]).all()
  assert (of_p[0, 2] == 0).all()
  assert (of_p[0, 0] != 0).any()


def test_a_new_loss_is_logged_and_weighed(tmp_path):
  run = _run("js_consistency", tmp_path / "run", "--config.ptlr.stages=0")
  lines = _log(run, "ilg")
  assert len(lines) == 4
  for line in lines:
    assert line["rgb/js"] > 0
    mil = sum(line[f"rgb/{term}"] for term in ("base", "supp", "norm"))
    total = mil + 0.5 * (0.5 * line["rgb/sc"] + 2 * line["rgb/js"])
    assert line["loss"] == pytest.approx(total, rel=1e-4)
  metrics = storage.read_json(run / "metrics.json")
  assert list(metrics["stages"]) == ["ilg"]


# A third network.


@pytest.fixture(scope="module")
def third(tmp_path_factory):
  """A finished run with three networks."""
  patch = pytest.MonkeyPatch()
  patch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)
  sizes = {"dts.steps": 6, "dts.batch_size": 4, "dts.model.width": 8}
  sizes |= {"dts.model.layers": 2, "rts.model.branches": 1}
  flags = [f"--config.{key}={x}" for key, x in sizes.items()]
  folder = tmp_path_factory.mktemp("third") / "run"
  yield _run("third_network", folder, *flags, "--config.ptlr.stages=1")
  patch.undo()


def test_a_third_network_learns_and_exchanges_labels(third):
  phases = [
    *("ilg", "labels-0", "ots-1", "labels-1-ots", "rts-1", "labels-1-rts"),
    *("dts-1", "labels-1-dts"),
  ]
  log = metrics_log.MetricsLog(third / "metrics.jsonl").read()
  assert list(dict.fromkeys(line["phase"] for line in log)) == phases
  assert {"dts", "loss", "grad_norm"} < _log(third, "dts-1")[-1].keys()
  path = third / "labels" / "labels-1-dts.npz"
  label_files.check_labels(path)
  with np.load(path) as file:
    assert len(file["ids"]) == 6
    assert file["selected"].any()
  metrics = storage.read_json(third / "metrics.json")
  assert metrics["pseudo_labels"][-1]["phase"] == "labels-1-dts"
  assert list(metrics["stages"]) == ["ilg", "stage-1"]


def test_a_run_knows_its_plugins_and_a_model_file_imports_none(
  third, tmp_path, monkeypatch
):
  monkeypatch.delitem(registry.STAGES, "dts")
  networks.cached_stage.cache_clear()
  asked = []
  monkeypatch.setattr(
    plugins, "import_plugins", lambda names: asked.append(names)
  )
  with pytest.raises(InputError, match=r"expected one of ilg, ots, rts, got"):
    run_model.model_from_workdir(third)
  assert asked == [("tests.forks.third_network.stage",)]
  monkeypatch.undo()
  model = run_model.model_from_workdir(third)
  assert list(model.params) == ["ilg", "ots", "rts", "dts"]
  pytest.importorskip("safetensors", reason="model files need safetensors")
  model_file.write_model(tmp_path / "model.safetensors", model)
  assert run_model.open_model(tmp_path / "model.safetensors").stage == 1
  monkeypatch.delitem(registry.STAGES, "dts")
  networks.cached_stage.cache_clear()
  with pytest.raises(InputError, match=r"networks: .* got 'dts'; .*plugins"):
    run_model.open_model(tmp_path / "model.safetensors")


def test_videos_of_a_row_do_not_see_each_other_through_dilations():
  net = _of("third_network", "stage", "NetworkDTS")(
    C, width=4, layers=4
  )  # dilations up to 8
  rng = np.random.default_rng(0)
  both = rng.normal(size=(1, 27, 3)).astype(np.float32)
  mask = np.ones((1, 27), bool)
  mask[:, 9:17] = False
  params: Any = jax.jit(net.init)(KEY, both, mask)
  apply = jax.jit(net.apply)
  row = apply(params, both, mask)
  for own in (slice(0, 9), slice(17, 27)):
    alone = apply(params, both[:, own], mask[:, own])
    np.testing.assert_allclose(row[:, own], alone, atol=1e-6)
  far = both.copy()
  far[0, 0] += 1
  moved = np.abs(apply(params, far, mask) - row)[0].max(-1)
  assert moved[8] > 0  # eight segments on


# A transformer encoder in the ILG.


def test_attention_has_parameters_that_learn_and_reads_no_padding():
  made = _of("transformer", "model", "Transformer")
  net = made(C, width=4, layers=1, heads=2)
  batch = batch_of()
  x, mask = batch["features"]["rgb"], batch["mask"]
  params = jax.jit(net.init)(KEY, x, mask)

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
  def gradient(params, x):
    out: Any = net.apply(params, x, mask)
    cas = out["suppression"]
    return jnp.where(mask[..., None], cas, 0)[..., 0].sum(), cas

  (of_params, of_x), cas = gradient(params, x)
  attention = of_params["params"]["layer0"]
  assert attention.keys() == {"query", "key", "value", "out"}
  for name, own in attention.items():
    assert (np.asarray(own["kernel"]) != 0).any(), name
  assert (of_x[~mask] == 0).all()
  _, other = gradient(params, x + 100 * ~mask[..., None])
  np.testing.assert_allclose(cas[mask], other[mask], rtol=1e-5)


def test_a_network_with_fields_of_its_own_runs_to_the_end(tmp_path):
  flag = "--config.ptlr.stages=0"
  run = _run("transformer", tmp_path / "run", flag, without="ilg.model")
  assert np.isfinite(_log(run, "ilg")[-1]["loss"])
  model = run_model.model_from_workdir(run)
  names = model_file.flatten_params(model.params)
  assert "ilg/rgb/layer0/query/kernel" in names
  assert storage.read_json(run / "metrics.json")["stages"].keys() == {"ilg"}


def test_a_field_that_a_network_lacks_is_a_line_with_those_it_has():
  _of("transformer", "model", "Transformer")
  fields = tuple(base.get_config().ilg.model.items())
  changes = [
    ("network", "transformer"),
    *((f"model.{k}", x) for k, x in fields),
  ]
  with pytest.raises(
    InputError,
    match=r"ilg\.model: expected the fields of transformer \(dropout, heads, "
    r"layers, width\), got cas_width, .*: missing a required argument",
  ):
    registry.STAGES["ilg"](C, options("ilg", tuple(changes)))


# A cross-stream loss.


def test_cosine_distance_by_hand():
  cosine_distance = _of("cosine_streams", "loss", "cosine_distance")
  a = jnp.array([[[1.0, 0.0], [0.5, 0.5], [0.3, 0.7]]])
  b = jnp.array([[[0.0, 2.0], [0.1, 0.1], [0.9, 0.1]]])
  mask = jnp.array([[True, True, False]])  # the third segment is padding
  assert cosine_distance(a, b, mask) == pytest.approx(1 / 2, abs=1e-6)
  assert cosine_distance(a, b, mask, reduce="sum") == pytest.approx(1)


def test_a_new_cross_stream_loss_takes_the_place_of_the_paper_s(tmp_path):
  flag, streams = "--config.ptlr.stages=0", ("rgb", "flow")
  run = _run("cosine_streams", tmp_path / "run", flag, streams=streams)
  lines = _log(run, "ilg")
  for line in lines:
    assert line["cosine"] > 0
    assert "csc" not in line
    terms = ("base", "supp", "norm")
    mil = sum(line[f"{s}/{t}"] for s in ("rgb", "flow") for t in terms)
    sc = line["rgb/sc"] + line["flow/sc"]
    total = mil + 0.5 * (line["cosine"] + sc)
    assert line["loss"] == pytest.approx(total, rel=1e-4)


# A layout.


def _write_npz(root: Path) -> None:
  """Eight videos, two of them for the test, as the layout has them."""
  root.mkdir()
  database, rng = {}, np.random.default_rng(0)
  for i in range(8):
    a, b = rng.normal(size=(2, 40, 8)).astype("f4")
    np.savez(root / f"v{i}.npz", a=a, b=b)
    events = [{"segment": [2.0, 6.0], "label": ("Jump", "Run")[i % 2]}]
    subset = "validation" if i > 5 else "training"
    database[f"v{i}"] = {"subset": subset, "annotations": events}
  (root / "database.json").write_text(json.dumps({"database": database}))


@pytest.mark.parametrize("said", ["npz", "auto"])
def test_a_run_reads_a_layout_of_the_user_s_own(tmp_path, said):
  _write_npz(tmp_path / "root")
  flags = (
    f"--config.data.root={tmp_path}/root",
    f"--config.data.layout={said}",
    "--config.ptlr.stages=0",
  )
  run = _run("npz_layout", tmp_path / "run", *flags, streams=("b",))
  assert storage.read_json(run / "detections.json")["results"].keys() == {
    *("v6", "v7")
  }


# What cannot be.


def test_what_no_plugin_has_is_refused_in_a_line():
  with pytest.raises(InputError) as caught:
    plugins.import_plugins(["tests.forks.none", "json", "no_such_package.x"])
  lines = caught.value.problems
  assert len(lines) == 2
  assert lines[0].startswith("--config.plugins: expected modules that can be")
  assert "'tests.forks.none' cannot: ModuleNotFoundError" in lines[0]
  own = options("ilg", (("loss.scale_losses.none", 1.0),))
  with pytest.raises(
    InputError, match=r"scale_losses: expected one of sc.*none"
  ):
    registry.STAGES["ilg"](C, own)
  with pytest.raises(InputError, match=r"ilg\.network: expected one of basnet"):
    registry.STAGES["ilg"](C, options("ilg", (("network", "none"),)))


def test_names_of_plugins_are_refused_without_plugins():
  config = tiny_config.get_config()
  config.ptlr.networks = ("ots", "rts", "dts")
  config.detect.sources = ("ots", "dts")
  config.ilg.network = "attention"
  config.ilg.loss.scale_losses = {"js": 1.0}
  with pytest.raises(InputError) as caught:
    config_checks.freeze_config(config)
  keys = {line.partition(":")[0] for line in caught.value.problems}
  assert keys == {
    *("--config.ptlr.networks", "--config.detect.sources"),
    *("--config.ilg.network", "--config.ilg.loss.scale_losses.js"),
    "--config.ilg.loss.scale_losses.sc",
  }
  config.plugins = ("tests.forks.third_network.stage",)
  with pytest.raises(InputError, match=r"ptlr\.networks"):  # no config.dts
    config_checks.freeze_config(config)
  config.dts = config.ots.copy_and_resolve_references()
  config_checks.freeze_config(config)
  config.dts.update({"steps": 0, "accumulate": 3})
  with pytest.raises(InputError, match=r"dts\.steps: .*at least 1") as (caught):
    config_checks.freeze_config(config)
  assert "dts.accumulate: expected a divisor" in str(caught.value)
  del config.dts.batch_size
  with pytest.raises(InputError, match=r"dts\.batch_size: .* no such key"):
    config_checks.freeze_config(config)
  assert "sc" in losses.SCALE_LOSSES


# An update rule.


def test_a_contradicted_label_is_withdrawn():
  withdraw = _of("withdrawn_labels", "rule", "withdraw")
  a, b, none = (1, 0), (0, 1), (0, 0)

  def labels_of(*rows):
    labels = np.array(rows, bool)
    return pseudo_labels.PseudoLabels(labels, np.asarray(labels.any(1)))

  old = labels_of(a, a, a, none, none)
  found = withdraw(old, labels_of(a, b, none, b, none))
  expected = labels_of(a, none, a, b, none)
  np.testing.assert_array_equal(found.labels, expected.labels)
  np.testing.assert_array_equal(found.selected, expected.selected)


def test_a_run_updates_its_labels_by_a_new_rule(tmp_path, monkeypatch):
  _of("withdrawn_labels", "rule", "withdraw")
  seen = []

  def told(old, new):
    seen.append((old, new))
    return old

  monkeypatch.setitem(pseudo_labels.UPDATE_RULES, "withdraw", told)
  stages = ("--config.ptlr.stages=1", "--config.labels.keep_empty=False")
  run = _run("withdrawn_labels", tmp_path / "run", *stages)
  assert len(seen) == 2 * 6  # of two networks, six training videos each
  first, last = (
    (run / "labels" / f"{name}.npz").read_bytes()
    for name in ("labels-0", "labels-1-rts")
  )
  assert first == last


def test_an_unknown_rule_is_refused_in_a_line():
  config = base.get_config()
  config.labels.update_rule = "withdrawn"
  with pytest.raises(InputError, match=r"labels\.update_rule: expected one of"):
    config_checks.freeze_config(config)
  config.plugins = ("tests.forks.withdrawn_labels.rule",)
  config_checks.freeze_config(config)  # only the plugin knows
  old = pseudo_labels.PseudoLabels(np.eye(2, dtype=bool), np.ones(2, bool))
  with pytest.raises(InputError, match=r"got 'withdrawn'; --config\.plugins"):
    pseudo_labels.update(old, old, keep_empty=True, rule="withdrawn")
