"""Sentences in English and in the world's French, German and Romanian.

Each language has its own words and its own order.  French puts the adjective after the noun, German
the verb last, Romanian has no article and puts the adjective after the noun.
"""

import dataclasses

from promot_jax.micro import lexicon
from promot_jax.micro.dice import Dice

# In the order of the columns of `lexicon.TRANSLATIONS`.
LANGUAGES = ("fr", "de", "ro")


@dataclasses.dataclass(frozen=True)
class Clause:
  """Who does what to whom, where; an empty word is left out."""

  subject: tuple[str, str]  # adjective, noun
  verb: str
  object: tuple[str, str]
  place: str


def draw_clause(dice: Dice) -> Clause:
  """A clause whose adjectives and place are there in half of the cases each."""
  subject, patient = dice.pick_two(lexicon.SPOKEN_NOUNS)
  return Clause(
    (dice.pick(lexicon.SPOKEN_ADJECTIVES) if dice.chance(0.5) else "", subject),
    dice.pick(lexicon.SPOKEN_VERBS),
    (dice.pick(lexicon.SPOKEN_ADJECTIVES) if dice.chance(0.5) else "", patient),
    dice.pick(lexicon.SPOKEN_PLACES) if dice.chance(0.4) else "",
  )


def say(clause: Clause, language: str) -> str:
  """The clause as a sentence of 'en', 'fr', 'de' or 'ro'."""
  adjective_last = language in ("fr", "ro")
  phrases = []
  for adjective, noun in (clause.subject, clause.object):
    phrases.append(["the", noun, adjective] if adjective_last else ["the", adjective, noun])
  place = ["in", "the", clause.place] if clause.place else []
  if language == "de":
    place = place[:1] + place[2:]  # the article is part of the preposition
    words = [*phrases[0], *phrases[1], *place, clause.verb]
  else:
    words = [*phrases[0], clause.verb, *phrases[1], *place]
  if language != "en":
    # Word for word, after the order is settled in English.
    column = LANGUAGES.index(language)
    words = [lexicon.TRANSLATIONS[word][column] for word in words if word]
  # Romanian's article is empty, as is an adjective that was not drawn.
  return " ".join(word for word in words if word) + "."


def translation(dice: Dice, language: str) -> dict:
  """One record of a WMT set from English: {'en': ..., language: ...}."""
  clause = draw_clause(dice)
  return {"en": say(clause, "en"), language: say(clause, language)}
