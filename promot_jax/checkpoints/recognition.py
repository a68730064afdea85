"""What a checkpoint probably is, told from names and shapes alone, for messages about a wrong one."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.published_sizes import SIZES


class Facts(NamedTuple):
  """Figures of a backbone that its parameters show; None where they do not."""

  vocabulary: int | None
  width: int | None
  mlp_width: int | None
  encoder_layers: int
  decoder_layers: int

  @property
  def stack_layers(self) -> dict[str, int]:
    """As a backbone's configuration says it."""
    counts = {"encoder": self.encoder_layers, "decoder": self.decoder_layers}
    return {name: count for name, count in counts.items() if count}


def looks_like(leaves: Mapping[str, Any]) -> str:
  """A phrase such as 'it looks like mt5_base, vocabulary 250112'; '' if nothing can be told.

  Args:
    leaves: anything with a shape by our parameter names, layers unrolled or stacked.
  """
  facts = facts_of(leaves)
  if facts.width is None:
    return ""
  named = _nearest_size(facts)
  # Of decoder-only models one number, of others '12 + 12'.
  layers = " + ".join(map(str, facts.stack_layers.values()))
  what = (
    f"like {named}" if named else f"like no published size: width {facts.width}, layers {layers}"
  )
  mlp = f", mlp width {facts.mlp_width}" if not named and facts.mlp_width else ""
  return f"it looks {what}{mlp}, vocabulary {facts.vocabulary}"


def size_of(leaves: Mapping[str, Any]) -> str:
  """Name of the published size whose figures, vocabulary included, these are; '' if there is none.

  Also '' where shapes do not tell the arithmetic: checkpoints of equal shapes rotate differently.
  """
  facts = facts_of(leaves)
  name = _nearest_size(facts) if facts.width is not None else ""
  # This one was compared at the very vocabulary that was found.
  if not name or name == "micro":
    return name
  config = SIZES[name]()
  known = config.vocab_size == facts.vocabulary
  # Rotated positions leave no trace in shapes, and their theta decides over the arithmetic.
  turned = isinstance(config, DecoderLMConfig) and config.rotary is not None
  return name if known and not turned else ""


def facts_of(leaves: Mapping[str, Any]) -> Facts:
  """The figures that names and shapes show."""
  embedding: tuple[int, ...] = getattr(leaves.get("token_embedder/embedding"), "shape", ())
  mlp = [
    leaf.shape[-1] for name, leaf in leaves.items() if re.search(r"/mlp/wi(_0)?/kernel$", name)
  ]
  return Facts(
    # Of a table in two dimensions only: anything else is damaged or of another library.
    vocabulary=embedding[0] if len(embedding) == 2 else None,
    width=embedding[1] if len(embedding) == 2 else None,
    mlp_width=mlp[0] if mlp else None,
    encoder_layers=_layers(leaves, "encoder"),
    decoder_layers=_layers(leaves, "decoder"),
  )


def _layers(leaves: Mapping[str, Any], stack: str) -> int:
  numbers, stacked = set(), 0
  for name, leaf in leaves.items():
    if match := re.fullmatch(rf"{stack}/layers/(\d+)/.*", name):
      numbers.add(int(match[1]))
    elif name.startswith(f"{stack}/layers/") and leaf.shape:
      stacked = leaf.shape[0]
  # Unrolled layers have their numbers in the names, stacked ones their count in the first axis.
  return len(numbers) or stacked


def _nearest_size(facts: Facts) -> str:
  """The published size of these figures whose vocabulary is nearest; '' if there is none."""
  fitting: dict[str, int] = {}
  for name, size in SIZES.items():
    # Of this one alone the vocabulary is no part of the size.
    config = size(vocab_size=facts.vocabulary) if name == "micro" else size()
    if (
      config.width == facts.width
      and config.stack_layers == facts.stack_layers
      # None: no kernel of an mlp was found, and so no size is ruled out by it.
      and facts.mlp_width in (None, config.mlp_width)
    ):
      fitting[name] = abs(config.vocab_size - (facts.vocabulary or 0))
  return min(fitting, key=lambda name: fitting[name], default="")
