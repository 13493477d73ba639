"""CASs of another method in place of the ILG's: docs/OWN_CAS.md."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from ptlr_jax import dump_cas, main, tables
from ptlr_jax.cli import config_checks
from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.inference import model_file, run_model
from ptlr_jax.io import storage
from ptlr_jax.method import cas_space
from ptlr_jax.runtime import schema
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.training import external_cas
from ptlr_jax.workdir import identity, phases, provenance
from tests import tiny_config
from tests.trained_fixture import configuration

CONFIG = f"--config={Path(tiny_config.__file__)}"
STAGES = (
  *("--config.ptlr.stages=1", "--config.compile_cache=off"),
  "--config.detect.ilg_cas=softmax_minmax",
  # Of streams that are fused before the min-max, a dumped CAS says it all.
  *("--config.labels.cas=softmax_minmax", "--config.labels.fusion=average"),
  # Smaller programs.
  *("--config.ilg.loss.beta=0.0", "--config.ilg.loss.gamma=0.0"),
  "--config.rts.model.branches=1",
  # So that every network changes labels within its few updates.
  *("--config.ptlr.thresholds=(0.4,)", "--config.labels.keep_empty=False"),
  *(f"--config.{net}.learning_rate=0.03" for net in ("ots", "rts")),
)


@pytest.fixture(scope="module", autouse=True)
def _jax_stays_as_it_is():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)
    yield


def _run(workdir: Path, *flags: str) -> Path:
  main.run_command(["main", CONFIG, f"--workdir={workdir}", *STAGES, *flags])
  return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A run, its ILG's CASs, and a run from them."""
  folder = tmp_path_factory.mktemp("own_cas")
  _run(folder / "run")
  out = f"--output={folder / 'dump'}"
  dump_cas.run_command(
    ["dump", CONFIG, f"--workdir={folder / 'run'}", *STAGES, out]
  )
  _run(folder / "again", f"--config.ptlr.cas={folder / 'dump'}")
  return folder


def _params(run: Path, phase: str) -> dict[str, np.ndarray]:
  path = run / "checkpoints" / phase / "final"
  return model_file.flatten_params(ocp.StandardCheckpointer().restore(path))


# A run from CASs.


def test_a_run_from_the_ilgs_own_cass_ends_as_the_run_itself(folder):
  run, again = folder / "run", folder / "again"
  names = sorted(p.name for p in (run / "labels").iterdir())
  assert names == ["labels-0.npz", "labels-1-ots.npz", "labels-1-rts.npz"]
  for name in names:
    same = [(d / "labels" / name).read_bytes() for d in (run, again)]
    assert same[0] == same[1], name
  read = [(run / "labels" / name).read_bytes() for name in names]
  assert len(set(read)) == 3  # OTS and RTS did change them
  for name in ("ots-1", "rts-1"):
    ours, theirs = (_params(d, name) for d in (run, again))
    assert ours.keys() == theirs.keys()
    for key, x in ours.items():
      np.testing.assert_array_equal(x, theirs[key])
  results = [storage.read_json(d / "detections.json") for d in (run, again)]
  assert results[0] == results[1]
  assert any(results[0]["results"].values())
  metrics = [storage.read_json(d / "metrics.json") for d in (run, again)]
  assert list(metrics[1]["stages"]) == ["cas", "stage-1"]
  for key in ("mAP", "averages", "per_class", "pseudo_labels"):
    assert metrics[0][key] == metrics[1][key]
  assert metrics[0]["stages"]["stage-1"] == metrics[1]["stages"]["stage-1"]
  assert metrics[0]["stages"]["ilg"] == metrics[1]["stages"]["cas"]
  assert not (again / "checkpoints" / "ilg").exists()
  assert (again / "detections" / "cas.json").exists()


def test_the_digest_of_the_cass_is_of_what_the_run_was_made_with(folder):
  (start,) = provenance.read_starts(folder / "again")
  assert len(start["data"]["cas"]) == 64
  made_with = storage.read_json(folder / "again" / "metrics.json")["made_with"]
  assert made_with[0]["data"]["cas"] == start["data"]["cas"]
  assert "cas" not in provenance.read_starts(folder / "run")[0]["data"]
  said = storage.read_json(folder / "again" / "config.json")
  assert said["ptlr"]["cas"] == "dump"  # no place of this machine


