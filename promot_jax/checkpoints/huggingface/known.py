"""The settings of config.json and generation_config.json that are understood, family by family.

transformers' names (versions 4 and 5, and those of old conversions), and what each does in its
network: parity tests compare them with the installed version.  Training's settings count as well,
because what is exported must train as before.
"""

from collections.abc import Iterable, Mapping

from promot_jax.checkpoints.known_settings import Known, Only

# Written under these names in either file, and read by `special_tokens`.
_TOKENS = frozenset(
  {
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "pad_token_id",
  }
)
# How outputs are searched for: the plan of an evaluation says it here, whatever a file suggests.
_SEARCH = frozenset(
  {
    "bad_words_ids",
    "begin_suppress_tokens",
    "constraints",
    "dola_layers",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "force_words_ids",
    "forced_decoder_ids",
    "guidance_scale",
    "penalty_alpha",
    "remove_invalid_values",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "token_healing",
    "watermarking_config",
    "cache_implementation",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "epsilon_cutoff",
    "eta_cutoff",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "repetition_penalty",
    "temperature",
    "top_h",
    "top_k",
    "top_p",
    "typical_p",
    "use_cache",
  }
)
# What a file says of itself, of other heads, and of how outputs are handed over.
_ABOUT = frozenset(
  {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_from_model_config",
    "_model_name_or_path",  # with transformers' own names for the figures of a GGUF file
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_implementation",
    "auto_map",  # code of the checkpoint, which transformers does not run either unless told to
    "classif_dropout",
    "classifier_dropout",
    "cls_token_id",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_past",
    "output_scores",
    "prefix",
    "problem_type",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "task_specific_params",
    "tf_legacy_loss",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
  }
)
_COPY = (
  "take another checkpoint, or set it otherwise in a copy of config.json if that is what is meant"
)
_UNKNOWN = (
  "a later version of transformers may have written it: load the model with that version and look"
  " what it does, and delete it from a copy of config.json if it changes nothing"
)
_QUANTIZED = (
  "so its weights are quantized, and only whole ones are read: save the model in float32, float16 or"
  " bfloat16 with transformers (model.dequantize(), then save_pretrained), or take the checkpoint that"
  " it was made from"
)


def _only(first: object, otherwise: str, *others: object) -> Only:
  return Only(values=(first, *others), otherwise=f"{otherwise}: {_COPY}")


# Of every family.
_COMMON: Mapping[str, Only] = {
  "quantization_config": Only(values=(None, {}), otherwise=_QUANTIZED),
  "compression_config": Only(values=(None, {}), otherwise=_QUANTIZED),
  # Their shapes would be others than those that the configuration says.
  "pruned_heads": _only(
    None, "so that heads are missing, and here every layer has all of them", {}
  ),
  "tie_encoder_decoder": _only(False, "and both stacks have weights of their own here", None),
  "add_cross_attention": _only(False, "and there is no encoder to attend to here", None),
  "cross_attention_hidden_size": _only(None, "and there is no encoder to attend to here"),
  # Computes the same in slices.
  "chunk_size_feed_forward": _only(0, "which should be a number", None, *range(1, 65)),
}


def _family(
  used: Iterable[str], only: Mapping[str, Only], informative: Iterable[str] = ()
) -> Known:
  return Known(
    used=_TOKENS | frozenset(used),
    # What a family uses is no longer informative, although others may only mention it.
    informative=(_ABOUT | _SEARCH | frozenset(informative)) - frozenset(used),
    only={**_COMMON, **only},
    unknown=_UNKNOWN,
  )


_ENCODER_DECODER = {
  "is_encoder_decoder": _only(True, "and here it is one", None),
  "is_decoder": _only(False, "and here it is an encoder-decoder", None),
}
_DECODER = {
  # A decoder alone is one in any case, whatever the file says.
  "is_encoder_decoder": _only(False, "and here it is decoder-only", None),
  "is_decoder": _only(False, "which decoder-only models do not need", None, True),
}

