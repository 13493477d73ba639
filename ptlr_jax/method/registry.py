"""What can be trained, by name.

`config.plugins` may add to STAGES, as to `ilg.NETWORKS` and
`losses.SCALE_LOSSES`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ptlr_jax.method import ilg, refinement
from ptlr_jax.method.stage import Stage

STAGES: dict[str, Callable[[int, Mapping[str, Any]], Stage]] = {
  "ilg": ilg.ilg_stage,
  "ots": refinement.ots,
  "rts": refinement.rts,
}
