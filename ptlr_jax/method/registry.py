"""What can be trained, by name: stages, and networks of the ILG."""

from collections.abc import Callable, Mapping
from typing import Any

from ptlr_jax.method import ilg, refinement
from ptlr_jax.method.stage import (
  Stage,
)

# What `config.plugins` may add to, as to MODELS and `losses.SCALE_LOSSES`.
STAGES: dict[str, Callable[[int, Mapping[str, Any]], Stage]] = {
  "ilg": ilg.ilg_stage,
  "ots": refinement.ots,
  "rts": refinement.rts,
}
