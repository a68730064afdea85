"""Running text of the world that no model of it was pretrained on, for its perplexity.

Texts are drawn as those of pretraining are, from another stream of random numbers, and those that occur in
pretraining are left out.  The facts in them are the world's, which pretraining told in other texts.
"""

import functools
from collections.abc import Iterator

from promot_jax.micro import decoder_pretraining, pretraining, prose, world
from promot_jax.micro.curriculum import TEXT
from promot_jax.micro.dice import Dice
from promot_jax.micro.vocabulary import EOS, vocabulary

MOST = 2048
"""Texts that there are."""


def pairs(count: int, *, gaps: bool) -> list[tuple[list[int], list[int]]]:
  """The first texts as ids of inputs and targets.

  Args:
    count: how many, at most `MOST`.
    gaps: a text with gaps and the gaps, as an encoder-decoder was pretrained; else the end mark before a text and
      the text, as a decoder-only model was.
  """
  words = vocabulary()
  found = texts()[:count]
  if not gaps:
    return [([EOS], [*words.encode(text), EOS]) for text in found]
  # Each by its own dice: how many are asked for changes none of them.
  return [
    pretraining.corrupt(words.encode(text), Dice("held-out gaps", number), words)
    for number, text in enumerate(found)
  ]


@functools.cache
def texts() -> tuple[str, ...]:
  """All of them, no two alike."""
  known = {text for text, _ in pretraining.texts_with_gaps(world.SEED)}
  known.update(_of_decoders())
  dice, found = Dice("held-out text", world.SEED), dict[str, None]()
  while len(found) < MOST:
    if (text := prose.text(dice, world.SEED)) not in known:
      found[text] = None
  return tuple(found)


def _of_decoders() -> Iterator[str]:
  dice = decoder_pretraining.dice_of(TEXT, world.SEED)
  return (prose.text(dice, world.SEED) for _ in range(pretraining.TEXTS))
