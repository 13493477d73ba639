"""The result of an evaluation as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptlr_jax.evaluation.mean_ap import aligned
from ptlr_jax.evaluation.protocols import PROTOCOLS, average_key, tiou_key

_SHOWN = 5  # names in a line


def _names(names: Sequence[str]) -> str:
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(names[:_SHOWN]) + more


def _percent(value: float | None) -> str:
  return "" if value is None else f"{100 * value:.1f}"


def oddities(result: Mapping[str, Any]) -> list[str]:
  """A line for everything about a result that one should know."""
  lines = []
  if ignored := result["ignored"]:
    lines.append(
      f"{sum(ignored.values())} detections of classes without an instance in "
      f"this subset are in no figure: {_names(list(ignored))}"
    )
  if unknown := result["unknown_videos"]:
    lines.append(
      f"{sum(unknown.values())} detections are in {len(unknown)} videos that "
      f"are not scored, and count as false positives: {_names(list(unknown))}"
    )
  without = result["without_detections"]
  if classes := without["classes"]:
    lines.append(
      f"{len(classes)} classes have no detection, AP 0: {_names(classes)}"
    )
  if videos := without["videos"]:
    lines.append(f"{len(videos)} videos have no detection: {_names(videos)}")
  for noun, counts in result["zero_length"].items():
    if counts:
      lines.append(
        f"{sum(counts.values())} {noun} have no length, in "
        f"{_names(list(counts))}"
      )
  if twice := result["written_twice"]:
    lines.append(f"{twice} instances are written twice, and count twice")
  return lines + _ties(result)


def _ties(result: Mapping[str, Any]) -> list[str]:
  ties = result["ties"]
  lines = []
  if ties["scores"] or ties["overlaps"]:
    lines.append(
      f"ties: {ties['scores']} detections share a score, {ties['overlaps']} "
      f"overlap two instances equally; {len(ties['pairs'])} of the AP hang on "
      "it"
    )
  for pair in ties["pairs"][:_SHOWN]:
    lines.append(
      f"  {pair['label']} at {float(pair['tiou']):g}: {100 * pair['ap']:.3f}, "
      f"other orders give {100 * pair['low']:.3f} to {100 * pair['high']:.3f}"
    )
  if len(ties["pairs"]) > _SHOWN:
    lines.append(f"  and {len(ties['pairs']) - _SHOWN} more, in the JSON")
  return lines


def map_table(results: Mapping[str, Mapping[str, Any]], name: str) -> str:
  """mAP in percent with its interval, a row a file and of the difference.

  {row: result}; a result's `intervals` and `against` where it has them.
  """
  protocol = PROTOCOLS[name]
  keys = [tiou_key(tiou) for tiou in protocol.tious]
  averages = [average_key(average) for average in protocol.averages]
  lines = [["tIoU", *(f"{tiou:g}" for tiou in protocol.tious), *averages]]
  both = [*keys, *averages]
  for row, result in results.items():
    value = {**result["mAP"], **result["averages"]}
    lines.append([row, *(_percent(value[key]) for key in both)])
    lines += _bounds(result.get("intervals"), both)
  for row, result in results.items():
    for other, compared in result.get("against", {}).items():
      lines.append(
        [f"{row} - {other}"]
        + [f"{100 * compared[key]['difference']:+.1f}" for key in both]
      )
      if "interval" in compared[both[0]]:
        between = {key: compared[key]["interval"] for key in both}
        lines += _bounds(between, both)
  return aligned(lines)


def _bounds(
  intervals: Mapping[str, Sequence[float]] | None, keys: Iterable[str]
) -> list[list[str]]:
  if not intervals:
    return []
  return [
    [f"  {name}", *(f"{100 * intervals[key][n]:.1f}" for key in keys)]
    for n, name in enumerate(("from", "to"))
  ]


def class_table(result: Mapping[str, Any]) -> str:
  """AP of every class in percent, worst first."""
  keys = list(result["mAP"])
  rows = sorted(result["per_class"].items(), key=lambda x: sum(x[1].values()))
  lines = [["AP (%)", *(f"{float(key):g}" for key in keys)]]
  lines += [[label, *(_percent(ap[key]) for key in keys)] for label, ap in rows]
  return aligned(lines)


def diagnosis(result: Mapping[str, Any]) -> str:
  """False positives, sensitivity, recall and oracles as tables."""
  parts = [
    _false_positives(result["false_positives"]),
    _sensitivity(result["sensitivity"]),
    *(_recall(name, rows) for name, rows in result["recall"].items()),
    _oracles(result),
  ]
  return "\n\n".join(parts)


def _false_positives(said: Mapping[str, Any]) -> str:
  counts, gain = said["counts"], said["gain"]
  total = max(sum(counts.values()), 1)
  blocks = [n for n in (1, 2, 3, 5, 10) if n <= len(said["profile"])]
  lines = [
    ["detections", "number", "%", "mAP without"]
    + [f"% in G no. {n}" for n in blocks]
  ]
  for kind, count in counts.items():
    better = "" if kind not in gain else f"{100 * gain[kind]:+.1f}"
    lines.append(
      [kind, str(count), _percent(count / total), better]
      + [_percent(said["profile"][n - 1][kind]) for n in blocks]
    )
  return (
    f"What the detections are at tIoU {said['tiou']:g} (G: the instances of a "
    "class, its detections by score)\n" + aligned(lines)
  )


def _sensitivity(said: Mapping[str, Any]) -> str:
  lines = [["instances", "number", "recall %", "normalised mAP %"]]
  for name, rows in said["by"].items():
    for row in rows:
      if not row["instances"]:
        continue
      lines.append(
        [
          row["bin"] if name == "all" else f"{name} {row['bin']}",
          str(row["instances"]),
          _percent(row["recall"]),
          _percent(row["normalised_mAP"]),
        ]
      )
  return f"Which instances are found at tIoU {said['tiou']:g}\n" + aligned(
    lines
  )


def _recall(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
  keys = [key for key in rows[0] if key[0].isdigit()]
  lines = [
    ["proposals a video", "have", *(f"{float(k):g}" for k in keys), "average"]
  ]
  lines += [
    [str(row["proposals"]), f"{row['mean_proposals']:.1f}"]
    + [_percent(row[key]) for key in (*keys, "average")]
    for row in rows
  ]
  what = {"any_label": "of any class", "own_label": "of the right class"}
  return f"Recall (%) of proposals {what[name]}\n" + aligned(lines)


def _oracles(result: Mapping[str, Any]) -> str:
  said = result["oracles"]["mAP"]
  rows = {"as it is": {**result["mAP"], **result["averages"]}, **said}
  keys = list(rows["as it is"])
  lines = [["mAP (%)", *(f"{float(k):g}" if ":" not in k else k for k in keys)]]
  lines += [
    [name, *(_percent(value[key]) for key in keys)]
    for name, value in rows.items()
  ]
  return (
    "What could be reached: perfect detections on a grid of "
    f"{result['oracles']['grid']:g} s; these with perfect\nscores, labels, or "
    "segments\n" + aligned(lines)
  )


def text(found: dict[str, Any], per_class: bool) -> str:
  """What is printed of a result."""
  results = {found["name"]: found, **found["others"]}
  counts, settings = found["counts"], found["settings"]
  lines = [
    f"protocol {found['protocol']}, subset {found['subset']!r}: "
    f"{counts['videos']} videos, {counts['instances']} instances of "
    f"{counts['classes']} classes",
    *(f"note: {note}" for note in found["notes"]),
  ]
  for name, result in results.items():
    lines.append(f"{name}: {result['counts']['detections']} detections")
    lines += [f"  {line}" for line in oddities(result)]
  lines += ["", "mAP (%)"]
  if settings["bootstrap"]:
    lines[-1] += (
      f" and its 95 % interval, from {settings['bootstrap']} resamples of the "
      f"videos (seed {settings['seed']})"
    )
  lines.append(map_table(results, found["protocol"]))
  for name, result in results.items():
    head = f"\n{name}:" if len(results) > 1 else ""
    if per_class:
      lines += [head, class_table(result)]
    if settings["diagnosis"]:
      lines += [head, diagnosis(result)]
  return "\n".join(lines)
