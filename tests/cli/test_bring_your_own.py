"""Checkpoints as others wrote them, through training and evaluation, and back into their formats."""

import json

import numpy as np
import pytest

import tiny_transformers
from promot_jax.cli.main import main
from promot_jax.data import vocabularies
from tiny_experiments import short_recipe

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.slow]


STAGES = {
  "fine_tune_rte_micro.gin": ["model"],
  "promot_rte_micro.gin": ["prompt", "model"],
  "prompt_tune_rte_micro.gin": ["prompt"],
}
# of each family: the tokenizer, and fields of the model
_T5 = {"tie_word_embeddings": False, "decoder_start_token_id": 0}
FAMILIES = {
  "t5": ("t5", {**_T5, "feed_forward_proj": "gated-gelu"}),
  "mt5": ("t5", {**_T5, "num_layers": 1}),
  "bart": ("bart", {"max_position_embeddings": 160}),
  "gpt2": ("gpt2", {"n_positions": 160}),
  "llama": ("llama", {"max_position_embeddings": 160}),
}


def built(family: str, size: int, eos: int = 1):
  """The model of a family for a vocabulary."""
  bos = {"bos_token_id": eos} if family == "gpt2" else {}
  fields = {"vocab_size": size, "eos_token_id": eos, **bos, **FAMILIES[family][1]}
  return tiny_transformers.build(family, **fields)


def weights(model) -> dict[str, np.ndarray]:
  return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


@pytest.fixture
def run(tmp_path):
  """Trains with a recipe from an initial checkpoint; returns the model directory."""

  def train(recipe: str, init: str, vocabulary: str, *flags: str):
    directory = tmp_path / recipe.removesuffix(".gin")
    small = tmp_path / "small.gin"
    small.write_text(short_recipe(*STAGES[recipe]))
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
  words = tokenizer_folder(FAMILIES[family][0])
  found = vocabularies.open_vocabulary(f"hf:{words}")
  torch.manual_seed(0)
  original = built(family, found.size, found.eos)
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
  built("t5", vocabulary().size).save_pretrained(tmp_path / "theirs")
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
  width = 24
  heads = 3
  head_width = 10
  mlp_width = 36
  encoder_layers = 2
  decoder_layers = 2
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
  assert np.load(tmp_path / "p.npy").shape == (5, 24)


def test_a_peft_prompt_starts_prompt_tuning_and_is_given_back(tokenizer_folder, tmp_path, run):
  peft = pytest.importorskip("peft", reason="needs the [torch] extra")
  words = tokenizer_folder("gpt2")
  found = vocabularies.open_vocabulary(f"hf:{words}")
  torch.manual_seed(0)
  built("gpt2", found.size, found.eos).save_pretrained(tmp_path / "theirs")
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
  assert prompt.shape == theirs.shape == (5, 24)
  # Two steps of prompt tuning moved it, from where PEFT had left it.
  assert 0 < np.abs(prompt - theirs).max() < 3
