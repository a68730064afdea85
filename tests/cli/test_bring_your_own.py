"""Checkpoints as others wrote them, through training and evaluation, and back into their formats."""

import json

import numpy as np
import pytest

from promot_jax.cli.main import main
from promot_jax.data import vocabularies
from tiny_experiments import SHORT_RECIPE

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.slow]


def t5(vocab_size: int, eos: int = 1):
  shape = {"d_model": 16, "d_kv": 6, "num_heads": 3, "d_ff": 20, "num_layers": 2}
  config = transformers.T5Config(
    vocab_size=vocab_size,
    num_decoder_layers=1,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    decoder_start_token_id=0,
    eos_token_id=eos,
    **shape,
  )
  return transformers.T5ForConditionalGeneration(config)


def mt5(vocab_size: int, eos: int):
  config = transformers.MT5Config(
    vocab_size=vocab_size,
    d_model=16,
    d_kv=6,
    num_heads=3,
    d_ff=20,
    num_layers=1,
    num_decoder_layers=2,
    tie_word_embeddings=False,
    decoder_start_token_id=0,
    eos_token_id=eos,
  )
  return transformers.MT5ForConditionalGeneration(config)


def bart(vocab_size: int, eos: int):
  config = transformers.BartConfig(
    vocab_size=vocab_size,
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    max_position_embeddings=160,
    eos_token_id=eos,
  )
  return transformers.BartForConditionalGeneration(config)


def gpt2(vocab_size: int, eos: int):
  config = transformers.GPT2Config(
    vocab_size=vocab_size,
    n_embd=16,
    n_layer=2,
    n_head=2,
    n_positions=160,
    bos_token_id=eos,
    eos_token_id=eos,
  )
  return transformers.GPT2LMHeadModel(config)


def llama(vocab_size: int, eos: int):
  config = transformers.LlamaConfig(
    vocab_size=vocab_size,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=160,
    eos_token_id=eos,
  )
  return transformers.LlamaForCausalLM(config)


FAMILIES = {
  "t5": ("t5", t5),
  "mt5": ("t5", mt5),
  "bart": ("bart", bart),
  "gpt2": ("gpt2", gpt2),
  "llama": ("llama", llama),
}


def weights(model) -> dict[str, np.ndarray]:
  return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


@pytest.fixture
def run(tmp_path):
  """Trains with a recipe from an initial checkpoint; returns the model directory."""
  small = tmp_path / "small.gin"
  small.write_text(SHORT_RECIPE)

  def train(recipe: str, init: str, vocabulary: str, *flags: str):
    directory = tmp_path / recipe.removesuffix(".gin")
    code = main(
      [
        "train",
        f"--gin_file={recipe}",
        "--gin_file=models/huggingface.gin",
        f"--gin_file={small}",
        f"--init={init}",
        f'--gin.VOCABULARY="{vocabulary}"',
        f"--model_dir={directory}",
        *flags,
      ]
    )
    assert code == 0
    return directory

  return train


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hugging_face_model_is_evaluated_tuned_and_given_back(
  family, tokenizer_folder, tmp_path, capsys, run
):
  tokenizer, make = FAMILIES[family]
  words = tokenizer_folder(tokenizer)
  found = vocabularies.open_vocabulary(f"hf:{words}")
  torch.manual_seed(0)
  original = make(found.size, found.eos)
  original.save_pretrained(tmp_path / "theirs")

  directory = run("fine_tune_rte_micro.gin", f"hf:{tmp_path / 'theirs'}", f"hf:{words}")
  capsys.readouterr()
  command = [f"--model_dir={directory}", "--tasks=cb", "--shots=1", "--json"]
  for checkpoint in ("pretrained", "chosen"):
    assert main(["eval", *command, f"--checkpoint={checkpoint}"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["task"] == "cb" and result["count"] == 4

  # Untouched weights come back bit for bit; trained ones load there and differ.
  assert main(["convert", f"hf:{tmp_path / 'theirs'}", str(tmp_path / "back"), "--to=hf"]) == 0
  assert main(["convert", str(directory), str(tmp_path / "tuned"), "--to=hf"]) == 0
  back = type(original).from_pretrained(tmp_path / "back")
  tuned = type(original).from_pretrained(tmp_path / "tuned")
  before, same, after = weights(original), weights(back), weights(tuned)
  assert before.keys() == same.keys() == after.keys()
  for name, value in before.items():
    np.testing.assert_array_equal(same[name], value, err_msg=name)
  assert any(np.abs(after[name] - value).max() > 0 for name, value in before.items())


def test_a_t5x_checkpoint_is_tuned_and_given_back(tmp_path, run):
  from promot_jax.checkpoints.t5x import read_t5x
  from promot_jax.micro.vocabulary import vocabulary

  torch.manual_seed(0)
  t5(vocabulary().size).save_pretrained(tmp_path / "theirs")
  source = tmp_path / "checkpoint_7"
  assert main(["convert", f"hf:{tmp_path / 'theirs'}", str(source), "--to=t5x", "--step=7"]) == 0
  gin = tmp_path / "shape.gin"
  gin.write_text(
    f"""
from __gin__ import dynamic_registration
from promot_jax.models import t5_config
MODEL = @t5_config.T5Config()
t5_config.T5Config:
  vocab_size = {vocabulary().size}
  width = 16
  heads = 3
  head_width = 6
  mlp_width = 20
  encoder_layers = 2
  decoder_layers = 1
  tied_logits = True  # as transformers 5 saves every T5
  scale_logits = False
"""
  )
  directory = run("promot_rte_micro.gin", str(source), "t5", f"--gin_file={gin}")
  tuned = tmp_path / "checkpoint_10"
  assert main(["convert", str(directory), str(tuned), "--to=t5x", "--step=10"]) == 0
  before, after = read_t5x(source), read_t5x(tuned)
  assert before.keys() <= after.keys()
  assert main(["convert", str(directory), str(tmp_path / "p.npy"), "--to=prompt"]) == 0
  assert np.load(tmp_path / "p.npy").shape == (5, 16)


def test_a_peft_prompt_starts_prompt_tuning_and_is_given_back(tokenizer_folder, tmp_path, run):
  peft = pytest.importorskip("peft", reason="needs the [torch] extra")
  words = tokenizer_folder("gpt2")
  found = vocabularies.open_vocabulary(f"hf:{words}")
  torch.manual_seed(0)
  gpt2(found.size, found.eos).save_pretrained(tmp_path / "theirs")
  model = peft.get_peft_model(
    transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "theirs"),
    peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
  )
  model.save_pretrained(tmp_path / "adapter")
  directory = run(
    "prompt_tune_rte_micro.gin",
    f"hf:{tmp_path / 'theirs'}",
    f"hf:{words}",
    "--gin_bindings",
    "PROMPT_INITIALIZER = @initializers.FromFile()",
    "--gin_bindings",
    f"initializers.FromFile.path = '{tmp_path / 'adapter'}'",
  )
  written = tmp_path / "ours"
  name = f"--base_model={tmp_path / 'theirs'}"
  assert main(["convert", str(directory), str(written), "--to=peft", name]) == 0
  base = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "theirs")
  loaded = peft.PeftModel.from_pretrained(base, written)
  prompt = loaded.get_prompt_embedding_to_save("default").numpy()
  theirs = model.get_prompt_embedding_to_save("default").detach().numpy()
  assert prompt.shape == theirs.shape == (5, 16)
  # Two steps of prompt tuning moved it, from where PEFT had left it.
  assert 0 < np.abs(prompt - theirs).max() < 3
