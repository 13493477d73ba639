#!/usr/bin/env bash
# Lint, format, types, documentation, tests, on the CPU; sets up .venv first.
# All five run even if one fails, pytest last; non-zero if any failed. Arguments
# go to pytest:
#   launch/test.sh tests/test_losses.py -k topk
#
#   PYTHON   see launch/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh test

export JAX_PLATFORMS=cpu
# The wheel carries the pinned pyright: do not ask PyPI for a newer one, and
# do not fetch another from npm.
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1
unset PYRIGHT_PYTHON_FORCE_VERSION PYRIGHT_PYTHON_PYLANCE_VERSION
python=.venv/bin/python

checks=("ruff check ." "ruff format --check .")
if probe=$("$python" -m pyright --version 2>&1); then
  checks+=(pyright)
else
  echo "== pyright skipped, it does not start here: ${probe##*$'\n'}"
fi
# The documentation with its API reference; what is built stays for the next.
checks+=("sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs")

# Side by side, and told one after the other.
failed=() running=()
said=$(mktemp -d)
for i in "${!checks[@]}"; do
  # shellcheck disable=SC2086 # words without blanks
  "$python" -m ${checks[i]} >"$said/$i" 2>&1 &
  running+=($!)
done
for i in "${!checks[@]}"; do
  wait "${running[i]}" || failed+=("${checks[i]}")
  echo "== ${checks[i]}"
  cat "$said/$i"
done
rm -r "$said"
if ((${#failed[@]})); then
  printf '== FAILED: %s\n' "${failed[@]}"
  echo "== this script will exit 1, whatever pytest says"
fi

echo "== pytest $*"
status=0
# A process a core and one for when others wait, a file's tests in one, the
# longest files first (see tests/conftest.py); -n0 brings all back into one.
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)))' 2>/dev/null ||
  echo 2) # macOS has no such count
"$python" -m pytest -n $((cores < 4 ? cores + 1 : 4)) --dist loadfile \
  --no-loadscope-reorder "$@" || status=$?
exit $((status ? status : ${#failed[@]} > 0))
