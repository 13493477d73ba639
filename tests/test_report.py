"""Tests of ptlr_jax.report: what the page of a run says, and what it needs."""

import dataclasses
import json
import re
import shutil
import sys

import numpy as np
import pytest

from ptlr_jax import report
from ptlr_jax.data.dataset import ground_truth_database
from ptlr_jax.evaluation import average_precision, scoring
from ptlr_jax.evaluation.instances import detections_of, truth_of
from ptlr_jax.evaluation.protocols import protocol
from ptlr_jax.inference import run_model
from ptlr_jax.inference.predictor import Predictor
from ptlr_jax.inference.video_detections import Segment
from ptlr_jax.io import storage
from ptlr_jax.reporting import curves, markup, page, scores, videos
from ptlr_jax.reporting.markup import tag
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.runtime.errors import InputError
from tests.report_fixture import finished_run, write
from tests.trained_fixture import configuration, leave_run, simulated_data

pytest.importorskip("plotly", reason="pages need plotly")


@pytest.fixture(autouse=True)
def _jax_stays_as_it_is(monkeypatch):
  monkeypatch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two runs on the same data, and the page of the first."""
  folder = tmp_path_factory.mktemp("report")
  finished_run(folder / "run")
  shutil.copytree(folder / "run", folder / "looser")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("ptlr_jax.cli.startup.settle_jax", lambda *_: None)
    write(folder / "run", folder / "page.html", "--bootstrap=200")
  return folder


@pytest.fixture
def text(folder):
  return (folder / "page.html").read_text()


def _data(text):
  """What page.js draws."""
  (held,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
  return json.loads(held)


def _markup(text):
  """The page without its scripts and style."""
  return re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)


def _rows(text, caption):
  """The cells of the table with a caption, small print left out."""
  table = next(
    t for t in re.findall(r"<table.*?</table>", text, re.S) if caption in t
  )
  rows = re.findall(r"<tr>(.*?)</tr>", re.sub(r"<small>.*?</small>", "", table))
  return [
    [
      re.sub("<.*?>", "", cell)
      for cell in re.findall(r"<t[hd].*?</t[hd]>", row)
    ]
    for row in rows
  ]


def _line(*flags):
  """The one line with which flags are refused."""
  with pytest.raises(InputError) as error:
    report.run_command(["", *flags])
  (line,) = error.value.lines
  return line


# The whole page.


def test_the_page_needs_nothing_beside_it(text):
  said = _markup(text)
  assert not re.findall(r"<(?:img|iframe|object|embed)\b|\bsrc=", said)
  assert re.findall(r"<link[^>]*>", said) == ['<link rel="icon" href="data:,">']
  hrefs = re.findall(r'href="([^"]*)"', said)
  ids = set(re.findall(r'\bid="([^"]*)"', said))
  assert {h[1:] for h in hrefs if h != "data:,"} <= ids
  assert "default-src 'none'" in said
  assert "@import" not in text[: text.index("</style>")]
  assert "url(" not in text[: text.index("</style>")]


def test_it_says_that_features_are_simulated(text):
  assert page.SIMULATED in text
  facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
  assert facts["features"] == "simulated"
  assert facts["seed"] == "0"
  assert "jax " in facts["versions"]
  assert len(re.sub("<.*?>", "", facts["configuration"])) == 16


def test_its_map_is_that_of_the_run(folder, text):
  stages = storage.read_json(folder / "run" / "metrics.json")["stages"]
  rows = {row[0]: row[1:] for row in _rows(text, "mAP in percent")}
  for name, result in stages.items():
    both = [*result["mAP"].values(), *result["averages"].values()]
    assert rows[name] == [f"{100 * value:.1f}" for value in both]
  first, last = ([*stages[n]["mAP"].values()] for n in ("ilg", "stage-1"))
  assert rows["stage-1 − ilg"][:9] == [
    f"{100 * (b - a):+.1f}" for a, b in zip(first, last, strict=True)
  ]
  assert first != last


def test_classes_and_labels_are_those_of_the_run(folder, text):
  metrics = storage.read_json(folder / "run" / "metrics.json")
  _, *rows = _rows(text, "AP of every class")
  said = {row[0]: row[2:11] for row in rows}
  assert said == {
    label: [f"{100 * value:.1f}" for value in ap.values()]
    for label, ap in metrics["per_class"].items()
  }
  means = [float(row[1]) for row in rows]
  assert means == sorted(means)
  _, *rows = _rows(text, "Pseudo labels of the training videos")
  names = ("precision", "recall", "action_precision", "action_recall")
  assert [row[:5] for row in rows] == [
    [line["phase"], *(f"{100 * line[name]:.1f}" for name in names)]
    for line in metrics["pseudo_labels"]
  ]


def test_intervals_are_those_of_the_evaluator(folder, tmp_path):
  run = folder / "run"
  data = simulated_data(configuration())
  truth = ground_truth_database(data.test, data.classes, "test")
  (tmp_path / "gt.json").write_text(json.dumps({"database": truth}))
  asked = scoring.Options(
    ground_truth=str(tmp_path / "gt.json"),
    detections=str(run / "detections.json"),
    against=str(run / "detections" / "ilg.json"),
    protocol="thumos14",
    bootstrap=100,
    diagnosis=False,
  )
  expected = scoring.evaluate(asked)
  read = {
    name: storage.read_json(run / path)["results"]
    for name, path in (
      ("ilg", "detections/ilg.json"),
      ("stage-1", "detections.json"),
    )
  }
  options = configuration().evaluate
  found = scores.score(
    data, read, ("ilg", read["ilg"]), options, samples=100, seed=0
  )
  assert found.results["stage-1"]["intervals"] == expected["intervals"]
  (difference,) = expected["against"].values()
  assert found.difference == difference


def test_the_curves_are_those_of_the_networks(folder, text):
  data = simulated_data(configuration())
  networks = Predictor(run_model.model_from_workdir(folder / "run"))
  shown = {entry["id"]: entry for entry in _data(text)["videos"]}
  assert set(shown) == {v.id for v in (*data.test, *data.train)}
  for video, of in zip(data.test, networks(data.test), strict=True):
    entry = shown[video.id]
    assert list(entry["cas"]) == ["ilg", "ots", "rts"]
    for net, kept in entry["cas"].items():
      assert {int(c) for c in kept} >= set(video.labels)
      for c, values in kept.items():
        assert np.abs(
          np.array(values) / 1000 - of.cas[net][:, int(c)]
        ).max() < (0.00051)


def test_the_viewer_has_truth_and_both_proposals(folder, text):
  data = simulated_data(configuration())
  shown = {entry["id"]: entry for entry in _data(text)["videos"]}
  for key, path in (
    ("found", "detections.json"),
    ("other", "detections/ilg.json"),
  ):
    for video, found in storage.read_json(folder / "run" / path)[
      "results"
    ].items():
      rows = shown[video][key]
      best = max((one["score"] for one in found), default=0)
      assert bool(rows) == bool(found)
      assert not rows or rows[0][3] == round(1000 * best)
      assert all(row[4] for row in rows[:1])
  for video in data.test:
    truth = [[c, round(100 * s), round(100 * e)] for s, e, c in video.instances]
    assert shown[video.id]["truth"] == truth


def test_training_videos_show_their_labels(folder, text):
  entries = [e for e in _data(text)["videos"] if e["split"] == "training"]
  assert len(entries) == 6
  data = simulated_data(configuration())
  from ptlr_jax.io import label_files

  ids = [v.id for v in data.train]
  lengths = [v.num_segments for v in data.train]
  for phase in ("labels-0", "labels-1-ots", "labels-1-rts"):
    path = folder / "run" / "labels" / f"{phase}.npz"
    expected = label_files.read_labels(path, ids, lengths)
    for entry, video, labels in zip(entries, data.train, expected, strict=True):
      assert entry["id"] == video.id
      seen = np.zeros(labels.labels.shape, bool)
      for c, edges in entry["labels"][phase].items():
        for a, b in zip(edges[::2], edges[1::2], strict=True):
          seen[a:b, int(c)] = True
      np.testing.assert_array_equal(seen, labels.labels)


def test_another_run_is_held_against_it(folder, tmp_path):
  other = folder / "looser"
  found = storage.read_json(other / "detections.json")["results"]
  few = {video: rows[:1] for video, rows in found.items()}
  storage.write_json(other / "detections.json", {"results": few})
  flags = (f"--against={other}", "--bootstrap=50", "--videos=2")
  text = write(folder / "run", tmp_path / "a.html", *flags)
  assert "Compared with looser, configuration" in text
  assert _rows(text, "mAP in percent")[-1][0] == "stage-1 − looser"
  data = _data(text)
  tests = [e for e in data["videos"] if e["split"] == "test"]
  assert len(tests) == 2
  assert all(len(entry["other"]) <= 1 for entry in tests)
  # A results file does as well.
  path = tmp_path / "theirs.json"
  path.write_text(json.dumps({"results": found}))
  text = write(folder / "run", tmp_path / "b.html", f"--against={path}")
  cells = _rows(text, "mAP in percent")[-1]
  assert cells[0] == "stage-1 − theirs"
  assert set(cells[1:]) == {"+0.0"}


# Runs that lack something.


def test_a_damaged_artefact_is_told_and_left_out(folder, tmp_path, capsys):
  run = tmp_path / "run"
  shutil.copytree(folder / "run", run)
  for path in (run / "detections" / "ilg.json", run / "metrics.json"):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 1
    path.write_bytes(raw)
  text = write(run, tmp_path / "a.html", "--bootstrap=0")
  assert "ilg.json: expected it as it was written" in text
  assert (
    "metrics.json: expected it as it was written" in capsys.readouterr().out
  )
  assert [row[0] for row in _rows(text, "mAP in percent")] == [
    "tIoU",
    "stage-1",
  ]


def test_a_run_that_has_begun_shows_its_curve(folder, tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  for name in ("config.json", "provenance.json", "metrics.jsonl"):
    shutil.copy(folder / "run" / name, run)
  text = write(run, tmp_path / "a.html")
  assert "There is no mAP: nothing is detected yet" in text
  assert "the ILG is not trained yet" in text
  curve = _data(text)["losses"][0]
  assert (curve["phase"], curve["step"], curve["steps"]) == (
    "ilg",
    [2, 4, 6, 8],
    8,
  )
  assert curve["terms"]["loss"] == [0.75, 0.375, 0.25, 0.1875]
  assert "not finished, ilg is next" in text
  assert "step 8 of 8" in text
  # Of an earlier stage there are CASs and labels already.
  shutil.copytree(
    folder / "run" / "checkpoints" / "ilg", run / "checkpoints/ilg"
  )
  shutil.copytree(folder / "run" / "labels", run / "labels")
  text = write(run, tmp_path / "b.html")
  assert "the CASs are those of stage 0 of 1" in text
  entry = _data(text)["videos"][-1]
  assert list(entry["cas"]) == ["ilg"]
  assert next(iter(entry["labels"])) == "labels-0"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
  """A run on a data set of one's own, and the data set."""
  folder = tmp_path_factory.mktemp("own")
  source = simulated_data(configuration())
  lines = ["video,label,subset,start,end"]
  for split, listed in (("train", source.train), ("test", source.test)):
    for video in listed:
      for stream, x in video.features.items():
        path = folder / "data" / "features" / stream / f"{video.id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, x)
      for start, end, label in video.instances:
        name = source.classes[label]
        lines.append(f"{video.id},{name},{split},{start},{end}")
  (folder / "data" / "labels.csv").write_text("\n".join(lines))
  given = {"data.layout": "auto", "data.root": str(folder / "data")}
  config = configuration(**given)
  finished_run(folder / "run", load_dataset(config.data), **given)
  return folder