T5 = _family(
  used=(
    "d_ff",
    "d_kv",
    "d_model",
    "dense_act_fn",
    "dropout_rate",
    "feed_forward_proj",
    "is_gated_act",
    "layer_norm_epsilon",
    "num_decoder_layers",
    "num_heads",
    "num_layers",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "scale_decoder_outputs",
    "tie_word_embeddings",
    "vocab_size",
  ),
  only=_ENCODER_DECODER,
  # Names that other families' code knows the same figures by, and limits that a T5 does not have.
  informative=(
    "head_dim",
    "hidden_size",
    "max_position_embeddings",
    "n_positions",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",  # from GGUF
  ),
)

BART = _family(
  used=(
    "activation_dropout",
    "activation_function",
    "attention_dropout",
    "d_model",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "decoder_layers",
    "dropout",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "encoder_layers",
    "init_std",
    "max_position_embeddings",
    "scale_embedding",
    "vocab_size",
  ),
  only={
    **_ENCODER_DECODER,
    "tie_word_embeddings": _only(True, "and our BART has one table for embeddings and head"),
    "normalize_before": _only(False, "and our BART normalizes after each sublayer", None),
    "normalize_embedding": _only(True, "and our BART normalizes embedded tokens", None),
    "add_final_layer_norm": _only(False, "and our BART has no norm at the end of a stack", None),
    "add_bias_logits": _only(False, "and our BART has one bias of the logits only", None),
    "static_position_embeddings": _only(False, "and our BART's positions are learned", None),
    "extra_pos_embeddings": _only(2, "and our BART's tables begin with two rows", None),
    "encoder_layerdrop": _only(0.0, "and our BART drops no layers while it is trained", None),
    "decoder_layerdrop": _only(0.0, "and our BART drops no layers while it is trained", None),
  },
  informative=(
    "force_bos_token_to_be_generated",
    "hidden_size",
    "mask_token_id",
    "num_attention_heads",
    "num_hidden_layers",
    "save_step",
  ),
)

BERT = _family(
  used=(
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
  ),
  only={
    "is_encoder_decoder": _only(False, "and here it is an encoder alone", None),
    "is_decoder": _only(False, "and here it reads in both directions", None),
    "position_embedding_type": _only(
      "absolute", "and our BERT's positions are learned vectors", None
    ),
  },
  informative=(
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "tie_word_embeddings",
  ),
)

GPT2 = _family(
  used=(
    "activation_function",
    "attn_pdrop",
    "embd_pdrop",
    "layer_norm_epsilon",
    "n_embd",
    "n_head",
    "n_inner",
    "n_layer",
    "n_positions",
    "resid_pdrop",
    "tie_word_embeddings",
    "vocab_size",
  ),
  only={
    **_DECODER,
    "scale_attn_weights": _only(True, "and our network scales them", None),
    "scale_attn_by_inverse_layer_idx": _only(False, "and our layers scale alike", None),
    # Another order of the same products, with the range that ours always have.
    "reorder_and_upcast_attn": _only(False, "which should be true or false", None, True),
  },
  informative=(
    "feed_forward_length",  # from GGUF
    "hidden_size",
    "max_position_embeddings",
    "n_ctx",
    "n_special",
    "num_attention_heads",
    "num_hidden_layers",
    "predict_special_tokens",
    "summary_activation",
    "summary_first_dropout",
    "summary_last_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
  ),
)

LLAMA = _family(
  used=(
    "attention_dropout",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
  ),
  only={
    **_DECODER,
    "attention_bias": _only(False, "and our network's projections have no biases", None),
    "mlp_bias": _only(False, "and our network's mlp has no biases", None),
    "rope_interleaved": _only(False, "and our network rotates halves", None),
    "partial_rotary_factor": _only(1.0, "and our network rotates all features of a head", None),
    "sliding_window": _only(None, "and our network attends to all earlier tokens"),
    "use_sliding_window": _only(False, "and our network attends to all earlier tokens", None),
  },
  # Slices that were summed one by one.
  informative=("pretraining_tp", "max_sequence_length"),
)

GENERATION = Known(
  used=_TOKENS,
  informative=_ABOUT
  | _SEARCH
  | {
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "cache_config",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "max_time",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "renormalize_logits",
    "speculation_type",
    "target_lookbehind",
    "trust_remote_code",
    "use_mtp",
    "chat_format",
    "max_window_size",
  },
  only={},
  unknown=(
    "a later version of transformers may have written it: delete it from a copy of the file to decode"
    " without it"
  ),
)
