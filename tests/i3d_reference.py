"""I3D in PyTorch, to hold the one in Flax against; it knows nothing of it.

`Reference(channels).state_dict()` has the names and shapes of the published
`rgb_imagenet.pt` and `flow_imagenet.pt`, and the counters that newer versions
of PyTorch add. Poolings pad with zeros, as the network of those files does.
Whoever imports this is skipped where torch is not installed.
"""

import math
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn

# Input, then outputs of b0, b1a, b1b, b2a, b2b, b3b.
BLOCKS = {
  "3b": (192, 64, 96, 128, 16, 32, 32),
  "3c": (256, 128, 128, 192, 32, 96, 64),
  "4b": (480, 192, 96, 208, 16, 48, 64),
  "4c": (512, 160, 112, 224, 24, 64, 64),
  "4d": (512, 128, 128, 256, 24, 64, 64),
  "4e": (512, 112, 144, 288, 32, 64, 64),
  "4f": (528, 256, 160, 320, 32, 128, 128),
  "5b": (832, 256, 160, 320, 32, 128, 128),
  "5c": (832, 384, 192, 384, 48, 128, 128),
}


def padded(x, kernel, stride):
  """[N,C,T,H,W] with zeros so that each axis ends up ceil(length / stride)
  long, one more behind than in front where their number is odd."""
  pads = []
  for length, k, s in zip(
    x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True
  ):
    need = max(0, (math.ceil(length / s) - 1) * s + k - length)
    pads += [need // 2, need - need // 2]
  return nn.functional.pad(x, pads)


class Conv(nn.Module):
  """Convolution, and unless it has a bias normalisation and ReLU."""

  def __init__(self, inputs, outputs, size=1, stride=1, bias=False):
    super().__init__()
    self.conv3d = nn.Conv3d(inputs, outputs, size, stride, bias=bias)
    if not bias:
      self.bn = nn.BatchNorm3d(outputs, eps=1e-3, momentum=0.01)

  def forward(self, x):
    conv = self.conv3d
    x = conv(padded(x, conv.kernel_size, conv.stride))
    return x if conv.bias is not None else self.bn(x).relu()


class Pool(nn.Module):
  """Maxima, over zeros too."""

  def __init__(self, size, stride):
    super().__init__()
    self.size, self.stride = size, stride

  def forward(self, x):
    x = padded(x, self.size, self.stride)
    return nn.functional.max_pool3d(x, self.size, self.stride)


class Block(nn.Module):
  """Four branches side by side."""

  def __init__(self, inputs, n0, n1a, n1b, n2a, n2b, n3):
    super().__init__()
    self.b0 = Conv(inputs, n0)
    self.b1a, self.b1b = Conv(inputs, n1a), Conv(n1a, n1b, 3)
    self.b2a, self.b2b = Conv(inputs, n2a), Conv(n2a, n2b, 3)
    self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Conv(inputs, n3)

  def forward(self, x):
    parts = (
      self.b0(x),
      self.b1b(self.b1a(x)),
      self.b2b(self.b2a(x)),
      self.b3b(self.b3a(x)),
    )
    return torch.cat(parts, 1)


class Reference(nn.Module):
  """One stream."""

  def __init__(self, channels=3, classes=400):
    super().__init__()
    self.logits = Conv(1024, classes, bias=True)
    layers = [
      ("Conv3d_1a_7x7", Conv(channels, 64, 7, 2)),
      ("MaxPool3d_2a_3x3", Pool((1, 3, 3), (1, 2, 2))),
      ("Conv3d_2b_1x1", Conv(64, 64)),
      ("Conv3d_2c_3x3", Conv(64, 192, 3)),
      ("MaxPool3d_3a_3x3", Pool((1, 3, 3), (1, 2, 2))),
    ]
    for name, widths in BLOCKS.items():
      if name == "4b":
        layers.append(("MaxPool3d_4a_3x3", Pool((3, 3, 3), (2, 2, 2))))
      if name == "5b":
        layers.append(("MaxPool3d_5a_2x2", Pool((2, 2, 2), (2, 2, 2))))
      layers.append((f"Mixed_{name}", Block(*widths)))
    self.order = [name for name, _ in layers]
    for name, layer in layers:
      self.add_module(name, layer)

  def mixed_5c(self, x):
    """[N,C,L,H,W] -> [N,1024,L / 8,H / 32,W / 32]."""
    for name in self.order:
      x = getattr(self, name)(x)
    return x

  def forward(self, x):
    """Features [N,1024] and logits [N,classes] as published: windows of
    [2,7,7], then the mean over time."""
    windows = nn.functional.avg_pool3d(self.mixed_5c(x), (2, 7, 7), 1)
    logits = self.logits(windows)
    return windows.mean((2, 3, 4)), logits.mean((2, 3, 4))


def network_of(state):
  """The network of a state dict, to be asked."""
  channels = state["Conv3d_1a_7x7.conv3d.weight"].shape[1]
  with torch.device("meta"):  # no values that are replaced at once
    network = Reference(channels, len(state["logits.conv3d.bias"]))
  network.load_state_dict(state, assign=True)
  return network.eval().requires_grad_(False)


def random_state(channels=3, classes=400, seed=0):
  """A state dict of random values, of the published names and shapes.

  Weights keep the size of what passes through: features of clips are 0.3 to 3
  on average, thousands of times a tolerance of 1e-4.
  """
  draw = torch.Generator().manual_seed(seed)
  with torch.device("meta"):
    template = Reference(channels, classes).state_dict()
  state = {}
  for name, value in template.items():
    kind, shape = ".".join(name.split(".")[-2:]), tuple(value.shape)
    if kind in ("bn.weight", "bn.running_var"):
      state[name] = 0.5 + torch.rand(shape, generator=draw)
    elif kind == "bn.num_batches_tracked":
      state[name] = torch.tensor(1234)
    else:
      is_kernel = kind == "conv3d.weight"
      scale = math.sqrt(2 / math.prod(shape[1:])) if is_kernel else 0.05
      state[name] = scale * torch.randn(shape, generator=draw)
  return state


def channels_first(clips):
  """[N,L,H,W,C] of NumPy to [N,C,L,H,W] of PyTorch."""
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(clips, -1, 1)))


def outputs(state, clips):
  """Features and logits of clips [N,L,H,W,C], as NumPy's."""
  features, logits = network_of(state)(channels_first(clips))
  return features.numpy(), logits.numpy()
