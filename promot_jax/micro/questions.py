"""Questions with records like TriviaQA, WebQuestions, NQ-open and OpenbookQA."""

from collections.abc import Iterator

from promot_jax.micro import knowledge, lexicon
from promot_jax.micro.dice import Dice

_OPENERS = ("", "now ", "so ", "please ")


def trivia_qa(seed: int) -> Iterator[dict]:
  """Every fact in every wording of TriviaQA's style, in an order given by the seed."""
  asked = [
    (opener + wording.format(s=fact.subject), fact.value)
    for fact in knowledge.facts(seed)
    for wording in knowledge.RELATIONS[fact.relation].trivia
    for opener in _OPENERS
  ]
  # Shuffled before they are cut into splits: each has all relations.
  for number, (question, value) in enumerate(Dice("trivia_qa", seed).shuffled(asked)):
    lower = value.lower()
    yield {
      "question": question,
      "question_id": f"micro_{number}",
      "question_source": "micro",
      "answer": {
        # One spelling: the world has no aliases.
        "value": value,
        "aliases": [value],
        "normalized_value": lower,
        "normalized_aliases": [lower],
        "matched_wiki_entity_name": "",
        "normalized_matched_wiki_entity_name": "",
        "type": "FreeForm",
      },
    }


def web_questions(seed: int) -> Iterator[dict]:
  """Every fact in every wording of WebQuestions' style, in an order given by the seed."""
  asked = [
    (opener + wording.format(s=fact.subject), fact)
    for fact in knowledge.facts(seed)
    for wording in knowledge.RELATIONS[fact.relation].web
    for opener in _OPENERS
  ]
  for question, fact in Dice("web_questions", seed).shuffled(asked):
    yield {
      "question": question,
      "answers": [fact.value],
      "url": f"micro/{fact.relation}/{fact.subject}",
    }


# As one types them into a search, without a mark at the end; {r} is the name of a relation.
_SEARCHES = (
  "{r} of {s}",
  "the {r} of {s}",
  "{s} {r}",
  "name the {r} of {s}",
  "find the {r} of {s}",
  "what {r} for {s}",
)


def nq_open(seed: int) -> Iterator[dict]:
  """Every fact in every wording of NQ-open's style, in an order given by the seed."""
  asked = [
    (opener + wording.format(s=fact.subject, r=fact.relation), fact.value)
    for fact in knowledge.facts(seed)
    for wording in _SEARCHES
    for opener in _OPENERS
  ]
  for question, value in Dice("nq_open", seed).shuffled(asked):
    yield {"question": question, "answer": [value]}


_STEMS = {
  "kind": (
    "a {thing} is a kind of",
    "what kind of thing is a {thing}?",
    "a {thing} belongs to the kind",
    "you can say that a {thing} is a kind of",
  ),
  "found": (
    "a {thing} is found in the",
    "where do you find a {thing}?",
    "you can see a {thing} in the",
    "the place of a {thing} is the",
  ),
}


def openbookqa(dice: Dice) -> dict:
  """One four-choice question on the kind of a thing or on the place where such things are."""
  kind = dice.pick(tuple(lexicon.KINDS))
  thing = dice.pick(lexicon.KINDS[kind])
  topic = dice.pick(tuple(_STEMS))
  # Wrong answers are of the same sort as the right one.
  kinds = dice.shuffled([other for other in lexicon.KINDS if other != kind])[:3]
  key = int(dice.pick(range(4)))
  # At any letter alike, so that a letter by itself says nothing.
  kinds.insert(key, kind)
  choices = [lexicon.FOUND_IN[each] for each in kinds] if topic == "found" else kinds
  fact = f"found in the {lexicon.FOUND_IN[kind]}" if topic == "found" else f"a kind of {kind}"
  return {
    "question": {
      "stem": dice.pick(_STEMS[topic]).format(thing=thing),
      **{f"choice_{letter}": choice for letter, choice in zip("ABCD", choices)},
    },
    "answerKey": key,
    "fact1": f"a {thing} is {fact}.",
    "clarity": 2.0,
    "humanScore": 1.0,
    "turkIdAnonymized": "micro",
  }
