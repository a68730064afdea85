"""BART of transformers: one embedding for both stacks and the head, and a bias of the logits.

Files of the bare network ('facebook/bart-base' is one) lack the prefix 'model.' and that bias, which
is zeros in every published BART.
"""

from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families, known, special_tokens
from promot_jax.checkpoints.huggingface.families import Family, Pair
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.models.bart_config import BartConfig

_PREFIX = "model."
_BIAS = "final_logits_bias"
_EMBEDDING_ALIASES = (
  f"{_PREFIX}encoder.embed_tokens.weight",
  f"{_PREFIX}decoder.embed_tokens.weight",
  "lm_head.weight",
)
# transformers' names of activations.
_ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "relu": "relu", "silu": "silu"}
_ACTIVATION_ALIASES = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "swish": "silu"}
_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_ATTENTIONS = {
  "encoder": (("self_attn", "attention", "post_attention_layer_norm"),),
  "decoder": (
    ("self_attn", "self_attention", "post_self_attention_layer_norm"),
    ("encoder_attn", "encoder_decoder_attention", "post_cross_attention_layer_norm"),
  ),
}
_MLP = {"fc1": "wi", "fc2": "wo"}
_SHAPE = {
  "vocab_size": "vocab_size",
  "width": "d_model",
  "heads": "encoder_attention_heads",
  "mlp_width": "encoder_ffn_dim",
  "encoder_layers": "encoder_layers",
  "decoder_layers": "decoder_layers",
  "max_positions": "max_position_embeddings",
}


def config_from(
  content: Mapping[str, Any], tensors: Mapping[str, StoredArray] | None
) -> BartConfig:
  """Our configuration of a config.json of `model_type` bart; its tensors say nothing more.

  Raises:
    ConfigError: a value is missing, or asks for arithmetic that our BART does not have.
  """
  del tensors
  # Our configuration has one number for both stacks, as every published BART has.
  for what in ("attention_heads", "ffn_dim"):
    sides = [content.get(f"{side}_{what}") for side in ("encoder", "decoder")]
    if sides[0] != sides[1]:
      raise errors.ConfigError(
        f"config.json of a BART has encoder_{what}={sides[0]} and decoder_{what}={sides[1]}; our"
        " BART has one value for both."
      )
  activation = content.get("activation_function", "gelu")
  activation = _ACTIVATION_ALIASES.get(activation, activation)
  if activation not in _ACTIVATIONS:
    raise errors.ConfigError(
      f"config.json of a BART has activation_function={activation!r}; our BART has"
      f" {', '.join(_ACTIVATIONS)}."
    )
  shape = families.required(content, _SHAPE, of="BART")
  # transformers' own default is to force the end.
  tokens = special_tokens.read(content, eos=2, forced_eos=2)
  return BartConfig(
    **shape,
    activation=_ACTIVATIONS[activation],
    scale_embedding=bool(content.get("scale_embedding", False)),
    dropout_rate=content.get("dropout", 0.1),
    attention_dropout_rate=content.get("attention_dropout", 0.0),
    activation_dropout_rate=content.get("activation_dropout", 0.0),
    init_std=content.get("init_std", 0.02),
    bos=tokens.bos or 0,
    pad=1 if tokens.pad is None else tokens.pad,
    eos=tokens.eos,
    output_ends=tokens.output_ends,
    # BART's decoder begins with the end of a sentence.
    decoder_start=tokens.eos if tokens.decoder_start is None else tokens.decoder_start,
    forced_bos=tokens.forced_bos,
    forced_eos=tokens.forced_eos,
  )


def config_to(config: BartConfig) -> dict[str, Any]:
  """config.json that transformers 4 and 5 both read as the same arithmetic.

  Raises:
    ConfigError: transformers' BART has no such activation.
  """
  # Without aliases: each of ours is written under one name.
  back = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  if config.activation not in back:
    raise errors.ConfigError(
      f"A BART with activation={config.activation!r} cannot be written for transformers; it knows"
      f" {', '.join(back)}."
    )
  content = {
    "architectures": ["BartForConditionalGeneration"],
    "model_type": "bart",
    "is_encoder_decoder": True,
    "vocab_size": config.vocab_size,
    "d_model": config.width,
    "max_position_embeddings": config.max_positions,
    "activation_function": back[config.activation],
    "scale_embedding": config.scale_embedding,
    "dropout": config.dropout_rate,
    "attention_dropout": config.attention_dropout_rate,
    "activation_dropout": config.activation_dropout_rate,
    "init_std": config.init_std,
    "tie_word_embeddings": True,
    "bos_token_id": config.bos,
    **special_tokens.of_config_json(config),
    "decoder_start_token_id": config.decoder_start,
    "forced_bos_token_id": config.forced_bos,
    "forced_eos_token_id": config.forced_eos,
    "use_cache": True,
  }
  # Written for each stack, though they are equal: the files have no common name for them.
  for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
    content[f"{side}_layers"] = layers
    content[f"{side}_attention_heads"] = config.heads
    content[f"{side}_ffn_dim"] = config.mlp_width
  return content


def names(config: BartConfig) -> list[Pair]:
  """The table of one BART."""
  pairs = [
    Pair(
      ours="token_embedder/embedding",
      theirs=f"{_PREFIX}shared.weight",
      vocab_axis=0,
      aliases=_EMBEDDING_ALIASES,
    ),
    # [1, vocabulary] there, since it is a buffer that is added to logits.
    Pair(
      ours="final_logits_bias",
      theirs=_BIAS,
      squeeze=True,
      vocab_axis=0,
      zeros=(config.vocab_size,),
    ),
  ]
  for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
    theirs = f"{_PREFIX}{side}"
    # Both tables have two rows in front that are never read; they are kept.
    pairs.append(
      Pair(ours=f"{side}/position_embedder/embedding", theirs=f"{theirs}.embed_positions.weight")
    )
    pairs += families.norm(f"{side}/embedding_layer_norm", f"{theirs}.layernorm_embedding")
    for layer in range(layers):
      pairs += _layer(f"{side}/layers/{layer}", f"{theirs}.layers.{layer}", side)
  return pairs


FAMILY = Family(
  name="BART",
  settings=known.BART,
  model_types=("bart",),
  config_type=BartConfig,
  signature=r"(model\.)?encoder\.layers\.0\.self_attn_layer_norm\.weight",
  config_from=config_from,
  config_to=config_to,
  names=names,
  base_prefix=_PREFIX,
  # A version number, in files of very old conversions.
  ignored=(r"(model\.)?(encoder|decoder)\.version",),
)


def _layer(ours: str, theirs: str, side: str) -> list[Pair]:
  pairs = []
  for attention, our_attention, norm in _ATTENTIONS[side]:
    for short, long in _ATTENTION.items():
      pairs += families.linear(f"{ours}/{our_attention}/{long}", f"{theirs}.{attention}.{short}")
    pairs += families.norm(f"{ours}/{norm}", f"{theirs}.{attention}_layer_norm")
  for short, long in _MLP.items():
    pairs += families.linear(f"{ours}/mlp/{long}", f"{theirs}.{short}")
  return [*pairs, *families.norm(f"{ours}/post_mlp_layer_norm", f"{theirs}.final_layer_norm")]
