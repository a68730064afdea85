"""Whether a backbone can be given the tokens of a vocabulary and of examples, or those of another one."""

from collections.abc import Mapping
from typing import Any

from promot_jax.data.examples import Examples
from promot_jax.data.token_families import is_decoder_only
from promot_jax.data.vocabularies import Vocabulary
from promot_jax.errors import ConfigError
from promot_jax.models.backbone import writes_text
from promot_jax.networks.network import AnyNetwork
from promot_jax.token_ids import TokenIds


def check(vocabulary: Vocabulary, name: str, backbone: Any) -> None:
  """Whether a backbone can be given the tokens of a vocabulary.

  Args:
    name: the vocabulary's, for messages.
    backbone: a configuration with `vocab_size`, `pad`, `eos` and `decoder_start`.

  Raises:
    ConfigError: it cannot.
  """
  # More rows than tokens are usual: T5's table is padded to 32128 for 32100 tokens.
  if vocabulary.size > backbone.vocab_size:
    raise ConfigError(
      f"vocabulary {name} has tokens up to {vocabulary.size - 1}, and the model's embedding has "
      f"{backbone.vocab_size} rows: the model was made with another one. Set VOCABULARY to the "
      f"model's, or take a model with at least {vocabulary.size} rows."
    )
  # How texts are framed tells the kind: an encoder-decoder's input ends with eos, a decoder-only
  # model's with what leads to its answer.
  writes = writes_text(backbone)
  alone = writes and backbone.decoder_start is None
  either = getattr(vocabulary, "serves_decoders", False)
  if is_decoder_only(vocabulary.family) != alone and not (alone and either):
    kind = "decoder-only" if alone else "an encoder-decoder" if writes else "an encoder alone"
    wanted = "gpt2' or '?family=llama" if alone else "t5' or '?family=bart"
    raise ConfigError(
      f"vocabulary {name} frames texts as for family '{vocabulary.family}', and the model is {kind}; "
      f"set VOCABULARY to the model's own, 'hf:FOLDER', or add '?family={wanted}' to it."
    )
  special = TokenIds.of(backbone)
  # An encoder alone never ends a text by itself.
  names = ["pad", "eos"] if writes else ["pad"]
  if vocabulary.input_frame.prefix and backbone.bos is not None:
    names.append("bos")
  ours, models = (
    {each: getattr(owner, each) for each in names} for owner in (vocabulary, backbone)
  )
  # The tokenizer of a model that talks often ends texts by another of its ends.
  if writes and vocabulary.eos in special.ends:
    models["eos"] = vocabulary.eos
  if ours != models:
    if len(special.ends) > 1:
      models["eos"] = " or ".join(map(str, special.ends))
    said = (", ".join(f"{each}={ids[each]}" for each in names) for ids in (ours, models))
    raise ConfigError(
      "vocabulary {} has {}, and the model's configuration {}. Set VOCABULARY to the model's, or"
      " these values of MODEL to the vocabulary's.".format(name, *said)
    )


def check_examples(examples: Examples, rows: int) -> None:
  """Whether a backbone has an embedding for every token.

  Args:
    rows: of its embedding table.

  Raises:
    ConfigError: it has not.
  """
  # Looked at now: a gather clamps a token beyond the table to its last row in silence.
  largest = max(
    (int(tokens.max()) for part in (examples.inputs, examples.targets) for tokens in part),
    default=0,
  )
  if largest >= rows:
    # T5's tables have 32128 rows, so a token beyond them is most likely mT5's.
    likely = "an mT5 vocabulary (250112 rows)" if largest >= 32128 else "another vocabulary"
    raise ConfigError(
      f"{examples.name} has token {largest}, but the model's embedding has {rows} rows: the task "
      f"was made with {likely}. Set VOCABULARY to the model's."
    )


def difference(networks: Mapping[str, AnyNetwork]) -> str:
  """How the tokens of networks differ, as a part of a sentence; empty where all have the same ones.

  Args:
    networks: by what a sentence calls them.
  """
  # Token by token is compared, so rows and special ids count as much as the vocabulary's name.
  tokens = {
    who: (network.vocabulary, network.backbone.vocab_size, TokenIds.of(network.backbone))
    for who, network in networks.items()
  }
  first, *_ = tokens
  other = next((who for who, own in tokens.items() if own != tokens[first]), None)
  if other is None:
    return ""
  return "; ".join(
    f"{who} has vocabulary '{words}', {rows} rows, {ids}"
    for who in (first, other)
    for words, rows, ids in (tokens[who],)
  )
