"""The networks of a run: what each is trained with, and asked when trained."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import optax
from ml_collections import FrozenConfigDict

from ptlr_jax import checkpoints, optimizer, prediction, train
from ptlr_jax.artefacts import Artefacts
from ptlr_jax.data.annotations import Dataset, Video
from ptlr_jax.errors import InputError
from ptlr_jax.stages import STAGES, Stage


class Network(NamedTuple):
  """What a network is trained and asked with; `steps` is `step` for several
  runs at once. init(key, ((stream, D), ...)) -> params, jitted."""

  stage: Stage
  init: Callable[..., Any]
  optimizer: optax.GradientTransformation
  step: Callable[..., tuple[train.TrainState, dict[str, jax.Array]]]
  steps: Callable[..., tuple[train.TrainState, dict[str, jax.Array]]]


@functools.cache
def _network(
  name: str, classes: int, options: FrozenConfigDict, adam: FrozenConfigDict
) -> Network:
  """One a network and its settings, so that nothing is compiled twice."""
  stage = STAGES[name](classes, options.to_dict())
  tx = optimizer.adam(options.learning_rate, **adam)
  parts = {
    "split": stage.split,
    "parts": options.accumulate,
    "frugal": options.remat,
  }

  def init(key: jax.Array, widths: tuple[tuple[str, int], ...]) -> Any:
    return stage.init(key, dict(widths))

  return Network(
    stage,
    jax.jit(init, static_argnums=1),
    tx,
    train.make_step(stage.loss, tx, **parts),
    train.make_steps(stage.loss, tx, **parts),
  )


def _check_streams(asked: Sequence[str], there: Sequence[str]) -> None:
  """Refuses to train the ILG on a stream that the features do not have."""
  missing = [s for s in asked if s != "fused" and s not in there]
  if missing:
    raise InputError(
      f"--config.ilg.streams: expected streams of the features, which have "
      f"{', '.join(there)}, came {', '.join(asked)}; pass "
      f"--config.ilg.streams=\"('{there[0]}',)\""
    )


class Networks:
  """{name: Network} of `STAGES`, for the data and the workdir of a run."""

  def __init__(self, config: FrozenConfigDict, data: Dataset, files: Artefacts):
    _check_streams(config.ilg.streams, data.streams)
    classes, adam = len(data.classes), config.optimizer
    self._config, self._files = config, files
    self._networks = {
      name: _network(name, classes, config[name], adam) for name in STAGES
    }
    self._widths = {s: x.shape[1] for s, x in data.train[0].features.items()}

  def __getitem__(self, name: str) -> Network:
    return self._networks[name]

  def initial_params(self, network: str, key: jax.Array) -> Any:
    """Parameters before the first update."""
    return self[network].init(key, tuple(self._widths.items()))

  def params(self, name: str, network: str) -> Any:
    """Final parameters of a finished training phase."""
    init = functools.partial(self.initial_params, network)
    template = jax.eval_shape(init, jax.random.key(0))
    return checkpoints.final_params(self._files.checkpoint_dir(name), template)

  def predictions(
    self, name: str, network: str, videos: Sequence[Video], **how: Any
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the network of a finished training phase says of videos, one after
    the other with its index. See `prediction.predictions`."""
    uniform = self._config.predict.sampling == "uniform"
    return prediction.predictions(
      self[network].stage,
      self.params(name, network),
      videos,
      batch_size=self._config.predict.batch_size,
      segments=self._config.ilg.segments if uniform else 0,
      **how,
    )

  def predict(
    self, name: str, network: str, videos: Sequence[Video], **how: Any
  ) -> list[dict[str, Any]]:
    """The same, in the videos' order."""
    found = self.predictions(name, network, videos, **how)
    return prediction.in_order(found, len(videos))
