"""A model and a tokenizer of a user's own through the whole pipeline, on the built-in world."""

import json

import pytest

from promot_jax.cli.main import main
from promot_jax.data import vocabularies
from tiny_experiments import short_recipe

# What a user writes beside a recipe: the backbone and the tokenizer it was trained with.
GPT2 = """
from __gin__ import dynamic_registration
from promot_jax.models import decoder_lm_config

MODEL = @decoder_lm_config.DecoderLMConfig()
VOCABULARY = 'hf:{folder}'
INITIAL_CHECKPOINT_PATH = 'random'
decoder_lm_config.DecoderLMConfig:
  vocab_size = {size}
  width = 16
  layers = 2
  heads = 2
  head_width = 8
  mlp_width = 24
  max_positions = 160
  eos = {eos}
"""
BART = """
from __gin__ import dynamic_registration
from promot_jax.models import bart_config

MODEL = @bart_config.BartConfig()
VOCABULARY = 'hf:{folder}'
INITIAL_CHECKPOINT_PATH = 'random'
bart_config.BartConfig:
  vocab_size = {size}
  width = 16
  heads = 2
  mlp_width = 24
  encoder_layers = 1
  decoder_layers = 2
  max_positions = 160
"""


def train(folder, written: str, tokenizer, *flags: str) -> list[str]:
  """The flags of a command that trains a model of `written`, with its gin files in `folder`."""
  found = vocabularies.open_vocabulary(f"hf:{tokenizer}")
  own, small = folder / "own.gin", folder / "small.gin"
  own.write_text(written.format(folder=tokenizer, size=found.size, eos=found.eos))
  small.write_text(short_recipe("prompt", "model"))
  return ["train", *(f"--gin_file={file}" for file in ("promot_rte_micro.gin", own, small)), *flags]


@pytest.mark.parametrize(
  ("family", "written"), [("gpt2", GPT2), pytest.param("bart", BART, marks=pytest.mark.slow)]
)
def test_promot_trains_evaluates_and_answers(tokenizer_folder, tmp_path, capsys, family, written):
  run = tmp_path / "run"
  command = train(tmp_path, written, tokenizer_folder(family), f"--model_dir={run}")
  assert main(command) == 0
  out = capsys.readouterr().out
  assert "rte" in out and "accuracy" in out
  predictions = [
    json.loads(line)
    for file in sorted((run / "evaluation").rglob("*.jsonl"))
    for line in file.read_text().splitlines()
  ]
  inputs = [prediction["input"] for prediction in predictions if "input" in prediction]
  # The text is back as the task wrote it, without bos; a decoder-only model's ends with a newline.
  assert sum(text.strip().endswith("Is it true or false? answer:") for text in inputs) == 4
  answers = {answer for prediction in predictions for answer in prediction["targets"]}
  assert answers <= {"True", "False", "Neither"}

  questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
  questions.write_text('{"inputs": "Q: who sells the lamp? A:"}\n')
  flags = [f"--input={questions}", f"--output={answers}", f"--model_dir={run}"]
  assert main(["infer", *flags, "--quiet"]) == 0
  assert isinstance(json.loads(answers.read_text())["prediction"], str)


def test_a_tokenizer_with_more_tokens_than_rows_ends_with_code_2(
  tokenizer_folder, tmp_path, capsys
):
  command = train(tmp_path, GPT2, tokenizer_folder("gpt2"), f"--model_dir={tmp_path / 'run'}")
  assert main([*command, "--gin.decoder_lm_config.DecoderLMConfig.vocab_size=300"]) == 2
  assert "the model's embedding has 300 rows" in capsys.readouterr().err
  assert not (tmp_path / "run").exists()


def test_inspect_shows_examples_in_a_users_own_tokens(tokenizer_folder, capsys):
  flags = ["--source=micro", f"--vocabulary=hf:{tokenizer_folder('llama')}", "--n=1"]
  assert main(["inspect", "data", "rte", *flags]) == 0
  assert "tokens with separator)" in capsys.readouterr().out
