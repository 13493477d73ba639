"""A training phase of several runs that differ in their seed, as one program.

Their states and batches are stacked, and `train_step.make_steps` updates all.
Each leaves the log and the checkpoints that it would have left alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ptlr_jax.io import checkpoints
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import Diverged
from ptlr_jax.training.train_loop import Start
from ptlr_jax.training.trainer import Trainer


def train_seeds(trainings: Sequence[Trainer]) -> None:
  """The same phase of several runs, those at the same step at once.

  Raises:
    Diverged: a loss or gradient of one of them is not finite; the others have
      their last checkpoints.
    Stopped: a signal asked for it; what is reached is saved.
  """
  for one in trainings:
    if one.idle:
      one.skip()
  trainings = [one for one in trainings if not one.idle]
  if not trainings:
    return
  at = processes.first(lambda: common_step(trainings))
  starts = [(one, one.begin(at)) for one in trainings]
  groups: dict[int, list[tuple[Trainer, Start]]] = {}
  for one, start in starts:
    groups.setdefault(start.step, []).append((one, start))
  for _, members in sorted(groups.items()):
    if len(members) == 1:
      members[0][0].run(members[0][1])
    else:
      _run_group(*zip(*members, strict=True))


def common_step(trainings: Sequence[Trainer]) -> int | None:
  """The step from which all can go on, where a stop came between what the
  first and the last of them saved; else None.

  Those that were together go on together, and end with the same bits.
  """
  saved = [{0, *checkpoints.sound_steps(t.directory)} for t in trainings]
  newest = {max(steps) for steps in saved}
  common = max(set.intersection(*saved))
  every = trainings[0].settings.checkpoint_every
  return common if max(newest) - common <= every else None


def _run_group(trainings: Sequence[Trainer], starts: Sequence[Start]) -> None:
  first, count = trainings[0], len(trainings)
  at = starts[0].step
  sources = [one.batches(at) for one in trainings]
  name = f"{first.phase.name} x {count}"
  pending = [
    {n: np.stack([terms[n] for terms in own]) for n in own[0]}
    for own in zip(*(start.pending for start in starts), strict=True)
  ]

  def on_log(step, values):
    for i, one in enumerate(trainings):
      own = {term: float(value[i]) for term, value in values.items()}
      one.on_log(step, own)

  def on_checkpoint(step, state, unlogged):
    states = unstacked(state, count)
    for i, (one, own) in enumerate(zip(trainings, states, strict=True)):
      terms = [{n: x[i] for n, x in each.items()} for each in unlogged]
      try:
        one.on_checkpoint(step, own, terms)
      except Diverged as error:
        raise Diverged(str(error), error.step, [i]) from None

  states = [start.state for start in starts]
  try:
    state = first.fit(
      name,
      first.network.steps,
      Start(at, _together(states), pending),
      lambda i: stacked([batch_at(i) for batch_at in sources]),
      key=_together([one.key for one in trainings]),
      axis=1,
      on_log=on_log,
      on_checkpoint=on_checkpoint,
    )
  except Diverged as error:
    told = (str(trainings[i].diverged(error)) for i in error.members)
    raise Diverged("; ".join(told)) from None
  for one, own in zip(trainings, unstacked(state, count), strict=True):
    one.finish(own)


@jax.jit
def _together(trees: list[Any]) -> Any:
  """k trees as one whose leaves are [k,...]; on their devices."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(tree: Any, count: int) -> list[Any]:
  """[k,...] leaves as k trees."""
  return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(count)]


def stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Batches as one with a leading axis; shorter ones are padded with what
  their masks leave out, up to the longest."""

  def together(*arrays: np.ndarray) -> np.ndarray:
    shape = np.max([array.shape for array in arrays], axis=0)
    found = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for row, array in zip(found, arrays, strict=True):
      row[tuple(slice(size) for size in array.shape)] = array
    return found

  return jax.tree.map(together, *map(dict, parts))
