"""Articles with one-sentence summaries: records like XSum and WikiLingua."""

from promot_jax.micro import lexicon
from promot_jax.micro.dice import Dice


def event(dice: Dice) -> tuple[str, str]:
  """An event with its details, and the same event without them."""
  name = dice.pick(lexicon.NAMES)
  past = lexicon.ACTIONS[dice.pick(tuple(lexicon.ACTIONS))]
  thing = dice.pick(lexicon.THINGS)
  adjective = dice.pick(lexicon.ADJECTIVES) + " " if dice.chance(0.7) else ""
  place = f" in the {dice.pick(lexicon.PLACES)}" if dice.chance(0.6) else ""
  day = dice.pick(lexicon.DAYS) if dice.chance(0.6) else ""
  front, back = "", ""
  if day:
    front, back = (f"on {day} ", "") if dice.chance(0.5) else ("", f" on {day}")
  return f"{front}{name} {past} the {adjective}{thing}{place}{back}.", f"{name} {past} the {thing}."


def distractor(dice: Dice) -> str:
  """A sentence that no summary needs."""
  adjective, place = dice.pick(lexicon.ADJECTIVES), dice.pick(lexicon.PLACES)
  return dice.pick(
    (f"the {place} was {adjective}.", f"it was a {adjective} {place}.", "many people were there.")
  )


def xsum(dice: Dice) -> dict:
  """One XSum record: an event and a sentence that leads away; the bare event is the summary."""
  story, summary = event(dice)
  parts = [story, distractor(dice)]
  # Otherwise the first sentence would always be the one to keep.
  if dice.chance(0.5):
    parts.reverse()
  return {"document": " ".join(parts), "summary": summary}


def instructions(dice: Dice) -> tuple[str, str]:
  """Two steps with their details, and the same steps without them."""
  first, second = dice.pick_two(lexicon.STEPS)
  one, other = dice.pick_two(lexicon.MATERIALS)
  adjective = dice.pick(lexicon.ADJECTIVES) + " " if dice.chance(0.5) else ""
  source = f" in the {dice.pick(lexicon.PLACES)}" if dice.chance(0.5) else ""
  means = f" with {dice.pick(lexicon.MEANS)}" if dice.chance(0.5) else ""
  opening, link = dice.pick((("first you", "then you"), ("you should", "after that you should")))
  return (
    f"{opening} {first} the {adjective}{one}{source}. {link} {second} the {other}{means}.",
    f"{first} the {one}. {second} the {other}.",
  )


def wiki_lingua(dice: Dice) -> dict:
  """One WikiLingua record (English to English): two steps of a how-to, and the bare steps."""
  source, target = instructions(dice)
  # All fields of GEM's records, whatever a template reads.
  return {
    "source": source,
    "target": target,
    "source_aligned": {"en": source},
    "target_aligned": {"en": target},
    "references": [],
    "gem_id": "",
    "gem_parent_id": "",
  }