def test_without_the_data_set_there_is_what_the_run_knows(own, tmp_path):
  text = write(own / "run", tmp_path / "a.html")
  assert "pass --source=ROOT" in text
  assert _rows(text, "mAP in percent")[-1][0] == "stage-1"
  assert "Error diagnosis" not in text
  entry = _data(text)["videos"][0]
  assert entry["truth"] is None
  assert "cas" not in entry
  assert entry["found"]
  assert "--source=ROOT" in _line(
    f"--workdir={own / 'run'}", f"--output={tmp_path}/a.png", "--figure=V"
  )


def test_with_the_data_set_there_is_all(own, tmp_path):
  flags = (f"--source={own / 'data'}", "--bootstrap=20")
  text = write(own / "run", tmp_path / "a.html", *flags)
  assert "Error diagnosis" in text
  assert page.SIMULATED not in text
  entry = _data(text)["videos"][0]
  assert entry["truth"]
  assert list(entry["cas"]) == ["ilg", "ots", "rts"]
  assert "no such" in _line(
    f"--workdir={own / 'run'}",
    f"--source={tmp_path / 'nowhere'}",
    f"--output={tmp_path / 'b.html'}",
  )


def test_another_data_set_is_refused(own, tmp_path):
  shutil.copytree(own / "data", tmp_path / "data")
  table = tmp_path / "data" / "labels.csv"
  table.write_text("\n".join(table.read_text().splitlines()[:-1]))
  line = _line(
    f"--workdir={own / 'run'}",
    f"--source={tmp_path / 'data'}",
    f"--output={tmp_path / 'b.html'}",
  )
  assert "came one with other annotations" in line


