"""A backbone and a vocabulary that do not fit are refused before any data is read."""

import dataclasses

import pytest

import tiny_experiments
from promot_jax.data.vocabularies import open_vocabulary
from promot_jax.errors import ConfigError
from promot_jax.experiments import execute
from promot_jax.experiments.experiment import EvaluationPlan, Experiment
from promot_jax.experiments.reader import Reader, text_vocabulary
from promot_jax.models import sizes
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.networks import micro_model
from promot_jax.networks.network import Network
from tasks import reading

T5 = sizes.micro(vocab_size=600)
DECODER = DecoderLMConfig(
  vocab_size=600, width=8, layers=1, heads=2, head_width=4, mlp_width=12, max_positions=96, eos=0
)


def experiment(backbone, vocabulary="t5", **changes) -> Experiment:
  network = Network(backbone=backbone, checkpoint="random", vocabulary=vocabulary)
  values = {"network": network, "evaluation": EvaluationPlan(unseen=(), limit=2)}
  return tiny_experiments.experiment("own", **{**values, **changes})


def test_fitting_pairs_are_accepted(tokenizer_folder):
  t5 = experiment(T5, vocabulary=f"hf:{tokenizer_folder('t5')}", targets="sentinel")
  assert text_vocabulary(t5).family == "t5"
  gpt2 = experiment(DECODER, vocabulary=f"hf:{tokenizer_folder('gpt2')}")
  assert text_vocabulary(gpt2).family == "gpt2"
  assert text_vocabulary(experiment(micro_model.config())).size < 1000


def refusal(backbone, **changes) -> str:
  with pytest.raises(ConfigError) as raised:
    text_vocabulary(experiment(backbone, **changes))
  return str(raised.value)


def test_an_embedding_without_a_row_for_each_token_is_refused(tokenizer_folder):
  folder = tokenizer_folder("gpt2")
  size = open_vocabulary(f"hf:{folder}").size
  small = dataclasses.replace(DECODER, vocab_size=size - 1)
  assert refusal(small, vocabulary=f"hf:{folder}") == (
    f"vocabulary 'hf:{folder}' has tokens up to {size - 1}, and the model's embedding has {size - 1}"
    " rows: the model was made with another one. Set VOCABULARY to the model's, or take a model with"
    f" at least {size} rows."
  )
  exact = dataclasses.replace(DECODER, vocab_size=size)
  assert text_vocabulary(experiment(exact, vocabulary=f"hf:{folder}")).size == size


def test_another_kind_of_model_is_refused_with_the_families_it_takes(tokenizer_folder):
  said = refusal(T5, vocabulary=f"hf:{tokenizer_folder('gpt2')}")
  assert "family 'gpt2', and the model is an encoder-decoder; set VOCABULARY" in said
  assert "add '?family=t5' or '?family=bart'" in said
  said = refusal(DECODER, vocabulary=f"hf:{tokenizer_folder('bart')}")
  assert "family 'bart', and the model is decoder-only" in said
  assert "add '?family=gpt2' or '?family=llama'" in said


def test_the_micro_worlds_words_serve_its_decoder_only_model_and_no_other():
  assert text_vocabulary(experiment(micro_model.decoder_config())).size == 624
  others = dataclasses.replace(DECODER, vocab_size=micro_model.padded_vocabulary())
  assert "has pad=0, eos=1, and the model's configuration pad=-1" in refusal(others)


def test_other_special_tokens_are_refused(tokenizer_folder):
  said = refusal(T5, vocabulary=f"hf:{tokenizer_folder('bart')}")
  assert "has pad=1, eos=2, and the model's configuration pad=0, eos=1." in said
  llama = dataclasses.replace(DECODER, vocab_size=700, eos=2, bos=5)
  said = refusal(llama, vocabulary=f"hf:{tokenizer_folder('llama')}")
  assert "has pad=-1, eos=2, bos=1, and the model's configuration pad=-1, eos=2, bos=5." in said


def test_sentinel_targets_need_sentinels(tokenizer_folder):
  said = refusal(DECODER, vocabulary=f"hf:{tokenizer_folder('gpt2')}", targets="sentinel")
  assert "has no such tokens; use TARGETS='raw'" in said


def test_a_run_stops_before_data_are_read_and_before_its_folder_is_made(
  tokenizer_folder, tmp_path, monkeypatch
):
  monkeypatch.setattr(reading, "load_examples", lambda *a, **k: pytest.fail("data were read"))
  wrong = experiment(
    dataclasses.replace(DECODER, eos=5, max_positions=1024),
    vocabulary=f"hf:{tokenizer_folder('gpt2')}",
    model_dir=str(tmp_path / "run"),
  )
  with pytest.raises(ConfigError, match="configuration pad=-1, eos=5"):
    execute.execute(wrong)
  assert not (tmp_path / "run").exists()
  with pytest.raises(ConfigError, match="configuration pad=-1, eos=5"):
    Reader(print).examples(wrong, "rte", "train", {"inputs": 64, "targets": 8}, 2)
