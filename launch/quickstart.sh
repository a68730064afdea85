#!/usr/bin/env bash
# From nothing to the table: installs into .venv/ if need be, then runs on this machine's CPU the
# pretrained micro model, standard fine-tuning, prompt tuning and ProMoT on RTE of the built-in world,
# with the eight unseen tasks at 1 shot.  No network is needed after the installation.
#
#   launch/quickstart.sh [--model_dir=DIR] [--seed=N] [further flags of `promot train`]
#
# Stopped half-way, the same command goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

model_dir=runs/quickstart
arguments=()
for argument in "$@"; do
  case $argument in
    -h | --help)
      usage "launch/${BASH_SOURCE[0]##*/}"
      exit 0
      ;;
    --model_dir=*)
      require_value "$argument"
      model_dir=$(with_home "$argument")
      model_dir=${model_dir#*=}
      ;;
    --seed=* | --init=*)
      require_value "$argument"
      arguments+=("$(with_home "$argument")")
      ;;
    *) arguments+=("$argument") ;;
  esac
done

check_flags train --gin_file=quickstart.gin --model_dir="$model_dir" "${arguments[@]+"${arguments[@]}"}"
ensure_python ""
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
start=$SECONDS
"$PYTHON" -m promot_jax.cli.train --gin_file=quickstart.gin --model_dir="$model_dir" \
  "${arguments[@]+"${arguments[@]}"}"
say "quickstart: $((SECONDS - start)) s after installation"
