"""The parts of the page that are tables and text."""

from collections.abc import Mapping, Sequence
from typing import Any

from ptlr_jax.evaluation import text_report
from ptlr_jax.evaluation.protocols import PROTOCOLS, average_key, tiou_key
from ptlr_jax.reporting import run_record
from ptlr_jax.reporting.markup import (
  Markup,
  between,
  chart,
  join,
  percent,
  section,
  table,
  tag,
)
from ptlr_jax.reporting.run_record import Compared, RunRecord
from ptlr_jax.reporting.scores import TIOU, Scores

_PACKAGES = ("ptlr_jax", "jax", "flax", "numpy", "python")


def run_facts(run: RunRecord, simulated: bool | None) -> list[tuple[str, Any]]:
  """What a run is, as names and values."""
  config = run.config
  last = run.starts[-1] if run.starts else {}
  versions = last.get("packages", {})
  device = last.get("device", {})
  data = config.data.layout + (f", {config.data.root}" * bool(config.data.root))
  if config.data.holdout:
    data += (
      f"; {percent(config.data.holdout)} % of the training videos held out"
    )
  facts = [
    ("configuration", tag("code", run_record.config_digest(run)[:16])),
    ("data", data),
    ("features", _features(simulated)),
    ("seed", config.seed),
    ("stages", config.ptlr.stages),
    ("protocol", config.evaluate.protocol),
    ("began", run.starts[0].get("time", "") if run.starts else "not known"),
    ("starts", len(run.starts)),
    (
      "versions",
      ", ".join(f"{n} {versions[n]}" for n in _PACKAGES if n in versions),
    ),
    ("commit", str(last.get("commit") or "not known")[:12]),
    (
      "device",
      f"{device.get('count', '')} {device.get('kind', 'not known')}".strip(),
    ),
  ]
  if run.missing:
    facts.append(("not done yet", ", ".join(run.missing)))
  return facts


def _features(simulated: bool | None) -> str:
  said = {True: "simulated", False: "of videos", None: "not known"}
  return said[simulated]


def what(
  run: RunRecord, other: Compared | None, simulated: bool | None
) -> Markup:
  """The section that says what the run is."""
  facts = [
    tag("div", tag("dt", name), tag("dd", value))
    for name, value in run_facts(run, simulated)
  ]
  inside = [tag("dl", *facts, class_="facts")]
  if other is not None:
    said = f"Compared with {other.name}"
    if other.run is not None:
      digest = run_record.config_digest(other.run)[:16]
      said += f", configuration {digest}, seed {other.run.config.seed}"
    elif other.name in run.detections:
      said += ", the first line of its own table"
    inside.append(tag("p", said + "."))
  return section("run", "The run", *inside)


def scores_section(
  run: RunRecord, scores: Scores | None, other: str, samples: int, why: str
) -> Markup:
  """mAP of every line with intervals, and what differs from the compared."""
  results: Mapping[str, Any] = run.metrics.get("stages", {})
  if scores is not None:
    results = scores.results
  if not results:
    why = why or run.metrics.get("not_evaluated") or "nothing is detected yet"
    return section("map", "mAP", tag("p", f"There is no mAP: {why}."))
  protocol = PROTOCOLS[run.config.evaluate.protocol]
  keys = [tiou_key(tiou) for tiou in protocol.tious]
  keys += map(average_key, protocol.averages)
  rows = []
  for name, result in results.items():
    value = {**result["mAP"], **result["averages"]}
    bounds = result.get("intervals", {})
    cells = [join([percent(value[k]), between(bounds.get(k))]) for k in keys]
    rows.append([name, *cells])
  if scores is not None and scores.difference:
    name = f"{run.row} − {other}"
    cells = []
    for key in keys:
      said = scores.difference[key]
      bounds = said.get("interval")
      clear = bounds is not None and (bounds[0] > 0 or bounds[1] < 0)
      figure = percent(said["difference"], signed=True)
      cells.append(
        join(
          [tag("strong", figure) if clear else figure, between(bounds, True)]
        )
      )
    rows.append([name, *cells])
  head = ["tIoU", *(f"{tiou:g}" for tiou in protocol.tious)]
  head += map(average_key, protocol.averages)
  note = f"Protocol {protocol.name}: {protocol.what}."
  if samples and scores is not None:
    note += (
      f" In small letters the 95 % interval of {samples} resamples of the test "
      "videos; it says how far a figure hangs on these videos, not on the seed."
    )
    if scores.difference:
      note += " A difference in bold has an interval without 0."
  caption = "mAP in percent at each tIoU, and averages over tIoU"
  inside = [table(head, rows, caption=caption), tag("p", note, class_="note")]
  if scores is not None:
    for name in (run.row, other):
      if name in results and (odd := text_report.oddities(results[name])):
        lines = [tag("li", line) for line in odd]
        inside.append(tag("details", tag("summary", f"Odd in {name}"), *lines))
  return section("map", "mAP", *inside)