def test_without_ground_truth_there_is_no_map_but_curves(tmp_path, monkeypatch):
  data = simulated_data(configuration())
  bare = dataclasses.replace(
    data,
    test=tuple(dataclasses.replace(v, instances=()) for v in data.test),
    train=tuple(dataclasses.replace(v, instances=()) for v in data.train),
  )
  leave_run(tmp_path / "run", configuration(), bare)
  monkeypatch.setattr(
    "ptlr_jax.reporting.run_record.load_dataset", lambda *_: bare
  )
  text = write(tmp_path / "run", tmp_path / "a.html")
  assert "There is no mAP: none of the 4 test videos has" in text
  assert "Error diagnosis" not in text
  assert "worst first" not in text
  entry = _data(text)["videos"][0]
  assert entry["cas"]
  assert entry["truth"] is None
  assert entry["ap"] == [None, None]


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    ([], "--workdir: expected a path"),
    (["--workdir={run}"], "--output: expected a path"),
    (["--workdir={run}", "--output={tmp}/a.pdf"], "ends in .html"),
    (
      ["--workdir={run}", "--output={tmp}/a.html", "--figure=V"],
      "ends in .png",
    ),
    (["--workdir={tmp}", "--output={tmp}/a.html"], "without config.json"),
    (["--workdir={tmp}/no", "--output={tmp}/a.html"], "no such folder"),
    (
      ["--workdir={run}", "--output={tmp}/a.html", "--against={tmp}"],
      "--against=",
    ),
    (
      ["--workdir={run}", "--output={tmp}/a.png", "--figure=V"],
      "expected a video of the data set (simulated_test_0000",
    ),
  ],
)
def test_what_cannot_be_used_is_one_line(folder, tmp_path, flags, said):
  places = {"run": folder / "run", "tmp": tmp_path}
  assert said in _line(*(flag.format(**places) for flag in flags))
  assert not list(tmp_path.iterdir())


