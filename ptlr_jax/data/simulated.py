"""A simulated two-stream data set for the demo and the tests.

It is no evidence about THUMOS14 or any real video: features are drawn from a
small generative model that only has the structure which makes weakly
supervised localization hard. Use it to see the method run end to end.

A video is a sequence of segments; each stream is a sum of
- background that varies slowly: a smooth path through a few scene directions;
- scene context: appearance that co-occurs with a class, before, during and
  long after its instances, and at times without any (fools rgb);
- unrelated motion: bursts, some of which resemble a class (fools flow);
- instances with a discriminative core and weak flanks, of fast or slow actions
  (slow ones are longer and show less motion), each video with its own view of
  its class direction;
- noise correlated in time.
Classes come in pairs that look alike in both streams, and one video in four may
hold two classes.

`simulate` draws the timelines as well; `draw_features` fills a given one.
"""

from collections.abc import Sequence

import numpy as np

from ptlr_jax.data.dataset import Dataset, Instance, Video
from ptlr_jax.data.sampling import generator

SECONDS_PER_SEGMENT = 0.64
LONGEST_PART = 40  # segments of an instance with one core; longer ones repeat

# Start and end in segments, class index, whether the action is a fast one.
Occurrence = tuple[float, float, int, bool]


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _smooth(
  rng: np.random.Generator, length: int, width: int, memory: float
) -> np.ndarray:
  """Unit-variance noise with a memory of about 1 / (1 - memory) segments."""
  noise = rng.normal(size=(length, width))
  out = np.empty_like(noise)
  state = rng.normal(size=width)
  gain = np.sqrt(1 - memory**2)
  for t in range(length):
    state = memory * state + gain * noise[t]
    out[t] = state
  return out


