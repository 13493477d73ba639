"""The paper's networks and losses, read a second time in PyTorch.

Written from the paper and the choices named in the README, not from ptlr_jax,
the way one would build on BaSNet-pytorch. Two uses:
tests/test_torch_reference.py holds ptlr_jax to it, number by number, and
`ilg_step`, `ots_step` and `rts_step` are the baseline of speed measurements.
The label rules are in torch_labels.py.

B videos, D features, T segments, C action classes, M branches. Arrays are
channels first, [B, D, T]; the background is class C, the last column. Every
loss takes `lengths`: None for a batch without padding, computed at once, or
the valid segments of each video, which is then cut to its own length and
computed alone, so that padding cannot leak. The CPU build of torch is enough.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Lengths = Sequence[int] | None

# --- networks ---------------------------------------------------------------


def cas_module(
  features: int, width: int, classes: int, dropout: float, *, bias: bool
) -> nn.Sequential:
  """Bas-Net's CAS module: [B, D, T] -> logits [B, C + 1, T].

  `bias` is the classifier's: Bas-Net has none, Network-OTS has.
  """
  return nn.Sequential(
    nn.Conv1d(features, width, kernel_size=3, padding=1),
    nn.LeakyReLU(0.01),
    nn.Conv1d(width, width, kernel_size=3, padding=1),
    nn.LeakyReLU(0.01),
    nn.Dropout(dropout),
    nn.Conv1d(width, classes + 1, kernel_size=1, bias=bias),
  )


class BasNetStream(nn.Module):
  """Bas-Net on the features of one stream, Sec. III-A."""

  def __init__(
    self,
    features: int,
    classes: int,
    filter_width: int = 512,
    cas_width: int = 2048,
    dropout: float = 0.7,
  ):
    super().__init__()
    self.filter = nn.Sequential(
      nn.Conv1d(features, filter_width, kernel_size=1),
      nn.LeakyReLU(0.01),
      nn.Conv1d(filter_width, 1, kernel_size=1),
      nn.Sigmoid(),
    )
    self.cas = cas_module(features, cas_width, classes, dropout, bias=False)

  def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of both branches and the foreground weights.

    [B, D, T] -> base [B, C + 1, T], suppression [B, C + 1, T], [B, 1, T].
    """
    weights = self.filter(x)
    return self.cas(x), self.cas(weights * x), weights

  def suppression(self, x: Tensor) -> Tensor:
    """The suppression branch alone: [B, D, T] -> logits [B, C + 1, T]."""
    return self.cas(self.filter(x) * x)


class Ilg(nn.Module):
  """A Bas-Net a stream, without shared parameters, Fig. 1.

  `features` has the width of each stream: {"rgb": D, "flow": D}, or
  {"fused": 2 D} for Bas-Net's early fusion.
  """

  def __init__(self, features: Mapping[str, int], classes: int, **sizes):
    super().__init__()
    self.streams = nn.ModuleDict(
      {n: BasNetStream(d, classes, **sizes) for n, d in features.items()}
    )


class NetworkOts(nn.Module):
  """Network-OTS, Fig. 2(b)."""

  def __init__(
    self, features: int, classes: int, width: int = 2048, dropout: float = 0.7
  ):
    super().__init__()
    self.cas = cas_module(features, width, classes, dropout, bias=True)

  def forward(self, x: Tensor) -> Tensor:
    """Fused features to logits: [B, 2 D, T] -> [B, C + 1, T]."""
    return self.cas(x)


