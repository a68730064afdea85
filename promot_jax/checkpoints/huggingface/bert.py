"""BERT of transformers, and sentence encoders that are one: an encoder with or without a pooler.

Heads for masked words and next sentences are left out: what is read is the encoder.
"""

from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families, known
from promot_jax.checkpoints.huggingface.families import Family, Pair
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.models.bert_config import BertConfig

_PREFIX = "bert."
_POOLER = "pooler.dense"
# transformers' names of activations.
_ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "relu": "relu", "silu": "silu"}
_LINEARS = {
  "attention.self.query": "attention/query",
  "attention.self.key": "attention/key",
  "attention.self.value": "attention/value",
  "attention.output.dense": "attention/out",
  "intermediate.dense": "mlp/wi",
  "output.dense": "mlp/wo",
}
_SHAPE = {
  "vocab_size": "vocab_size",
  "width": "hidden_size",
  "heads": "num_attention_heads",
  "mlp_width": "intermediate_size",
  "layers": "num_hidden_layers",
}
_FORMERLY = ("gamma", "beta")  # of norms, in files of the first conversions
_NORMS = {
  "attention.output.LayerNorm": "post_attention_layer_norm",
  "output.LayerNorm": "post_mlp_layer_norm",
}


def config_from(
  content: Mapping[str, Any], tensors: Mapping[str, StoredArray] | None
) -> BertConfig:
  """Our configuration of a config.json of `model_type` bert; its tensors say whether it has a pooler.

  Raises:
    ConfigError: a value is missing, or asks for arithmetic that our BERT does not have.
  """
  activation = content.get("hidden_act", "gelu")
  if activation not in _ACTIVATIONS:
    raise errors.ConfigError(
      f"config.json of a BERT has hidden_act={activation!r}; our BERT has {', '.join(_ACTIVATIONS)}."
    )
  shape = families.required(content, _SHAPE, of="BERT")
  pad = content.get("pad_token_id", 0)
  return BertConfig(
    **shape,
    max_positions=content.get("max_position_embeddings", 512),
    token_types=content.get("type_vocab_size", 2),
    # Without weights it is assumed, as in transformers' own class of the encoder.
    pooler=tensors is None or any(name.endswith(f"{_POOLER}.weight") for name in tensors),
    activation=_ACTIVATIONS[activation],
    norm_epsilon=content.get("layer_norm_eps", 1e-12),
    dropout_rate=content.get("hidden_dropout_prob", 0.1),
    attention_dropout_rate=content.get("attention_probs_dropout_prob", 0.1),
    init_std=content.get("initializer_range", 0.02),
    pad=0 if pad is None else pad,
  )


def config_to(config: BertConfig) -> dict[str, Any]:
  """config.json that transformers 4 and 5 both read as the same arithmetic.

  Raises:
    ConfigError: transformers' BERT has no such activation.
  """
  back = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  if config.activation not in back:
    raise errors.ConfigError(
      f"A BERT with activation={config.activation!r} cannot be written for transformers; it knows"
      f" {', '.join(back)}."
    )
  return {
    # The encoder alone, which every head of transformers can take up.
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": config.vocab_size,
    "hidden_size": config.width,
    "num_hidden_layers": config.layers,
    "num_attention_heads": config.heads,
    "intermediate_size": config.mlp_width,
    "hidden_act": back[config.activation],
    "hidden_dropout_prob": config.dropout_rate,
    "attention_probs_dropout_prob": config.attention_dropout_rate,
    "max_position_embeddings": config.max_positions,
    "type_vocab_size": config.token_types,
    "initializer_range": config.init_std,
    "layer_norm_eps": config.norm_epsilon,
    "pad_token_id": config.pad,
  }


def names(config: BertConfig) -> list[Pair]:
  """The table of one BERT."""
  tables = {
    "token_embedder": "word_embeddings",
    "encoder/position_embedder": "position_embeddings",
    "type_embedder": "token_type_embeddings",
  }
  pairs = [
    Pair(
      ours=f"{ours}/embedding",
      theirs=f"{_PREFIX}embeddings.{theirs}.weight",
      # Positions and segments have no padding to the vocabulary's multiple.
      vocab_axis=0 if ours == "token_embedder" else None,
    )
    for ours, theirs in tables.items()
  ]
  pairs += families.norm(
    "encoder/embedding_layer_norm", f"{_PREFIX}embeddings.LayerNorm", formerly=_FORMERLY
  )
  for layer in range(config.layers):
    ours, theirs = f"encoder/layers/{layer}", f"{_PREFIX}encoder.layer.{layer}"
    for name, our_name in _LINEARS.items():
      pairs += families.linear(f"{ours}/{our_name}", f"{theirs}.{name}")
    for name, our_name in _NORMS.items():
      pairs += families.norm(f"{ours}/{our_name}", f"{theirs}.{name}", formerly=_FORMERLY)
  # Sentence encoders that were published without a pooler have no such tensors.
  return [*pairs, *(families.linear("pooler", f"{_PREFIX}{_POOLER}") if config.pooler else [])]


FAMILY = Family(
  name="BERT",
  settings=known.BERT,
  model_types=("bert",),
  config_type=BertConfig,
  signature=r"(bert\.)?encoder\.layer\.0\.attention\.self\.query\.weight",
  config_from=config_from,
  config_to=config_to,
  names=names,
  base_prefix=_PREFIX,
  ignored=(r"cls\..*",),  # heads for words and sentences
  writes_text=False,
)