def test_what_a_stop_lost_is_made_again_and_other_cass_are_refused(
  folder, tmp_path, capsys
):
  again = tmp_path / "again"
  shutil.copytree(folder / "again", again)
  cas = shutil.copytree(folder / "dump", tmp_path / "dump")
  flag = f"--config.ptlr.cas={cas}"
  labels = (again / "labels" / "labels-0.npz").read_bytes()
  for name in ("labels/labels-0.npz", "metrics.json", "detections.json"):
    (again / name).unlink()
  _run(again, flag)  # the folder may lie elsewhere
  assert (again / "labels" / "labels-0.npz").read_bytes() == labels
  capsys.readouterr()
  other = tmp_path / "other"
  _run(other, flag, f"--reuse={again}")
  assert "labels-0, ots-1, labels-1-ots, rts-1" in capsys.readouterr().out

  path = next(cas.glob("*train*.npz"))
  with np.load(path) as file:
    arrays = dict(file)
  np.savez(path, **{**arrays, "cas": arrays["cas"] * np.float32(0.9)})
  (again / "metrics.json").unlink()
  with pytest.raises(InputError, match=r"run on other cas \(SHA-256 .* -> "):
    _run(again, flag)
  new = tmp_path / "new"
  (cas / "keep").touch()
  _run(new, flag, f"--reuse={other}", "--config.ptlr.stages=0")
  assert "nothing taken over" in capsys.readouterr().out


def test_the_ilg_is_no_phase_and_everything_hangs_on_the_cass():
  config = configuration(**{"ptlr.cas": "DIR"})
  names = [phase.name for phase in phases.phases(config)]
  assert names == [
    *("labels-0", "ots-1", "labels-1-ots", "rts-1", "labels-1-rts"),
    *("detect", "evaluate"),
  ]
  assert phases.trained_networks(config) == ("ots", "rts")
  ours = identity.fingerprints(config)
  for change in (
    {"ptlr.cas_values": "logit"},
    {"ptlr.cas_resample": True},
    {"ptlr.cas": ""},
  ):
    others = identity.fingerprints(
      configuration(**{"ptlr.cas": "DIR", **change})
    )
    same = {n for n in ours if ours[n] == others.get(n)}
    assert not same, change
  moved = identity.fingerprints(configuration(**{"ptlr.cas": "ELSEWHERE"}))
  assert ours == moved  # the digest says whether they are the same


def test_what_needs_an_ilg_refuses_the_run_in_a_line(folder, tmp_path):
  with pytest.raises(InputError, match=r"expected a run with an ILG, came one"):
    run_model.model_from_workdir(folder / "again")
  flag = f"--config.ptlr.cas={folder / 'dump'}"
  with pytest.raises(InputError, match=r"--config\.ptlr\.cas: expected none"):
    tables.run_command(["tables", CONFIG, f"--workdir={tmp_path / 't'}", flag])
  argv = ["dump", CONFIG, f"--output={tmp_path / 'out'}"]
  for workdir, more, said in (
    (folder / "again", (flag,), r"ptlr\.cas=.*: expected a run with an ILG"),
    (tmp_path / "none", (), r"none: expected the folder of a run, came one"),
    (folder / "run", ("--config.seed=3",), r"run of another configuration"),
  ):
    with pytest.raises(InputError, match=said):
      dump_cas.run_command([*argv, f"--workdir={workdir}", *STAGES, *more])
  assert not (tmp_path / "out").exists()
  with pytest.raises(InputError, match=r"--output: expected a folder, got"):
    dump_cas.run_command([*argv[:2], f"--workdir={folder / 'run'}"])


def test_uniform_sampling_is_refused_beside_them():
  changes = {"ptlr.cas": "DIR", "predict.sampling": "uniform"}
  with pytest.raises(InputError, match=r"predict\.sampling: expected own"):
    config_checks.freeze_config(configuration(**changes))


@pytest.mark.parametrize(
  ("place", "said"),
  [("/data/dump/", "dump"), (".", "cas"), ("~", "cas"), ("", "")],
)
def test_of_a_place_its_last_name_is_said_and_never_that_there_is_none(
  place, said
):
  config = configuration(**{"ptlr.cas": place})
  assert identity.portable(config)["ptlr"]["cas"] == said


# What a file says.

T, C = 4, 2
VIDEO = Video("v", {"rgb": np.zeros((T, 3), np.float32)}, (0,), ())
DATA = Dataset(("a", "b"), (VIDEO,), (dataclasses.replace(VIDEO, id="w"),))
CAS = np.array([[0.9, 0.1], [0.5, 0.2], [0.4, 0.3], [0.0, 0.8]], np.float32)


