#!/usr/bin/env bash
# Makes .venv in the repository's root with the pinned requirements and this
# package, or finds it complete and returns at once. demo.sh and test.sh call
# it; by hand: `launch/setup.sh` or, with the test tools, `launch/setup.sh test`.
#
#   PYTHON   interpreter to make .venv with [the first of python3.13,
#            python3.12, python3.11, python3 that is 3.11 or later]; an .venv
#            of another version is made anew
#
# .venv/.ready-run-<sum> and .venv/.ready-test-<sum> say that .venv is complete
# for the requirements with that sum; .venv/.unfinished says that an install
# began and did not end, and .venv is then made anew.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { echo "setup: $*" >&2; }
die() { say "$@"; exit 1; }

case ${1:-} in
  '') kinds=(run) kind=run requirements=launch/requirements.txt ;;
  test) kinds=(run test) kind=test requirements=launch/requirements-test.txt ;;
  *) die "expected no argument or 'test', got '$1'" ;;
esac

# With no home, pip would put its cache in /.cache.
[[ -n ${HOME:-} ]] || export PIP_NO_CACHE_DIR=1
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

# Prints "3.12" if the command $1 is a Python that can make .venv with pip.
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}
new_enough() { [[ $1 =~ ^3\.([0-9]+)$ ]] && ((BASH_REMATCH[1] >= 11)); }

# Sets python and version, or ends with what is missing.
find_python() {
  local candidate candidates=(python3.13 python3.12 python3.11 python3)
  local bare=''
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    version=$(version_of "$candidate") && new_enough "$version" || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      # Not the candidate itself: an activated .venv is about to be removed.
      python=$("$candidate" -c 'import sys; print(sys._base_executable)')
      return
    fi
    bare=${bare:-$version}
  done
  [[ -z $bare ]] || die "Python $bare lacks venv or ensurepip; install them" \
    "(Debian, Ubuntu: apt install python$bare-venv)"
  [[ -z ${PYTHON:-} ]] || die "PYTHON=$PYTHON is not a Python 3.11 or later"
  die "no Python 3.11 or later found (tried ${candidates[*]}); install one" \
    "or name it: PYTHON=/path/to/python3"
}

# The version of .venv, or nothing if it is absent, broken or unfinished.
venv_version() {
  [[ ! -e .venv/.unfinished ]] &&
    .venv/bin/python -c 'import pip' 2>/dev/null &&
    version_of .venv/bin/python
}

# The stamp for $1, run or test. Its sum also covers the Python and the place,
# since the package is installed in place.
stamp() {
  local files=(pyproject.toml launch/requirements.txt)
  [[ $1 == run ]] || files+=(launch/requirements-test.txt)
  echo ".venv/.ready-$1-$({ echo "$root $version"; cat "${files[@]}"; } |
    cksum | cut -d ' ' -f 1)"
}

# One at a time, where there is flock: the lock is on the root itself, so no
# file is left behind.
if command -v flock >/dev/null; then
  exec 9<"$root"
  locked=0
  flock -n 9 2>/dev/null || locked=$?
  if ((locked == 1)); then
    say "waiting for another setup of $root"
    flock 9
  fi
fi

version=$(venv_version) || version=''
if [[ -n ${PYTHON:-} && -n $version ]]; then
  wanted=$(version_of "$PYTHON") || wanted=''
  [[ $wanted == "$version" ]] || version=''
fi
if new_enough "$version"; then
  [[ ! -e $(stamp "$kind") ]] || exit 0
else
  find_python
  say "making .venv with Python $version"
  rm -rf .venv
  mkdir .venv
  touch .venv/.unfinished
  "$python" -m venv .venv || die "$python -m venv failed, see above"
fi

say "installing $requirements into .venv (a minute or two)"
touch .venv/.unfinished
rm -f .venv/.ready-*
pip=(.venv/bin/python -m pip install --quiet)
"${pip[@]}" -r "$requirements" ||
  die "pip could not install $requirements; see above, then run this again"
"${pip[@]}" --no-deps --no-build-isolation -e . ||
  die "pip could not install this package; see above, then run this again"
for kind in "${kinds[@]}"; do touch "$(stamp "$kind")"; done
rm .venv/.unfinished
