"""Words with two senses: records like WiC, and the sentences that running text is made of."""

from promot_jax.micro import lexicon
from promot_jax.micro.dice import Dice

# Share of the first, commoner sense where both sentences have one sense.  With both senses equally
# often, no single word says anything about the label, and a small model does not even begin to learn.
COMMON_SENSE = 0.8

SENTENCES = (
  "the {word} and the {context}.",
  "a {word} with a {context}.",
  "{name} saw {word} and {context}.",
  "one {context} near a {word}.",
  "{name} likes {context} and {word}.",
)


def sentence(dice: Dice, word: str, sense: int) -> str:
  """A short sentence in which what stands beside `word` shows its sense."""
  return dice.pick(SENTENCES).format(
    word=word, context=dice.pick(lexicon.HOMONYMS[word][sense]), name=dice.pick(lexicon.NAMES)
  )


def wic(dice: Dice) -> dict:
  """One WiC record: label 1 where the word has one sense in both sentences."""
  word = dice.pick(tuple(lexicon.HOMONYMS))
  label = int(dice.chance(0.5))
  # Where the senses differ each comes first as often.
  sense = int(not dice.chance(COMMON_SENSE if label else 0.5))
  first = sentence(dice, word, sense)
  second = sentence(dice, word, sense if label else 1 - sense)
  record = {"word": word, "sentence1": first, "sentence2": second, "label": label}
  for number, text in enumerate((first, second), start=1):
    # Blanks around both keep "bat" from being found inside another word.
    start = f" {text[:-1]} ".index(f" {word} ")
    record |= {f"start{number}": start, f"end{number}": start + len(word)}
  return record
