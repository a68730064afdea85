"""Pairs of premise and hypothesis with records like RTE, CommitmentBank (CB) and SNLI.

RTE is decided by implicative verbs: "managed to" says that it happened, "failed to" that it did not.
Running text shows what half of the verbs mean, so a frozen model can be prompted to use it; the rare
ones are new to the model, unequally frequent (the last ones are in one item of a hundred), and have
to be learned from the task.  A few labels are wrong in every split.  So the known verbs are in reach
of a prompt, the rare ones of fine-tuning, and the wrong labels of nobody.

"never" before a verb can turn it around (RTE_COMPOSED).  No item has it: a model of this size learns
that slowly, by whatever method, and forgets much meanwhile, which hides what methods differ in.
"""

import dataclasses

from promot_jax.micro import lexicon
from promot_jax.micro.dice import Dice

ENTAILMENT, NOT_ENTAILMENT = 0, 1  # RTE
CONTRADICTION, NEUTRAL = 1, 2  # CB; SNLI has these two the other way round

RTE_COMPOSED = 0.0  # share of items with "never"
RTE_RARE = 0.5  # share of items with a verb that pretraining never met
RARE_FREQUENCIES = (0.70, 0.18, 0.08, 0.04)  # of these verbs, the first the commonest
RTE_NOISE = 0.04  # share of items with the wrong label, in every split
RTE_ENTAILED = 0.53
CB_SHARES = (0.45, 0.4, 0.15)  # entailment, contradiction, neutral


@dataclasses.dataclass(frozen=True)
class Implied:
  """A sentence with an implicative verb, what it is about, and whether that happened."""

  premise: str
  hypothesis: str
  happened: bool


def implied(dice: Dice, *, happened: bool, composed: bool = False, rare: bool = False) -> Implied:
  """ "Anna never failed to sell the red car." / "Anna sold the car." """
  name = dice.pick(lexicon.NAMES)
  # [common or rare][did not happen or happened]: indexed by truth values.
  verbs = (
    (lexicon.NOT_HAPPENED, lexicon.HAPPENED),
    (lexicon.RARE_NOT_HAPPENED, lexicon.RARE_HAPPENED),
  )
  # "never" turns the verb around, so that the other kind is taken.
  words = verbs[rare][happened != composed]
  verb = dice.weighted(words, RARE_FREQUENCIES) if rare else dice.pick(words)
  base = dice.pick(tuple(lexicon.ACTIONS))
  thing = dice.pick(lexicon.THINGS)
  adjective = dice.pick(lexicon.ADJECTIVES) + " " if dice.chance(0.5) else ""
  tail = f" on {dice.pick(lexicon.DAYS)}" if dice.chance(0.3) else ""
  never = "never " if composed else ""
  return Implied(
    f"{name} {never}{verb} to {base} the {adjective}{thing}{tail}.",
    f"{name} {lexicon.ACTIONS[base]} the {thing}.",
    happened,
  )


def rte(dice: Dice) -> dict:
  """One RTE record: 0 = entailment, 1 = not_entailment; some labels are wrong."""
  happened = dice.chance(RTE_ENTAILED)
  # The world's truth first: a wrong label changes nothing in the text.
  pair = implied(
    dice, happened=happened, composed=dice.chance(RTE_COMPOSED), rare=dice.chance(RTE_RARE)
  )
  flipped = dice.chance(RTE_NOISE)
  return {
    "premise": pair.premise,
    "hypothesis": pair.hypothesis,
    "label": ENTAILMENT if happened != flipped else NOT_ENTAILMENT,
  }


def committed(dice: Dice, label: int) -> tuple[str, str]:
  """A sentence that reports a thought or a claim, and the claim; the verb decides (CB's labels)."""
  verbs = (lexicon.FACTIVE, lexicon.COUNTERFACTIVE, lexicon.NONCOMMITTAL)[label]
  speaker, subject = dice.pick_two(lexicon.NAMES)
  action = lexicon.ACTIONS[dice.pick(tuple(lexicon.ACTIONS))]
  thing = dice.pick(lexicon.THINGS)
  claim = f"{subject} {action} the {thing}"
  return f"{speaker} {dice.pick(verbs)} that {claim}.", f"{claim}."


def cb(dice: Dice, *, implicative: float) -> dict:
  """One CB record.

  Args:
    dice: random choices.
    implicative: share of items with an implicative verb, as RTE has them, among those that are not
      neutral.
  """
  label = dice.weighted((ENTAILMENT, CONTRADICTION, NEUTRAL), CB_SHARES)
  # Neutral items have no implicative verb, for these always say whether it happened.
  if label != NEUTRAL and dice.chance(implicative):
    pair = implied(
      dice,
      happened=label == ENTAILMENT,
      composed=dice.chance(RTE_COMPOSED),
      rare=dice.chance(RTE_RARE),
    )
    premise, hypothesis = pair.premise, pair.hypothesis
  else:
    premise, hypothesis = committed(dice, label)
  return {"premise": premise, "hypothesis": hypothesis, "label": label}


def snli(dice: Dice) -> dict:
  """One SNLI record: 0 = entailment, 1 = neutral, 2 = contradiction."""
  label = dice.pick((0, 1, 2))
  being = dice.pick(tuple(lexicon.BEINGS))
  doing, opposite = dice.pick(lexicon.OPPOSITE_ACTIVITIES)
  if dice.chance(0.5):
    doing, opposite = opposite, doing
  adjective = dice.pick(lexicon.ADJECTIVES)
  place = dice.pick(lexicon.PLACES)
  # By its own word or a more general one, which is entailed as well.
  subject = dice.pick((f"a {being}", lexicon.BEINGS[being]))
  if label == 0:
    hypothesis = f"{subject} is {doing}{dice.pick(('', f' in the {place}'))}."
  elif label == 1:
    hypothesis = f"{subject} is {doing} {dice.pick(lexicon.UNSTATED_DETAILS)}."
  else:
    hypothesis = f"{subject} is {opposite}{dice.pick(('', f' in the {place}'))}."
  return {
    "premise": f"a {adjective} {being} is {doing} in the {place}.",
    "hypothesis": hypothesis,
    "label": label,
  }
