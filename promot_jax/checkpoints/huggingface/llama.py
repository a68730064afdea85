"""LLaMA and what has its architecture in transformers: TinyLlama, Llama 2, 3 and 3.2, Vicuna, ...

Rotations are the trap.  transformers 4 says `rope_theta` and `rope_scaling`; transformers 5 says
both in `rope_parameters`, and reads the old form too.
"""

from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families, known, special_tokens
from promot_jax.checkpoints.huggingface.families import Family, Pair
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.positions import Llama3Scaling

_PREFIX = "model."
_HEAD = "lm_head.weight"
_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
_MLP = {"gate": "wi_0", "up": "wi_1", "down": "wo"}
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu_exact", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
_SCALING = {
  "factor": "factor",
  "low_freq_factor": "low_frequency_factor",
  "high_freq_factor": "high_frequency_factor",
  "original_max_position_embeddings": "original_length",
}

_SHAPE = {
  "vocab_size": "vocab_size",
  "layers": "num_hidden_layers",
  "width": "hidden_size",
  "heads": "num_attention_heads",
  "mlp_width": "intermediate_size",
}
_ROPE = ("rope_theta", "rope_type", "type", *_SCALING)


def config_from(
  content: Mapping[str, Any], tensors: Mapping[str, StoredArray] | None
) -> DecoderLMConfig:
  """Our configuration of a config.json of `model_type` llama; its tensors say nothing more.

  Padding is -1, whatever the file says: no token means it.  The id of the file is kept for a
  conversion back.

  Raises:
    ConfigError: a value is missing, or asks for arithmetic that our model does not have.
  """
  del tensors
  activation = content.get("hidden_act", "silu")
  if activation not in _ACTIVATIONS:
    raise errors.ConfigError(
      f"config.json of a LLaMA has hidden_act={activation!r}; our network has"
      f" {', '.join(_ACTIVATIONS)}."
    )
  shape = families.required(content, _SHAPE, of="LLaMA")
  width, heads = shape["width"], shape["heads"]
  theta, scaling = _rope(content)
  tokens = special_tokens.read(content, eos=2)
  return DecoderLMConfig(
    **shape,
    # Files of the first versions do not mention it: every head has keys of its own.
    kv_heads=content.get("num_key_value_heads") or heads,
    # Only models whose heads are not width / heads say their width.
    head_width=content.get("head_dim") or width // heads,
    mlp_activations=(_ACTIVATIONS[activation], "linear"),
    positions="rotary",
    max_positions=content.get("max_position_embeddings", 2048),
    rope_theta=theta,
    rope_scaling=scaling,
    norm="rms",
    norm_epsilon=content.get("rms_norm_eps", 1e-6),
    use_bias=False,
    tied_logits=bool(content.get("tie_word_embeddings", False)),
    # LLaMA has one rate, of attention; the network's others are zero.
    dropout_rate=0.0,
    attention_dropout_rate=content.get("attention_dropout") or None,
    bos=1 if tokens.bos is None else tokens.bos,
    eos=tokens.eos,
    output_ends=tokens.output_ends,
    forced_eos=tokens.forced_eos,
    written_pad=tokens.pad,
  )


def config_to(config: DecoderLMConfig) -> dict[str, Any]:
  """config.json that transformers 4 and 5 both read as the same arithmetic."""
  back = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  # Rotations in the form of version 4, which version 5 reads, too.
  scaling = config.rope_scaling
  return {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": config.vocab_size,
    "hidden_size": config.width,
    "intermediate_size": config.mlp_width,
    "num_hidden_layers": config.layers,
    "num_attention_heads": config.heads,
    "num_key_value_heads": config.key_heads,
    "head_dim": config.head_width,
    # The gate's activation; the second factor is linear in every LLaMA.
    "hidden_act": back[config.mlp_activations[0]],
    "max_position_embeddings": config.max_positions,
    "rms_norm_eps": config.norm_epsilon,
    "rope_theta": config.rope_theta,
    "rope_scaling": None
    if scaling is None
    else {
      "rope_type": "llama3",
      **{theirs: getattr(scaling, ours) for theirs, ours in _SCALING.items()},
    },
    "attention_bias": False,
    "attention_dropout": config.rate_of_attention_dropout,
    "mlp_bias": False,
    "tie_word_embeddings": config.tied_logits,
    "bos_token_id": config.bos,
    **special_tokens.of_config_json(config),
    "use_cache": True,
  }


