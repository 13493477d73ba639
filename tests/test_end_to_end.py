"""Whole runs at the smallest size: artefacts, resuming, options."""

import signal
from collections import defaultdict

import numpy as np
import pytest
from basnet_fixture import tiny_videos, write_basnet
from tiny_config import KILLED, start

from ptlr_jax.io import metrics_log, storage

LOSSES = {
  "ilg": {f"{s}/{x}" for s in ("rgb", "flow") for x in ("base", "supp", "norm")}
  | {"rgb/sc", "flow/sc", "csc", "loss", "grad_norm"},
  "ots-1": {"ots", "loss", "grad_norm"},
  "rts-2": {"rts", "loss", "grad_norm"},
}
LABELS = ["labels-0"] + [
  f"labels-{n}-{x}" for n in (1, 2) for x in ("ots", "rts")
]
TRAINED = ["ilg", "ots-1", "ots-2", "rts-1", "rts-2"]
TIOUS = [f"{i / 10:.2f}" for i in range(1, 10)]


@pytest.fixture(scope="session")
def cache(cache):
  """There is a TensorFlow that tells, too."""
  stub = cache / "stubs" / "tensorflow"
  stub.mkdir(parents=True)
  (stub / "__init__.py").write_text(
    "import pathlib\n"
    f"pathlib.Path({str(cache / 'imported')!r}).write_text('x')\n"
    "raise ImportError('no TensorFlow here')\n"
  )
  return cache


@pytest.fixture(scope="session")
def finished(cache, tmp_path_factory):
  """The workdir of a finished run; no test changes it."""
  directory = tmp_path_factory.mktemp("finished") / "run"
  _run(directory, cache)
  return directory


def _run(directory, cache, *overrides):
  """What a run that ends well prints."""
  done = start(directory, cache, *overrides)
  assert done.returncode == 0, done.stderr
  return done.stdout


def _read(directory, name):
  return storage.read_json(directory / name)


def _log(directory):
  return metrics_log.MetricsLog(directory / "metrics.jsonl").read()


def test_a_run_leaves_what_is_promised(finished):
  names = {p.name for p in finished.iterdir()}
  files = {"config.json", "metrics.json", "metrics.jsonl", "detections.json"}
  files |= {"provenance.json"}
  assert names == files | {"checkpoints", "labels", "detections"}
  assert _read(finished, "config.json")["ilg"]["steps"] == 8
  checkpoints = finished / "checkpoints"
  assert sorted(p.name for p in checkpoints.iterdir()) == TRAINED
  for name in TRAINED:
    assert [p.name for p in (checkpoints / name).iterdir()] == ["final"]
  assert sorted(p.stem for p in (finished / "labels").iterdir()) == LABELS


def test_the_log_has_every_loss_term_at_every_interval(finished):
  lines = _log(finished)
  for phase, terms in LOSSES.items():
    own = [line for line in lines if line["phase"] == phase]
    last = 8 if phase == "ilg" else 6
    assert [line["step"] for line in own] == list(range(2, last + 1, 2))
    for line in own:
      assert line.keys() == terms | {"phase", "step"}
      assert np.isfinite([line[term] for term in terms]).all()
  order = list(dict.fromkeys(line["phase"] for line in lines))
  assert order[:4] == ["ilg", "labels-0", "ots-1", "labels-1-ots"]
  assert len(order) == len(TRAINED) + len(LABELS)


def test_the_metrics_have_the_promised_form(finished):
  metrics = _read(finished, "metrics.json")
  assert metrics["protocol"] == "thumos14"
  assert metrics["seed"] == 0
  assert metrics["simulated"] is True
  assert list(metrics["mAP"]) == TIOUS
  averages = {"0.1:0.5", "0.3:0.7", "0.1:0.7", "0.1:0.9"}
  assert metrics["averages"].keys() == averages
  assert metrics["averages"]["0.1:0.7"] == pytest.approx(
    np.mean([metrics["mAP"][tiou] for tiou in TIOUS[:7]])
  )
  assert metrics["per_class"].keys() == {f"action_{c}" for c in range(3)}
  assert list(metrics["stages"]) == ["ilg", "stage-1", "stage-2"]
  assert metrics["stages"]["stage-2"]["mAP"] == metrics["mAP"]
  labels = metrics["pseudo_labels"]
  assert sorted(row["phase"] for row in labels) == LABELS
  logged = {line["phase"]: line for line in _log(finished)}
  for row in labels:
    assert 0 <= row["precision"] <= 1
    assert 0 <= row["recall"] <= 1
    assert row.items() <= logged[row["phase"]].items()


