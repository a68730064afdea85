"""Questions on a passage that has their answer: records like SQuAD, and like three of MRQA's other sets.

Passages say other things than the world's facts, so that they have to be read.  SQuAD's are facts on
several people and cities in prose, asked for in TriviaQA's style.  The others keep their passages, their
questions, or neither:

| like                | passage              | question                                 |
|---------------------|----------------------|------------------------------------------|
| RelationExtraction  | facts, as SQuAD's    | in WebQuestions' style                   |
| TextbookQA          | kinds of things      | for a thing's kind or place              |
| DuoRC               | events of a story    | for what, where or when                  |
"""

from collections.abc import Callable, Sequence

from promot_jax.micro import knowledge, lexicon
from promot_jax.micro.dice import Dice

_OF_CITIES = ("country", "river", "product")
_OF_PEOPLE = tuple(name for name in knowledge.RELATIONS if name not in _OF_CITIES)


def squad(dice: Dice) -> dict:
  """One SQuAD record."""
  return _on_facts(dice, lambda relation: relation.trivia)


def relation_extraction(dice: Dice) -> dict:
  """One record like MRQA's RelationExtraction: SQuAD's passages, other questions."""
  return _on_facts(dice, lambda relation: relation.web)


def textbook_qa(dice: Dice) -> dict:
  """One record like MRQA's TextbookQA: kinds of things, and where they are."""
  kinds = dice.shuffled(tuple(lexicon.KINDS))[:3]
  found_in = dice.shuffled(tuple(lexicon.FOUND_IN.values()))[:3]
  # Where a kind is found is drawn: by heart it would be another place.
  rows = [(dice.pick(lexicon.KINDS[kind]), kind, place) for kind, place in zip(kinds, found_in)]
  passage = " ".join(
    f"a {thing} is a kind of {kind} and is found in the {place}." for thing, kind, place in rows
  )
  thing, kind, place = dice.pick(rows)
  question, answer = dice.pick(
    (
      (f"what kind of thing is a {thing}?", kind),
      (f"where do you find a {thing}?", place),
      (f"what is found in the {place}?", thing),
    )
  )
  return _record(passage, question, answer)


def duorc(dice: Dice) -> dict:
  """One record like MRQA's DuoRC: a story of three events."""
  # Different people, things, places and days, so that a question has one answer.
  columns = (lexicon.NAMES, tuple(lexicon.ACTIONS), lexicon.THINGS, lexicon.PLACES, lexicon.DAYS)
  rows = list(zip(*(dice.shuffled(column)[:3] for column in columns)))
  passage = " ".join(
    f"on {day} {name} {lexicon.ACTIONS[action]} the {thing} in the {place}."
    for name, action, thing, place, day in rows
  )
  name, action, thing, place, day = dice.pick(rows)
  question, answer = dice.pick(
    (
      (f"what does {name} {action} on {day}?", thing),
      (f"where does {name} {action} the {thing}?", place),
      (f"what do you find in the {place} on {day}?", thing),
    )
  )
  return _record(passage, question, answer)


def _on_facts(dice: Dice, wordings: Callable[[knowledge.Relation], Sequence[str]]) -> dict:
  """Facts on two people and a city, and a question about one of them."""
  one, other = dice.pick_two(lexicon.NAMES)
  first, second = dice.pick_two(_OF_PEOPLE)
  # The second relation of both: whose it is has to be read, too.
  asked = [(one, first), (one, second), (other, second)]
  asked.append((dice.pick(lexicon.CITIES), dice.pick(_OF_CITIES)))
  facts = [
    (subject, name, dice.pick(knowledge.RELATIONS[name].values))
    for subject, name in dice.shuffled(asked)
  ]
  passage = " ".join(
    dice.pick(knowledge.RELATIONS[name].prose).format(s=subject, v=value)
    for subject, name, value in facts
  )
  subject, name, value = dice.pick(facts)
  return _record(passage, dice.pick(wordings(knowledge.RELATIONS[name])).format(s=subject), value)


def _record(passage: str, question: str, answer: str) -> dict:
  return {"context": passage, "question": question, "answers": {"text": [answer]}}
