"""The paper's label rules, read a second time in PyTorch, a video at a time.

Goes with torch_reference.py: written from the paper and the choices named in
the README, not from ptlr_jax. T segments, C action classes; the background is
class C, the last row.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def label_cas(logits: Mapping[str, Tensor]) -> Tensor:
  """The fused CAS the initial labels come from: {stream: [C + 1, T]} -> same.

  Probabilities, rgb : flow = 1 : 1.5, then min-max of each class over time.
  """
  if len(logits) == 1:
    (cas,) = (a.softmax(dim=0) for a in logits.values())
  else:
    rgb, flow = logits["rgb"].softmax(dim=0), logits["flow"].softmax(dim=0)
    cas = (rgb + 1.5 * flow) / 2.5
  return stretched(cas)


def summed_cas(logits: Mapping[str, Tensor]) -> Tensor:
  """The same with each stream's own min-max, and 1 : 1.5 as a plain sum."""
  rgb, flow = (stretched(logits[s].softmax(dim=0)) for s in ("rgb", "flow"))
  return rgb + 1.5 * flow


def stretched(cas: Tensor) -> Tensor:
  """Min-max of each class over time: [C + 1, T] -> [C + 1, T]."""
  low = cas.min(dim=1, keepdim=True).values
  high = cas.max(dim=1, keepdim=True).values
  span = (high - low).clamp(min=1e-12)  # a constant class has no contrast
  return ((cas - low) / span).clamp(0, 1)


def one_hot(index: Tensor, selected: Tensor, classes: int) -> Tensor:
  """Class of each frame, zeros where not selected: [T], [T] -> [C + 1, T]."""
  return (F.one_hot(index, classes) * selected[:, None]).T


def initial_labels(
  cas: Tensor, video_labels: Tensor, high: float = 0.7, low: float = 0.1
) -> tuple[Tensor, Tensor]:
  """Sec. III-C: [C + 1, T], bool [C] -> one-hot [C + 1, T], selected [T].

  Only the video's own classes label a frame or count in the sum; of several
  above `high` the highest wins.
  """
  own = torch.where(video_labels[:, None], cas[:-1], 0.0)
  score, index = own.max(dim=0)
  action = score > high
  background = ~action & (own.sum(dim=0) < low)
  index = torch.where(action, index, len(video_labels))
  selected = action | background
  return one_hot(index, selected, len(cas)), selected


def network_labels(
  cas: Tensor, video_labels: Tensor, theta: float
) -> tuple[Tensor, Tensor]:
  """Sec. III-D, labels of OTS or RTS: shapes as in `initial_labels`.

  A frame takes its highest class, of the video's own and the background, if
  that is above theta_p.
  """
  allowed = F.pad(video_labels, (0, 1), value=True)
  score, index = cas.masked_fill(~allowed[:, None], -1.0).max(dim=0)
  selected = score > theta
  return one_hot(index, selected, len(cas)), selected


def keep_empty(
  new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
  """The new labels, or the old where the new have no action frame."""
  return new if new[0][:-1].any() else old


def expand(
  old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
  """The old labels, and of the new those of frames without an old one."""
  (labels, selected), (found, chosen) = old, new
  joins = chosen & ~selected
  return labels + found * joins, selected | joins
