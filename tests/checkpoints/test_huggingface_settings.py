"""What of a Hugging Face folder is understood: settings, families, files beside each other."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax import nnx

import tiny_models
from promot_jax import paths
from promot_jax.checkpoints import huggingface, restore
from promot_jax.checkpoints.huggingface import decoding_settings, families, safetensors_file
from promot_jax.checkpoints.huggingface.refused_models import REFUSED
from promot_jax.checkpoints.stored import as_stored
from promot_jax.conversion import formats
from promot_jax.errors import ConfigError
from promot_jax.models import T5Config
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.networks import backbones

T5, BART = tiny_models.config("t5"), tiny_models.config("bart")
GPT2 = tiny_models.config("gpt2", layers=1, bos=7, eos=7)
LLAMA = tiny_models.config("llama", layers=1, bos=1, eos=2)
CONFIGS = {"t5": T5, "bart": BART, "gpt2": GPT2, "llama": LLAMA}


def leaves_of(config):
  return paths.named_leaves(backbones.build(config, nnx.Rngs(0)))


def written(folder, kind="t5", **changes):
  """A folder of a tiny model, with changes of its config.json."""
  config = CONFIGS[kind] if isinstance(kind, str) else kind
  folder = huggingface.write_hf(folder, leaves_of(config), config)
  content = json.loads((folder / "config.json").read_text()) | changes
  (folder / "config.json").write_text(json.dumps(content))
  return folder


def arrays_of(file):
  return {name: np.array(array) for name, array in safetensors_file.open_file(file).items()}


def save(file, arrays):
  file.unlink(missing_ok=True)
  stored = {name: as_stored(name, array) for name, array in arrays.items()}
  safetensors_file.write_file(file, stored)


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_written_is_understood(tmp_path, kind):
  found = huggingface.config(str(written(tmp_path / "a", kind)))
  assert type(found) is type(CONFIGS[kind])


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("value", [True, 0, 2, "yes", [1]])
def test_an_unknown_setting_that_may_count_is_refused(tmp_path, kind, value):
  folder = written(tmp_path / "a", kind, use_tomorrow=value)
  for call in (huggingface.config, huggingface.open_hf):
    with pytest.raises(ConfigError, match=r"has use_tomorrow=.*, a setting that is not known here"):
      call(str(folder))


def test_an_unknown_setting_that_switches_nothing_on_is_read_over(tmp_path):
  huggingface.config(str(written(tmp_path / "a", use_tomorrow=False, later=None, more={})))


@pytest.mark.parametrize(
  ("settings", "copies", "said"),
  [
    ({"num_beams": 4, "num_return_sequences": 3}, True, "TransformersBeam(width=4,"),
    ({"num_return_sequences": 2, "do_sample": False}, True, "its best output alone"),
    ({"do_sample": True, "num_return_sequences": 3}, False, "samples=3) is the same"),
    ({"do_sample": True, "num_beams": 4, "num_return_sequences": 3}, False, "at once"),
    ({"num_beams": 4, "num_return_sequences": 1}, False, "TransformersBeam(width=4,"),
    ({"num_beams": 4, "num_return_sequences": None}, False, "TransformersBeam(width=4,"),
  ],
)
def test_several_outputs_of_a_search_are_not_called_the_same(settings, copies, said):
  line = decoding_settings.note({"generation_config.json": {"eos_token_id": 1, **settings}})
  assert said in line
  assert ("gives its best output alone" in line) == copies


def test_an_unknown_setting_of_generation_is_refused_and_a_search_is_not(tmp_path):
  folder = written(tmp_path / "a")
  file = folder / "generation_config.json"
  content = json.loads(file.read_text()) | {"num_beams": 4, "temperature": 0.7}
  file.write_text(json.dumps(content))
  huggingface.config(str(folder))
  file.write_text(json.dumps(content | {"think_twice": True}))
  with pytest.raises(ConfigError, match=r"generation_config.json of .* has think_twice=True"):
    huggingface.config(str(folder))


@pytest.mark.parametrize(
  ("kind", "changes", "words"),
  [
    ("t5", {"is_decoder": True}, "is_decoder=True"),
    ("t5", {"tie_encoder_decoder": True}, "tie_encoder_decoder=True"),
    ("t5", {"dense_act_fn": "mish"}, "dense_act_fn='mish'"),
    ("t5", {"quantization_config": {"quant_method": "bitsandbytes"}}, "weights are quantized"),
    ("t5", {"pruned_heads": {"1": [0]}}, "heads are missing"),
    ("bart", {"normalize_before": True}, "normalizes after each sublayer"),
    ("bart", {"add_final_layer_norm": True}, "no norm at the end"),
    ("bart", {"normalize_embedding": False}, "normalizes embedded tokens"),
    ("bart", {"tie_word_embeddings": False}, "one table"),
    ("bart", {"static_position_embeddings": True}, "learned"),
    ("bart", {"encoder_layerdrop": 0.1}, "drops no layers"),
    ("bart", {"activation_function": "mish"}, "activation_function='mish'"),
    ("gpt2", {"scale_attn_weights": False}, "scales them"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "layers scale alike"),
    ("gpt2", {"add_cross_attention": True}, "no encoder"),
    ("gpt2", {"activation_function": "mish"}, "activation_function='mish'"),
    ("llama", {"attention_bias": True}, "projections have no biases"),
    ("llama", {"mlp_bias": True}, "mlp has no biases"),
    ("llama", {"hidden_act": "mish"}, "hidden_act='mish'"),
    ("llama", {"sliding_window": 16}, "all earlier tokens"),
    ("llama", {"partial_rotary_factor": 0.5}, "all features of a head"),
    ("llama", {"rope_interleaved": True}, "rotates halves"),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type='yarn'"),
    (
      "llama",
      {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
      "partial_rotary_factor=0.5",
    ),
    (
      "llama",
      {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
      "rope_theta=10000.0 and, within its rotations, 500000.0",
    ),
  ],
)
def test_arithmetic_that_we_do_not_have_is_refused_with_what_to_do(tmp_path, kind, changes, words):
  folder = written(tmp_path / "a", kind, **changes)
  with pytest.raises(ConfigError, match=words) as caught:
    huggingface.config(str(folder))
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
  ("changes", "activations"),
  [
    ({"feed_forward_proj": "gelu"}, ("gelu_exact",)),
    ({"feed_forward_proj": "gelu", "is_gated_act": True}, ("gelu_exact", "linear")),
    (
      {"feed_forward_proj": "gelu", "is_gated_act": True, "dense_act_fn": "gelu_new"},
      ("gelu", "linear"),
    ),
    ({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}, ("gelu_exact", "linear")),
    ({"feed_forward_proj": "gated-gelu"}, ("gelu", "linear")),
    ({"feed_forward_proj": "relu"}, ("relu",)),
    ({"feed_forward_proj": None}, ("relu",)),
    ({"feed_forward_proj": None, "model_type": "mt5"}, ("gelu", "linear")),
  ],
)
def test_the_activation_is_what_transformers_makes_of_three_settings(
  tmp_path, changes, activations
):
  folder = written(tmp_path / "a", **changes)
  assert huggingface.config(str(folder)).mlp_activations == activations


# Families that cannot be read.


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_family_is_told_what_is_missing_and_what_to_do(tmp_path, kind):
  content = {"model_type": kind, "architectures": ["SomeForCausalLM"]}
  with pytest.raises(ConfigError) as caught:
    families.of_config_json(content, where="dir")
  name, missing = REFUSED[kind]
  assert str(caught.value) == (
    f"'dir' is {name} (SomeForCausalLM, model_type '{kind}'), which cannot be read: our networks lack"
    f" {missing}. Take a checkpoint of {', '.join(readable())}, or tune this one with transformers and"
    " PEFT."
  )
  assert kind not in readable()


def readable():
  return sorted(kind for family in families.all_families() for kind in family.model_types)


@pytest.mark.parametrize("architectures", [None, [], "x", [3], ["NewForCausalLM"]])
def test_an_unknown_family_is_told_which_there_are(architectures):
  content = {"model_type": "tomorrow", "architectures": architectures}
  with pytest.raises(ConfigError, match=r"is a checkpoint \(.*model_type 'tomorrow'\)") as caught:
    families.of_config_json(content, where="dir")
  assert "Take a checkpoint of bart, bert, gpt2, llama, mt5, t5, umt5" in str(caught.value)


# Files.


def test_a_single_file_is_read_beside_shards_as_transformers_does(tmp_path, caplog):
  folder = written(tmp_path / "a")
  arrays = arrays_of(folder / "model.safetensors")
  old = huggingface.write_hf(
    tmp_path / "old",
    {name: np.asarray(leaf) + 1 for name, leaf in leaves_of(T5).items()},
    T5,
    file_bytes=3000,
  )
  for file in old.glob("model*"):
    shutil.copy(file, folder / file.name)
  found = np.asarray(huggingface.open_hf(folder)["token_embedder/embedding"])
  np.testing.assert_array_equal(found, arrays["shared.weight"])
  assert "the single file is read, as transformers does" in caplog.text


def test_a_tensor_that_the_index_omits_is_read_and_said(tmp_path, caplog):
  leaves = leaves_of(T5)
  folder = huggingface.write_hf(tmp_path / "a", leaves, T5, file_bytes=3000)
  index = folder / "model.safetensors.index.json"
  content = json.loads(index.read_text())
  del content["weight_map"]["lm_head.weight"]
  index.write_text(json.dumps(content))
  assert not huggingface.config(str(folder)).tied_logits
  found = np.asarray(huggingface.open_hf(folder)["decoder/logits_dense/kernel"])
  np.testing.assert_array_equal(found, leaves["decoder/logits_dense/kernel"])
  assert "1 tensors are in the files of" in caplog.text
  assert "lm_head.weight" in caplog.text


def test_a_head_that_is_tied_and_not_scaled_is_stored_again_and_comes_back_tied(tmp_path):
  config = T5Config(**{**vars(T5), "tied_logits": True, "scale_logits": False})
  leaves = leaves_of(config)
  folder = huggingface.write_hf(tmp_path / "a", leaves, config)
  arrays = arrays_of(folder / "model.safetensors")
  np.testing.assert_array_equal(arrays["lm_head.weight"], arrays["shared.weight"])
  assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
  assert huggingface.config(str(folder)).tied_logits
  assert huggingface.open_hf(folder, config).keys() == leaves.keys()
  # A vocabulary cut off is cut off of both.
  cut = huggingface.write_hf(tmp_path / "b", leaves, config, vocabulary=33)
  arrays = arrays_of(cut / "model.safetensors")
  assert arrays["lm_head.weight"].shape == arrays["shared.weight"].shape == (33, 12)


def test_a_config_alone_goes_with_an_npz_that_has_no_head(tmp_path):
  config = T5Config(**{**vars(T5), "tied_logits": True, "scale_logits": False})
  folder = huggingface.write_hf(tmp_path / "whole", leaves_of(config), config)
  alone = tmp_path / "alone"
  alone.mkdir()
  (alone / "config.json").write_bytes((folder / "config.json").read_bytes())
  np.savez(tmp_path / "w.npz", **leaves_of(config))
  weights = formats.open_weights(str(tmp_path / "w.npz"), model=str(alone))
  formats.check(weights)
  assert weights.config.tied_logits and weights.config.logits_scale == 1.0
  # Of a head that is stored, and of a size that has one, nothing is guessed.
  np.savez(tmp_path / "own.npz", **leaves_of(T5))
  assert not formats.open_weights(str(tmp_path / "own.npz"), model=str(alone)).config.tied_logits
  assert not formats.open_weights(str(tmp_path / "w.npz"), model="t5_1_1_small").config.tied_logits


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_id_of_padding_that_is_never_used_is_written_again(kind, tmp_path):
  config = tiny_models.config(kind, bos=1, eos=2, written_pad=5)
  folder = huggingface.write_hf(tmp_path / "a", leaves_of(config), config)
  for name in ("config.json", "generation_config.json"):
    assert json.loads((folder / name).read_text())["pad_token_id"] == 5
  again = huggingface.config(str(folder))
  assert (again.pad, again.written_pad) == (-1, 5)
  assert huggingface.open_hf(folder, dataclasses.replace(config, written_pad=None))
  assert "written_pad" not in repr(config), "results of random networks are found by it"
  # torch refuses padding beyond the table.
  cut = huggingface.write_hf(tmp_path / "b", leaves_of(config), config, vocabulary=5)
  assert json.loads((cut / "config.json").read_text())["pad_token_id"] is None


def test_heads_of_their_own_stay_apart(tmp_path):
  folder = written(tmp_path / "a")
  assert not huggingface.config(str(folder)).tied_logits


def test_whole_numbers_are_no_weights(tmp_path):
  folder = written(tmp_path / "a")
  file = folder / "model.safetensors"
  arrays = arrays_of(file)
  name = "encoder.block.0.layer.0.SelfAttention.q.weight"
  arrays[name] = arrays[name].astype(np.int8)
  save(file, arrays)
  with pytest.raises(ConfigError, match=f"'{name}' of this T5 is of type int8.*quantized"):
    huggingface.open_hf(folder)


def test_whole_numbers_of_any_format_are_no_parameters():
  model = nnx.eval_shape(lambda: backbones.build(T5, nnx.Rngs(0)))
  leaves = {name: np.asarray(leaf) for name, leaf in leaves_of(T5).items()}
  leaves["decoder/decoder_norm/scale"] = np.ones(12, np.int32)
  with pytest.raises(ConfigError, match="'decoder/decoder_norm/scale' is of type int32"):
    restore.restore_into(model, leaves)
  with pytest.raises(ConfigError, match="is of type int32"):
    restore.check_restorable(model, leaves)


def test_buffers_that_a_network_computes_again_are_left_out(tmp_path):
  folder = written(tmp_path / "a", "bart")
  file = folder / "model.safetensors"
  arrays = arrays_of(file)
  before = huggingface.open_hf(folder).keys()
  arrays["model.encoder.embed_positions.position_ids"] = np.arange(9)[None]
  save(file, arrays)
  assert huggingface.open_hf(folder).keys() == before


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_with_config_json_alone_is_a_configuration(tmp_path, kind):
  folder = written(tmp_path / "a", kind)
  whole = huggingface.config(str(folder))
  for file in folder.iterdir():
    if file.name != "config.json":
      file.unlink()
  assert huggingface.config(str(folder)) == whole
  assert formats.model_config(str(folder)) == whole
  with pytest.raises(ConfigError, match=r"has no model.safetensors"):
    huggingface.open_hf(folder)


def test_a_conversion_takes_its_configuration_from_config_json_alone(tmp_path):
  from promot_jax.checkpoints import npz

  folder = written(tmp_path / "a")
  (folder / "model.safetensors").unlink()
  leaves = {name: as_stored(name, leaf) for name, leaf in leaves_of(T5).items()}
  npz.write_npz(tmp_path / "w.npz", leaves)
  weights = formats.open_weights(str(tmp_path / "w.npz"), model=str(folder))
  formats.check(weights)
  out = formats.write(weights, tmp_path / "out", formats.Target(to="hf"))
  assert huggingface.open_hf(out).keys() == leaves.keys()


def test_a_folder_with_pickled_weights_is_no_configuration_alone(tmp_path):
  folder = written(tmp_path / "a")
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  with pytest.raises(ConfigError, match="weights_only=True"):
    huggingface.config(str(folder))


# Dropout.


@pytest.mark.parametrize(
  ("kind", "rates"),
  [
    ("gpt2", {"resid_pdrop": 0.3, "attn_pdrop": 0.0, "embd_pdrop": 0.2}),
    ("gpt2", {"resid_pdrop": 0.3, "attn_pdrop": 0.3, "embd_pdrop": 0.3}),
    ("gpt2", {"resid_pdrop": 0.0, "attn_pdrop": 0.1, "embd_pdrop": 0.0}),
    ("llama", {"attention_dropout": 0.2}),
    ("llama", {"attention_dropout": 0.0}),
    ("bart", {"dropout": 0.1, "attention_dropout": 0.2, "activation_dropout": 0.3}),
    ("t5", {"dropout_rate": 0.2}),
  ],
)
def test_every_rate_of_dropout_survives_a_round_trip(tmp_path, kind, rates):
  config = huggingface.config(str(written(tmp_path / "a", kind, **rates)))
  again = huggingface.write_hf(tmp_path / "b", leaves_of(config), config)
  content = json.loads((again / "config.json").read_text())
  assert {name: content[name] for name in rates} == rates


def test_each_dropout_of_a_decoder_has_its_own_rate():
  config = DecoderLMConfig(**{**vars(GPT2), "dropout_rate": 0.3, "attention_dropout_rate": 0.0})
  model = backbones.build(config, nnx.Rngs(0))
  layer = model.decoder.layers[0]
  rates = model.decoder.dropout_rate, layer.dropout_rate, layer.self_attention.dropout_rate
  assert rates == (0.3, 0.3, 0.0)
  config = DecoderLMConfig(**{**vars(config), "embedding_dropout_rate": 0.1})
  assert backbones.build(config, nnx.Rngs(0)).decoder.dropout_rate == 0.1


def test_a_dropout_rate_that_is_given_is_of_all_of_a_decoders(tmp_path):
  folder = written(tmp_path / "a", "gpt2", resid_pdrop=0.3, attn_pdrop=0.1, embd_pdrop=0.2)
  found = huggingface.config(str(folder), dropout_rate=0.0)
  assert (found.rate_of_attention_dropout, found.rate_of_embedding_dropout) == (0.0, 0.0)
  found = huggingface.config(str(folder), dropout_rate=0.0, attention_dropout_rate=0.5)
  assert (found.rate_of_attention_dropout, found.rate_of_embedding_dropout) == (0.5, 0.0)


@pytest.mark.parametrize("name", ["attention_dropout_rate", "embedding_dropout_rate"])
def test_a_rate_of_one_drops_everything_and_is_refused(name):
  with pytest.raises(ConfigError, match=f"{name}=1.0 must be"):
    DecoderLMConfig(**{**vars(GPT2), name: 1.0})
