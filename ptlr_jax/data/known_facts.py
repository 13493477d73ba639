"""Known facts of the public data sets: each is a rule with a name, told in a
note, and none is mended in silence.

rule overrun       annotations outlast the features; kept, so that what lies
                   outside counts as missed
rule double_label  two classes share a segment, as every CliffDiving of
                   THUMOS14 is a Diving; both are kept, as official files do
rule zero_length   instances that end where they start (ActivityNet v1.3 has
                   three among its validation videos); kept
rule listed_labels video-level labels differ from those of the instances (27
                   videos of W-TALC's THUMOS14, and one more lists none); the
                   instances' are used unless data.video_labels is listed
rule ambiguous     stretches that show an action in part only; carried along
rule v_prefix      `v_` before ActivityNet's ids is dropped (`canonical_id`)
rule lost          videos without features are left out with skip_missing
"""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby, pairwise
from pathlib import Path

from ptlr_jax.data.files.annotations import Entry

# Videos of THUMOS14 whose annotations are known to outlast the video: by 3 to
# 156 s, and video_test_0000270's by 537 s.
OVERRUNS = {
  "video_validation_0000364",
  "video_validation_0000856",
  "video_test_0000270",
  "video_test_0000814",
  "video_test_0001081",
}


def is_simulated(root: Path) -> bool:
  """Whether README.txt beside the features says that they are simulated, as
  the field's simulators write it; tables then repeat it."""
  try:
    text = (root / "README.txt").read_text("utf-8", "replace")
  except OSError:
    return False
  return "simulated" in text[:2000].lower()


def fact_notes(entries: Iterable[Entry]) -> list[str]:
  """A line for every rule that the annotations touch."""
  entries = list(entries)
  pairs: Counter[tuple[str, str]] = Counter()
  zero = sum(start == end for e in entries for start, end, _ in e.events)
  listed = [
    e.id
    for e in entries
    if e.events and e.labels and set(e.labels) != {x for *_, x in e.events}
  ]
  for entry in entries:
    for _, group in groupby(sorted(entry.events), key=lambda e: e[:2]):
      names = sorted({name for *_, name in group})
      pairs.update(pairwise(names))
  found = [
    f"rule double_label: {count} segments are {a} and {b} at once; both are "
    "kept"
    for (a, b), count in sorted(pairs.items())
  ]
  if zero:
    found.append(
      f"rule zero_length: {zero} instances end where they start; kept"
    )
  if listed:
    found.append(
      f"rule listed_labels: {len(listed)} videos list other labels than their "
      "instances have; the instances' are used unless "
      "--config.data.video_labels=listed"
    )
  stretches = sum(len(e.ambiguous) for e in entries)
  if stretches:
    videos = sum(bool(e.ambiguous) for e in entries)
    found.append(
      f"rule ambiguous: {stretches} ambiguous stretches of {videos} videos are "
      "carried along; evaluation does not leave them out"
    )
  return found
