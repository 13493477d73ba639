"""An update of pseudo labels under which a contradicted label is withdrawn."""

import numpy as np

from ptlr_jax.method.pseudo_labels import UPDATE_RULES, PseudoLabels


def withdraw(old: PseudoLabels, new: PseudoLabels) -> PseudoLabels:
  """Both sets of labels; a frame with two different ones is no longer selected.

  A later network may select it again, so that two networks must agree to
  change a label.
  """
  differs = np.any(old.labels != new.labels, axis=1)
  contradicted = old.selected & new.selected & differs
  selected = (old.selected | new.selected) & ~contradicted
  return PseudoLabels((old.labels | new.labels) & selected[:, None], selected)


UPDATE_RULES["withdraw"] = withdraw
