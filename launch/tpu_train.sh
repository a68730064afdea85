#!/usr/bin/env bash
# Trains on the accelerators of this machine, or on all hosts of a TPU slice.
#
#   launch/tpu_train.sh --gin_file=FILE [--model_dir=DIR] [--where=auto|local] [--dry_run]
#                       [--gin.NAME=VALUE ...] [further flags of `promot train`]
#   launch/tpu_train.sh --tpu=NAME [--zone=ZONE] [--project=PROJECT] [--sync] [--remote_dir=DIR]
#                       --gin_file=FILE --model_dir=DIR [...]
#
# The second form runs the first one on every host of an existing TPU VM (gcloud ... --worker=all),
# where the processes find each other; --model_dir must lie on a file system that all hosts have
# mounted.  --sync first copies this commit to --remote_dir (default promot_jax, below each home);
# --dry_run prints the commands.  The run ends with this script: start it where it can stay (tmux).
#
# --where=queued, xpk and slurm, which start machines elsewhere, come with a later release.
# Exit codes are those of `promot train` (with --tpu, what gcloud makes of them): 75 means stopped and
# saved, the same command goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

fail() { # fail SENTENCE...
  say "ERROR  $* (exit 2)"
  exit 2
}

where=auto
tpu=""
remote_dir=promot_jax
sync=no
dry_run=no
gin_file=no
model_dir=no
place=()
arguments=()
for argument in "$@"; do
  case $argument in
    -h | --help)
      sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --where=*) where=${argument#*=} ;;
    --tpu=*) tpu=${argument#*=} ;;
    --zone=* | --project=*) place+=("$argument") ;;
    --remote_dir=*) remote_dir=${argument#*=} ;;
    --sync) sync=yes ;;
    --tpu | --zone | --project | --remote_dir) fail "$argument has no value. Write $argument=VALUE." ;;
    --accelerator=* | --num_slices=* | --spot | --reserved | --on_demand | --flex_start=*)
      fail "${argument%%=*} starts machines, which comes with a later release. Create the TPU VM" \
        "first, and name it with --tpu=NAME."
      ;;
    --gin_file=* | --gin_file)
      gin_file=yes
      arguments+=("$argument")
      ;;
    --model_dir=* | --model_dir)
      model_dir=yes
      arguments+=("$argument")
      ;;
    --dry_run)
      dry_run=yes
      arguments+=("$argument")
      ;;
    *) arguments+=("$argument") ;;
  esac
done

case $where in
  auto | local) ;;
  tpu-vm) [[ -n $tpu ]] || fail "--where=tpu-vm needs --tpu=NAME, the TPU VM to run on." ;;
  queued | xpk | slurm)
    fail "--where=$where comes with a later release. Under SLURM, run 'srun promot train ...';" \
      "on an existing TPU VM, give --tpu=NAME."
    ;;
  *) fail "--where=$where is unknown. Use auto or local." ;;
esac
if [[ $gin_file == no ]]; then
  fail "no --gin_file given. For a first run: --gin_file=promot_rte_micro.gin."
fi

# Prints a command under --dry_run, else runs it.
x() {
  if [[ $dry_run == yes ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

quoted() { printf ' %q' "$@"; }

copy_commit() {
  local archive
  archive=$(mktemp -d)/promot_jax.tar.gz
  x git archive --format=tar.gz --output="$archive" HEAD
  x gcloud compute tpus tpu-vm scp "$archive" "$tpu:promot_jax.tar.gz" "${place[@]+"${place[@]}"}" \
    --worker=all
  x gcloud compute tpus tpu-vm ssh "$tpu" "${place[@]+"${place[@]}"}" --worker=all \
    --command="mkdir -p$(quoted "$remote_dir") && tar -xzf promot_jax.tar.gz -C$(quoted "$remote_dir")"
  rm -rf "$(dirname "$archive")"
}

if [[ -n $tpu ]]; then
  [[ $where != local ]] || fail "--where=local runs on this machine; leave --tpu=$tpu out."
  [[ $model_dir == yes ]] || fail "--tpu=$tpu needs --model_dir=DIR on a file system of all its hosts."
  if [[ $dry_run == no ]]; then
    command -v gcloud >/dev/null || fail "gcloud is not installed, and --tpu=$tpu is reached with it."
  fi
  if [[ $sync == yes ]]; then copy_commit; fi
  remote=()
  for argument in "${arguments[@]}"; do
    if [[ $argument != --dry_run ]]; then remote+=("$argument"); fi
  done
  x gcloud compute tpus tpu-vm ssh "$tpu" "${place[@]+"${place[@]}"}" --worker=all \
    --command="cd$(quoted "$remote_dir") && launch/tpu_train.sh --where=local$(quoted "${remote[@]}")"
  exit
fi
if [[ $sync == yes || ${#place[@]} -gt 0 ]]; then
  fail "--sync, --zone and --project are about a TPU VM; name it with --tpu=NAME."
fi

extras=""
if compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
  extras=tpu
elif compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
  extras=gpu
fi
ensure_python "$extras"
exec "$PYTHON" -m promot_jax.cli.train "${arguments[@]}"