def _said(
  tmp_path: Path, values: str = "probability", resample=False, **arrays: Any
):
  """What comes of one video's arrays: (CAS f[T,C+1], whether probabilities,
  scores f[C])."""
  for video in ("v", "w"):
    np.savez(tmp_path / f"{video}.npz", **arrays)
  cas = external_cas.open_cas_folder(str(tmp_path), values, resample, 2, DATA)
  external_cas.open_cas_folder.cache_clear()
  ((i, out),) = cas.asking([VIDEO], leave_out=("logits",))
  assert i == 0
  soft = isinstance(out["logits"], cas_space.Probabilities)
  return out["logits"]["cas"], soft, out["scores"]["cas"][:-1]


def test_probabilities_are_used_as_they_are(tmp_path):
  cas, soft, scores = _said(tmp_path, cas=CAS)
  assert soft
  np.testing.assert_array_equal(cas[:, :C], CAS)
  np.testing.assert_allclose(cas[:, C], [0.1, 0.5, 0.6, 0.2], rtol=1e-6)
  # k = 4 // 2 highest of each class.
  np.testing.assert_allclose(scores, [0.7, 0.55], rtol=1e-6)
  logits = cas_space.Probabilities(cas=cas)
  for space in ("softmax", "raw"):
    same = cas_space.fused_cas(logits, {}, space)
    np.testing.assert_array_equal(same, cas)
  stretched = cas_space.fused_cas(logits, {}, "softmax_minmax")
  np.testing.assert_array_equal(stretched, cas_space.minmax(cas))


def test_attention_weighs_the_actions(tmp_path):
  whole = np.concatenate([CAS, [[0.0]] * T], 1)
  attention = np.array([1.0, 0.5, 0.0, 1.0])
  cas, soft, scores = _said(tmp_path, cas=whole, attention=attention)
  assert soft
  expected = [[0.9, 0.1], [0.25, 0.1], [0, 0], [0.0, 0.8]]
  np.testing.assert_allclose(cas[:, :C], expected, rtol=1e-6)
  np.testing.assert_allclose(cas[:, C], [0.1, 0.75, 1, 0.2], rtol=1e-6)
  np.testing.assert_allclose(scores, [0.575, 0.45], rtol=1e-6)


def test_logits_with_a_background_column_are_as_the_ilgs(tmp_path):
  logits = np.array([[3, 0, 1], [1, 2, 0], [0, 0, 5], [2, 2, 2]], np.float64)
  cas, soft, scores = _said(tmp_path, "logit", cas=logits)
  assert not soft
  assert cas.dtype == np.float32
  np.testing.assert_array_equal(cas, logits)
  means = cas_space.softmax(np.array([2.5, 2.0, 3.5]))
  np.testing.assert_allclose(scores, means[:C], rtol=1e-6)
  weighed, soft, _ = _said(
    tmp_path, "logit", cas=logits, attention=np.full(T, 0.5)
  )
  assert soft
  half = cas_space.softmax(logits)[:, :C] / 2
  np.testing.assert_allclose(weighed[:, :C], half, rtol=1e-6)


def test_logits_without_one_go_through_a_sigmoid(tmp_path):
  logits = np.array([[0, 200.0], [-200.0, 1], [0, 0], [0, 0]])
  cas, soft, _ = _said(tmp_path, "logit", cas=logits)
  assert soft
  one = 1 / (1 + np.exp(-1.0))
  expected = [[0.5, 1], [0, one], [0.5, 0.5], [0.5, 0.5]]
  np.testing.assert_allclose(cas[:, :C], expected, atol=1e-6)


def test_columns_come_into_the_order_of_the_data(tmp_path):
  whole = np.concatenate([CAS[:, ::-1], np.full((T, 1), 0.5)], 1)
  how: dict[str, Any] = {"cas": whole, "scores": np.array([0.2, 0.7])}
  cas, _, scores = _said(tmp_path, classes=np.array(["b", "a"]), **how)
  np.testing.assert_array_equal(cas[:, :C], CAS)
  assert (cas[:, C] == 0.5).all()
  np.testing.assert_allclose(scores, [0.7, 0.2])
  (tmp_path / external_cas.CLASSES).write_text("b\na\n\n")
  cas, _, scores = _said(tmp_path, **how)
  np.testing.assert_array_equal(cas[:, :C], CAS)
  np.testing.assert_allclose(scores, [0.7, 0.2])
  (tmp_path / external_cas.CLASSES).write_text("b\nc\n")
  with pytest.raises(InputError, match=r"classes\.txt: .* without a, with c;"):
    _said(tmp_path, **how)


