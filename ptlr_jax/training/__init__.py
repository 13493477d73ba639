"""How parameters come about: train step, loop, phases, predictions."""
