"""The named ways in which the field scores: what each is and who uses it."""

import dataclasses

import numpy as np

# Annotated by mistake, so that most leave them out; W-TALC's arrays keep them.
DISPUTED = ("video_test_0000270", "video_test_0001496")
SEGMENTS_PER_SECOND = 25 / 16

THUMOS14 = tuple(k / 10 for k in range(1, 10))
ACTIVITYNET = tuple((50 + 5 * k) / 100 for k in range(10))
_THUMOS14_AVERAGES = ((0.1, 0.5), (0.3, 0.7), (0.1, 0.7), (0.1, 0.9))


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a table is scored.

  Attributes:
    tious: the thresholds.
    averages: of the mAP over thresholds, as (lowest, highest).
    left_out: ids that are no part of the ground truth.
    expected: ids that the ground truth should have.
    snapped: ground truth in whole segments of 0.64 s.
    subsets: names of the subset that is scored, in lower case, best first.
    lengths, coverages, counts: upper ends of the bins of the sensitivity, in
      seconds, share of the video, and instances of a class in a video; those
      of DETAD.
    what, who: for people.
  """

  name: str
  tious: tuple[float, ...]
  averages: tuple[tuple[float, float], ...]
  what: str
  who: str
  left_out: tuple[str, ...] = ()
  expected: tuple[str, ...] = ()
  snapped: bool = False
  subsets: tuple[str, ...] = ("test", "testing", "validation", "val")
  lengths: tuple[float, ...] = (3, 6, 12, 18)
  coverages: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08)
  counts: tuple[int, ...] = (1, 40, 80)


PROTOCOLS = {
  "thumos14": Protocol(
    name="thumos14",
    tious=THUMOS14,
    averages=_THUMOS14_AVERAGES,
    what="THUMOS14 in seconds, the 210 test videos of BaS-Net's ground truth; "
    f"{' and '.join(DISPUTED)} are left out where the ground truth has them",
    who="BaS-Net, UM, CoLA, ASL, ACM-Net and what is built on their gt.json, "
    "STPN, AutoLoc; the default here",
    left_out=DISPUTED,
  ),
  "thumos14-212": Protocol(
    name="thumos14-212",
    tious=THUMOS14,
    averages=_THUMOS14_AVERAGES,
    what=f"the same with {' and '.join(DISPUTED)}, 212 test videos",
    who="whoever takes the ground truth in seconds from W-TALC's annotations",
    expected=DISPUTED,
  ),
  "thumos14-snippet": Protocol(
    name="thumos14-snippet",
    tious=THUMOS14,
    averages=_THUMOS14_AVERAGES,
    what="the 212 test videos, starts and ends of the ground truth rounded to "
    "whole segments of 0.64 s (round(25 / 16 x seconds)), detections as they "
    "are; not comparable with the others at high tIoU",
    who="W-TALC's descendants: HAM-Net, CO2-Net, DELU, DDG-Net, P-MIL (their "
    "evaluators score in segments); W-TALC's first code also took the first "
    "instance that passes, not the best, and is not reproduced",
    expected=DISPUTED,
    snapped=True,
  ),
  "activitynet": Protocol(
    name="activitynet",
    tious=ACTIVITYNET,
    averages=((0.5, 0.95),),
    what="ActivityNet 1.2 and 1.3 in seconds, the challenge's ten thresholds, "
    "every video of the validation subset",
    who="the ActivityNet challenge and everybody who reports 0.5:0.05:0.95",
    subsets=("validation", "val", "test", "testing"),
    lengths=(30, 60, 120, 180),
    coverages=(0.2, 0.4, 0.6, 0.8),
    counts=(1, 4, 8),
  ),
}


def protocol(name: str) -> Protocol:
  """The protocol of that name."""
  if name not in PROTOCOLS:
    raise ValueError(
      f"expected a protocol among {sorted(PROTOCOLS)}, got {name!r}"
    )
  return PROTOCOLS[name]


def explain() -> str:
  """What every protocol is and who uses it, as text."""
  paragraphs = []
  for each in PROTOCOLS.values():
    tious = ", ".join(f"{tiou:g}" for tiou in each.tious)
    averages = ", ".join(map(average_key, each.averages))
    paragraphs.append(
      f"{each.name}\n  what:   {each.what}\n  used by: {each.who}\n"
      f"  tIoU:   {tious}\n  averages: {averages}"
    )
  return "\n\n".join(paragraphs)


def tiou_key(tiou: float) -> str:
  """A threshold as it is written in results: 0.50."""
  return f"{tiou:.2f}"


def average_key(average: tuple[float, float]) -> str:
  """An average as it is written in results: 0.1:0.7."""
  return f"{average[0]:g}:{average[1]:g}"


def whole_segments(seconds: np.ndarray) -> np.ndarray:
  """Seconds rounded to whole segments of 0.64 s, f64 of the same shape."""
  return np.rint(seconds * 25 / 16)  # in the order of operations of its users


def figures(chosen: Protocol, mean: np.ndarray) -> dict[str, np.ndarray]:
  """mAP at every threshold and the averages, f64[..., K] -> {key: f64[...]}."""
  keys = map(tiou_key, chosen.tious)
  found = dict(zip(keys, np.moveaxis(mean, -1, 0), strict=True))
  return found | averages(chosen, mean)


def averages(chosen: Protocol, mean: np.ndarray) -> dict[str, np.ndarray]:
  """The averages over thresholds, f[..., K] -> {key: f[...]}."""
  tious = np.array(chosen.tious)
  found = {}
  for low, high in chosen.averages:
    inside = (tious > low - 1e-9) & (tious < high + 1e-9)
    found[average_key((low, high))] = mean[..., inside].mean(-1)
  return found
