"""T5 1.0, T5 1.1, mT5 and umT5 of transformers.

The head is the trap.  T5 1.0 ties it to the embedding and multiplies the decoder's output by
width**-0.5; 1.1 and mT5 do neither.  transformers 4 says both with `tie_word_embeddings`;
transformers 5 always says `tie_word_embeddings: true` and tells them apart by
`scale_decoder_outputs` (not mT5) and by whether `lm_head.weight` is in the file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families, known, special_tokens
from promot_jax.checkpoints.huggingface.families import Family, Pair
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.models import sizes
from promot_jax.models.t5_config import T5Config

_HEAD = "lm_head.weight"
_EMBEDDING = "shared.weight"
# The embedding is stored once or three times, depending on the version that wrote it.
_EMBEDDING_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# transformers' names of activations.
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu_exact", "gelu_new": "gelu", "silu": "silu"}
_ACTIVATIONS.update(gelu_pytorch_tanh="gelu", swish="silu")
_CLASSES = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}  # of transformers, by model_type
# What no T5 can be without; everything else has transformers' default.
_SHAPE = {
  "vocab_size": "vocab_size",
  "width": "d_model",
  "heads": "num_heads",
  "head_width": "d_kv",
  "mlp_width": "d_ff",
  "encoder_layers": "num_layers",
}
_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
_ATTENTIONS = {
  "encoder": [("SelfAttention", "attention", "pre_attention_layer_norm")],
  "decoder": [
    ("SelfAttention", "self_attention", "pre_self_attention_layer_norm"),
    ("EncDecAttention", "encoder_decoder_attention", "pre_cross_attention_layer_norm"),
  ],
}


def config_from(content: Mapping[str, Any], tensors: Mapping[str, StoredArray] | None) -> T5Config:
  """Our configuration of a config.json of `model_type` t5, mt5 or umt5.

  Raises:
    ConfigError: a value is missing, or asks for arithmetic that our T5 does not have.
  """
  shape = families.required(content, _SHAPE, of="T5")
  # Files of T5 1.0 do not mention the decoder's depth, which is the encoder's then.
  shape["decoder_layers"] = content.get("num_decoder_layers") or shape["encoder_layers"]
  # The configuration has no field for it: T5X's norms have this value, too.
  if content.get("layer_norm_epsilon", 1e-6) != 1e-6:
    raise errors.ConfigError(
      f"config.json has layer_norm_epsilon={content['layer_norm_epsilon']}; our T5 computes with"
      " 1e-06 only."
    )
  # transformers' mT5 never scales, whatever its config.json says.
  if content["model_type"] == "mt5":
    scaled = False
  else:
    # In transformers 4 the tied heads are the scaled ones; version 5 says it with a name of its
    # own.
    tied = content.get("tie_word_embeddings") is not False
    scaled = bool(content.get("scale_decoder_outputs", tied))
  tokens = special_tokens.read(content, eos=1)
  return T5Config(
    **shape,
    mlp_activations=_activations(content),
    # A stored head that must be tied is compared with the embedding when it is read.
    tied_logits=scaled or _is_tied(tensors),
    scale_logits=scaled,
    dropout_rate=content.get("dropout_rate", 0.1),
    # umT5 alone has a table in each layer.
    relative_bias="per_layer" if content["model_type"] == "umt5" else "shared",
    relative_buckets=content.get("relative_attention_num_buckets", 32),
    relative_max_distance=content.get("relative_attention_max_distance", 128),
    # 0, the padding id, is where T5 begins to decode.
    decoder_start=tokens.decoder_start or 0,
    pad=tokens.pad or 0,
    eos=tokens.eos,
    output_ends=tokens.output_ends,
    forced_bos=tokens.forced_bos,
    forced_eos=tokens.forced_eos,
  )


def config_to(config: T5Config) -> dict[str, Any]:
  """config.json that transformers 4 and 5 both read as the same arithmetic.

  Raises:
    ConfigError: transformers' T5 cannot compute this model.
  """
  scaled = config.logits_scale != 1.0
  if not config.tied_logits and scaled:
    raise errors.ConfigError(
      "A T5 with an untied head and scaled logits cannot be written for transformers: version 4"
      " scales tied heads only."
    )
  # The vocabulary is what tells mT5 from T5 1.1; only mT5 in transformers never scales.
  mt5 = not scaled and config.vocab_size >= sizes.MT5_VOCABULARY - 112
  kind = "umt5" if config.relative_bias == "per_layer" else "mt5" if mt5 else "t5"
  content = {
    "architectures": [f"{_CLASSES[kind]}ForConditionalGeneration"],
    "model_type": kind,
    "is_encoder_decoder": True,
    "vocab_size": config.vocab_size,
    "d_model": config.width,
    "num_heads": config.heads,
    "d_kv": config.head_width,
    "d_ff": config.mlp_width,
    "num_layers": config.encoder_layers,
    "num_decoder_layers": config.decoder_layers,
    "feed_forward_proj": _feed_forward(config.mlp_activations),
    "relative_attention_num_buckets": config.relative_buckets,
    "relative_attention_max_distance": config.relative_max_distance,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "dropout_rate": config.dropout_rate,
    # For version 4, in which this decides over the scale; version 5 goes by the next name and the
    # file.
    "tie_word_embeddings": scaled,
    "decoder_start_token_id": config.decoder_start,
    **special_tokens.of_config_json(config),
    "use_cache": True,
  }
  # transformers' mT5 has no such setting: it never scales.
  if kind != "mt5":
    content["scale_decoder_outputs"] = scaled
  return content


def names(config: T5Config) -> list[Pair]:
  """The table of one T5."""
  # A tied head that is stored again must be equal, or the checkpoint is of another network.
  aliases = [*_EMBEDDING_ALIASES, *([_HEAD] if config.tied_logits else [])]
  # transformers 4 ties a head only if it also scales it, and draws one at random if none is stored.
  copies = [_HEAD] if config.tied_logits and config.logits_scale == 1.0 else []
  pairs = [
    Pair(
      ours="token_embedder/embedding",
      theirs=_EMBEDDING,
      vocab_axis=0,
      aliases=aliases,
      copies=copies,
    )
  ]
  pairs += families.head(config, _HEAD)
  for side, count in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
    pairs += [
      Pair(ours=f"{side}/{side}_norm/scale", theirs=f"{side}.final_layer_norm.weight"),
      *_biases(side, count if config.relative_bias == "per_layer" else None),
    ]
    for layer in range(count):
      pairs += _layer(side, layer, gated=len(config.mlp_activations) > 1)
  return pairs


FAMILY = Family(
  name="T5",
  settings=known.T5,
  model_types=tuple(_CLASSES),
  config_type=T5Config,
  signature=r"(transformer\.)?encoder\.block\.0\.layer\.0\.SelfAttention\.q\.weight",
  config_from=config_from,
  config_to=config_to,
  names=names,
  # Very old conversions have a table that no network ever used.
  ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
)


def _biases(side: str, own: int | None) -> list[Pair]:
  """Tables of relative biases: one of the stack, which its first layer holds, or `own` of layers."""
  # The stack's own table lies in its first layer there.
  places = {f"{side}/": 0} if own is None else {f"{side}/layers/{i}/": i for i in range(own)}
  return [
    Pair(
      ours=f"{ours}relpos_bias/rel_embedding",
      theirs=f"{side}.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight",
      # [buckets H] in torch, whose Embedding looks buckets up.
      transpose=True,
    )
    for ours, layer in places.items()
  ]


def _is_tied(tensors: Mapping[str, StoredArray] | None) -> bool:
  """Whether an unscaled head is the embedding: it is not stored, or stored again with equal values.

  The latter is how it is written here, and transformers 5 ties two equal tables too.  Without weights
  it is a table of its own, as in every published T5 that does not scale.
  """
  if tensors is None:
    return False
  head = tensors.get(_HEAD)
  tables = [tensors[name] for name in (_EMBEDDING, *_EMBEDDING_ALIASES) if name in tensors]
  # Without a table to compare with, a head that is stored counts as one of its own.
  if head is None or not tables:
    return head is None
  if head.shape != tables[0].shape or len(head.shape) != 2:
    return False
  first, second = head.read(), tables[0].read()  # views of a file, of which mostly one row is read
  return np.array_equal(first[:1], second[:1]) and np.array_equal(first, second)


def _layer(side: str, layer: int, *, gated: bool) -> list[Pair]:
  pairs = []
  ours = f"{side}/layers/{layer}"
  for index, (attention, our_attention, norm) in enumerate(_ATTENTIONS[side]):
    theirs = f"{side}.block.{layer}.layer.{index}"
    pairs.append(Pair(ours=f"{ours}/{norm}/scale", theirs=f"{theirs}.layer_norm.weight"))
    pairs += [
      Pair(
        ours=f"{ours}/{our_attention}/{long}/kernel",
        theirs=f"{theirs}.{attention}.{short}.weight",
        transpose=True,
      )
      for short, long in _ATTENTION.items()
    ]
  # Behind the attentions, of which the decoder has one more.
  theirs = f"{side}.block.{layer}.layer.{len(_ATTENTIONS[side])}"
  pairs.append(Pair(ours=f"{ours}/pre_mlp_layer_norm/scale", theirs=f"{theirs}.layer_norm.weight"))
  pairs += [
    Pair(
      ours=f"{ours}/mlp/{kernel}/kernel",
      theirs=f"{theirs}.DenseReluDense.{kernel}.weight",
      transpose=True,
    )
    for kernel in (("wi_0", "wi_1", "wo") if gated else ("wi", "wo"))
  ]
  return pairs


def _activations(content: Mapping[str, Any]) -> tuple[str, ...]:
  """`feed_forward_proj` is 'relu' or 'gated-gelu', whose GELU is the tanh form."""
  value = content.get("feed_forward_proj")
  if value is None:
    # What transformers takes for either type where the file does not say.
    value = "relu" if content["model_type"] == "t5" else "gated-gelu"
  gate, _, activation = value.rpartition("-")
  # transformers reads 'gated-gelu' as the tanh form, but a plain 'gelu' as the exact one; what it
  # derives from the name gives way to the two settings of what it derived, where a file has them.
  name = content.get("dense_act_fn") or ("gelu_new" if value == "gated-gelu" else activation)
  gated = gate == "gated" if content.get("is_gated_act") is None else content["is_gated_act"]
  if gate not in ("", "gated") or name not in _ACTIVATIONS:
    raise errors.ConfigError(
      f"config.json has feed_forward_proj={value!r} (dense_act_fn={name!r}); our T5 has relu, gelu,"
      " silu and gated-gelu, gated-relu, gated-silu: take another checkpoint."
    )
  return (_ACTIVATIONS[name], "linear") if gated else (_ACTIVATIONS[name],)


def _feed_forward(activations: tuple[str, ...]) -> str:
  back = {
    ("relu",): "relu",
    ("silu",): "silu",
    ("gelu",): "gelu_new",
    ("gelu_exact",): "gelu",
    ("gelu", "linear"): "gated-gelu",
    ("relu", "linear"): "gated-relu",
    ("silu", "linear"): "gated-silu",
  }
  if activations not in back:
    raise errors.ConfigError(
      f"A T5 with mlp_activations={activations} cannot be written for transformers, which knows"
      f" {', '.join(back.values())}."
    )
  return back[activations]
