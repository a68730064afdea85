"""Facts in tables with texts that say them: records like E2E, WebNLG and DART.

Values are drawn for each record and are none of the world's facts, so that a text has to be read from its
table.  A record has two or three references, in no order; each says all of the table in other words.
WebNLG's topics are kinds of facts.  Those of HELD_OUT_TOPICS are in no split but `test`: their names and how
they are said is what the model's running text taught, not the task.
"""

from collections.abc import Mapping, Sequence

from promot_jax.micro import knowledge, lexicon
from promot_jax.micro.dice import Dice

# Relations of `knowledge.RELATIONS` by topic.
TOPICS: Mapping[str, Sequence[str]] = {
  "Resident": ("home", "job"),
  "Taste": ("food", "color"),
  "Pastime": ("instrument", "sport", "pet"),
}
HELD_OUT_TOPICS: Mapping[str, Sequence[str]] = {"City": ("country", "river", "product")}

_HOUSES = "hotel kitchen market house".split()  # noqa: SIM905
_AREAS = "river beach island lake ocean".split()  # noqa: SIM905


def e2e(dice: Dice) -> dict:
  """One E2E record: a house where one eats, by attributes and values."""
  # Two different names: a house and its neighbour.
  name, near = (
    f"{color} {animal}"
    for color, animal in zip(dice.pick_two(lexicon.COLORS), dice.pick_two(lexicon.PETS))
  )
  found = {"name": name, "eatType": dice.pick(_HOUSES)}
  optional = {
    "food": dice.pick(lexicon.FOODS),
    "priceRange": dice.pick(("cheap", "high")),
    "area": dice.pick(_AREAS),
    "near": f"the {near}",
  }
  kept = [attribute for attribute in optional if dice.chance(0.65)]
  # A name and a kind alone would say too little.
  for attribute in kept or [dice.pick(tuple(optional))]:
    found[attribute] = optional[attribute]
  return {
    "meaning_representation": ", ".join(f"{key}[{value}]" for key, value in found.items()),
    "references": dice.shuffled(_house_texts(found)),
  }


def _house_texts(house: dict[str, str]) -> list[str]:
  name, kind = house["name"], house["eatType"]
  cheap = {"cheap": True, "high": False}.get(house.get("priceRange", ""))
  place = f" by the {house['area']}" if "area" in house else ""
  place += f" near {house['near']}" if "near" in house else ""
  food = house.get("food")
  # First by the house, with what is sold in a second sentence.
  rest = [f"sells {food}"] if food else []
  rest += ["is not cheap"] if cheap is False else []
  adjective = "cheap " if cheap else ""
  first = f"the {name} is a {adjective}{kind}{place}."
  first += f" it {' and '.join(rest)}." if rest else ""
  # Then by its place, with the price as a number would be told.
  said = [f"it has {food}"] if food else []
  said += [f"the price is {house['priceRange']}"] if cheap is not None else []
  second = f"{place.strip()} is the {kind} {name}." if place else f"one {kind} is the {name}."
  second += f" {', '.join(said)}." if said else ""
  if not food:
    return [first, second]
  # And by its food.
  expensive = ", it is not cheap" if cheap is False else ""
  return [first, second, f"find {food} at the {adjective}{kind} {name}{place}{expensive}."]


def webnlg(dice: Dice, topics: Mapping[str, Sequence[str]] = TOPICS) -> dict:
  """One WebNLG record of one of the topics: one to three facts about one person or city."""
  topic = dice.pick(tuple(topics))
  relations = dice.shuffled(topics[topic])
  relations = relations[: dice.weighted((1, 2, 3), (0.2, 0.4, 0.4))]
  subject = dice.pick(knowledge.RELATIONS[relations[0]].subjects)
  facts = [(name, dice.pick(knowledge.RELATIONS[name].values)) for name in relations]
  texts = [_by_predicates(subject, facts), _by_nouns(subject, facts)]
  return {
    "input": [f"{subject} | {name} | {value}" for name, value in facts],
    "references": dice.shuffled(texts),
    "category": topic,
  }


def webnlg_held_out(dice: Dice) -> dict:
  """One WebNLG record of a topic that is not trained on."""
  return webnlg(dice, HELD_OUT_TOPICS)


def webnlg_all(dice: Dice) -> dict:
  """One WebNLG record of any topic."""
  return webnlg(dice, {**TOPICS, **HELD_OUT_TOPICS})


def dart(dice: Dice) -> dict:
  """One DART record: a person and the city where that person lives, or two persons with one value."""
  first, other = dice.pick_two(lexicon.NAMES)
  if dice.chance(0.5):
    home, about = dice.pick(lexicon.CITIES), dice.pick(("country", "river", "product"))
    value = dice.pick(knowledge.RELATIONS[about].values)
    facts = [(first, "home", home), (home, about, value)]
    # As a relative clause: the second fact without its subject.
    third = f"{_predicate(*facts[0])} which {_predicate(*facts[1], opening=False)}"
  else:
    relation = dice.pick([name for names in TOPICS.values() for name in names])
    value = dice.pick(knowledge.RELATIONS[relation].values)
    facts = [(first, relation, value), (other, relation, value)]
    # One clause for both persons.
    third = _noun(first, relation, value).replace(f"of {first}", f"of {first} and of {other}")
  texts = [
    ". ".join(_predicate(*fact) for fact in facts),
    ", ".join(_noun(*fact) for fact in facts),
    third,
  ]
  return {
    "tripleset": [f"{subject} | {name.upper()} | {said}" for subject, name, said in facts],
    "references": dice.shuffled([f"{text}." for text in texts]),
  }


def _by_predicates(subject: str, facts: Sequence[tuple[str, str]]) -> str:
  """ "Anna plays the instrument drum, does the sport golf and has a pet dog." """
  said = [_predicate(subject, name, value, opening=False) for name, value in facts]
  first = _predicate(subject, *facts[0])
  return f"{_listed([first, *said[1:]])}."


def _by_nouns(subject: str, facts: Sequence[tuple[str, str]]) -> str:
  """ "the instrument of Anna is the drum, the sport is golf and the pet is a dog." """
  said = [_noun(subject, name, value) for name, value in facts]
  # Whose it is stands with the first one only.
  rest = [text.replace(f" of {subject}", "") for text in said[1:]]
  return f"{_listed([said[0], *rest])}."


def _predicate(subject: str, relation: str, value: str, *, opening: bool = True) -> str:
  """A fact as a clause, by the first wording of its relation; without `opening` the subject is left out."""
  wording = knowledge.RELATIONS[relation].prose[0].removesuffix(".")
  if not opening:
    wording = wording.removeprefix("the city ").removeprefix("{s} ")
  return wording.format(s=subject, v=value)


def _noun(subject: str, relation: str, value: str) -> str:
  """A fact by the name of its relation: "the sport of Anna is golf"."""
  return knowledge.RELATIONS[relation].prose[1].removesuffix(".").format(s=subject, v=value)


def _listed(clauses: Sequence[str]) -> str:
  """Clauses with commas between them, and "and" before the last one."""
  *first, last = clauses
  return f"{', '.join(first)} and {last}" if first else last