def test_a_run_on_other_data_is_not_compared(folder, tmp_path):
  data = simulated_data(configuration())
  fewer = dataclasses.replace(data, test=data.test[:3])
  leave_run(tmp_path / "other", configuration(), fewer)
  line = _line(
    f"--workdir={folder / 'run'}",
    f"--against={tmp_path / 'other'}",
    f"--output={tmp_path / 'a.html'}",
  )
  assert "came one with other annotations" in line


def test_an_absent_plotly_is_named_with_its_extra(
  folder, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, "plotly", None)
  monkeypatch.setitem(sys.modules, "plotly.offline", None)
  line = _line(f"--workdir={folder / 'run'}", f"--output={tmp_path / 'a.html'}")
  assert "ptlr-jax[report]" in line


# Pictures.


def test_a_figure_is_the_same_timeline_for_print(folder, tmp_path):
  pytest.importorskip("matplotlib", reason="pictures need matplotlib")
  for ending, start in (
    ("pdf", b"%PDF"),
    ("svg", b"<?xml"),
  ):
    path = tmp_path / f"v.{ending}"
    report.run_command(
      [
        "",
        f"--workdir={folder / 'run'}",
        f"--output={path}",
        "--figure=simulated_test_0001",
      ]
    )
    assert path.read_bytes().startswith(start)
  drawn = (tmp_path / "v.svg").read_text()
  for word in ("simulated_test_0001", "ground truth", "detected", "ilg", "RTS"):
    assert f">{word}<" in drawn
  flags = (f"--output={tmp_path / 'v.svg'}", "--figure=simulated_train_0001")
  report.run_command(["", f"--workdir={folder / 'run'}", *flags])
  drawn = (tmp_path / "v.svg").read_text()
  assert ">labels-0<" in drawn
  assert ">labels-1-rts<" in drawn


