#!/usr/bin/env bash
# Lint, types and the fast tests:  launch/test.sh [--parity] [--slow] [pytest arguments]
#
#   --parity   also install [torch] (a CPU build) and the metrics that rest on it, and run the comparisons
#   --slow     also the tests that take minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

extras="test"
marks="not slow"
arguments=()
for argument in "$@"; do
  case $argument in
    --parity) extras=test,torch,bertscore,moverscore ;;
    --slow) marks="" ;;
    -h | --help)
      usage "launch/${BASH_SOURCE[0]##*/}"
      exit 0
      ;;
    *) arguments+=("$argument") ;;
  esac
done
if [[ $extras == test && -n $marks ]]; then marks="$marks and not parity"; fi
if [[ $extras == test && -z $marks ]]; then marks="not parity"; fi

ensure_python "$extras"
export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3
"$PYTHON" -m ruff format --check .
"$PYTHON" -m ruff check .
"$PYTHON" -m mypy
if command -v shellcheck >/dev/null; then shellcheck -x launch/*.sh .ci/run; fi
# Files are dealt out to as many processes as there are cores; a file's tests share what they compiled.  They come
# in the order of tests/conftest.py, which knows the long ones.
"$PYTHON" -m pytest -m "$marks" --durations=10 --numprocesses=logical --maxprocesses=4 \
  --dist=loadfile --no-loadscope-reorder "${arguments[@]+"${arguments[@]}"}"
