#!/usr/bin/env bash
# Trains on all GPUs of this host, or on those that CUDA_VISIBLE_DEVICES names,
# by one process that drives them all; sets up .venv first. Arguments go to
# ptlr_jax.main:
#   launch/local.sh --config=configs/thumos14.py --config.data.root=ROOT \
#     --workdir=DIR
#
#   DEVICES  parts the CPU into so many devices and uses no GPU: to try what
#            several devices do where there are none
#   PYTHON   see launch/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
if [[ -n ${DEVICES:-} ]]; then
  flag=--xla_force_host_platform_device_count=$DEVICES
  export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} $flag"
elif [[ -z ${JAX_PLATFORMS:-} ]] && nvidia-smi --list-gpus >/dev/null 2>&1 &&
  ! ls -d .venv/lib/*/site-packages/jax_plugins/xla_cuda* >/dev/null 2>&1; then
  echo "local: there are GPUs, but .venv has the JAX for CPUs only;" \
    ".venv/bin/pip install -c launch/requirements.txt -e '.[cuda12]'," \
    "or JAX_PLATFORMS=cpu for the CPU" >&2
  exit 2
fi
exec .venv/bin/python -m ptlr_jax.main "$@"