class NetworkRts(nn.Module):
  """Network-RTS, Fig. 2(c): branch m has m convolutions of stride 2."""

  def __init__(
    self,
    features: int,
    classes: int,
    width: int = 2048,
    dropout: float = 0.7,
    branches: int = 3,
  ):
    super().__init__()
    self.stem = nn.Sequential(
      nn.Conv1d(features, width, kernel_size=3, padding=1), nn.LeakyReLU(0.01)
    )
    self.branches = nn.ModuleList()
    for m in range(1, branches + 1):
      layers = []
      for _ in range(m):
        layers.append(nn.Conv1d(width, width, 3, stride=2, padding=1))
        layers.append(nn.LeakyReLU(0.01))
      layers.append(nn.Dropout(dropout))
      layers.append(nn.Conv1d(width, classes + 1, kernel_size=1))
      self.branches.append(nn.Sequential(*layers))

  def forward(self, x: Tensor) -> list[Tensor]:
    """Low-resolution logits: [B, 2 D, T] -> M x [B, C + 1, ceil(T / 2^m)]."""
    x = self.stem(x)
    return [branch(x) for branch in self.branches]


def rts_cas(logits: Sequence[Tensor], segments: int) -> Tensor:
  """The CAS of Network-RTS: M x [B, C + 1, T_m] -> [B, C + 1, T].

  Each branch's probabilities are copied 2^m times and cut to T, then averaged.
  """
  copies = [
    a.softmax(dim=1).repeat_interleave(2**m, dim=2)[:, :, :segments]
    for m, a in enumerate(logits, start=1)
  ]
  return torch.stack(copies).mean(dim=0)


# --- losses -----------------------------------------------------------------


def split(x: Tensor, lengths: Lengths) -> list[Tensor]:
  """Parts without padding: [B, ..., T] -> the whole, or B x [1, ..., T_b]."""
  if lengths is None:
    return [x]
  return [x[b : b + 1, ..., :n] for b, n in enumerate(lengths)]


