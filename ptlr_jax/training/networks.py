"""The networks of a run: what each is trained with, and asked when trained."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import FrozenConfigDict

from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.io import checkpoints
from ptlr_jax.method.registry import STAGES
from ptlr_jax.method.stage import Stage
from ptlr_jax.runtime.mesh import Devices
from ptlr_jax.runtime.plugins import registered
from ptlr_jax.training import external_cas, prediction, train_step
from ptlr_jax.workdir import shares
from ptlr_jax.workdir.artefacts import Artefacts


class Network(NamedTuple):
  """What a network is trained and asked with; `steps` is `step` for several
  runs at once. init(key, ((stream, D), ...)) -> params and create(params) ->
  state, jitted."""

  stage: Stage
  init: Callable[..., Any]
  create: Callable[[Any], train_step.TrainState]
  step: Callable[..., tuple[train_step.TrainState, dict[str, jax.Array]]]
  steps: Callable[..., tuple[train_step.TrainState, dict[str, jax.Array]]]


@functools.cache
def cached_stage(name: str, classes: int, options: FrozenConfigDict) -> Stage:
  """One a network and its settings, so that nothing is compiled twice."""
  return registered(STAGES, name, "ptlr.networks")(classes, options.to_dict())


@functools.cache
def _network(
  name: str,
  classes: int,
  options: FrozenConfigDict,
  adam: FrozenConfigDict,
  devices: Devices,
) -> Network:
  """What trains a stage, likewise."""
  stage = cached_stage(name, classes, options)
  tx = train_step.adam(options.learning_rate, **adam)
  parts = {
    "split": stage.split,
    "parts": options.accumulate,
    "frugal": options.remat,
    "devices": devices,
  }

  def init(key: jax.Array, widths: tuple[tuple[str, int], ...]) -> Any:
    return stage.init(key, dict(widths))

  return Network(
    stage,
    jax.jit(init, static_argnums=1, out_shardings=devices.everywhere),
    jax.jit(
      functools.partial(train_step.create_state, tx=tx),
      out_shardings=devices.everywhere,
    ),
    train_step.make_step(stage.loss, tx, **parts),
    train_step.make_steps(stage.loss, tx, **parts),
  )


# What `prediction.predictions` gives of videos, and of its further arguments.
Asking = Callable[..., Iterator[tuple[int, dict[str, Any]]]]


class Networks:
  """{name: Network} of `STAGES`, for the data, the devices and the workdir of
  a run, and the CASs of another method that it may have in place of one."""

  def __init__(
    self,
    sections: Mapping[str, FrozenConfigDict],
    adam: FrozenConfigDict,
    data: Dataset,
    files: Artefacts,
    devices: Devices,
    *,
    parts: int,
    batch_size: int,
    segments: Mapping[str, int],
    external: external_cas.ExternalCas | None = None,
  ):
    """Makes {name: network} of {name: its options} and those of Adam.

    Args:
      sections, adam: of the configuration.
      data, files, devices: of the run.
      parts: of the training set.
      batch_size: videos that are predicted at a time.
      segments: {name: what a video is sampled at in prediction}; 0: its own
        length.
      external: the CASs of another method in place of the ILG.
    """
    self.devices, self._own = devices, devices.own()
    self._files, self._external = files, external
    self._batch_size, self._segments = batch_size, segments
    classes = len(data.classes)
    self._networks = {
      name: _network(name, classes, options, adam, devices)
      for name, options in sections.items()
    }
    # Of a video that this process reads anyway.
    video = data.train[shares.own_videos(parts, len(data.train)).start]
    self._widths = {s: x.shape[1] for s, x in video.features.items()}

  def __getitem__(self, name: str) -> Network:
    return self._networks[name]

  @property
  def source_digest(self) -> str:
    """Of another method's CASs, where the run has them."""
    return self._external.digest if self._external else ""

  def initial_params(self, network: str, key: jax.Array) -> Any:
    """Parameters before the first update, on every device."""
    widths = tuple(self._widths.items())
    return self[network].init(self.devices.copied(key), widths)

  def params(self, name: str, network: str) -> Any:
    """Final parameters of a finished training phase, on every device."""
    template = self.devices.shapes(self.shapes(network))
    return checkpoints.final_params(self._files.checkpoint_dir(name), template)

  def shapes(self, network: str) -> Any:
    """What its parameters are shaped like."""
    widths = tuple(self._widths.items())
    init = self[network].init
    return jax.eval_shape(lambda key: init(key, widths), jax.random.key(0))

  def asking(self, name: str, network: str) -> Asking:
    """The network of a finished training phase, to be asked about videos on
    the devices of this process; `cas`, another method's. All processes have to
    come here together, since together they read the parameters."""
    if network == "cas":
      assert self._external is not None
      return self._external.asking
    return functools.partial(
      prediction.predictions,
      self[network].stage,
      self.devices.owned(self.params(name, network)),
      devices=self._own,
      batch_size=self._batch_size,
      segments=self._segments[network],
    )

  def predict(
    self, name: str, network: str, videos: Sequence[Video], **how: Any
  ) -> list[dict[str, Any]]:
    """What it says of videos, in their order."""
    found = self.asking(name, network)(videos, **how)
    return prediction.in_order(found, len(videos))