def test_labels_cover_every_training_video(finished):
  for name in LABELS:
    with np.load(finished / "labels" / f"{name}.npz") as file:
      assert file["ids"].tolist() == [
        f"simulated_train_{i:04d}" for i in range(6)
      ]
      assert file["columns"] == 4
      assert (
        len(file["selected"]) == len(file["labels"]) == file["lengths"].sum()
      )


def _overlap(a, b):
  shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
  return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def _plain_average_precision(found, truths, tiou):
  """AP in plain loops: (video, segment), best first; {video: [segment]}."""
  total = sum(map(len, truths.values()))
  taken, hits, points = set(), 0, []
  for n, (video, segment) in enumerate(found, start=1):
    best, match = 0.0, None
    for i, truth in enumerate(truths.get(video, ())):
      overlap = _overlap(segment, truth)
      if overlap >= max(tiou, best) and (video, i) not in taken:
        best, match = overlap, (video, i)
    if match:
      taken.add(match)
      hits += 1
      points.append((hits / total, hits / n))
  area, before = 0.0, 0.0
  for i, (recall, _) in enumerate(points):
    area += (recall - before) * max(p for _, p in points[i:])
    before = recall
  return area


def test_the_detections_score_as_the_metrics_say(finished):
  from ptlr_jax.data.simulated import simulate  # the data of the run again

  options = _read(finished, "config.json")["data"]
  data = simulate(width=options["width"], **options["simulated"])
  content = _read(finished, "detections.json")
  assert content.keys() == {"version", "results", "external_data"}
  assert content["results"].keys() == {video.id for video in data.test}
  truths, found = defaultdict(dict), defaultdict(list)
  for video in data.test:
    for start_, end, label in video.instances:
      truths[data.classes[label]].setdefault(video.id, []).append((start_, end))
    for item in content["results"][video.id]:
      assert item.keys() == {"label", "score", "segment"}
      begin, end = item["segment"]
      seconds = video.geometry.end(video.num_segments)
      assert 0 <= begin < end <= seconds + 1e-9
      one = (-item["score"], video.id, (begin, end))
      found[item["label"]].append(one)
  metrics = _read(finished, "metrics.json")
  for tiou in TIOUS:
    each = [
      _plain_average_precision(
        [one[1:] for one in sorted(found[name], key=lambda one: one[0])],
        truths[name],
        float(tiou),
      )
      for name in truths
    ]
    assert metrics["mAP"][tiou] == pytest.approx(np.mean(each), abs=1e-9)
  assert max(metrics["mAP"].values()) > 0


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
  finished, cache, tmp_path
):
  directory = tmp_path / "run"
  moments = ["rts-1/step-000004", "labels-2-ots.npz"]
  for moment in moments:
    code = KILLED.format(moment=moment)
    killed = start(directory, cache, code=code)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (directory / "detections.json").exists()
  with (directory / "metrics.jsonl").open("a") as file:
    file.write('{"phase": "labels-2-o')  # a line that was cut off
  said = _run(directory, cache)
  assert "ilg            done before" in said
  assert "rts-1          done before" in said
  for name in ("detections.json", "metrics.json", "metrics.jsonl"):
    whole, resumed = finished / name, directory / name
    assert whole.read_bytes() == resumed.read_bytes(), name
  for name in LABELS:
    with np.load(finished / "labels" / f"{name}.npz") as whole:
      resumed = np.load(directory / "labels" / f"{name}.npz")
      for key in whole.files:
        np.testing.assert_array_equal(whole[key], resumed[key])
  leftovers = [p for p in directory.rglob("*") if p.name.startswith(".")]
  assert not [p for p in leftovers if p.parent.parent.name == "checkpoints"]


def test_detection_options_need_no_new_training(finished, cache, tmp_path):
  directory = tmp_path / "run"
  said = _run(
    directory,
    cache,
    f"--reuse={finished}",
    "--config.detect.class_scores=ptlr",
    "--config.detect.cas=minmax",
    "--config.detect.contrast=thresholded",
    "--config.detect.sources=('ots','rts','ilg')",
  )
  phases = [
    line.split()[0] for line in said.splitlines() if "done before" in line
  ]
  assert sorted(phases) == sorted(TRAINED + LABELS)
  assert _log(directory) == _log(finished)
  old, new = (_read(d, "detections.json") for d in (finished, directory))
  assert old["results"].keys() == new["results"].keys()
  assert old["results"] != new["results"]


FUSED = (
  *("--config.ilg.streams=('fused',)", "--config.ilg.loss.alpha=0.0"),
  *("--config.ilg.loss.beta=0.0", "--config.ilg.loss.gamma=0.0"),
)
EARLY = (*FUSED, "--config.ptlr.stages=0")
ONE = ("--config.ptlr.networks=('ots',)", "--config.detect.sources=('ots',)")
ONE_OTS = (
  *(*FUSED, *ONE, "--config.ptlr.warm_start=True"),
  "--config.predict.sampling=uniform",
)