def test_another_length_is_interpolated_where_that_is_asked_for(tmp_path):
  two = np.array([[0.0, 1.0], [1.0, 0.0]])
  cas, *_ = _said(tmp_path, resample=True, cas=two, attention=np.ones(2))
  # The centres of 4 parts, read between those of 2: -0.25, 0.25, 0.75, 1.25.
  np.testing.assert_allclose(cas[:, 0], [0, 0.25, 0.75, 1])
  with pytest.raises(
    InputError, match=r"expected 4 rows, .*came 2; .*resample"
  ):
    _said(tmp_path, cas=two)


FAULTS = {
  "no array cas": ({"scores": [0.1, 0.2]}, r"expected an array cas, came none"),
  "one class": ({"cas": CAS[:, :1]}, r"\(T, 2\) or \(T, 3\) for the 2 classes"),
  "rows": ({"cas": CAS[:3]}, r"expected 4 rows, as many as .* came 3;"),
  "NaN": ({"cas": CAS * np.nan}, r"cas: .* came NaN or infinity 8 times"),
  "logits": ({"cas": 9 * CAS}, r"\[0, 1\], came 0 to 8\.1; .*cas_values=logit"),
  "integers": ({"cas": CAS.astype(int)}, r"expected floats, came int64"),
  "scores": ({"cas": CAS, "scores": [0.1]}, r"scores: .*\(2,\), came \(1,\)"),
  "high": (
    {"cas": CAS, "scores": [0.1, 3.0]},
    r"scores: .*came 0.1 to 3; give",
  ),
  "attention": (
    {"cas": CAS, "attention": np.ones((T, 1))},
    r"attention: expected shape \(4,\), came \(4, 1\)",
  ),
  "names": (
    {"cas": CAS, "classes": ["a", "c"]},
    r"classes: expected the 2 classes .* without b, with c; name them",
  ),
  "objects": ({"cas": np.array([None])}, r"plain arrays, came: Object arrays"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_used_is_a_line(fault, tmp_path):
  arrays, said = FAULTS[fault]
  arrays: dict[str, Any] = {n: np.asarray(x) for n, x in arrays.items()}
  with pytest.raises(InputError, match=said) as caught:
    _said(tmp_path, **arrays)
  lines = caught.value.problems
  assert len(lines) == 2  # of a training and of a test video
  assert lines[0].startswith(f"{tmp_path / 'v.npz'}: ")


def test_all_files_are_looked_at_in_one_pass(tmp_path):
  np.savez(tmp_path / "v.npz", cas=CAS[:, :1])
  with pytest.raises(InputError) as caught:
    external_cas.open_cas_folder(str(tmp_path), "probability", False, 8, DATA)
  wrong, missing = caught.value.problems
  assert wrong.startswith(f"{tmp_path / 'v.npz'}: cas: expected shape")
  assert missing.startswith(
    f"{tmp_path / 'w.npz'}: expected the CAS of video w"
  )
  with pytest.raises(InputError, match=r"ptlr\.cas=.*none: expected a folder"):
    external_cas.open_cas_folder(
      str(tmp_path / "none"), "probability", False, 8, DATA
    )
  (tmp_path / "v.npz").write_bytes(b"no zip")
  with pytest.raises(InputError, match=r"v\.npz: expected an \.npz file of pl"):
    external_cas.open_cas_folder(str(tmp_path), "probability", False, 8, DATA)


def test_the_digest_hangs_on_every_array(tmp_path):
  found, files = set(), ("v", "w")
  cases: tuple[dict[str, Any], ...] = (
    {"cas": CAS},
    {"cas": CAS * np.float32(0.5)},
    {"cas": CAS, "scores": np.zeros(C)},
    {"cas": CAS, "attention": np.ones(T)},
    {"cas": CAS, "classes": np.array(["b", "a"])},
  )
  for arrays in cases:
    for video in files:
      np.savez(tmp_path / f"{video}.npz", **arrays)
    external_cas.open_cas_folder.cache_clear()
    cas = external_cas.open_cas_folder(
      str(tmp_path), "probability", False, 8, DATA
    )
    found.add(cas.digest)
  assert len(found) == 5
  external_cas.open_cas_folder.cache_clear()


# Configurations of before.


def test_a_configuration_of_an_earlier_version_means_what_it_meant():
  config = tiny_config.get_config()
  whole = schema.completed(config)
  assert whole.to_dict() == config.to_dict()
  with config.unlocked():
    del config.plugins, config.ptlr.cas, config.ilg.network
    del config.ilg.loss.scale_losses
  assert schema.completed(config).to_dict() == whole.to_dict()
  js = {"js": 1.0}
  config.ilg.loss.scale_losses = js
  assert schema.completed(config).ilg.loss.scale_losses.to_dict() == js
  assert model_file.networks_of(whole, 0) == ("ilg",)
