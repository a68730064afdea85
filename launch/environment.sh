# shellcheck shell=bash
# Sourced by the other scripts: makes sure that $PYTHON is an interpreter with this checkout installed.
#
#   ensure_python EXTRAS     EXTRAS = "" or e.g. "test" or "test,torch"
#   find_python EXTRAS       the same without installing: fails where there is none yet
#   check_flags COMMAND ...  ends with code 2 where `promot COMMAND ...` would: before an installation
#
# An active virtual environment that already has promot_jax from this checkout is used as it is.
# Otherwise one is made in .venv/ (or in $PROMOT_VENV_ROOT), in a folder named by the hash of what it
# was made from, so that a change of dependencies makes a new one and nothing else does.
#
#   PROMOT_PYTHON        interpreter to make it with                        (default python3)
#   PROMOT_VENV_ROOT     where environments are kept                        (default .venv)
#   PROMOT_TORCH_INDEX   package index that torch is taken from             (default: pip's own)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

fail() { # fail SENTENCE...
  say "ERROR  $* (exit 2)"
  exit 2
}

# The comment at the top of a script.
usage() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$1"; }

# An unset variable in a flag must not become its default.
require_value() { # require_value --NAME=VALUE
  if [[ -z ${1#*=} ]]; then
    fail "${1%%=*} is empty; is a variable in it not set? Write ${1%%=*}=VALUE, or leave it out."
  fi
}

# `--model_dir=~/runs` reaches a script with its ~, which is the home of the machine it runs on.
# shellcheck disable=SC2088  # the ~ is matched, not expanded
with_home() { # with_home ARGUMENT
  case $1 in
    *=~ | *=~/*) printf '%s' "${1%%=~*}=$HOME${1#*=~}" ;;
    *) printf '%s' "$1" ;;
  esac
}

# The flags are read by promot itself, whose reader needs nothing but an interpreter.
check_flags() {
  local code=0
  (cd "$here" && "${PROMOT_PYTHON:-python3}" -B -S - "$@") <<'PY' || code=$?
import sys
try:
  from promot_jax.cli import flags
  from promot_jax.errors import ConfigError
except Exception:  # too old an interpreter for us: the installation will say so
  sys.exit(0)
try:
  flags.parse(sys.argv[1:])
except ConfigError as error:
  print(f"ERROR  {error} (exit 2)", file=sys.stderr)
  sys.exit(2)
PY
  if [[ $code == 2 ]]; then exit 2; fi
}

# torch's usual build for Linux brings several GB of CUDA libraries that no test uses.  pip's plan is
# read before anything is installed, so that nobody downloads them unasked.
install_torch() {
  local python=$1 version="torch==2.13.0" index=${PROMOT_TORCH_INDEX:-} plan=""
  if "$python" -c 'import torch' 2>/dev/null; then return; fi
  if [[ -z $index ]]; then
    plan=$("$python" -m pip install --dry-run -qq --report - "$version" 2>/dev/null || true)
  fi
  if [[ $plan =~ \"name\":\ \"(nvidia-|cuda-toolkit|cuda-bindings) ]]; then
    fail "pip would install a CUDA build of torch (several GB) that no test needs; set" \
      "PROMOT_TORCH_INDEX to an index of CPU builds (PyTorch's installation page names it)."
  fi
  if [[ -n $index ]]; then
    "$python" -m pip install -qq --index-url "$index" "$version"
  else
    "$python" -m pip install -qq "$version"
  fi
}

find_python() {
  local extras=$1 base=${PROMOT_PYTHON:-python3} root=${PROMOT_VENV_ROOT:-$here/.venv} key
  if [[ -n ${VIRTUAL_ENV:-} ]] && (cd / && "$VIRTUAL_ENV/bin/python" - "$here" "$extras" 2>/dev/null) <<'PY'
import importlib.util, pathlib, sys
found = importlib.util.find_spec("promot_jax")
here = pathlib.Path(sys.argv[1]).resolve()
assert found and pathlib.Path(found.origin).resolve().is_relative_to(here)
needed = {"test": "pytest", "torch": "torch", "tpu": "libtpu", "gpu": "jax_cuda12_plugin"}
needed |= {"bertscore": "bert_score", "moverscore": "ot"}
for extra in filter(None, sys.argv[2].split(",")):
  assert importlib.util.find_spec(needed[extra])
PY
  then
    PYTHON=$VIRTUAL_ENV/bin/python
    return
  fi
  key=$({ "$base" -V; cat "$here/pyproject.toml" "$here/setup.py" "$here/launch/environment.sh"; echo "$extras $here"; } |
    sha256sum | cut -c1-12)
  folder=$root/$key
  PYTHON=$folder/bin/python
  [[ -e $folder/complete ]]
}

ensure_python() {
  local extras=$1 base=${PROMOT_PYTHON:-python3} folder=""
  if find_python "$extras"; then return; fi
  say "installing into $folder (once; about two minutes) ..."
  rm -rf "$folder"
  "$base" -m venv "$folder"
  "$PYTHON" -m pip install -qq --upgrade pip
  if [[ ",$extras," == *,torch,* ]]; then install_torch "$PYTHON"; fi
  "$PYTHON" -m pip install -qq --editable "$here${extras:+[$extras]}"
  touch "$folder/complete"
}