def test_one_network_with_warm_start_and_uniform_sampling_runs(cache, tmp_path):
  _run(tmp_path, cache, *ONE_OTS)
  names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
  assert names == ["ilg", "ots-1", "ots-2"]
  metrics = _read(tmp_path, "metrics.json")
  assert list(metrics["stages"]) == ["ilg", "stage-1", "stage-2"]
  # Warm: stage 2 begins where stage 1 ended, not at a fresh network's loss.
  loss = {(x["phase"], x["step"]): x.get("loss", 0) for x in _log(tmp_path)}
  assert loss["ots-2", 2] < loss["ots-1", 2]


def test_early_fusion_runs(cache, tmp_path):
  _run(tmp_path, cache, *EARLY)
  terms = {"fused/base", "fused/supp", "fused/norm", "loss", "grad_norm"}
  assert _log(tmp_path)[0].keys() == terms | {"phase", "step"}
  assert list(_read(tmp_path, "metrics.json")["stages"]) == ["ilg"]
  assert [p.stem for p in (tmp_path / "labels").iterdir()] == ["labels-0"]


def test_a_data_set_on_disk_runs(cache, tmp_path):
  train = tiny_videos("v_train12", 4, num_segments=20)
  test = tiny_videos("v_test123", 2, num_segments=20, seed=1)
  root = write_basnet(tmp_path / "root", train, test, ("Diving", "HighJump"))
  said = _run(
    tmp_path / "run",
    cache,
    *("--config.data.layout=auto", f"--config.data.root={root}"),
    *("--config.data.width=4", *EARLY),
  )
  assert "4 training and 2 test videos of 2 classes" in said
  assert "Simulated" not in said
  results = _read(tmp_path / "run", "detections.json")["results"]
  assert results.keys() == {"test1230000", "test1230001"}
  metrics = _read(tmp_path / "run", "metrics.json")
  assert metrics["simulated"] is False
  assert metrics["per_class"].keys() == {"Diving", "HighJump"}
  assert not metrics["unknown_videos"]


ONE_STREAM = (
  *("--config.data.layout=own", "--config.ilg.streams=('rgb',)"),
  *("--config.data.width=0", "--config.ptlr.stages=1", *ONE),
)


def test_one_stream_and_video_level_labels_are_enough(cache, tmp_path):
  root = tmp_path / "root"
  (root / "features").mkdir(parents=True)
  lines = ["video,label"]
  train = tiny_videos("train", 4, num_segments=20, streams=("rgb",))
  for video in train:
    lines.append(f"{video.id},{('Diving', 'HighJump')[video.labels[0]]}")
  (root / "labels.csv").write_text("\n".join(lines))
  test = tiny_videos("test", 2, num_segments=20, streams=("rgb",), seed=1)
  for video in (*train, *test):
    np.save(root / "features" / f"{video.id}.npy", video.features["rgb"])
  where = f"--config.data.root={root}"
  said = _run(tmp_path / "run", cache, where, *ONE_STREAM)
  assert "4 training and 2 test videos of 2 classes" in said
  assert "of frames selected; no temporal annotations to compare with" in said
  reason = (
    "none of the 2 test videos has a temporal annotation (start, end, label) "
    "to hold detections against"
  )
  assert f"No mAP, seed 0: {reason}; the detections are in" in said
  assert "mAP (%)" not in said
  own = {"selected", "videos_without_action", "videos_kept"}
  terms = {f"rgb/{name}" for name in ("base", "supp", "norm", "sc")}
  for line in _log(tmp_path / "run"):
    if line["phase"].startswith("labels-"):
      assert line.keys() == own | {"phase", "step"}
    elif line["phase"] == "ilg":
      assert line.keys() == terms | {"phase", "step", "loss", "grad_norm"}
  metrics = _read(tmp_path / "run", "metrics.json")
  assert len(metrics.pop("made_with")) == 1
  labels = metrics.pop("pseudo_labels")
  assert metrics == {
    **{"protocol": "thumos14", "stages": {}, "not_evaluated": reason},
    **{"seed": 0, "simulated": False},
  }
  assert [row["phase"] for row in labels] == ["labels-0", "labels-1-ots"]
  assert all(
    row.keys() == (own - {"videos_kept"}) | {"phase"} for row in labels
  )
  results = _read(tmp_path / "run", "detections.json")["results"]
  assert results.keys() == {"test0000", "test0001"}
  assert _run(tmp_path / "run", cache, where, *ONE_STREAM).count(reason) == 1


def test_no_run_looked_for_tensorflow(finished, cache):
  assert (finished / "metrics.json").exists()
  assert not (cache / "imported").exists()
