"""Settings of the installed transformers: every one is classified, and what we read is what it reads."""

import json

import numpy as np
import pytest

import tiny_models
import tiny_transformers
from promot_jax import paths
from promot_jax.checkpoints import huggingface, known_settings
from promot_jax.checkpoints.huggingface import known, t5

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

KNOWN = {
  "T5Config": known.T5,
  "MT5Config": known.T5,
  "UMT5Config": known.T5,
  "BartConfig": known.BART,
  "BertConfig": known.BERT,
  "GPT2Config": known.GPT2,
  "LlamaConfig": known.LLAMA,
  "GenerationConfig": known.GENERATION,
}


@pytest.mark.parametrize("name", KNOWN)
def test_every_setting_of_the_installed_version_is_classified_and_its_default_accepted(name):
  content = getattr(transformers, name)().to_dict()
  assert len(content) > 20
  assert set(content) - KNOWN[name].names == set()
  known_settings.require_known(content, KNOWN[name], where="it")


@pytest.mark.parametrize("proj", ["relu", "gelu", "gated-gelu", "gated-silu", "gated-relu"])
@pytest.mark.parametrize("gated", [None, True, False])
@pytest.mark.parametrize("activation", [None, "gelu_new", "relu"])
def test_a_t5s_activation_is_the_one_that_transformers_takes(proj, gated, activation):
  content = {"model_type": "t5", "feed_forward_proj": proj}
  if gated is not None:
    content["is_gated_act"] = gated
  if activation is not None:
    content["dense_act_fn"] = activation
  theirs = transformers.T5Config.from_dict(content)
  ours = t5._activations(content)
  assert (len(ours) == 2) == theirs.is_gated_act
  x = torch.linspace(-2, 2, 9)
  expected = transformers.activations.ACT2FN[theirs.dense_act_fn](x).numpy()
  from promot_jax.models.layers import ACTIVATIONS

  np.testing.assert_allclose(ACTIVATIONS[ours[0]](x.numpy()), expected, atol=1e-6)


def test_a_head_that_is_tied_and_not_scaled_is_loaded_by_transformers(tmp_path):
  model = tiny_models.tiny("t5", tied_logits=True, scale_logits=False)
  config = model.config
  folder = huggingface.write_hf(tmp_path / "a", paths.named_leaves(model), config)
  theirs, info = transformers.T5ForConditionalGeneration.from_pretrained(
    folder, output_loading_info=True
  )
  assert not info["missing_keys"]
  assert not info["unexpected_keys"]
  source, target = np.array([[9, 12, 30, 8]]), np.array([[9, 20, 31]])
  start = np.concatenate([np.zeros((1, 1), int), target[:, :-1]], 1)
  batch = {"encoder_input_tokens": source, "decoder_target_tokens": target}
  ours = model.logits(model.hidden(batch | {"decoder_input_tokens": start}))
  with torch.no_grad():
    expected = theirs.eval()(
      input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(start)
    ).logits
  np.testing.assert_allclose(ours, expected, atol=2e-5 * float(expected.abs().max()))


def tiny_llama(seed):
  torch.manual_seed(seed)
  return tiny_transformers.build("llama", attention_dropout=0.2)


def test_of_a_single_file_and_shards_transformers_reads_what_we_read(tmp_path):
  tiny_llama(1).save_pretrained(tmp_path)
  content = (tmp_path / "model.safetensors").read_bytes()
  tiny_llama(2).save_pretrained(tmp_path, max_shard_size="4KB")
  (tmp_path / "model.safetensors").write_bytes(content)
  assert (tmp_path / "model.safetensors.index.json").is_file()
  theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
  ours = huggingface.open_hf(tmp_path)["token_embedder/embedding"]
  np.testing.assert_array_equal(np.asarray(ours), theirs["model.embed_tokens.weight"])
  written = huggingface.write_hf(
    tmp_path / "ours", huggingface.open_hf(tmp_path), huggingface.config(str(tmp_path))
  )
  assert transformers.AutoConfig.from_pretrained(written).attention_dropout == 0.2


def test_a_tensor_that_the_index_omits_is_read_by_transformers_too(tmp_path):
  model = tiny_transformers.build("t5", feed_forward_proj="gated-gelu", tie_word_embeddings=False)
  model.save_pretrained(tmp_path, max_shard_size="4KB")
  index = tmp_path / "model.safetensors.index.json"
  content = json.loads(index.read_text())
  shard = content["weight_map"]["shared.weight"]
  from safetensors.torch import load_file, save_file

  tensors = load_file(tmp_path / shard)
  tensors["lm_head.weight"] = torch.randn(37, 24)
  save_file(tensors, tmp_path / shard, {"format": "pt"})
  theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
  ours = huggingface.open_hf(tmp_path)["decoder/logits_dense/kernel"]
  np.testing.assert_array_equal(np.asarray(ours).T, theirs.lm_head.weight.detach())
  np.testing.assert_array_equal(np.asarray(ours).T, tensors["lm_head.weight"])


def test_gpt2s_rates_of_dropout_are_transformers_after_a_round_trip(tmp_path):
  rates = {"resid_pdrop": 0.3, "attn_pdrop": 0.0, "embd_pdrop": 0.2}
  config = transformers.GPT2Config(
    vocab_size=31, n_embd=24, n_head=3, n_layer=2, n_positions=24, **rates
  )
  transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "a")
  ours = huggingface.config(str(tmp_path / "a"))
  leaves = huggingface.open_hf(tmp_path / "a", ours)
  again = transformers.AutoConfig.from_pretrained(
    huggingface.write_hf(tmp_path / "b", leaves, ours)
  )
  assert {name: getattr(again, name) for name in rates} == rates
