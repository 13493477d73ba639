"""A small config.ilg, as far as its batches read it."""

from types import SimpleNamespace


def ilg_options(**changes):
  scale = {"min": 0.5, "max": 2.0, "lengths": 2, "shared": True}
  known = {"batch_size": 4, "segments": 8, "sampling": "random"}
  weights = {"beta": 0.5, "gamma": 0.5, "transformed_mil_weight": 0.0}
  known |= {"streams": ("rgb", "flow"), "scale": scale, **changes}
  known["loss"] = SimpleNamespace(**weights | changes.get("loss", {}))
  return SimpleNamespace(**known)