def writes(config: DecoderLMConfig) -> bool:
  """Whether transformers' LLaMA computes this model."""
  # DecoderLMConfig is wider than either family: learned or rotary positions, two norms, parallel
  # layers.
  return (
    (config.positions, config.norm, config.source_attention) == ("rotary", "rms", "causal")
    and not (config.use_bias or config.parallel or config.scale_logits)
    and len(config.mlp_activations) == 2
    and config.mlp_activations[0] in _ACTIVATIONS.values()
    and config.mlp_activations[1] == "linear"
  )


def names(config: DecoderLMConfig) -> list[Pair]:
  """The table of one LLaMA."""
  # A head that is tied may be stored a second time, with the values of the embedding.
  aliases = (_HEAD,) if config.tied_logits else ()
  pairs = [
    Pair(
      ours="token_embedder/embedding",
      theirs=f"{_PREFIX}embed_tokens.weight",
      vocab_axis=0,
      aliases=aliases,
    )
  ]
  for layer in range(config.layers):
    ours, theirs = f"decoder/layers/{layer}", f"{_PREFIX}layers.{layer}"
    pairs.append(
      Pair(
        ours=f"{ours}/pre_self_attention_layer_norm/scale",
        theirs=f"{theirs}.input_layernorm.weight",
      )
    )
    pairs += [
      Pair(
        ours=f"{ours}/self_attention/{long}/kernel",
        theirs=f"{theirs}.self_attn.{short}_proj.weight",
        transpose=True,
      )
      for short, long in _ATTENTION.items()
    ]
    pairs.append(
      Pair(
        ours=f"{ours}/pre_mlp_layer_norm/scale",
        theirs=f"{theirs}.post_attention_layernorm.weight",
      )
    )
    pairs += [
      Pair(
        ours=f"{ours}/mlp/{our}/kernel", theirs=f"{theirs}.mlp.{their}_proj.weight", transpose=True
      )
      for their, our in _MLP.items()
    ]
  pairs.append(Pair(ours="decoder/decoder_norm/scale", theirs=f"{_PREFIX}norm.weight"))
  return [*pairs, *families.head(config, _HEAD)]


def _rope(content: Mapping[str, Any]) -> tuple[float, Llama3Scaling | None]:
  """Theta and the scaling of the angles, of either version of transformers."""
  # Of both transformers takes the older name.
  stated = content.get("rope_scaling") or content.get("rope_parameters") or {}
  # Version 4 has it outside and version 5 inside; files that were written by both have two.
  given = {source["rope_theta"] for source in (content, stated) if source.get("rope_theta")}
  if len(given) > 1:
    raise errors.ConfigError(
      f"config.json of a LLaMA has rope_theta={content['rope_theta']} and, within its rotations,"
      f" {stated['rope_theta']}: versions 4 and 5 of transformers would rotate differently, so keep the"
      " one that the model was trained with in a copy of the file."
    )
  # The value of the first LLaMA, which its files do not mention.
  theta = float(given.pop()) if given else 10_000.0
  for key, value in stated.items():
    # Null and 1 are no angle and no factor that would change anything.
    if key not in _ROPE and value not in (None, 1, {}, []):
      raise errors.ConfigError(
        f"config.json of a LLaMA rotates with {key}={value!r}, which our network does not know; it has"
        f" {', '.join(_ROPE)}."
      )
  # The key was called `type` before it was called `rope_type`.
  kind = stated.get("rope_type", stated.get("type", "default"))
  if kind == "default":
    return theta, None
  # Without all of them the frequencies of long contexts cannot be computed.
  missing = [key for key in _SCALING if key not in stated]
  if kind != "llama3" or missing:
    lacks = f" without {', '.join(missing)}" if kind == "llama3" else ""
    raise errors.ConfigError(
      f"config.json of a LLaMA has rope_type={kind!r}{lacks}; our network has 'default', and"
      f" 'llama3' with {', '.join(_SCALING)}."
    )
  return theta, Llama3Scaling(**{ours: stated[theirs] for theirs, ours in _SCALING.items()})


FAMILY = Family(
  name="LLaMA",
  settings=known.LLAMA,
  model_types=("llama",),
  config_type=DecoderLMConfig,
  signature=r"(model\.)?layers\.0\.self_attn\.q_proj\.weight",
  config_from=config_from,
  config_to=config_to,
  names=names,
  writes=writes,
  base_prefix=_PREFIX,
  # Tables of rotations, in files of old versions.
  ignored=(r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
)
