"""GPT-2 of transformers: query, key and value in one kernel [in, 3 * out], and a tied head.

Its linear layers are stored [in, out], unlike those of every other family.
"""

from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families, known, special_tokens
from promot_jax.checkpoints.huggingface.families import Family, Pair
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.models.decoder_lm_config import DecoderLMConfig

_PREFIX = "transformer."
_HEAD = "lm_head.weight"
_SHAPE = {"vocab_size": "vocab_size", "layers": "n_layer", "width": "n_embd", "heads": "n_head"}
# transformers' names of activations.
_ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}
_ACTIVATIONS.update(relu="relu", silu="silu")


def config_from(
  content: Mapping[str, Any], tensors: Mapping[str, StoredArray] | None
) -> DecoderLMConfig:
  """Our configuration of a config.json of `model_type` gpt2; its tensors say nothing more.

  Raises:
    ConfigError: a value is missing, or asks for arithmetic that our model does not have.
  """
  del tensors
  activation = content.get("activation_function", "gelu_new")
  if activation not in _ACTIVATIONS:
    raise errors.ConfigError(
      f"config.json of a GPT-2 has activation_function={activation!r}; our network has"
      f" {', '.join(_ACTIVATIONS)}."
    )
  shape = families.required(content, _SHAPE, of="GPT-2")
  width, heads = shape["width"], shape["heads"]
  if width % heads:
    raise errors.ConfigError(
      f"config.json of a GPT-2 has n_embd={width} and n_head={heads}; the former must be a multiple of"
      " the latter."
    )
  dropout = content.get("resid_pdrop", 0.1)
  tokens = special_tokens.read(content, eos=50_256)
  return DecoderLMConfig(
    **shape,
    head_width=width // heads,
    # Four times the width where the file says nothing, as in the paper.
    mlp_width=content.get("n_inner") or 4 * width,
    mlp_activations=(_ACTIVATIONS[activation],),
    max_positions=content.get("n_positions", 1024),
    norm_epsilon=content.get("layer_norm_epsilon", 1e-5),
    tied_logits=bool(content.get("tie_word_embeddings", True)),
    dropout_rate=dropout,
    attention_dropout_rate=_other(content, "attn_pdrop", dropout),
    embedding_dropout_rate=_other(content, "embd_pdrop", dropout),
    # GPT-2 has one special token, which begins and ends a text.
    bos=tokens.eos if tokens.bos is None else tokens.bos,
    eos=tokens.eos,
    output_ends=tokens.output_ends,
    forced_eos=tokens.forced_eos,
    written_pad=tokens.pad,
  )


def config_to(config: DecoderLMConfig) -> dict[str, Any]:
  """config.json that transformers 4 and 5 both read as the same arithmetic."""
  # Reversed, so that of two names of one activation the first is written.
  back = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
  return {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": config.vocab_size,
    "n_positions": config.max_positions,
    "n_ctx": config.max_positions,
    "n_embd": config.width,
    "n_layer": config.layers,
    "n_head": config.heads,
    "n_inner": config.mlp_width,
    "activation_function": back[config.mlp_activations[0]],
    "layer_norm_epsilon": config.norm_epsilon,
    "resid_pdrop": config.dropout_rate,
    "embd_pdrop": config.rate_of_embedding_dropout,
    "attn_pdrop": config.rate_of_attention_dropout,
    "tie_word_embeddings": config.tied_logits,
    "bos_token_id": config.eos if config.bos is None else config.bos,
    **special_tokens.of_config_json(config),
    "use_cache": True,
  }


def writes(config: DecoderLMConfig) -> bool:
  """Whether transformers' GPT-2 computes this model."""
  return (
    (config.positions, config.norm, config.source_attention) == ("learned", "layer", "causal")
    and config.use_bias
    and not (config.parallel or config.scale_logits)
    # Theirs has no heads that share keys, and no width of a head that is not width / heads.
    and config.key_heads == config.heads
    and config.heads * config.head_width == config.width
    and len(config.mlp_activations) == 1
    and config.mlp_activations[0] in _ACTIVATIONS.values()
  )


def names(config: DecoderLMConfig) -> list[Pair]:
  """The table of one GPT-2."""
  aliases = (_HEAD,) if config.tied_logits else ()
  pairs = [
    Pair(
      ours="token_embedder/embedding", theirs=f"{_PREFIX}wte.weight", vocab_axis=0, aliases=aliases
    ),
    Pair(ours="decoder/position_embedder/embedding", theirs=f"{_PREFIX}wpe.weight"),
  ]
  for layer in range(config.layers):
    ours, theirs = f"decoder/layers/{layer}", f"{_PREFIX}h.{layer}"
    pairs += families.norm(f"{ours}/pre_self_attention_layer_norm", f"{theirs}.ln_1")
    # Kernel and bias of one layer have the same names and the same cut.
    for leaf, their_leaf in (("kernel", "weight"), ("bias", "bias")):
      attention, mlp = f"{ours}/self_attention", f"{ours}/mlp"
      # Theirs is one kernel of all three, side by side; ours are cut along the output.
      fused = [f"{attention}/{part}/{leaf}" for part in ("query", "key", "value")]
      pairs += [
        Pair(ours=fused, theirs=f"{theirs}.attn.c_attn.{their_leaf}"),
        Pair(ours=f"{attention}/out/{leaf}", theirs=f"{theirs}.attn.c_proj.{their_leaf}"),
        Pair(ours=f"{mlp}/wi/{leaf}", theirs=f"{theirs}.mlp.c_fc.{their_leaf}"),
        Pair(ours=f"{mlp}/wo/{leaf}", theirs=f"{theirs}.mlp.c_proj.{their_leaf}"),
      ]
    pairs += families.norm(f"{ours}/pre_mlp_layer_norm", f"{theirs}.ln_2")
  pairs += families.norm("decoder/decoder_norm", f"{_PREFIX}ln_f")
  return [*pairs, *families.head(config, _HEAD)]


def _other(content: Mapping[str, Any], name: str, dropout: float) -> float | None:
  """A rate of its own; None where it is that of the residuals."""
  rate = content.get(name, 0.1)
  return None if rate == dropout else rate


FAMILY = Family(
  name="GPT-2",
  settings=known.GPT2,
  model_types=("gpt2",),
  config_type=DecoderLMConfig,
  signature=r"(transformer\.)?h\.0\.attn\.c_attn\.weight",
  config_from=config_from,
  config_to=config_to,
  names=names,
  writes=writes,
  base_prefix=_PREFIX,
  # Causal masks, in files of old versions.
  ignored=(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",),
)
