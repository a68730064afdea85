"""The knowledge base: every person and city with a value for each relation, and how it is said."""

import dataclasses
import functools

from promot_jax.micro import lexicon
from promot_jax.micro.dice import Dice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation:
  """One kind of fact and its wordings; {s} is the subject and {v} the value.

  Attributes:
    subjects: whom it is about: names or cities.
    values: what it can say.
    prose: statements, as they stand in running text.
    trivia: questions in the style of TriviaQA.
    web: questions in the style of WebQuestions.
  """

  subjects: tuple[str, ...]
  values: tuple[str, ...]
  prose: tuple[str, ...]
  trivia: tuple[str, ...]
  web: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Fact:
  """`subject`'s value of `relation` (a key of RELATIONS)."""

  subject: str
  relation: str
  value: str


def _relation(subjects, values, prose, trivia, web) -> Relation:
  return Relation(
    subjects=tuple(subjects),
    values=tuple(values),
    prose=tuple(prose.split("|")),
    trivia=tuple(trivia.split("|")),
    web=tuple(web.split("|")),
  )


RELATIONS: dict[str, Relation] = {
  "home": _relation(
    lexicon.NAMES,
    lexicon.CITIES,
    "{s} lives in the city {v}.|the home of {s} is the city {v}.",
    "in which city does {s} live?|which city is the home of {s}?|{s} lives in which city?"
    "|the home of {s} is which city?|what is the city where {s} lives?",
    "where does {s} live?|what city is {s} from?|where is {s} from?|where is the home of {s}?"
    "|what city does {s} live in?",
  ),
  "job": _relation(
    lexicon.NAMES,
    lexicon.JOBS,
    "{s} has the job of a {v}.|the job of {s} is {v}.",
    "which job has {s}?|what is the job of {s}?|{s} has which job?|the job of {s} is which?"
    "|in which job does {s} work?",
    "what job does {s} do?|what does {s} do for work?|what is {s} by job?|what work does {s} do?"
    "|what job does {s} have?",
  ),
  "pet": _relation(
    lexicon.NAMES,
    lexicon.PETS,
    "{s} has a pet {v}.|the pet of {s} is a {v}.",
    "which pet has {s}?|what is the pet of {s}?|{s} has which pet?|the pet of {s} is which?"
    "|which pet is at the home of {s}?",
    "what pet does {s} have?|what kind of pet does {s} have?|what pet lives with {s}?"
    "|what pet is with {s}?|what is {s} having as a pet?",
  ),
  "food": _relation(
    lexicon.NAMES,
    lexicon.FOODS,
    "{s} likes to eat {v}.|the food of {s} is {v}.",
    "which food likes {s}?|what is the food of {s}?|{s} likes to eat which food?"
    "|the food of {s} is which?|which food is eaten by {s}?",
    "what does {s} like to eat?|what food does {s} like?|what kind of food does {s} eat?"
    "|what does {s} eat?|what food does {s} have?",
  ),
  "instrument": _relation(
    lexicon.NAMES,
    lexicon.INSTRUMENTS,
    "{s} plays the instrument {v}.|the instrument of {s} is the {v}.",
    "which instrument has {s}?|what is the instrument of {s}?|{s} has which instrument?"
    "|the instrument of {s} is which?|on which instrument does {s} play?",
    "what instrument does {s} play?|what does {s} play at the concert?"
    "|what kind of instrument does {s} have?|what instrument does {s} own?"
    "|what is {s} playing at the concert?",
  ),
  "sport": _relation(
    lexicon.NAMES,
    lexicon.SPORTS,
    "{s} does the sport {v}.|the sport of {s} is {v}.",
    "which sport does {s} do?|what is the sport of {s}?|{s} does which sport?"
    "|the sport of {s} is which?|in which sport is {s}?",
    "what sport does {s} like?|what kind of sport does {s} do?|what does {s} do as a sport?"
    "|what sport does {s} do?|what sport is {s} in?",
  ),
  "color": _relation(
    lexicon.NAMES,
    lexicon.COLORS,
    "{s} likes the color {v}.|the color of {s} is {v}.",
    "which color likes {s}?|what is the color of {s}?|{s} likes which color?"
    "|the color of {s} is which?|in which color is the home of {s}?",
    "what color does {s} like?|what color does {s} wear?|what kind of color does {s} like?"
    "|what color is {s} in?|what is {s} having as a color?",
  ),
  "country": _relation(
    lexicon.CITIES,
    lexicon.COUNTRIES,
    "the city {s} is in the country {v}.|the country of {s} is {v}.",
    "in which country is {s}?|what is the country of {s}?|{s} is in which country?"
    "|the country of {s} is which?|which country has the city {s}?",
    "what country is {s} in?|what country does {s} belong to?|where is the city {s}?"
    "|where is {s} on the map?|what country do you find {s} in?",
  ),
  "river": _relation(
    lexicon.CITIES,
    lexicon.RIVERS,
    "the city {s} is on the river {v}.|the river of {s} is the {v}.",
    "on which river is {s}?|what is the river of {s}?|{s} is on which river?"
    "|the river of {s} is which?|which river has the city {s}?",
    "what river is {s} on?|what river runs by {s}?|what river do you find in {s}?"
    "|what river does {s} have?|what kind of river is in {s}?",
  ),
  "product": _relation(
    lexicon.CITIES,
    lexicon.PRODUCTS,
    "the city {s} sells {v}.|the product of {s} is {v}.",
    "which product has {s}?|what is the product of {s}?|{s} has which product?"
    "|the product of {s} is which?|which product has the city {s}?",
    "what does {s} sell?|what product does {s} have?|what product do you find in {s}?"
    "|what kind of product does {s} sell?|what do you buy in {s}?",
  ),
}


@functools.cache
def facts(seed: int = 0) -> tuple[Fact, ...]:
  """All facts of the world with that seed: each subject has one value for each of its relations.

  Values are dealt out evenly, so that guessing the commonest answer of a relation gains little.
  """
  found = []
  for name, relation in RELATIONS.items():
    # As many copies as give every subject a value.
    repeats = -(-len(relation.subjects) // len(relation.values))
    # Each relation has dice of its own, so that a further one moves no facts.
    values = Dice("facts", name, seed).shuffled(relation.values * repeats)
    found += [Fact(subject, name, value) for subject, value in zip(relation.subjects, values)]
  return tuple(found)
