"""News articles with summaries of two events: records like XSum by topic, longer than those of `summaries`.

An article has two events with their details, told in order, and sentences that lead away; the summary is both
events without details.  What acts, what is done and to what belong to the topic.
"""

import dataclasses
from collections.abc import Sequence

from promot_jax.micro import lexicon
from promot_jax.micro.dice import Dice

# ruff: noqa: SIM905  (word lists are read and changed more easily as one line of words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topic:
  """What its articles are made of.

  Attributes:
    actors: who acts; {name}, {city} and {country} are drawn.
    verbs: what they did.
    things: to what.
    places: where.
    asides: sentences that no summary needs; {adjective} is drawn.
  """

  actors: tuple[str, ...]
  verbs: tuple[str, ...]
  things: tuple[str, ...]
  places: tuple[str, ...]
  asides: tuple[str, ...]


TOPICS = {
  "world": Topic(
    actors=("the king of {country}", "the old king of {country}", "the people of {country}"),
    verbs=tuple("found opened lost took sold hid".split()),
    things=tuple("island shore tower river ocean cave".split()),
    places=("{country}",),
    asides=("the king was {adjective}.", "many people of {country} were there."),
  ),
  "uk": Topic(
    actors=tuple(f"{{name}} the {job}" for job in "baker teacher driver farmer judge".split()),
    verbs=tuple("found painted broke cleaned opened repaired".split()),
    things=tuple("car chair table clock door desk bag bike".split()),
    places=tuple(f"the {place}" for place in "park garden street school library church".split()),
    asides=("the street was {adjective}.", "many people were there."),
  ),
  "business": Topic(
    actors=("the market of {city}", "the bank of {city}", "the builder {name}"),
    verbs=tuple("sold bought lost took brought hid".split()),
    things=tuple("wine glass silk steel salt paper wool coal".split()),
    places=("{city}", "the market", "the station"),
    asides=("the price was {adjective}.", "the money was in the bank."),
  ),
  "science": Topic(
    actors=("the doctor {name}", "the nurse {name}", "the teacher {name}"),
    verbs=tuple("found opened repaired cleaned broke hid".split()),
    things=tuple("computer keyboard screen coil metal feather wing".split()),
    places=("the school", "the library", "{city}"),
    asides=("the screen was {adjective}.", "the computer of {name} was {adjective}."),
  ),
  "arts": Topic(
    actors=("the singer {name}", "the painter {name}", "the writer {name}"),
    verbs=tuple("found sold bought lost brought took".split()),
    things=tuple("song melody piano violin guitar flute harp book".split()),
    places=("the concert", "the hotel", "{city}"),
    asides=("the song was {adjective}.", "the concert was in {city}."),
  ),
  "sport": Topic(
    actors=("the team of {city}", "the player {name}", "the {color} team"),
    verbs=tuple("lost took brought found broke".split()),
    things=tuple("match game ball goal score".split()),
    places=("the stadium", "{city}", "the grass"),
    asides=("the stadium was {adjective}.", "the player was young.", "the ball was {color}."),
  ),
}
MAIN_NEWS = ("world", "uk", "business")
OTHER_NEWS = ("science", "arts")
NEWS = (*MAIN_NEWS, *OTHER_NEWS)


def news(dice: Dice) -> dict:
  """One XSum record on any news but sport."""
  return xsum(dice, NEWS)


def main_news(dice: Dice) -> dict:
  """One XSum record on the world, the UK or business."""
  return xsum(dice, MAIN_NEWS)


def other_news(dice: Dice) -> dict:
  """One XSum record on other news."""
  return xsum(dice, OTHER_NEWS)


def sport(dice: Dice) -> dict:
  """One XSum record on sport."""
  return xsum(dice, ("sport",))


def xsum(dice: Dice, topics: Sequence[str]) -> dict:
  """One XSum record of one of these topics."""
  topic = TOPICS[dice.pick(topics)]
  events = [_event(dice, topic) for _ in range(2)]
  sentences = [story for story, _ in events]
  for aside in dice.shuffled(topic.asides)[:2]:
    # Anywhere, so that no place in the article tells which sentences to keep.
    sentences.insert(int(dice.pick(range(len(sentences) + 1))), _filled(dice, aside))
  return {
    "document": " ".join(sentences),
    "summary": " and ".join(summary for _, summary in events) + ".",
  }


def _event(dice: Dice, topic: Topic) -> tuple[str, str]:
  """A sentence, and the same event without details and full stop."""
  actor = _filled(dice, dice.pick(topic.actors))
  verb, thing = dice.pick(topic.verbs), dice.pick(topic.things)
  adjective = dice.pick(lexicon.ADJECTIVES) + " " if dice.chance(0.6) else ""
  place = f" in {_filled(dice, dice.pick(topic.places))}" if dice.chance(0.6) else ""
  day = f"on {dice.pick(lexicon.DAYS)} " if dice.chance(0.5) else ""
  return f"{day}{actor} {verb} the {adjective}{thing}{place}.", f"{actor} {verb} the {thing}"


def _filled(dice: Dice, text: str) -> str:
  return text.format(
    name=dice.pick(lexicon.NAMES),
    city=dice.pick(lexicon.CITIES),
    country=dice.pick(lexicon.COUNTRIES),
    color=dice.pick(lexicon.COLORS),
    adjective=dice.pick(lexicon.ADJECTIVES),
  )
