#!/usr/bin/env bash
# Every published table of docs/recipes.md, small, and one report of them: trains on the built-in world what the
# tables compare, one command after the other, each in DIR/NAME, and writes DIR/report.html, .md, .csv and .tex.
#
#   launch/tables.sh [--model_dir=DIR] [--seed=N] [--dry_run] [NAME ...]
#
#   DIR           default runs/tables; a further seed goes into another one
#   NAME          some of the names that --dry_run prints; none: all, which takes hours on two CPU cores
#   --seed        of training, default 0
#   --dry_run     prints the commands and runs nothing
#
# Stopped half-way, the same command goes on where it was.  A command that fails is told at the end, with its exit
# code; the others run, and are reported.  What is the same when small is trained once: Table 12 of Wang et al. is
# Table 3, their Table 13 is Table 4, GPT-2 large is GPT-2 medium, and prompt tuning against full tuning on RTE has one
# size.  Figures 3 and 6 of Li & Liang have two of the five subsamples.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

# Name, then flags of `promot train`.  Of a table that shares rows with an earlier one the others alone.
tables() {
  local size subsample task
  cat <<'TABLES'
rte                --gin_file=comparison_rte_micro.gin
wmt14_enfr         --gin_file=comparison_wmt14_enfr_micro.gin
snli               --gin_file=comparison_snli_micro.gin
openbookqa         --gin_file=comparison_openbookqa_micro.gin
multitask          --gin_file=comparison_multitask_micro.gin
palm               --gin_file=comparison_wmt14_enfr_palm_8b_micro.gin
lora               --gin_file=comparison_lora_wmt14_enfr_micro.gin --gin.ROWS=['promot_lora_r2','promot_lora_r4']
e2e                --gin_file=comparison_prefix_e2e_micro.gin
webnlg             --gin_file=comparison_prefix_webnlg_micro.gin
dart               --gin_file=comparison_prefix_dart_micro.gin
xsum               --gin_file=comparison_prefix_xsum_micro.gin
news_to_sports     --gin_file=comparison_prefix_xsum.gin --gin_file=tasks/xsum_news_to_sports.gin --gin_file=micro.gin --gin.ROWS=['fine_tuning','prefix_tuning']
within_news        --gin_file=comparison_prefix_xsum.gin --gin_file=tasks/xsum_within_news.gin --gin_file=micro.gin --gin.ROWS=['fine_tuning','prefix_tuning']
ablations          --gin_file=comparison_prefix_ablations_e2e_micro.gin --gin.ROWS=['embedding_only_1','embedding_only_10','embedding_only_20','infix_1','infix_10','infix_20']
lengths_xsum       --gin_file=comparison_prefix_xsum_micro.gin --gin.ROWS=['prefix_tuning'] --gin.AXES={'prefix_tuning':{'PREFIX_LENGTH':[2,4,16,32]}}
lengths_dart       --gin_file=comparison_prefix_dart_micro.gin --gin.ROWS=['prefix_tuning'] --gin.AXES={'prefix_tuning':{'PREFIX_LENGTH':[1,2,4,16,32]}}
initialisation     --gin_file=comparison_initialisation_e2e_micro.gin
squad_mrqa         --gin_file=comparison_squad_mrqa_micro.gin
cocktail_webnlg    --gin_file=comparison_cocktail_webnlg_micro.gin --gin.LIGHT_WEIGHTS=[0.25,0.5,0.75]
cocktail_xsum      --gin_file=comparison_cocktail_xsum_micro.gin --gin.LIGHT_WEIGHTS=[0.25,0.5,0.75]
cocktail_nq_open   --gin_file=comparison_cocktail_nq_open_micro.gin --gin.LIGHT_WEIGHTS=[0.25,0.5,0.75]
templates          --gin_file=comparison_templates_micro.gin
TABLES
  for size in 50 100 200 500; do
    for subsample in 0 1; do
      for task in e2e xsum; do
        printf '%s --gin_file=%s --gin.LOW_DATA_SIZE=%s --gin.LOW_DATA_SUBSAMPLE=%s\n' \
          "low_data_${task}_${size}_$subsample" "comparison_low_data_${task}_micro.gin" "$size" "$subsample"
      done
    done
  done
}

model_dir=runs/tables
seed=0
dry_run=""
names=()
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
    --seed=*)
      require_value "$argument"
      seed=${argument#*=}
      ;;
    --dry_run) dry_run=1 ;;
    --*) fail "'$argument' is no flag of launch/tables.sh; --help shows them." ;;
    *) names+=("$argument") ;;
  esac
done
known=$(tables | awk '{ print $1 }')
for name in "${names[@]+"${names[@]}"}"; do
  grep -qxF -- "$name" <<<"$known" || fail "'$name' is no table; there are:" "$(tr '\n' ' ' <<<"$known")"
done

check_flags train --gin_file=micro.gin --seed="$seed" --model_dir="$model_dir"
if [[ -z $dry_run ]]; then ensure_python ""; fi
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
run() { # run COMMAND FLAG...
  if [[ -n $dry_run ]]; then
    printf 'promot'
    printf ' %q' "$@"
    echo
  else
    "$PYTHON" -m promot_jax.cli."$1" "${@:2}" </dev/null
  fi
}

failed=()
while read -r name flags; do
  if [[ ${#names[@]} -gt 0 && " ${names[*]} " != *" $name "* ]]; then continue; fi
  say "tables: $name"
  read -ra flags <<<"$flags"
  code=0
  run train "${flags[@]}" --seed="$seed" --model_dir="$model_dir/$name" || code=$?
  # Somebody stopped it: the rest is for the next time.
  if [[ $code == 75 || $code -gt 128 ]]; then exit "$code"; fi
  if [[ $code != 0 ]]; then failed+=("$name (exit $code)"); fi
done < <(tables)
run report "$model_dir" --output="$model_dir/report"
if [[ ${#failed[@]} -gt 0 ]]; then
  say "ERROR  ${#failed[@]} of the commands failed: ${failed[*]}; the same command tries them again"
  exit 1
fi