# Parts.


def test_the_ap_of_a_video_is_of_its_own_classes_and_detections():
  """Two instances of a; the first detection finds one, the second none, the
  third the other: precisions 1 and 2/3, so AP (1 + 2/3) / 2. Of b: missed."""
  chosen = protocol("thumos14")
  truth = truth_of(
    {
      "u": {
        "annotations": [
          {"segment": [0, 10], "label": "a"},
          {"segment": [20, 30], "label": "a"},
        ]
      },
      "v": {
        "annotations": [
          {"segment": [0, 10], "label": "a"},
          {"segment": [5, 9], "label": "b"},
        ]
      },
      "w": {"annotations": []},
    },
    chosen,
    "",
    [],
  )
  found = detections_of(
    {
      "v": [{"label": "a", "score": 0.95, "segment": [0, 10]}],
      "u": [
        {"label": "b", "score": 0.99, "segment": [0, 10]},
        {"label": "a", "score": 0.9, "segment": [0, 10]},
        {"label": "a", "score": 0.8, "segment": [40, 50]},
        {"label": "a", "score": 0.7, "segment": [20, 30]},
      ],
      "w": [{"label": "a", "score": 1.0, "segment": [0, 10]}],
    },
    truth,
    chosen,
    "",
    [],
  )
  ap = scores.of_videos(average_precision.score(truth, found, chosen))
  assert ap == {"u": pytest.approx(5 / 6), "v": 0.5}


def test_proposals_are_marked_where_a_better_one_overlaps_them():
  found = [
    ("b", 1.0, 4.0, 0.95),
    ("a", 0.0, 10.0, 0.9),
    ("a", 5.0, 12.0, 0.8),
    ("c", 0.0, 1.0, 0.75),
    ("a", 12.0, 15.234, 0.7),
  ]
  segments = [Segment(*row) for row in found]
  assert videos.proposals(segments, ["a", "b"]) == [
    [1, 100, 400, 950, 1],
    [0, 0, 1000, 900, 1],
    [0, 500, 1200, 800, 0],
    [0, 1200, 1523, 700, 1],
  ]
  many = [Segment("a", n, n + 1, 1 - n / 100) for n in range(50)]
  rows = videos.proposals(many, ["a"])
  assert [row[1] for row in rows] == [100 * n for n in range(videos.BEST)]


def test_of_many_videos_the_worst_and_the_best_are_shown():
  data = simulated_data(configuration())
  ids = [video.id for video in data.test]
  ap = dict(zip(ids, (0.5, 0.1, 0.9, 0.4), strict=True))
  assert videos.chosen(data, ap, 2, 3) == ([1, 2], [0, 2, 5])
  assert videos.chosen(data, ap, 9, 0) == ([0, 1, 2, 3], [])


def test_long_curves_are_thinned_and_keep_their_end():
  log = [{"phase": "ilg", "step": n, "loss": n / 7} for n in range(1, 1001)]
  listed = [p for p in _phases() if p.name == "ilg"]
  (curve,) = curves.losses(log, listed, {"ilg": 1000})
  assert len(curve["step"]) <= curves.POINTS
  assert curve["step"][-1] == 1000
  assert curve["terms"]["loss"][-1] == 142.9


def _phases():
  from ptlr_jax.workdir.phases import phases

  return phases(configuration())


def test_names_cannot_become_markup():
  evil = '</script><img src=x onerror="alert(1)">'
  assert "<img" not in markup.table(["a"], [[evil, evil]], caption=evil)
  assert str(tag("p", evil, title=evil)).count("<") == 2
  held = page.data_text({"videos": [{"id": evil}]})
  assert "<" not in held
  assert json.loads(held) == {"videos": [{"id": evil}]}