def labels_section(quality: Sequence[Mapping[str, Any]]) -> Markup:
  """Precision and recall of pseudo labels over the stages."""
  heading = "Pseudo labels over the stages"
  if not quality:
    return section("labels", heading, tag("p", "There are none yet."))
  known = any("precision" in line for line in quality)
  head = ["phase"]
  if known:
    head += ["precision", "recall", "precision, actions", "recall, actions"]
  head += ["frames selected", "videos without action", "videos kept theirs"]
  rows = []
  for line in quality:
    row = [line["phase"]]
    if known:
      names = ("precision", "recall", "action_precision", "action_recall")
      row += [percent(line.get(name)) for name in names]
    row.append(percent(line.get("selected")))
    for name in ("videos_without_action", "videos_kept"):
      row.append("" if line.get(name) is None else f"{line[name]:g}")
    rows.append(row)
  caption = "Pseudo labels of the training videos, shares in percent"
  inside = [table(head, rows, caption=caption)]
  if known:
    drawn = "Precision and recall of the pseudo labels after every phase"
    inside.insert(0, chart("labels-chart", drawn, small=True))
    inside.append(
      tag(
        "p",
        "Over all frames as the paper has it, background among them, and over "
        "action frames alone, where a collapse to background shows. Training "
        "never sees these figures.",
        class_="note",
      )
    )
  else:
    said = "The training videos have no temporal annotations to compare with."
    inside.append(tag("p", said, class_="note"))
  return section("labels", heading, *inside)


def losses_section(curves: Sequence[Mapping[str, Any]]) -> Markup:
  """A chart for every training phase."""
  if not curves:
    said = tag("p", "No training step is logged yet.")
    return section("losses", "Losses", said)
  charts = [
    tag(
      "figure",
      tag("figcaption", _progress(curve)),
      chart(f"loss-{n}", f"Loss terms of {curve['phase']} by step", small=True),
      class_="many" if len(curve["terms"]) > 4 else None,
    )
    for n, curve in enumerate(curves)
  ]
  note = "A click in a legend hides a curve, a double click all others."
  return section(
    "losses",
    "Losses",
    tag("div", *charts, class_="grid"),
    tag("p", note, class_="note"),
  )


def _progress(curve: Mapping[str, Any]) -> str:
  last, total = curve["step"][-1], curve["steps"]
  end = curve["terms"].get("loss", [None])[-1]
  said = "" if end is None else f", loss {end:g}"
  step = f"step {last}" if total is None else f"step {last} of {total}"
  return f"{curve['phase']}: {step}{said}"


