"""config.json of published models, with the keys that conversions of many years have left in them."""

import json

import pytest

from promot_jax.checkpoints import huggingface
from promot_jax.errors import ConfigError

SMOLLM2 = {
  "architectures": ["LlamaForCausalLM"],
  "attention_bias": False,
  "attention_dropout": 0.0,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "hidden_act": "silu",
  "hidden_size": 576,
  "initializer_range": 0.041666666666666664,
  "intermediate_size": 1536,
  "is_llama_config": True,
  "max_position_embeddings": 8192,
  "mlp_bias": False,
  "model_type": "llama",
  "num_attention_heads": 9,
  "num_hidden_layers": 30,
  "num_key_value_heads": 3,
  "pad_token_id": 2,
  "pretraining_tp": 1,
  "rms_norm_eps": 1e-05,
  "rope_interleaved": False,
  "rope_scaling": None,
  "rope_theta": 100000,
  "tie_word_embeddings": True,
  "torch_dtype": "bfloat16",
  "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}},
  "use_cache": True,
  "vocab_size": 49152,
}
BART_LARGE_CNN = {
  "_num_labels": 3,
  "activation_dropout": 0.0,
  "activation_function": "gelu",
  "add_final_layer_norm": False,
  "architectures": ["BartForConditionalGeneration"],
  "attention_dropout": 0.0,
  "bos_token_id": 0,
  "classif_dropout": 0.0,
  "classifier_dropout": 0.0,
  "d_model": 1024,
  "decoder_attention_heads": 16,
  "decoder_ffn_dim": 4096,
  "decoder_layerdrop": 0.0,
  "decoder_layers": 12,
  "decoder_start_token_id": 2,
  "dropout": 0.1,
  "early_stopping": True,
  "encoder_attention_heads": 16,
  "encoder_ffn_dim": 4096,
  "encoder_layerdrop": 0.0,
  "encoder_layers": 12,
  "eos_token_id": 2,
  "extra_pos_embeddings": 2,
  "force_bos_token_to_be_generated": True,
  "forced_bos_token_id": 0,
  "forced_eos_token_id": 2,
  "gradient_checkpointing": False,
  "id2label": {"0": "LABEL_0"},
  "init_std": 0.02,
  "is_encoder_decoder": True,
  "label2id": {"LABEL_0": 0},
  "length_penalty": 2.0,
  "max_length": 142,
  "max_position_embeddings": 1024,
  "min_length": 56,
  "model_type": "bart",
  "no_repeat_ngram_size": 3,
  "normalize_before": False,
  "normalize_embedding": True,
  "num_beams": 4,
  "num_hidden_layers": 12,
  "output_past": True,
  "pad_token_id": 1,
  "prefix": " ",
  "scale_embedding": False,
  "static_position_embeddings": False,
  "task_specific_params": {"summarization": {"num_beams": 4}},
  "use_cache": True,
  "vocab_size": 50264,
}
DISTILGPT2 = {
  "_num_labels": 1,
  "activation_function": "gelu_new",
  "architectures": ["GPT2LMHeadModel"],
  "attn_pdrop": 0.1,
  "bos_token_id": 50256,
  "embd_pdrop": 0.1,
  "eos_token_id": 50256,
  "id2label": {"0": "LABEL_0"},
  "initializer_range": 0.02,
  "label2id": {"LABEL_0": 0},
  "layer_norm_epsilon": 1e-05,
  "model_type": "gpt2",
  "n_ctx": 1024,
  "n_embd": 768,
  "n_head": 12,
  "n_layer": 6,
  "n_positions": 1024,
  "resid_pdrop": 0.1,
  "summary_activation": None,
  "summary_first_dropout": 0.1,
  "summary_proj_to_labels": True,
  "summary_type": "cls_index",
  "summary_use_proj": True,
  "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
  "vocab_size": 50257,
}
T5_SMALL = {
  "architectures": ["T5ForConditionalGeneration"],
  "d_ff": 2048,
  "d_kv": 64,
  "d_model": 512,
  "decoder_start_token_id": 0,
  "dropout_rate": 0.1,
  "eos_token_id": 1,
  "initializer_factor": 1.0,
  "is_encoder_decoder": True,
  "layer_norm_epsilon": 1e-06,
  "model_type": "t5",
  "n_positions": 512,
  "num_heads": 8,
  "num_layers": 6,
  "output_past": True,
  "pad_token_id": 0,
  "relative_attention_num_buckets": 32,
  "task_specific_params": {"translation_en_to_fr": {"prefix": "translate English to French: "}},
  "vocab_size": 32128,
}
PUBLISHED = {
  "SmolLM2": (SMOLLM2, {"layers": 30, "kv_heads": 3, "tied_logits": True, "rope_theta": 100000}),
  "bart-large-cnn": (BART_LARGE_CNN, {"forced_bos": 0, "dropout_rate": 0.1}),
  "distilgpt2": (DISTILGPT2, {"layers": 6, "attention_dropout_rate": None}),
  "t5-small": (T5_SMALL, {"tied_logits": True, "mlp_activations": ("relu",)}),
}


FROM_GGUF = {  # what transformers leaves there when it reads the model from a GGUF file
  "SmolLM2": {"_model_name_or_path": "Smollm2 135M 8k Lc100K Mix1 Ep2"},
  "distilgpt2": {"_model_name_or_path": "Distilgpt2", "feed_forward_length": 3072},
  "t5-small": {"_model_name_or_path": "T5 Small", "num_key_value_heads": 8},
}


@pytest.mark.parametrize("name", FROM_GGUF)
def test_what_a_gguf_file_left_in_a_configuration_changes_nothing(tmp_path, name):
  content, expected = PUBLISHED[name]
  (tmp_path / "config.json").write_text(json.dumps(content | FROM_GGUF[name]))
  found = huggingface.config(str(tmp_path))
  assert {field: getattr(found, field) for field in expected} == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_read(tmp_path, name):
  content, expected = PUBLISHED[name]
  (tmp_path / "config.json").write_text(json.dumps(content))
  found = huggingface.config(str(tmp_path))
  assert {field: getattr(found, field) for field in expected} == expected


def test_gemma_3_is_refused_with_what_is_missing(tmp_path):
  content = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "sliding_window": 512,
    "query_pre_attn_scalar": 256,
  }
  (tmp_path / "config.json").write_text(json.dumps(content))
  with pytest.raises(ConfigError, match=r"is Gemma 3 \(Gemma3ForCausalLM, .* norms after each"):
    huggingface.config(str(tmp_path))
