"""CASs of another method in place of the ILG's: "bring your own CAS".

config.ptlr.cas is a folder with a file V.npz for every training and test video:
  cas        f[T,C+1], background last, or f[T,C]
  scores     f[C] in [0, 1], optional: class scores of the video
  attention  f[T] in [0, 1], optional: what actions are multiplied with
  classes    U[C], optional: the order of the columns; without it that of
             classes.txt in the folder, a name a line, or of the data
docs/OWN_CAS.md says what is made of them.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptlr_jax.data import digest
from ptlr_jax.data.dataset import Dataset, Video
from ptlr_jax.data.files.arrays import one_line
from ptlr_jax.method import cas_space
from ptlr_jax.runtime import processes
from ptlr_jax.runtime.errors import InputError

CLASSES = "classes.txt"
_NAMES = ("cas", "scores", "attention", "classes")
_NEAR = 1e-3  # that probabilities may be out of [0, 1], as float16 has them


class ExternalCas(NamedTuple):
  """The folder, how its values are read, and the digest of all of them.

  `values` is probability or logit; `order` the classes of the columns where
  classes.txt names them.
  """

  folder: Path
  classes: tuple[str, ...]
  values: str
  resample: bool
  topk_ratio: int
  order: tuple[str, ...] | None
  digest: str = ""

  def asking(
    self, videos: Sequence[Video], **how: Any
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the ILG would say of videos, as `prediction.predictions` gives it.

    {"logits": {"cas": f32[T,C+1]}, "scores": {"cas": f32[C+1]}}.

    Raises:
      InputError: a file has been changed so that it cannot be used.
    """
    del how
    for i, video in enumerate(videos):
      try:
        yield i, self._said(self.read(video), video.num_segments)
      except ValueError as error:
        raise InputError(str(error)) from None

  def read(self, video: Video) -> dict[str, np.ndarray]:
    """The arrays of a video's file, checked, columns in the data's order.

    Raises:
      ValueError: what is wrong, with the file's name and the way out.
    """
    path = self.folder / f"{video.id}.npz"
    try:
      with one_line(), np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in _NAMES if name in file}
    except FileNotFoundError:
      raise ValueError(
        f"{path}: expected the CAS of video {video.id}, came no such file; "
        "every training and test video needs one"
      ) from None
    except (ValueError, OSError) as error:
      raise ValueError(
        f"{path}: expected an .npz file of plain arrays, came: {error}; write "
        "it again with np.savez"
      ) from None
    for fault in self._faults(found, video.num_segments):
      raise ValueError(f"{path}: {fault}")
    return self._ordered(path, found)

  def _faults(
    self, found: Mapping[str, np.ndarray], length: int
  ) -> Iterator[str]:
    """What is wrong with the arrays, and the way out."""
    count = len(self.classes)
    if "cas" not in found:
      yield "expected an array cas, came none; see docs/OWN_CAS.md"
      return
    cas = found["cas"]
    if cas.ndim != 2 or cas.shape[1] not in (count, count + 1) or not len(cas):
      yield (
        f"cas: expected shape (T, {count}) or (T, {count + 1}) for the {count} "
        f"classes of the data, came {cas.shape}; give a column for each class"
      )
    rows = len(cas) if cas.ndim else 0
    if rows != length and not self.resample:
      yield (
        f"cas: expected {length} rows, as many as the features have, came "
        f"{rows}; make it from the same features or pass "
        "--config.ptlr.cas_resample=True"
      )
    shapes = {"scores": (count,), "attention": (rows,)}
    for name, x in found.items():
      if name == "classes":
        continue
      if shapes.get(name, x.shape) != x.shape:
        yield f"{name}: expected shape {shapes[name]}, came {x.shape}"
      if x.dtype.kind != "f":
        yield f"{name}: expected floats, came {x.dtype}; save it as float32"
      elif bad := int((~np.isfinite(x)).sum()):
        yield (
          f"{name}: expected finite numbers, came NaN or infinity {bad} times; "
          "compute it again"
        )
      elif name != "cas" or self.values == "probability":
        low, high = float(x.min()), float(x.max())
        if low < -_NEAR or high > 1 + _NEAR:
          yield (
            f"{name}: expected probabilities in [0, 1], came {low:.3g} to "
            f"{high:.3g}; "
            + (
              "pass --config.ptlr.cas_values=logit if they are logits"
              if name == "cas"
              else "give probabilities, or leave it out"
            )
          )

  def _ordered(
    self, path: Path, found: dict[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """The arrays as float32, columns in the order of the data's classes."""
    named = found.pop("classes", None)
    order = self.order if named is None else tuple(map(str, named.ravel()))
    found = {name: x.astype(np.float32) for name, x in found.items()}
    if order is None:
      return found
    if fault := _disagree(order, self.classes):
      raise ValueError(f"{path}: classes: {fault}")
    columns = [order.index(name) for name in self.classes]
    if "scores" in found:
      found["scores"] = found["scores"][columns]
    rest = range(len(columns), found["cas"].shape[1])
    found["cas"] = found["cas"][:, [*columns, *rest]]
    return found

  def _said(
    self, found: Mapping[str, np.ndarray], length: int
  ) -> dict[str, Any]:
    """What `asking` gives of a video's arrays."""
    cas = resampled(found["cas"], length)
    attention, count = found.get("attention"), len(self.classes)
    if self.values == "logit" and attention is None and cas.shape[1] > count:
      said, scores = {"cas": cas}, cas_space.softmax(self._topk_mean(cas))
    else:
      cas = self._probabilities(cas, attention)
      said = cas_space.Probabilities(cas=cas)
      scores = self._topk_mean(cas)
    if "scores" in found:
      scores = np.append(found["scores"], np.float32(0))
    return {"logits": said, "scores": {"cas": scores}}

  def _probabilities(
    self, cas: np.ndarray, attention: np.ndarray | None
  ) -> np.ndarray:
    """f32[T,C] or f32[T,C+1] -> f32[T,C+1], actions weighed by f32[T']."""
    count = len(self.classes)
    whole = cas.shape[1] > count
    if self.values == "logit":
      with np.errstate(over="ignore"):  # exp of a large number: 0
        cas = cas_space.softmax(cas) if whole else 1 / (1 + np.exp(-cas))
    if whole and attention is None:
      return cas
    actions = cas[:, :count]
    if attention is not None:
      actions = actions * resampled(attention[:, None], len(cas))
    rest = 1 - actions.max(1, keepdims=True)
    return np.concatenate([actions, rest], 1)

  def _topk_mean(self, cas: np.ndarray) -> np.ndarray:
    """f[T,C] -> f[C]: mean of the max(1, T // topk_ratio) highest."""
    k = max(1, len(cas) // self.topk_ratio)
    return np.sort(cas, axis=0)[-k:].mean(0)


def resampled(values: np.ndarray, length: int) -> np.ndarray:
  """f32[S,C] over a video as f32[length,C], linearly between the centres of
  its S equal parts; the ends are held. As it is where S = `length`."""
  if len(values) == length:
    return values
  centres = (np.arange(length) + 0.5) * len(values) / length - 0.5
  own = np.arange(len(values))
  columns = [np.interp(centres, own, column) for column in values.T]
  return np.stack(columns, 1).astype(values.dtype)


def _disagree(order: Sequence[str], classes: Sequence[str]) -> str:
  """Why names are no order of the classes, or nothing where they are."""
  lacking = sorted(set(classes) - set(order))
  unknown = sorted(set(order) - set(classes))
  if not lacking and not unknown and len(order) == len(classes):
    return ""
  came = f"{len(order)} names"
  came += f", without {', '.join(lacking[:3])}" if lacking else ""
  came += f", with {', '.join(unknown[:3])}" if unknown else ""
  return (
    f"expected the {len(classes)} classes of the data, each once, came {came}; "
    "name them as the annotations do"
  )


@functools.lru_cache(maxsize=1)  # several runs are on one data set
def open_cas_folder(
  folder: str, values: str, resample: bool, topk_ratio: int, data: Dataset
) -> ExternalCas:
  """The CASs in a folder, all of them checked; of several processes by the
  first, for all. The arguments are those of config.ptlr and config.ilg.loss.

  Raises:
    InputError: a line for every file that cannot be used.
  """
  path = Path(folder).expanduser()
  made = ExternalCas(path, data.classes, values, resample, topk_ratio, None)
  made = made._replace(order=_order(path, data.classes))
  return made._replace(digest=processes.first(lambda: _checked(made, data)))


def _order(folder: Path, classes: Sequence[str]) -> tuple[str, ...] | None:
  path = folder / CLASSES
  if not folder.is_dir():
    raise InputError(
      f"--config.ptlr.cas={folder}: expected a folder with a file V.npz for "
      "every video V, came none; see docs/OWN_CAS.md"
    )
  if not path.is_file():
    return None
  try:
    lines = path.read_text("utf-8-sig").splitlines()
  except (OSError, ValueError) as error:
    raise InputError(
      f"{path}: expected class names, one a line, cannot be read ({error})"
    ) from None
  order = tuple(line.strip() for line in lines if line.strip())
  if fault := _disagree(order, classes):
    raise InputError(f"{path}: {fault}")
  return order


def _checked(cas: ExternalCas, data: Dataset) -> str:
  """Reads all there is; its digest."""
  problems, digests = [], {}
  for video in (*data.train, *data.test):
    try:
      digests[video.id] = digest.features_digest(cas.read(video))
    except ValueError as error:
      problems.append(str(error))
  if problems:
    raise InputError(*problems)
  return digest.combined(digests)
