"""Where a run's log is shown besides metrics.jsonl, as `config.log` says."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptlr_jax.io import metrics_log, tensorboard, wandb_log
from ptlr_jax.runtime.errors import InputError
from ptlr_jax.runtime.progress import show
from ptlr_jax.workdir import identity


def _is_there(package: str) -> bool:
  return importlib.util.find_spec(package) is not None


def check_followers(config: Any) -> None:
  """Refuses what would only fail once the data is read.

  Raises:
    InputError: a package is asked for that is not installed.
  """
  log = config.log
  asked = (
    ("tensorboard", tensorboard.PACKAGE, log.tensorboard == "always", "auto"),
    ("wandb", wandb_log.PACKAGE, bool(log.wandb), ""),
  )
  problems = [
    f"--config.log.{key}={log[key]}: expected the package {package}, which is "
    f"not installed: pip install 'ptlr-jax[{key}]', or pass "
    f"--config.log.{key}={other}"
    for key, package, is_asked, other in asked
    if is_asked and not _is_there(package)
  ]
  if problems:
    raise InputError(*problems)


def log_followers(config: Any, directory: Path) -> list[metrics_log.Follower]:
  """What shows the log of the run in a folder.

  Raises:
    InputError: event files are always wanted, and cannot be.
  """
  log, found = config.log, []
  if log.tensorboard != "never" and _is_there(tensorboard.PACKAGE):
    try:
      found.append(tensorboard.EventFiles(directory / tensorboard.FOLDER))
    except Exception as error:  # as where it does not suit its protobuf
      came = " ".join(str(error).split())[:200]
      said = f"{tensorboard.PACKAGE} cannot be imported ({came})"
      if log.tensorboard == "always":
        raise InputError(
          f"{said}; install it anew, or pass --config.log.tensorboard=never"
        ) from error
      show(f"{said}; going on without TensorBoard's files")
  if log.wandb:
    said = identity.portable(config)
    found.append(wandb_log.Tracker(log.wandb, directory, said))
  return found


def score_lines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
  """What metrics.json says of every row of the mAP table, as lines of a log:
  the ILG at step 0, stage n at step n; shares of 1."""
  return [
    {
      "phase": "evaluate",
      "step": step,
      **{f"mAP/{tiou}": x for tiou, x in row["mAP"].items()},
      **{f"average/{span}": x for span, x in row["averages"].items()},
    }
    for step, row in enumerate(metrics["stages"].values())
  ]
