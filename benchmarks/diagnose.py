"""What a run's CASs are like, how sure its networks, what right labels give.

python benchmarks/diagnose.py --run=runs/readings/seed-0/letter \
  [--root=ROOT] [--mended=DIR]

Prints, as Markdown:
- the ILG's softmax of a test video's own classes, by stream and fused, means
  over videos and classes: AUC of the action frames within a video, the level on
  action and on other frames, the change from frame to frame in parts of the
  deviation over time, and the correlation of the two streams;
- the frames of the training videos by the highest probability that each network
  of refinement gives them: their share, and how many of them are right.
With `--mended`, trains one stage anew in DIR on labels that the ground
truth has mended, the only place where training sees it:
  clean  the initial selection, with the right labels
  all    every action frame, and the initial background that is right
  truth  every frame
"""

import argparse
import itertools
import shutil
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from scipy import stats

from ptlr_jax.data.dataset import frame_truth
from ptlr_jax.io import label_files, storage
from ptlr_jax.method import cas_space
from ptlr_jax.method.pseudo_labels import PseudoLabels
from ptlr_jax.runs import pipeline
from ptlr_jax.runs.dataset import load_dataset
from ptlr_jax.workdir import run_folder
from ptlr_jax.workdir.artefacts import Artefacts
from ptlr_jax.workdir.phases import phases

EDGES = (0.0, 0.55, 0.6, 0.65, 0.7, 0.9, 0.99, 1.01)
KINDS = ("clean", "all", "truth")


def truths(data) -> list[np.ndarray]:
  """bool[T,C+1] of every training video, of several classes the first."""
  found = []
  for video in data.train:
    truth = frame_truth(video, len(data.classes))
    found.append(np.eye(truth.shape[1], dtype=bool)[truth.argmax(1)])
  return found


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
  """Chance that a positive is above a negative. f[T], bool[T]."""
  pair = scores[positive], scores[~positive]
  wins = stats.mannwhitneyu(*pair, method="asymptotic").statistic
  return float(wins / (len(pair[0]) * len(pair[1])))


def of_class(x: np.ndarray, action: np.ndarray) -> list[float]:
  """AUC, level on action and elsewhere, change, of a class. f[T], bool[T]."""
  change = np.abs(np.diff(x)).mean() / max(x.std(), 1e-9)
  return [auc(x, action), x[action].mean(), x[~action].mean(), change]


def cas_quality(run, data) -> str:
  """The table of the ILG's CASs."""
  outputs = run.networks.predict("ilg", "ilg", data.test)
  rows: dict[str, list[list[float]]] = {}
  together = []
  for video, out in zip(data.test, outputs, strict=True):
    truth = frame_truth(video, len(data.classes))[:, :-1]
    streams = {k: cas_space.softmax(v) for k, v in out["logits"].items()}
    fused = {"fused": cas_space.fuse(streams, run.config.fusion)}
    for c in video.labels:
      action = truth[:, c]
      if action.all() or not action.any():
        continue
      for name, cas in {**streams, **fused}.items():
        rows.setdefault(name, []).append(of_class(cas[:, c], action))
      if len(streams) == 2:
        first, second = (cas[:, c] for cas in streams.values())
        if min(first.std(), second.std()) > 0:
          together.append(np.corrcoef(first, second)[0, 1])
  lines = ["| CAS | AUC | on actions | elsewhere | change |", "|---" * 5 + "|"]
  for name, values in rows.items():
    cells = " | ".join(f"{100 * x:.1f}" for x in np.mean(values, 0))
    lines.append(f"| {name} | {cells} |")
  if together:
    lines.append(f"\nCorrelation of the streams: {np.mean(together):.2f}")
  return "\n".join(lines)


def confidence(run, data) -> str:
  """The table of shares and accuracies."""
  truth = np.concatenate(truths(data))
  bins = list(itertools.pairwise(EDGES))
  heads = [f"{low:g} to {min(high, 1):g}" for low, high in bins]
  lines = [f"| network | {' | '.join(heads)} |", "|---" * 8 + "|"]
  for phase in phases(run.config):
    if phase.kind == "train" and phase.stage:
      outputs = run.networks.predict(phase.name, phase.network, data.train)
      cas = np.concatenate([out["cas"] for out in outputs])
      highest, right = cas.max(1), truth[np.arange(len(cas)), cas.argmax(1)]
      cells = []
      for low, high in bins:
        inside = (highest >= low) & (highest < high)
        share = 100 * inside.mean()
        said = f" ({100 * right[inside].mean():.0f})" if inside.any() else ""
        cells.append(f"{share:.0f}{said}")
      lines.append(f"| {phase.name} | {' | '.join(cells)} |")
  return "\n".join(lines)


def mended(kind: str, initial: PseudoLabels, truth: np.ndarray) -> PseudoLabels:
  """Initial labels with the truth's help."""
  action = ~truth[:, -1]
  selected = {
    "clean": initial.selected,
    "all": action | (initial.labels[:, -1] & ~action),
    "truth": np.ones(len(truth), bool),
  }[kind]
  return PseudoLabels(truth & selected[:, None], selected)


def train_on_mended(source: Artefacts, data, kind: str, root: Path) -> str:
  """A line: mAP 0.1:0.7 of the ILG and of one stage on mended labels."""
  config = ConfigDict(source.config.to_dict())
  config.ptlr.stages = 1
  config = FrozenConfigDict(config)
  run_folder.prepare_run_folder(root / kind, config)
  files = Artefacts(config, root / kind)
  if not files.metrics_path().exists():
    shutil.copytree(
      source.checkpoint_dir("ilg"),
      files.checkpoint_dir("ilg"),
      dirs_exist_ok=True,
    )
    run = pipeline.Run(config, data, root / kind)
    lengths = [video.num_segments for video in data.train]
    ids = [video.id for video in data.train]
    path = source.label_path("labels-0")
    initial = label_files.read_labels(path, ids, lengths)
    labels = [mended(kind, *p) for p in zip(initial, truths(data), strict=True)]
    for name in ("labels-0", "labels-1-ots", "labels-1-rts"):
      label_files.write_labels(files.label_path(name), ids, labels)
    run.run()
  metrics = storage.read_json(files.metrics_path())
  figures = (
    f"{100 * row['averages']['0.1:0.7']:.1f}"
    for row in metrics["stages"].values()
  )
  return f"| {kind} | {' | '.join(figures)} |"


def main() -> None:
  """Command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--run", type=Path, required=True)
  parser.add_argument("--root", default="", help="the data, where on disk")
  parser.add_argument("--mended", type=Path)
  args = parser.parse_args()
  said = storage.read_json(args.run / "config.json")
  said["data"]["root"] = args.root
  config = FrozenConfigDict(said)
  data = load_dataset(config.data)
  run = pipeline.Run(config, data, args.run)
  print(cas_quality(run, data))
  if config.ptlr.stages:
    print(f"\n{confidence(run, data)}")
  if args.mended:
    source = Artefacts(config, args.run)
    lines = [train_on_mended(source, data, k, args.mended) for k in KINDS]
    print("\n| labels | ILG | stage 1 |\n|---|---|---|", *lines, sep="\n")


if __name__ == "__main__":
  main()
