#!/usr/bin/env bash
# Trains and evaluates the whole method on simulated features, on whatever
# device JAX finds; sets up .venv first. Arguments go to ptlr_jax.main:
#   launch/demo.sh --config.seed=1
#
#   WORKDIR  where the run goes, relative to the repository [runs/simulated]
#   PYTHON   see launch/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
exec .venv/bin/python -m ptlr_jax.main --config=configs/simulated.py \
  --workdir="${WORKDIR:-runs/simulated}" "$@"
