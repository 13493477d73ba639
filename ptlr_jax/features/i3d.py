"""Inception-v1 I3D, the network whose features the field trains on.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the
Kinetics Dataset", CVPR 2017, figure 3: one network a stream, of the same form,
for frames (3 channels) and for optical flow (2).

Layers have the paper's names, `Conv3d_1a_7x7` to `Mixed_5c`; in a `Mixed` the
convolutions of the branches are `b0`, `b1a` `b1b`, `b2a` `b2b`, `b3b`. Padding
is TensorFlow's SAME on all three axes: of an odd number of padded places the
end of the axis gets one more.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import lax

CHANNELS = {"rgb": 3, "flow": 2}  # of the streams
WIDTH = 1024  # of the features
FRAMES, SIZE = 16, 224  # of a segment, and the pixels of its sides
CLASSES = 400  # of Kinetics, which the published logits are of

METHODS = ("auto", "direct", "framewise")

# Outputs of a Mixed's convolutions: b0, b1a, b1b, b2a, b2b, b3b.
MIXED = {
  "Mixed_3b": (64, 96, 128, 16, 32, 32),
  "Mixed_3c": (128, 128, 192, 32, 96, 64),
  "Mixed_4b": (192, 96, 208, 16, 48, 64),
  "Mixed_4c": (160, 112, 224, 24, 64, 64),
  "Mixed_4d": (128, 128, 256, 24, 64, 64),
  "Mixed_4e": (112, 144, 288, 32, 64, 64),
  "Mixed_4f": (256, 160, 320, 32, 128, 128),
  "Mixed_5b": (256, 160, 320, 32, 128, 128),
  "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Windows of the poolings before a Mixed; their strides are 2.
_POOLS = {"Mixed_4b": 3, "Mixed_5b": 2}


def _same(length: int, window: int, stride: int) -> tuple[int, tuple[int, int]]:
  """Length of an axis after SAME, and the places padded at both its ends."""
  count = -(-length // stride)
  pad = max(0, (count - 1) * stride + window - length)
  return count, (pad // 2, pad - pad // 2)


def _shifted(
  x: jax.Array, axis: int, window: int, stride: int, fill: float
) -> list[jax.Array]:
  """Per place of a window, what it sees as the window moves along an axis."""
  count, pad = _same(x.shape[axis], window, stride)
  wide = jnp.pad(
    x,
    [pad if i == axis else (0, 0) for i in range(x.ndim)],
    constant_values=fill,
  )
  last = (count - 1) * stride + 1
  return [
    lax.slice_in_dim(wide, i, i + last, stride, axis) for i in range(window)
  ]


def max_pool(
  x: jax.Array, windows: Sequence[int], strides: Sequence[int]
) -> jax.Array:
  """f32[N,T,H,W,C] -> f32[N,ceil(T/stride),...,C]: maxima over windows.

  One axis after the other, which is much faster on CPUs than all at once. The
  PyTorch port pads with zeros, TensorFlow with nothing; here that is the same,
  since what is pooled comes from a ReLU.
  """
  for axis, (window, stride) in enumerate(zip(windows, strides, strict=True)):
    if window > 1:
      seen = _shifted(x, axis + 1, window, stride, -jnp.inf)
      x = functools.reduce(jnp.maximum, seen)
  return x


def framewise(
  x: jax.Array, kernel: jax.Array, strides: Sequence[int], precision: Any
) -> jax.Array:
  """A convolution over time and space by convolutions of single frames.

  f32[N,T,H,W,D], f32[t,h,w,D,F] -> f32[N,ceil(T/stride),...,F]. What the places
  of the kernel along time see is put side by side, as t times as many channels.
  XLA's own convolution over three axes takes a CPU 1.5 to 5 times as long.
  """
  frames = jnp.concatenate(_shifted(x, 1, len(kernel), strides[0], 0.0), -1)
  y = lax.conv_general_dilated(
    frames.reshape(-1, *frames.shape[2:]),
    jnp.moveaxis(kernel, 0, 2).reshape(
      *kernel.shape[1:3], -1, kernel.shape[-1]
    ),
    strides[1:],
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision=precision,
  )
  return y.reshape(*frames.shape[:2], *y.shape[1:])


class Unit(nn.Module):
  """Convolution, batch normalisation by stored statistics, ReLU.

  f32[N,T,H,W,D] -> f32[N,ceil(T/stride),ceil(H/stride),ceil(W/stride),width].
  """

  width: int
  kernel: int
  stride: int
  method: str
  precision: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def convolve(
      x: jax.Array, kernel: jax.Array, strides: Any, *_: Any, **__: Any
    ):
      return framewise(x, kernel, strides, self.precision)

    x = nn.Conv(
      self.width,
      (self.kernel,) * 3,
      (self.stride,) * 3,
      padding="SAME",
      use_bias=False,
      precision=self.precision,
      conv_general_dilated=convolve if self.method == "framewise" else None,
      name="conv",
    )(x)
    # By stored statistics always: the network is not trained here.
    x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")(x)
    return nn.relu(x)


class Mixed(nn.Module):
  """An Inception block: four branches, their outputs side by side.

  f32[N,T,H,W,D] -> f32[N,T,H,W,F], F the sum of 4 of the 6 `widths`.
  """

  widths: tuple[int, ...]
  method: str
  precision: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def unit(name: str, kernel: int = 1) -> Unit:
      width = self.widths[("b0", "b1a", "b1b", "b2a", "b2b", "b3b").index(name)]
      return Unit(width, kernel, 1, self.method, self.precision, name=name)

    return jnp.concatenate(
      [
        unit("b0")(x),
        unit("b1b", 3)(unit("b1a")(x)),
        unit("b2b", 3)(unit("b2a")(x)),
        unit("b3b")(max_pool(x, (3, 3, 3), (1, 1, 1))),
      ],
      -1,
    )


class I3D(nn.Module):
  """One stream: f32[N,L,H,W,C] in [-1, 1] -> f32[N,1024], f32[N,classes].

  The features are `Mixed_5c`, averaged over time and space. The published
  networks average it in windows of 2 steps and 7 x 7 places, and the windows'
  results over time. Of 16 frames of 224 x 224, `Mixed_5c` has 2 steps and
  7 x 7 places, so there is one window and both are the same; of longer clips
  they are not: there steps at the ends of a clip count half with them.

  The second output are the logits of the classifier, which is linear: of the
  average it gives the average of what it gives of the windows.

  Attributes:
    classes: of the logits.
    method: how convolutions are computed, `framewise`, `direct` or what is
      faster on the device.
    precision: of their products. The default is float32 on every device; left
      to themselves GPUs and TPUs round the factors to fewer bits.
  """

  classes: int = CLASSES
  method: str = "auto"
  precision: Any = lax.Precision.HIGHEST

  @nn.compact
  def __call__(self, clips: jax.Array) -> tuple[jax.Array, jax.Array]:
    if self.method not in METHODS:
      raise ValueError(
        f"method: expected one of {', '.join(METHODS)}, got {self.method!r}"
      )
    method = self.method
    if method == "auto":
      method = "framewise" if jax.default_backend() == "cpu" else "direct"

    def unit(name: str, width: int, kernel: int, stride: int = 1) -> Unit:
      return Unit(width, kernel, stride, method, self.precision, name=name)

    x = unit("Conv3d_1a_7x7", 64, 7, 2)(clips)
    x = max_pool(x, (1, 3, 3), (1, 2, 2))
    x = unit("Conv3d_2b_1x1", 64, 1)(x)
    x = unit("Conv3d_2c_3x3", 192, 3)(x)
    x = max_pool(x, (1, 3, 3), (1, 2, 2))
    for name, widths in MIXED.items():
      if window := _POOLS.get(name):
        x = max_pool(x, (window,) * 3, (2, 2, 2))
      x = Mixed(widths, method, self.precision, name=name)(x)
    found = x.mean((1, 2, 3))
    classifier = nn.Dense(self.classes, precision=self.precision, name="logits")
    return found, classifier(found)


def shapes(stream: str, classes: int = CLASSES) -> dict[str, tuple[int, ...]]:
  """Shapes of a network's arrays by their names in its variables, as in
  `params/Mixed_3b/b1a/conv/kernel`."""
  clip = jax.ShapeDtypeStruct((1, 16, 32, 32, CHANNELS[stream]), jnp.float32)
  tree = jax.eval_shape(I3D(classes).init, jax.random.key(0), clip)
  flat: dict[str, Any] = flatten_dict(tree, sep="/")
  return {name: array.shape for name, array in flat.items()}


@functools.partial(jax.jit, static_argnames=("classes", "method", "precision"))
def _outputs(
  variables: Mapping[str, Any],
  clips: jax.Array,
  classes: int,
  method: str,
  precision: Any,
) -> tuple[jax.Array, jax.Array]:
  found: Any = I3D(classes, method, precision).apply(variables, clips)
  return found


def outputs(
  variables: Mapping[str, Any],
  clips: Any,
  *,
  method: str = "auto",
  precision: Any = lax.Precision.HIGHEST,
) -> tuple[jax.Array, jax.Array]:
  """Features and logits of clips, f32[N,L,H,W,C] -> f32[N,1024], f32[N,K].

  Compiled anew for every shape of the clips. See `I3D`.

  Raises:
    ValueError: the clips are not of the channels that the network takes.
  """
  kernel = variables["params"]["Conv3d_1a_7x7"]["conv"]["kernel"]
  channels = kernel.shape[-2]
  if clips.ndim != 5 or clips.shape[-1] != channels:
    raise ValueError(
      f"clips: expected [N,L,H,W,{channels}], got {list(clips.shape)}"
    )
  classes = variables["params"]["logits"]["bias"].shape[0]
  return _outputs(variables, clips, classes, method, precision)


def features(variables: Mapping[str, Any], clips: Any, **how: Any) -> jax.Array:
  """`Mixed_5c`, averaged: f32[N,L,224,224,C] in [-1, 1] -> f32[N,1024].

  C is 3 (red, green, blue) or 2 (flow to the right and downwards, 20 pixels a
  frame being 1). See `outputs` and `I3D`.
  """
  return outputs(variables, clips, **how)[0]
