#!/usr/bin/env bash
# Trains on the accelerators of this machine, or on all hosts of a TPU slice.
#
#   launch/tpu_train.sh --gin_file=FILE [--model_dir=DIR] [--where=auto|local] [--dry_run]
#                       [--gin.NAME=VALUE ...] [further flags of `promot train`]
#   launch/tpu_train.sh --tpu=NAME [--zone=ZONE] [--project=PROJECT] [--sync [--yes]]
#                       [--remote_dir=DIR] --gin_file=FILE --model_dir=DIR [...]
#
# The second form runs the first one on every host of an existing TPU VM (gcloud ... --worker=all),
# where the processes find each other; --model_dir must lie on a file system that all hosts have
# mounted.  --sync first copies this commit to --remote_dir (default promot_jax, below each home); what
# is not committed stays behind, which --yes accepts.  A ~ in a path is the home of the machine that
# uses it.  The run ends with this script: start it where it can stay (tmux).
#
# --dry_run prints the commands for a TPU VM; here, the plan of the run, if the environment that it
# needs is there, and else how to install it.  Flags are checked before anything is installed or sent.
#
# --where=queued, xpk and slurm, which start machines elsewhere, come with a later release.
# Exit codes are those of `promot train` (with --tpu, what gcloud makes of them): 75 means stopped and
# saved, the same command goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

where=auto
tpu=""
remote_dir=promot_jax
sync=no
accepted=no
dry_run=no
gin_file=no
model_dir=no
place=()
arguments=()
for argument in "$@"; do
  case $argument in
    --tpu=* | --where=* | --zone=* | --project=* | --remote_dir=* | --gin_file=* | --model_dir=* | --init=*)
      require_value "$argument"
      ;;
  esac
  case $argument in
    -h | --help)
      usage "launch/${BASH_SOURCE[0]##*/}"
      exit 0
      ;;
    --where=*) where=${argument#*=} ;;
    --tpu=*) tpu=${argument#*=} ;;
    --zone=* | --project=*) place+=("$argument") ;;
    --remote_dir=*) remote_dir=${argument#*=} ;;
    --sync) sync=yes ;;
    --yes) accepted=yes ;;
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
# Prints a command under --dry_run, else runs it.
x() {
  if [[ $dry_run == yes ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

check_flags train "${arguments[@]+"${arguments[@]}"}"
if [[ $gin_file == no ]]; then
  fail "no --gin_file given. For a first run: --gin_file=promot_rte_micro.gin."
fi

quoted() { printf ' %q' "$@"; }

# A folder for the remote shell, which has to see the ~ of its own home.
# shellcheck disable=SC2088  # the ~ is matched, not expanded
remote_path() {
  case $1 in
    '~') printf ' ~' ;;
    '~/'*) printf ' ~/%q' "${1#'~/'}" ;;
    *) printf ' %q' "$1" ;;
  esac
}

# What --sync leaves behind is said before anything is sent.
check_committed() {
  local changed count
  changed=$(git status --porcelain) || fail "--sync copies a commit, and this folder is no git repository."
  if [[ -z $changed ]]; then return; fi
  count=$(wc -l <<<"$changed")
  say "--sync sends the last commit without $count changed or new files that are not committed:"
  say "$(head -n 5 <<<"$changed")"
  if [[ $count -gt 5 ]]; then say "   ... (git status lists all)"; fi
  if [[ $accepted == no && $dry_run == no ]]; then
    fail "commit them, or add --yes to train with the last commit as it is."
  fi
}

copy_commit() {
  local archive
  archive=$(mktemp -d)/promot_jax.tar.gz
  x git archive --format=tar.gz --output="$archive" HEAD
  x gcloud compute tpus tpu-vm scp "$archive" "$tpu:promot_jax.tar.gz" "${place[@]+"${place[@]}"}" \
    --worker=all
  x gcloud compute tpus tpu-vm ssh "$tpu" "${place[@]+"${place[@]}"}" --worker=all \
    --command="mkdir -p$(remote_path "$remote_dir") && tar -xzf promot_jax.tar.gz -C$(remote_path "$remote_dir")"
  rm -rf "$(dirname "$archive")"
}

if [[ -n $tpu ]]; then
  [[ $where != local ]] || fail "--where=local runs on this machine; leave --tpu=$tpu out."
  [[ $model_dir == yes ]] || fail "--tpu=$tpu needs --model_dir=DIR on a file system of all its hosts."
  if [[ $dry_run == no ]]; then
    command -v gcloud >/dev/null || fail "gcloud is not installed, and --tpu=$tpu is reached with it."
  fi
  if [[ $sync == yes ]]; then
    check_committed
    copy_commit
  fi
  remote=()
  for argument in "${arguments[@]}"; do
    if [[ $argument != --dry_run ]]; then remote+=("$argument"); fi
  done
  x gcloud compute tpus tpu-vm ssh "$tpu" "${place[@]+"${place[@]}"}" --worker=all \
    --command="cd$(remote_path "$remote_dir") && launch/tpu_train.sh --where=local$(quoted "${remote[@]}")"
  exit
fi
if [[ $sync == yes || $accepted == yes || ${#place[@]} -gt 0 ]]; then
  fail "--sync, --yes, --zone and --project are about a TPU VM; name it with --tpu=NAME."
fi

extras=""
if compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
  extras=tpu
elif compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
  extras=gpu
fi
here_arguments=()
run_arguments=()
for argument in "${arguments[@]}"; do
  here_arguments+=("$(with_home "$argument")")
  if [[ $argument != --dry_run ]]; then run_arguments+=("$(with_home "$argument")"); fi
done
if [[ $dry_run == yes ]] && ! find_python "$extras"; then
  printf '%s\n' "dry run: nothing was installed, and the plan needs the environment. To install it:" \
    "  bash -c 'source launch/environment.sh && ensure_python \"$extras\"'" \
    "Then this command prints the plan; without --dry_run it installs and runs" \
    "  $PYTHON -m promot_jax.cli.train$(quoted "${run_arguments[@]}")"
  exit
fi
ensure_python "$extras"
exec "$PYTHON" -m promot_jax.cli.train "${here_arguments[@]}"
