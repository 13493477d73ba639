"""Losses and the quality of pseudo labels, from the lines of metrics.jsonl."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptlr_jax.workdir.phases import Phase

POINTS = 300  # of a curve, at most
SHARES = ("precision", "recall", "action_precision", "action_recall")


def losses(
  log: Iterable[Mapping[str, Any]], phases: Sequence[Phase], total: Mapping
) -> list[dict[str, Any]]:
  """The curves of every training phase that has begun.

  [{"phase", "steps" of all by `total`, "step": [...], "terms": {name: [...]}}],
  at most `POINTS` of each evenly over the phase, the last among them; four
  digits.
  """
  found: dict[str, list[Mapping[str, Any]]] = {}
  names = [phase.name for phase in phases if phase.kind == "train"]
  for line in log:
    found.setdefault(line["phase"], []).append(line)
  made = []
  for name in names:
    if name in found:
      lines = sorted(found[name], key=lambda line: line["step"])
      every = -(-len(lines) // POINTS)
      lines = lines[::-1][::every][::-1]
      terms = [k for k in lines[-1] if k not in ("phase", "step")]
      terms = [k for k in terms if k == "loss" or not _is_loss(k, lines)]
      terms.sort(key=lambda term: (term == "grad_norm", term != "loss", term))
      made.append(
        {
          "phase": name,
          "steps": total.get(name),
          "step": [line["step"] for line in lines],
          "terms": {
            term: [_short(line.get(term)) for line in lines] for term in terms
          },
        }
      )
  return made


def _is_loss(term: str, lines: Sequence[Mapping[str, Any]]) -> bool:
  """Whether a term is all of the loss."""
  return all("loss" in x and x.get(term) == x["loss"] for x in lines)


def _short(value: Any) -> float | None:
  number = isinstance(value, int | float)
  return float(f"{value:.4g}") if number and value == value else None


def totals(config: Any, phases: Sequence[Phase]) -> dict[str, int]:
  """The updates of every training phase."""
  return {
    phase.name: int(config[phase.network].steps)
    for phase in phases
    if phase.kind == "train"
  }


def quality(
  log: Iterable[Mapping[str, Any]],
  metrics: Mapping[str, Any],
  phases: Sequence[Phase],
) -> list[dict[str, Any]]:
  """What is known of the pseudo labels of every labels phase that is done, in
  their order: that of metrics.json, or before the end that of the log."""
  said = {line["phase"]: line for line in log}
  said |= {line["phase"]: line for line in metrics.get("pseudo_labels", ())}
  kept = {line["phase"]: line.get("videos_kept") for line in log}
  return [
    {"videos_kept": kept.get(phase.name), **said[phase.name]}
    for phase in phases
    if phase.kind == "labels" and phase.name in said
  ]