class World:
  """Directions shared by all videos of a seed, f[.., D] of unit length.

  The classes of a pair share a part of length `overlap` beside an own one of
  length 1, in both streams.
  """

  def __init__(
    self,
    rng: np.random.Generator,
    num_classes: int,
    width: int,
    overlap: float = 0.8,
  ):
    def draw(*shape):
      return _unit(rng.normal(size=(*shape, width)))

    self.width = width
    shared = draw(num_classes // 2 + 1)
    kin = np.arange(num_classes) // 2  # classes come in pairs that look alike
    self.scenes = draw(8)
    self.core = {
      "rgb": _unit(draw(num_classes) + overlap * shared[kin]),
      "flow": _unit(draw(num_classes) + overlap * shared[kin]),
    }
    self.flank = {
      name: _unit(0.9 * self.core[name] + draw(num_classes))
      for name in ("rgb", "flow")
    }
    self.context = draw(num_classes)
    # Unrelated motion that resembles a class.
    self.motion = _unit(0.5 * self.core["flow"] + draw(num_classes))


def _instances(rng, length: int, classes: list[int]) -> list[Occurrence]:
  """(start, end, class, fast) in segments, not overlapping."""
  found, t = [], float(rng.uniform(3, 12))
  while t < length - 6:
    fast = rng.random() < 0.5
    size = rng.uniform(5, 11) if fast else rng.uniform(14, 30)
    end = min(t + size, length - 1.0)
    if end - t >= 2:
      found.append((t, end, int(rng.choice(classes)), fast))
    t = end + float(rng.uniform(6, 36))
  return found


def _bump(length: int, start: float, end: float, soft: float) -> np.ndarray:
  """1 inside [start, end) with soft edges. -> f[length]."""
  t = np.arange(length) + 0.5
  rise = np.clip((t - start) / soft + 0.5, 0, 1)
  fall = np.clip((end - t) / soft + 0.5, 0, 1)
  return np.minimum(rise, fall)


def _core(rng, length: int, start: float, end: float) -> np.ndarray:
  """Where an instance shows its core: 44 % of each of its parts. -> f[length].

  One part if the instance is at most `LONGEST_PART` long, else equal ones.
  """
  parts = max(1, int(np.ceil((end - start) / LONGEST_PART)))
  size = (end - start) / parts
  half = 0.22 * size
  core = np.zeros(length)
  for within in np.arange(parts) + rng.uniform(0.35, 0.65, parts):
    centre = start + size * within
    core = np.maximum(core, _bump(length, centre - half, centre + half, 1.5))
  return core


def draw_features(
  rng: np.random.Generator,
  world: World,
  length: int,
  classes: Sequence[int],
  instances: Sequence[Occurrence],
  *,
  noise: float = 1.0,
  context: float = 1.0,
) -> dict[str, np.ndarray]:
  """Features of a timeline: rgb and flow f32[length, D].

  The context of all `classes` shows, also of those without an instance; they
  hold the classes of all instances. Those may overlap, which adds up, and are
  clipped to the video; one without a length leaves a trace of half a segment.
  `noise` multiplies the noise of both streams, `context` the scene context of
  rgb; what is drawn stays the same.
  """
  inside = [
    (min(max(start, 0.0), length), min(max(end, 0.0), length), c, fast)
    for start, end, c, fast in instances
  ]
  rgb = 1.2 * _smooth(rng, length, len(world.scenes), 0.97) @ world.scenes
  flow = 0.5 * _smooth(rng, length, len(world.scenes), 0.9) @ world.scenes
  view = {
    (stream, c): _unit(direction[c] + 0.5 * _unit(rng.normal(size=world.width)))
    for stream, direction in world.core.items()
    for c in classes
  }
  for c in classes:  # the place where the class happens, around and beside it
    place = np.zeros(length)
    for start, end, label, _ in inside:
      if label == c:
        near = rng.uniform(4, 18, 2)
        place = np.maximum(
          place, _bump(length, start - near[0], end + near[1], 3)
        )
    idle = rng.uniform(0, length)
    place = np.maximum(place, _bump(length, idle, idle + rng.uniform(8, 20), 3))
    rgb += 1.9 * context * place[:, None] * world.context[c]
  for start, end, c, fast in inside:
    whole = _bump(length, start, end, 1.0)
    core = np.minimum(whole, _core(rng, length, start, end))
    strength = np.exp(0.3 * rng.normal())
    moving = 1.0 if fast else 0.65
    for x, stream, gain in (
      (rgb, "rgb", strength),
      (flow, "flow", strength * moving),
    ):
      x += 2.6 * gain * core[:, None] * view[stream, c]
      x += 1.5 * gain * (whole - core)[:, None] * world.flank[stream][c]
  for _ in range(rng.poisson(length / 25)):  # motion that is no instance
    start = rng.uniform(0, length)
    burst = _bump(length, start, start + rng.uniform(2, 6), 1.0)
    c = int(rng.integers(len(world.motion)))
    flow += 2.0 * rng.uniform(0.6, 1.2) * burst[:, None] * world.motion[c]
  rgb += 0.28 * noise * _smooth(rng, length, world.width, 0.5)
  flow += 0.32 * noise * _smooth(rng, length, world.width, 0.3)
  return {"rgb": rgb.astype(np.float32), "flow": flow.astype(np.float32)}


def _video(
  rng, world: World, name: str, length: int, classes: list[int]
) -> Video:
  instances = _instances(rng, length, classes)
  return Video(
    id=name,
    features=draw_features(rng, world, length, classes, instances),
    labels=tuple(sorted({c for _, _, c, _ in instances})),
    instances=tuple(
      Instance(start * SECONDS_PER_SEGMENT, end * SECONDS_PER_SEGMENT, c)
      for start, end, c, _ in instances
    ),
  )


def simulate(
  *,
  seed: int = 0,
  num_classes: int = 6,
  train_videos: int = 60,
  test_videos: int = 40,
  width: int = 32,
  min_segments: int = 80,
  max_segments: int = 200,
) -> Dataset:
  """The data set of a seed: features f32[T, width] for rgb and flow.

  Deterministic in its arguments. See the
  module's docstring for what it is and what it is not.
  """
  world = World(generator(seed, "world"), num_classes, width)
  splits = []
  for split, count in (("train", train_videos), ("test", test_videos)):
    videos = []
    for i in range(count):
      rng = generator(seed, split, i)
      classes = [i % num_classes]
      if rng.random() < 0.25:
        classes.append(int((i + rng.integers(1, num_classes)) % num_classes))
      length = int(rng.integers(min_segments, max_segments + 1))
      name = f"simulated_{split}_{i:04d}"
      videos.append(_video(rng, world, name, length, classes))
    splits.append(tuple(videos))
  return Dataset(
    classes=tuple(f"action_{c}" for c in range(num_classes)),
    train=splits[0],
    test=splits[1],
    simulated=True,
  )
