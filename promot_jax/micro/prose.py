"""Running text of the world, and what its sentences imply: material for span corruption."""

from promot_jax.micro import (
  inference,
  knowledge,
  lexicon,
  questions,
  senses,
  summaries,
  translations,
)
from promot_jax.micro.dice import Dice

# Between a sentence and what it says of another: it follows, it is excluded, it is open.
CONNECTIVES = ("indeed", "yet not", "maybe")

_SENTENCES_OF_A_TEXT = ((1, 2, 3), (0.5, 0.35, 0.15))


def text(dice: Dice, seed: int) -> str:
  """One to three sentences about facts, events, word senses, kinds of things, or in a language."""
  count = dice.weighted(*_SENTENCES_OF_A_TEXT)
  return " ".join(_sentence(dice, seed) for _ in range(count))


def inference_text(dice: Dice, *, composed: float) -> tuple[str, str]:
  """A sentence, a connective and a second sentence; and the connective alone.

  Args:
    dice: random choices.
    composed: share of "never" before implicative verbs.
  """
  topic = dice.weighted(("implied", "committed", "scene"), (0.55, 0.3, 0.15))
  if topic == "implied":
    happened = dice.chance(0.5)
    pair = inference.implied(dice, composed=dice.chance(composed), happened=happened)
    # 0 and 1 as CB numbers them; an implicative verb leaves nothing open.
    premise, hypothesis, label = pair.premise, pair.hypothesis, 0 if happened else 1
  elif topic == "committed":
    label = dice.pick((0, 1, 2))
    premise, hypothesis = inference.committed(dice, label)
  else:
    record = inference.snli(dice)
    premise, hypothesis = record["premise"], record["hypothesis"]
    # SNLI numbers neutral and contradiction the other way round.
    label = {0: 0, 1: 2, 2: 1}[record["label"]]
  connective = CONNECTIVES[label]
  return f"{premise} {connective} {hypothesis}", connective


def _sentence(dice: Dice, seed: int) -> str:
  topic = dice.weighted(
    ("fact", "event", "sense", "kind", "foreign"), (0.45, 0.15, 0.2, 0.05, 0.15)
  )
  if topic == "fact":
    fact = dice.pick(knowledge.facts(seed))
    wording = dice.pick(knowledge.RELATIONS[fact.relation].prose)
    return wording.format(s=fact.subject, v=fact.value)
  if topic == "event":
    return dice.pick((summaries.event(dice)[0], summaries.distractor(dice)))
  if topic == "sense":
    word = dice.pick(tuple(lexicon.HOMONYMS))
    return senses.sentence(dice, word, int(dice.chance(0.5)))
  if topic == "kind":
    return questions.openbookqa(dice)["fact1"]
  return translations.say(
    translations.draw_clause(dice), dice.pick(("en", *translations.LANGUAGES))
  )