def classes_section(
  run: RunRecord, scores: Scores | None, other: str
) -> Markup | None:
  """AP of every class, sortable."""
  result = run.metrics if scores is None else scores.results[run.row]
  if not result.get("per_class"):
    return None
  theirs = {}
  if scores is not None and other in scores.results:
    theirs = scores.results[other]["per_class"]
  keys = list(result["mAP"])
  middle = tiou_key(TIOU)
  head = ["class", "mean", *(f"{float(k):g}" for k in keys)]
  head += [f"{TIOU:g} − {other}"] * bool(theirs)
  rows = []
  for label, ap in result["per_class"].items():
    mean = sum(ap.values()) / len(ap)
    row = [label, percent(mean), *(percent(ap[key]) for key in keys)]
    if theirs:
      row.append(percent(ap[middle] - theirs[label][middle], signed=True))
    rows.append((mean, row))
  rows = [row for _, row in sorted(rows, key=lambda x: x[0])]
  caption = "AP of every class in percent, by tIoU; a heading sorts"
  return section(
    "classes",
    "Classes",
    table(head, rows, caption=caption, sortable=True),
  )


def errors_section(
  scores: Scores | None, names: Sequence[str]
) -> Markup | None:
  """False positives by kind, sensitivity and oracles, of one or two."""
  if scores is None:
    return None
  drawn = "What the detections are, by their rank among those of their class"
  inside = [
    chart("errors-chart", drawn, small=True),
    _kinds(scores, names),
    tag(
      "p",
      "Kinds of Alwassel et al. (2018). G is the number of instances of a "
      "class: the first block holds its G best detections, the second the next "
      "G. “mAP without” is what would be gained without false positives of "
      "that kind.",
      class_="note",
    ),
    _sensitivity(scores, names),
    _oracles(scores, names),
  ]
  return section("errors", "Error diagnosis", *inside)


def _kinds(scores: Scores, names: Sequence[str]) -> Markup:
  said = {name: scores.diagnosis[name]["false_positives"] for name in names}
  head = ["detections"]
  for name in names:
    head += [f"{name}: number", "%", "mAP without"]
  rows = []
  for kind in said[names[0]]["counts"]:
    row = [kind]
    for name in names:
      counts, gain = said[name]["counts"], said[name]["gain"]
      share = counts[kind] / max(sum(counts.values()), 1)
      row += [str(counts[kind]), percent(share), percent(gain.get(kind), True)]
    rows.append(row)
  return table(head, rows, caption=f"All detections at tIoU {TIOU:g}, by kind")


def _sensitivity(scores: Scores, names: Sequence[str]) -> Markup:
  said = {name: scores.diagnosis[name]["sensitivity"]["by"] for name in names}
  head = ["instances", "number"]
  for name in names:
    head += [f"{name}: recall", "normalised mAP"]
  rows = []
  for by, first in said[names[0]].items():
    for n, line in enumerate(first):
      if line["instances"]:
        named = line["bin"] if by == "all" else f"{by} {line['bin']}"
        row = [named, str(line["instances"])]
        for name in names:
          own = said[name][by][n]
          row += [percent(own["recall"]), percent(own["normalised_mAP"])]
        rows.append(row)
  caption = f"Which instances are found at tIoU {TIOU:g}, in percent"
  return table(head, rows, caption=caption)


def _oracles(scores: Scores, names: Sequence[str]) -> Markup:
  result = scores.results[names[0]]
  kept = {**result["mAP"], **result["averages"]}
  said = scores.diagnosis[names[0]]["oracles"]
  what = {
    "grid": f"perfect, on a grid of {said['grid']:.2f} s",
    "scores": "with perfect scores",
    "labels": "with perfect labels",
    "segments": "with perfect segments",
  }
  rows = [["as it is", *(percent(kept[k]) for k in kept)]]
  for name, value in said["mAP"].items():
    rows.append([what[name], *(percent(value[k]) for k in kept)])
  head = ["mAP", *(k if ":" in k else f"{float(k):g}" for k in kept)]
  caption = f"What {names[0]} could reach, in percent"
  return table(head, rows, caption=caption)


def notes_section(notes: Sequence[str]) -> Markup | None:
  """What one should know besides."""
  if not notes:
    return None
  lines = [tag("li", note) for note in dict.fromkeys(notes)]
  return section("notes", "Notes", tag("ul", *lines))
