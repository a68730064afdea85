#!/usr/bin/env bash
# Trains on the accelerators of this machine (TPU VM, GPU or CPU).
#
#   launch/tpu_train.sh --gin_file=FILE [--model_dir=DIR] [--where=auto|local] [--dry_run]
#                       [--gin.NAME=VALUE ...] [further flags of `promot train`]
#
# --where=tpu-vm, queued, xpk and slurm start machines elsewhere; they come with a later release.
# Exit codes are those of `promot train`: 75 means stopped and saved, the same command goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

where=auto
gin_file=no
arguments=()
for argument in "$@"; do
  case $argument in
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --where=*) where=${argument#*=} ;;
    --tpu=* | --zone=* | --project=* | --accelerator=* | --num_slices=* | --spot | --reserved | \
      --on_demand | --flex_start=*)
      say "ERROR  ${argument%%=*} is for cloud targets, which come with a later release."
      say "       Run this script on the TPU VM itself, with --where=local. (exit 2)"
      exit 2
      ;;
    --gin_file=* | --gin_file)
      gin_file=yes
      arguments+=("$argument")
      ;;
    *) arguments+=("$argument") ;;
  esac
done

case $where in
  auto | local) ;;
  tpu-vm | queued | xpk | slurm)
    say "ERROR  --where=$where comes with a later release. This one trains on the machine it runs on:"
    say "       copy the checkout to the TPU VM and run launch/tpu_train.sh there. (exit 2)"
    exit 2
    ;;
  *)
    say "ERROR  --where=$where is unknown. Use auto or local. (exit 2)"
    exit 2
    ;;
esac
if [[ $gin_file == no ]]; then
  say "ERROR  no --gin_file given. For a first run: --gin_file=promot_rte_micro.gin. (exit 2)"
  exit 2
fi

extras=""
if compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
  extras=tpu
elif compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
  extras=gpu
fi
ensure_python "$extras"
exec "$PYTHON" -m promot_jax.cli.train "${arguments[@]}"
