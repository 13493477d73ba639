"""What an evaluation prints is what it writes, and it is complete."""

import json

import numpy as np
import pytest
from evaluation_cases import (
  complete_json,
  detection,
  instance,
  one_problem,
  random_files,
  run,
  sample_results,
  sample_truth,
)


def _rows_of(printed, head):
  """The cells of a printed table, {row: [cell]}, from its head on."""
  lines = printed[printed.index(f"\n{head}") + 1 :].split("\n\n")[0]
  rows = [line.rsplit(maxsplit=13) for line in lines.splitlines()]
  return {row[0].strip(): row[1:] for row in rows}


def test_what_is_printed_is_what_is_written(tmp_path, capsys):
  truth, results = random_files(7, whole=True)
  other = tmp_path / "other.json"
  other.write_text(json.dumps(random_files(8)[1]))
  flags = ("--bootstrap=100", "--diagnosis", "--per_class")
  run(tmp_path, truth, results, f"--against={other}", *flags)
  printed = capsys.readouterr().out
  found = complete_json(tmp_path / "metrics.json")
  rows = _rows_of(printed, "tIoU")
  values = {
    "found": {**found["mAP"], **found["averages"]},
    "other": {
      **found["others"]["other"]["mAP"],
      **found["others"]["other"]["averages"],
    },
  }
  keys = list(values["found"])
  assert rows["tIoU"] == [k if ":" in k else f"{float(k):g}" for k in keys]
  for name, of_file in values.items():
    assert rows[name] == [f"{100 * of_file[key]:.1f}" for key in keys]
  compared = found["against"]["other"]
  assert rows["found - other"] == [
    f"{100 * compared[key]['difference']:+.1f}" for key in keys
  ]
  for n, name in enumerate(("from", "to")):  # the last ones, of the difference
    assert rows[name] == [
      f"{100 * compared[key]['interval'][n]:.1f}" for key in keys
    ]
  for key in keys:
    low, high = compared[key]["interval"]
    assert low <= high
    assert compared[key]["difference"] == pytest.approx(
      values["found"][key] - values["other"][key], abs=1e-12
    )
  counts = found["counts"]
  assert (
    f"{counts['videos']} videos, {counts['instances']} instances of "
    f"{counts['classes']} classes\n"
  ) in printed
  for key, mean in found["mAP"].items():
    aps = [ap[key] for ap in found["per_class"].values()]
    assert mean == pytest.approx(np.mean(aps))
  for kind, count in found["false_positives"]["counts"].items():
    assert f"\n{kind} " in printed
    assert count >= 0
  assert found["settings"]["against"] == str(other)


@pytest.mark.parametrize("protocol", ["thumos14-snippet", "activitynet"])
@pytest.mark.parametrize(
  "items",
  [
    [],
    [detection("Swim", 0, 9, 1)],
    [detection("Jump", 3, 3, 0)],
    [detection("Jump", 0, 10, -1e308), detection("Jump", 0, 10, 1e308)],
    [detection("Jump", -9e8, 9e8, 1)],
  ],
)
def test_extremes_are_complete_json(tmp_path, protocol, items):
  flags = ("--diagnosis", "--bootstrap=100", "--ambiguous_rule=kit")
  other = tmp_path / "other.json"
  other.write_text(json.dumps(sample_results()))
  truth = sample_truth()
  truth["database"]["u"]["annotations"].append(instance("Run", 4, 4))
  given = {"results": {"u": items, "x": items}}
  flags += (f"--against={other}", "--subset=test")
  run(tmp_path, truth, given, *flags, protocol=protocol)
  complete_json(tmp_path / "metrics.json")


def test_the_folder_of_the_output_is_made(tmp_path):
  run(tmp_path)  # `run` reads the usual one
  path = tmp_path / "new" / "folder" / "metrics.json"
  run(tmp_path, None, None, f"--output={path}")
  assert complete_json(path)["name"] == "found"
  run(tmp_path, None, None, f"--output={path}", "--bootstrap=100")
  assert "intervals" in complete_json(path)
  assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
  ("place", "said"),
  [("", "it is a folder"), ("truth.json/metrics.json", "File exists")],
)
def test_an_output_that_cannot_be_written_is_a_line(tmp_path, place, said):
  (tmp_path / "truth.json").write_text("")
  path = tmp_path / place
  line = one_problem(tmp_path, "no JSON", None, f"--output={path}")
  assert line.startswith(f"--output={path}: expected a file that can be")
  assert said in line
