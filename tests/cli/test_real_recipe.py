"""The comparison on real data with a folder and files as users have them, tiny and made here."""

import json

import pytest

from promot_jax.cli import gin_config
from promot_jax.evaluation import averages
from promot_jax.experiments.comparison import experiments_of
from promot_jax.planning import plan
from shipped_recipes import read

_LAYERS, _WIDTH, _WORDS = 3, 24, 1200


@pytest.fixture
def recipe(tokenizer_folder, tmp_path):
  """The recipe's experiments for a LLaMA's config.json, another tokenizer's folder and RTE's files."""
  settings = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": _WORDS,
    "hidden_size": _WIDTH,
    "intermediate_size": 36,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
  }
  (tmp_path / "config.json").write_text(json.dumps(settings))
  (tmp_path / "glue_rte").mkdir()
  (tmp_path / "glue_rte/dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n")
  values = {
    "INITIAL_CHECKPOINT_PATH": f"hf:{tmp_path}",
    "VOCABULARY": f"hf:{tokenizer_folder('llama')}?separator=%20",
    "DATA_DIR": str(tmp_path),
    "MODEL_DIR": str(tmp_path / "run"),
  }
  return gin_config.build(
    read(
      "real/comparison_rte.gin", bindings=[f"{name} = {value!r}" for name, value in values.items()]
    )
  )


def test_its_plan_is_the_papers_comparison_with_the_model_of_the_folder(recipe):
  experiments = {each.name: each for each in experiments_of(recipe)}
  assert list(experiments) == [
    "pretrained",
    "fine_tuning",
    "prompt_tuning",
    "promot",
    "promot_lora",
  ]
  for each in experiments.values():
    assert (each.task, each.source, each.targets) == ("rte", "files", "raw")
    # The paper's unseen tasks but the one whose files nobody distributes any more.
    assert set(averages.PUBLISHED) - set(each.evaluation.unseen) == {"wiki_lingua"}
  assert experiments["promot"].imported_stages == {"prompt": "prompt_tuning"}
  text = "\n".join(plan.describe(recipe))
  assert f"DecoderLMConfig {_LAYERS} layers, width {_WIDTH}, vocabulary {_WORDS}" in text
  assert "validation glue_rte/dev.tsv; not there: train" in text
  assert "7 unseen tasks x 1 shots, method off and on" in text
