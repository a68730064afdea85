# shellcheck shell=bash
# Sourced by the other scripts: makes sure that $PYTHON is an interpreter with this checkout installed.
#
#   ensure_python EXTRAS     EXTRAS = "" or e.g. "test" or "test,torch"
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

# torch's usual build for Linux brings several GB of CUDA libraries that no test uses.  pip's plan is
# read before anything is installed, so that nobody downloads them unasked.
install_torch() {
  local python=$1 version="torch==2.13.0" index=${PROMOT_TORCH_INDEX:-} plan=""
  if "$python" -c 'import torch' 2>/dev/null; then return; fi
  if [[ -z $index ]]; then
    plan=$("$python" -m pip install --dry-run -qq --report - "$version" 2>/dev/null || true)
  fi
  if [[ $plan =~ \"name\":\ \"(nvidia-|cuda-toolkit|cuda-bindings) ]]; then
    say "ERROR  pip would install a CUDA build of torch (several GB) that no test needs; set" \
      "PROMOT_TORCH_INDEX to an index of CPU builds (PyTorch's installation page names it). (exit 2)"
    exit 2
  fi
  if [[ -n $index ]]; then
    "$python" -m pip install -qq --index-url "$index" "$version"
  else
    "$python" -m pip install -qq "$version"
  fi
}

ensure_python() {
  local extras=$1 base=${PROMOT_PYTHON:-python3} root=${PROMOT_VENV_ROOT:-$here/.venv} key folder
  if [[ -n ${VIRTUAL_ENV:-} ]] && (cd / && "$VIRTUAL_ENV/bin/python" - "$here" "$extras" 2>/dev/null) <<'PY'
import importlib.util, pathlib, sys
found = importlib.util.find_spec("promot_jax")
here = pathlib.Path(sys.argv[1]).resolve()
assert found and pathlib.Path(found.origin).resolve().is_relative_to(here)
needed = {"test": "pytest", "torch": "torch", "tpu": "libtpu", "gpu": "jax_cuda12_plugin"}
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
  if [[ -e $folder/complete ]]; then return; fi
  say "installing into $folder (once; about two minutes) ..."
  rm -rf "$folder"
  "$base" -m venv "$folder"
  "$PYTHON" -m pip install -qq --upgrade pip
  if [[ ",$extras," == *,torch,* ]]; then install_torch "$PYTHON"; fi
  "$PYTHON" -m pip install -qq --editable "$here${extras:+[$extras]}"
  touch "$folder/complete"
}
