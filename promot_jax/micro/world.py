"""Records of all twelve tasks: which there are, how many, and in which split.

A record has the field names of TensorFlow Datasets.  The splits of a task share no record.  Besides
train, validation and test there is a split `pretraining`, from which the model's pretraining text
takes its episodes; RTE and SNLI have none, because the model must not have met them.  Facts and
words are the same everywhere: knowing them is what pretraining is for.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping

from promot_jax import errors
from promot_jax.micro import inference, questions, senses, summaries, translations
from promot_jax.micro.dice import Dice

SEED = 0  # of the world that the shipped model knows

SPLIT_SIZES = {"validation": 512, "test": 512, "train": 4000, "pretraining": 12000}
_SHORT_SIZES = {"validation": 512, "test": 512, "train": 1200}  # the rest is for pretraining

Draw = Callable[[Dice], dict]


def _cb(*, implicative: float) -> Draw:
  return functools.partial(inference.cb, implicative=implicative)


def _translation(language: str) -> Draw:
  return functools.partial(translations.translation, language=language)


# Task -> how to draw one record for the evaluated splits.
_DRAWN: dict[str, Draw] = {
  "rte": inference.rte,
  "cb": _cb(implicative=0.4),
  "wic": senses.wic,
  "snli": inference.snli,
  "openbookqa": questions.openbookqa,
  "wmt14_en_fr": _translation("fr"),
  "wmt16_en_de": _translation("de"),
  "wmt16_en_ro": _translation("ro"),
  "xsum": summaries.xsum,
  "wiki_lingua": summaries.wiki_lingua,
}
# Where pretraining sees an easier kind.  CB has no implicative verbs there: what they say is known
# from running text only, and that "True" and "False" can be said of it is new.
_DRAWN_FOR_PRETRAINING: dict[str, Draw] = {"cb": _cb(implicative=0.0)}
# Task -> all records there are, already in random order.
_LISTED: dict[str, Callable[[int], Iterator[dict]]] = {
  "trivia_qa": questions.trivia_qa,
  "web_questions": questions.web_questions,
}

TASKS = (*_DRAWN, *_LISTED)
NEVER_PRETRAINED = ("rte", "snli")


def splits(task: str) -> tuple[str, ...]:
  """Names of the task's splits."""
  _check(task)
  names = ("train", "validation", "test")
  return names if task in NEVER_PRETRAINED else (*names, "pretraining")


def records(task: str, split: str, seed: int = SEED) -> tuple[dict, ...]:
  """All records of one split, always the same for the same seed.  Do not change them.

  Raises:
    ConfigError: there is no such task or split.
  """
  if split not in splits(task):
    raise errors.ConfigError(
      f"{task} has no split {split!r} in the micro world; there are: {', '.join(splits(task))}."
    )
  return _evaluated(task, seed)[split] if split != "pretraining" else _pretraining(task, seed)


def key(record: dict) -> tuple[str, ...]:
  """What makes a record the same as another: its text fields, without ids and labels."""
  nested = record.get("question")
  texts = nested if isinstance(nested, dict) else record
  skipped = ("question_id", "url")
  return tuple(
    text for name, text in texts.items() if isinstance(text, str) and name not in skipped
  )


def sizes(task: str) -> Mapping[str, int]:
  """How many records each split of a task has; those that take their records from a list have fewer."""
  return _SHORT_SIZES if task in _LISTED else SPLIT_SIZES


@functools.cache
def _evaluated(task: str, seed: int) -> dict[str, tuple[dict, ...]]:
  if task in _LISTED:
    stream = _LISTED[task](seed)
    sizes = _SHORT_SIZES
  else:
    dice = Dice(task, seed)
    stream = _unique((_DRAWN[task](dice) for _ in itertools.repeat(None)), set())
    sizes = {name: size for name, size in SPLIT_SIZES.items() if name != "pretraining"}
  return {name: tuple(itertools.islice(stream, size)) for name, size in sizes.items()}


@functools.cache
def _pretraining(task: str, seed: int) -> tuple[dict, ...]:
  if task in _LISTED:
    return tuple(itertools.islice(_LISTED[task](seed), sum(_SHORT_SIZES.values()), None))
  draw = _DRAWN_FOR_PRETRAINING.get(task, _DRAWN[task])
  dice = Dice(task, "pretraining", seed)
  known = {key(record) for split in _evaluated(task, seed).values() for record in split}
  stream = _unique((draw(dice) for _ in itertools.repeat(None)), known)
  return tuple(itertools.islice(stream, SPLIT_SIZES["pretraining"]))


def _unique(drawn: Iterator[dict], known: set[tuple[str, ...]]) -> Iterator[dict]:
  """The drawn records without those already in `known`, which it fills."""
  for record in drawn:
    name = key(record)
    if name not in known:
      known.add(name)
      yield record


def _check(task: str) -> None:
  if task not in TASKS:
    raise errors.ConfigError(f"the micro world has no task {task!r}; it has: {', '.join(TASKS)}.")
