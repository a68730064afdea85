"""The settings of adapter_config.json that are understood, type by type.

PEFT 0.21's names, and what each does there: a parity test compares them with the installed PEFT.
"""

from promot_jax.checkpoints.known_settings import Known, Only

_COMMON = frozenset(
  {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
  }
)
_MERGE = "merge it in PEFT (merge_and_unload) and read the whole model"
_REPLACES = f"which replaces parameters of the model: {_MERGE}"
_WITHOUT = (
  "which replaces parameters of the model, and what is put before its input cannot: save the adapter"
  " from PEFT without modules_to_save"
)
_UNKNOWN = (
  "a newer PEFT may have written it: {}, or, if it is known to change nothing, delete it from"
  " adapter_config.json"
)
_BASE_CHANGES = (
  "a start that changes the weights of the model itself (as PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA do),"
  " so that the factors are no update of the weights that the model has: save it from PEFT as a plain"
  " update, model.save_pretrained(OUT, path_initial_model_for_weight_conversion=START) with START the"
  " adapter before its training, or " + _MERGE
)
_ALORA = (
  "with which PEFT applies the updates only after these tokens of each input (activated LoRA), and"
  " ours apply everywhere: there is no counterpart, so use it in PEFT, or train a plain LoRA"
)
_REPLICATES = (
  "which makes a deeper model by repeating layers: build and merge it in PEFT (merge_and_unload),"
  " save_pretrained it and read the whole model"
)


def _more(what: str) -> str:
  return f"which is more than low-rank updates ({what}): {_MERGE}"


LORA = Known(
  used=frozenset(
    {
      "alpha_pattern",
      "lora_alpha",
      "lora_dropout",
      "r",
      "rank_pattern",
      "use_rslora",
      # Which layers have updates: the arrays' names say it again.
      "exclude_modules",
      "layers_pattern",
      "layers_to_transform",
      "target_modules",
    }
  ),
  informative=_COMMON
  | {
    "ensure_weight_tying",  # of embeddings and heads, whose arrays are refused
    "fan_in_fan_out",  # PEFT itself corrects it by the kind of the layer
    "megatron_core",  # a name of a package, without megatron_config
    "qalora_group_size",  # with use_qalora only
    "runtime_config",
    # How factors began, by init_lora_weights.
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
  },
  only={
    "init_lora_weights": Only(
      # Those that fill the two factors and touch nothing else.
      values=(True, False, "gaussian", "eva", "orthogonal", "mica", None),
      otherwise=_BASE_CHANGES,
    ),
    "alora_invocation_tokens": Only(values=(None,), otherwise=_ALORA),
    "use_dora": Only(
      values=(False, True, None),
      otherwise="which is neither true nor false: correct it in adapter_config.json",
    ),
    "bias": Only(values=("none", None), otherwise=_more("biases of the model were trained too")),
    "modules_to_save": Only(values=(None, []), otherwise=_REPLACES),
    "trainable_token_indices": Only(
      values=(None, [], {}), otherwise=_more("rows of the embedding were trained too")
    ),
    "target_parameters": Only(
      values=(None, []), otherwise=_more("they are of parameters that are no linear layer")
    ),
    "lora_bias": Only(values=(False, None), otherwise=_more("each has a bias")),
    "layer_replication": Only(values=(None, []), otherwise=_REPLICATES),
    "use_bdlora": Only(
      values=(None, False),
      otherwise=_more("BD-LoRA's factors are block-diagonal and stored as such"),
    ),
    "use_qalora": Only(
      values=(False, None), otherwise=_more("QA-LoRA pools the inputs of a quantized kernel")
    ),
    "kasa_config": Only(
      values=(None,), otherwise=_more("KaSA cuts singular values off the model's kernels")
    ),
    "arrow_config": Only(
      values=(None,), otherwise=_more("Arrow chooses among several adapters for each token")
    ),
    "monteclora_config": Only(
      values=(None,), otherwise=_more("MonteCLoRA draws its factors at random")
    ),
    "velora_config": Only(
      values=(None,), otherwise=_more("VeLoRA keeps a state of its training beside them")
    ),
    "megatron_config": Only(
      values=(None,), otherwise=_more("they are of Megatron's layers, cut over devices")
    ),
  },
  unknown=_UNKNOWN.format(_MERGE),
)

IA3 = Known(
  used=frozenset({"exclude_modules", "feedforward_modules", "target_modules"}),
  informative=_COMMON | {"fan_in_fan_out", "init_ia3_weights"},
  only={"modules_to_save": Only(values=(None, []), otherwise=_REPLACES)},
  unknown=_UNKNOWN.format(_MERGE),
)

_SHAPE = frozenset(
  {
    "num_attention_heads",
    "num_layers",
    "num_transformer_submodules",
    "num_virtual_tokens",
    "token_dim",
  }
)
_VECTORS = _UNKNOWN.format("use the adapter in PEFT")
_NO_MODULES = {"modules_to_save": Only(values=(None, []), otherwise=_WITHOUT)}

PROMPT_TUNING = Known(
  used=_SHAPE,
  # How the vectors began.
  informative=_COMMON
  | {
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
  },
  only=_NO_MODULES,
  unknown=_VECTORS,
)

P_TUNING = Known(
  used=_SHAPE,
  # The network that computed the vectors, which are what is stored.
  informative=_COMMON
  | {
    "encoder_dropout",
    "encoder_hidden_size",
    "encoder_num_layers",
    "encoder_reparameterization_type",
  },
  only=_NO_MODULES,
  unknown=_VECTORS,
)

PREFIX_TUNING = Known(
  used=_SHAPE,
  # Likewise; and how the prefix began.
  informative=_COMMON | {"encoder_hidden_size", "init_weights", "prefix_projection"},
  only=_NO_MODULES,
  unknown=_VECTORS,
)

OF_TYPE = {
  "IA3": IA3,
  "LORA": LORA,
  "PREFIX_TUNING": PREFIX_TUNING,
  "PROMPT_TUNING": PROMPT_TUNING,
  "P_TUNING": P_TUNING,
}
"""`peft_type` -> its settings."""