def video_scores(cas: Tensor) -> Tensor:
  """Softmax of the top-k means, k = T // 8: [B, C + 1, T] -> [B, C + 1]."""
  k = max(1, cas.shape[2] // 8)
  return cas.topk(k, dim=2).values.mean(dim=2).softmax(dim=1)


def mil_loss(scores: Tensor, labels: Tensor, background: float) -> Tensor:
  """L_base (background 1) or L_supp (background 0) of Eq. (1).

  Scores [B, C + 1], video labels [B, C] -> []. The factor (C + 1) / 21 keeps
  the mean over classes from vanishing where there are many.
  """
  target = F.pad(labels, (0, 1), value=background)
  target = target / target.sum(dim=1, keepdim=True)
  return F.binary_cross_entropy(scores, target) * scores.shape[1] / 21


def norm_loss(weights: Sequence[Tensor]) -> Tensor:
  """L_norm of Eq. (1): the L1 norm over time, mean over videos."""
  return torch.cat([w.abs().sum(dim=(1, 2)) for w in weights]).mean()


def consistency_loss(first: Sequence[Tensor], second: Sequence[Tensor]):
  """Eqs. (2) to (4): the mean over all frames and classes of |A - A'|."""
  gaps = [(a - b).abs().flatten() for a, b in zip(first, second, strict=True)]
  return torch.cat(gaps).mean()


def scale_transform(x: Tensor, s: float) -> Tensor:
  """ST(x, s) of Eqs. (3) and (4): [B, D, T] -> [B, D, floor(s T)]."""
  return F.interpolate(x, scale_factor=s, mode="linear", align_corners=False)


def ilg_losses(
  model: Ilg,
  features: Mapping[str, Tensor],
  labels: Tensor,
  s: float,
  lengths: Lengths = None,
  *,
  alpha: float = 0.5,
  beta: float = 0.5,
  gamma: float = 0.5,
  norm_weight: float = 1e-4,
) -> dict[str, Tensor]:
  """Every term of Eq. (5), and their sum as "total".

  Features [B, D, T] by stream and video labels [B, C]. A single stream has no
  L_csc, and beta weighs its L_sc.
  """
  terms, cas = {}, []
  total = torch.zeros_like(labels[0, 0])
  for name, weight in zip(model.streams, (beta, gamma), strict=False):
    stream = model.streams[name]
    assert isinstance(stream, BasNetStream)
    parts = split(features[name], lengths)
    base, supp, weights = zip(*(stream(x) for x in parts), strict=True)
    original = [a.softmax(dim=1) for a in supp]
    transformed = [
      stream.suppression(scale_transform(x, s)).softmax(dim=1) for x in parts
    ]
    scores = [torch.cat([video_scores(a) for a in b]) for b in (base, supp)]
    own = {
      "base": mil_loss(scores[0], labels, background=1.0),
      "supp": mil_loss(scores[1], labels, background=0.0),
      "norm": norm_loss(weights),
      "sc": consistency_loss(
        [scale_transform(a, s) for a in original], transformed
      ),
    }
    total = total + own["base"] + own["supp"] + norm_weight * own["norm"]
    total = total + weight * own["sc"]
    terms |= {f"{name}/{key}": term for key, term in own.items()}
    cas.append(original)
  if len(cas) == 2:
    terms["csc"] = consistency_loss(*cas)
    total = total + alpha * terms["csc"]
  return terms | {"total": total}


def frame_loss(
  logits: Sequence[Tensor], labels: Sequence[Tensor], selected: Sequence[Tensor]
) -> Tensor:
  """Cross-entropy averaged over all selected frames.

  Parts of a batch: [b, C + 1, T], one-hot [b, C + 1, T], [b, T] -> [].
  """
  total = torch.zeros_like(logits[0][0, 0, 0])
  count = torch.zeros_like(total)
  for a, y, chosen in zip(logits, labels, selected, strict=True):
    entropy = -(y * F.log_softmax(a, dim=1)).sum(dim=1)
    total = total + (entropy * chosen).sum()
    count = count + chosen.sum()
  return total / count.clamp(min=1)


def ots_loss(
  model: NetworkOts,
  x: Tensor,
  labels: Tensor,
  selected: Tensor,
  lengths: Lengths = None,
) -> Tensor:
  """Eq. (6): [B, 2 D, T], one-hot [B, C + 1, T], bool [B, T] -> []."""
  logits = [model(part) for part in split(x, lengths)]
  return frame_loss(logits, split(labels, lengths), split(selected, lengths))


def rts_loss(
  model: NetworkRts,
  x: Tensor,
  labels: Tensor,
  selected: Tensor,
  lengths: Lengths = None,
) -> Tensor:
  """Eq. (7): each branch against the labels of frames t x 2^m, averaged."""
  outputs = [model(part) for part in split(x, lengths)]
  losses = []
  for m, logits in enumerate(zip(*outputs, strict=True), start=1):
    y = [part[:, :, :: 2**m] for part in split(labels, lengths)]
    chosen = [part[:, :: 2**m] for part in split(selected, lengths)]
    losses.append(frame_loss(logits, y, chosen))
  return torch.stack(losses).mean()


# --- training ---------------------------------------------------------------


def adam(model: nn.Module, learning_rate: float) -> torch.optim.Adam:
  """Adam with L2 added to the gradient of every parameter."""
  return torch.optim.Adam(
    model.parameters(), lr=learning_rate, weight_decay=5e-4
  )


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
  """One update of the parameters; the loss before it."""
  optimizer.zero_grad()
  loss.backward()
  optimizer.step()
  return loss.detach()


def ilg_step(model: Ilg, optimizer, features, labels, s, lengths=None):
  """One training step of the ILG, Eq. (5)."""
  losses = ilg_losses(model, features, labels, s, lengths)
  return update(optimizer, losses["total"])


def ots_step(model: NetworkOts, optimizer, x, labels, selected, lengths=None):
  """One training step of Network-OTS, Eq. (6)."""
  return update(optimizer, ots_loss(model, x, labels, selected, lengths))


def rts_step(model: NetworkRts, optimizer, x, labels, selected, lengths=None):
  """One training step of Network-RTS, Eq. (7)."""
  return update(optimizer, rts_loss(model, x, labels, selected, lengths))
