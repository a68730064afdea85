"""What `promot COMMAND --help` shows below the flags."""

EXAMPLES = {
  "train": """\
examples:
  promot train --gin_file=promot_rte_micro.gin
  promot train --gin_file=promot_rte.gin --gin_file=hardware/tpu_64.gin --dry_run
  promot train --gin_file=promot_rte_micro.gin --gin.RANDOM_SEED=2 --gin.BATCH_SIZE=32
""",
  "eval": """\
examples:
  promot eval --model_dir=runs/promot_rte_micro --tasks=cb,wic --shots=0,1,4
  promot eval --model_dir=runs/promot_rte_micro --tasks=rte --attach=on --limit=100
  promot eval --model_dir=runs/promot_rte_micro --tasks=rte,cb --answers=ranked
""",
  "infer": """\
examples:
  echo '{"inputs": "Q: what is the sport of Hugo? A:"}' > questions.jsonl  # the micro world's Hugo
  promot infer --model_dir=runs/promot_rte_micro --input=questions.jsonl --output=answers.jsonl
  promot infer --model_dir=runs/promot_rte_micro --text "Q: what is the sport of Hugo? A:"
""",
  "harness": """\
examples:
  promot harness --model_dir=runs/promot_rte_micro --tasks=my_task --include_path=my_tasks
  promot harness --gin_file=promot_rte.gin --gin_file=models/huggingface.gin --init=hf:DIR \\
    --model_dir=runs/pretrained --checkpoint=pretrained --tasks=arc_easy,hellaswag --limit=100
""",
  "inspect": """\
examples:
  promot inspect data rte_1shot --source=micro --n=3
  promot inspect data --gin_file=promot_rte_micro.gin  # labels, lengths, copies, overlap of splits
  promot inspect checkpoint runs/promot_rte_micro --verify
  promot inspect config promot_rte.gin
  promot inspect model --gin_file=promot_rte.gin
""",
  "report": """\
example:
  promot report runs/quickstart --output=report
""",
  "compare": """\
examples:
  promot compare runs/quickstart/pretrained runs/quickstart/promot
  promot compare runs/promot_rte_micro runs/promot_rte_micro --checkpoints=pretrained,model-100
""",
  "analyze": """\
examples:
  promot analyze forgetting_curve runs/quickstart/fine_tuning
  promot analyze gradient_cosine runs/fine_tune_rte_micro --gin.STEPS="[0, 100, 200]"
  promot analyze trade_off runs/quickstart/fine_tuning runs/quickstart/promot --output=figures
""",
  "combine": """\
examples:
  promot combine runs/fine_tune_rte wise --operation=wise_ft --gin.TUNED_WEIGHT=0.3
  promot combine runs/seed0 runs/seed1 runs/seed2 soup --operation=greedy_soup
  promot combine hf:DIR_A hf:DIR_B merged --operation=ties --base=hf:DIR --gin.TIES_DENSITY=0.3
SOURCE is anything that promot convert takes. What is written is complete or absent, with a README.md that says
what it was made of; OUTPUT must not exist.
""",
  "convert": """\
examples:
  promot convert hf:google/t5-v1_1-small t5x_small --to=t5x --step=1000000
  promot convert gs://t5-data/pretrained_models/t5x/t5_1_1_small/checkpoint_1000000 small --to=hf
  promot convert runs/promot_rte tuned_model --to=hf --dtype=bfloat16
  promot convert runs/prompt_tune_rte prompt.npy --to=prompt
SOURCE is anything that --init takes (docs/checkpoints.md), or a model directory.  What is written is
complete or absent; OUTPUT must not exist.
""",
}
