"""Text of every task: one record in, the input text and the target text out.

The templates are those of Table 7 of Wang et al., "Two-stage LLM Fine-tuning with Less
Specialization and More Generalization" (ICLR 2024).  They are plain Python on plain values, without
TensorFlow or numpy, because the same text is needed by the seqio tasks, by the built-in micro world
and by its pretraining episodes.

A record is a mapping with the field names of TensorFlow Datasets:

  rte, cb, snli             premise, hypothesis, label
  wic                       sentence1, sentence2, word, label
  openbookqa                question {stem, choice_A, choice_B, choice_C, choice_D}, answerKey
  trivia_qa                 question, answer {value, aliases, normalized_value}
  web_questions             question, answers
  wmt14_en_fr, wmt16_en_*   en and fr, de or ro
  xsum                      document, summary
  wiki_lingua               source, target, references (may be empty)

A label is the class index of TensorFlow Datasets, its class name, or -1 where it is not public.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from promot_jax import errors

TargetForm = Literal["raw", "sentinel"]
TriviaTarget = Literal["value", "normalized_value"]

BLANK = " "

# T5 and mT5 fold any white space into one blank, so that a newline here would be the same tokens.
SEPARATOR = BLANK

# A further question begins with one of these; post-processing cuts an output there.
PREFIXES = ("Q:", "Translate", "Article:")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
  """The text of one record.

  Attributes:
    input: the filled-in template, without demonstrations.
    target: the text to be generated; empty where the record's label is not public.
    answers: every text that counts as right, `target` first; empty where there is no label.
  """

  input: str
  target: str
  answers: tuple[str, ...]


def render(
  task: str, record: Mapping[str, Any], *, trivia_target: TriviaTarget = "value"
) -> Rendered:
  """Fills in the template of `task`.

  Args:
    task: a name of `TEMPLATES`.
    record: see the module's docstring.
    trivia_target: which field of a TriviaQA answer is the target; the aliases are accepted too.

  Raises:
    ConfigError: no template has that name.
    DataError: a field is missing, or a label is not one of the classes.
  """
  if task not in TEMPLATES:
    raise errors.ConfigError(f"no template for task {task!r}; there are: {', '.join(TEMPLATES)}.")
  try:
    if task == "trivia_qa":
      return _trivia_qa(record, trivia_target)
    return TEMPLATES[task](record)
  except (KeyError, TypeError, IndexError, AttributeError) as cause:
    fields = ", ".join(sorted(record)) if isinstance(record, Mapping) else type(record).__name__
    raise errors.DataError(
      f"{task}: a record lacks a field or has one of another kind ({type(cause).__name__}: {cause});"
      f" it has: {fields}."
    ) from cause


def is_usable(task: str, record: Mapping[str, Any]) -> bool:
  """False for SNLI's items without a majority label (-1), which are dropped."""
  return task != "snli" or record["label"] != -1


def joined(text: str, answer: str, between: str = BLANK) -> str:
  """An input with its answer; a blank is not doubled where the input ends with white space."""
  if between == BLANK and text[-1:].isspace():
    return text + answer
  return text + between + answer


def join_shots(
  demonstrations: Iterable[tuple[str, str]],
  query: str,
  *,
  separator: str = SEPARATOR,
  before_answer: str = BLANK,
) -> str:
  """Puts solved examples before the query: `input target SEPARATOR ... query`.

  Args:
    demonstrations: pairs of rendered input and raw target, in the order they are shown.
    query: the rendered input to be answered.
    separator: text between two demonstrations and before the query.
    before_answer: text between the input and the target of a demonstration, as the model will read
      it between the query and its own answer.
  """
  shown = (joined(text, target, before_answer) for text, target in demonstrations)
  return separator.join([*shown, query])


def target_text(target: str, form: TargetForm = "raw") -> str:
  """The text a model is trained to emit: as it is, or between the first two T5 sentinels."""
  if form == "raw":
    return target
  if form == "sentinel":
    return f"<extra_id_0> {target} <extra_id_1>"
  raise errors.ConfigError(f"target form {form!r} is not known; use 'raw' or 'sentinel'.")


# Class names in the order of TensorFlow Datasets, and the word that stands for each.
_CLASSES: dict[str, dict[str, str]] = {
  "rte": {"entailment": "True", "not_entailment": "False"},
  "cb": {"entailment": "True", "contradiction": "False", "neutral": "Neither"},
  "snli": {"entailment": "True", "neutral": "Neither", "contradiction": "False"},
  "wic": {"False": "False", "True": "True"},
}

# The words a model may answer with, for tasks that are scored by their first output token.
LABELS: dict[str, tuple[str, ...]] = {
  "rte": ("True", "False"),
  "cb": ("True", "False", "Neither"),
  "snli": ("True", "False", "Neither"),
  "wic": ("True", "False"),
  "openbookqa": ("A", "B", "C", "D"),
}


def _word(task: str, label: int | str) -> str:
  classes = _CLASSES[task]
  if isinstance(label, str):
    if label in classes:
      return classes[label]
  elif label == -1:
    return ""
  elif 0 <= int(label) < len(classes):  # a bool counts: WiC's own files have true and false
    return list(classes.values())[int(label)]
  raise errors.DataError(
    f"{task}: label {label!r} is none of the classes {', '.join(classes)} (0 to {len(classes) - 1})."
  )


def _labelled(text: str, word: str) -> Rendered:
  return Rendered(input=text, target=word, answers=(word,) if word else ())


def _inference(task: str, closing: str) -> Callable[[Mapping[str, Any]], Rendered]:
  def template(record: Mapping[str, Any]) -> Rendered:
    text = f"{record['premise']} question: {record['hypothesis']} {closing} answer:"
    return _labelled(text, _word(task, record["label"]))

  return template


def _wic(record: Mapping[str, Any]) -> Rendered:
  text = (
    f"{record['sentence1']} {record['sentence2']} question: The word {record['word']} is used in the"
    " same way in the two sentences. Is it true or False? answer:"
  )
  return _labelled(text, _word("wic", record["label"]))


def _openbookqa(record: Mapping[str, Any]) -> Rendered:
  question = record["question"]
  letters = LABELS["openbookqa"]
  choices = " ".join(f"{letter}) {question[f'choice_{letter}']}" for letter in letters)
  key = record["answerKey"]
  letter = key if isinstance(key, str) else "" if key == -1 else letters[int(key)]
  if letter and letter not in letters:
    raise errors.DataError(f"openbookqa: answer key {key!r} is none of {', '.join(letters)}.")
  return _labelled(f"Q: {question['stem']} {choices} A:", letter)


def _question(question: str, answers: Sequence[str]) -> Rendered:
  unique = tuple(dict.fromkeys(answer for answer in answers if answer))
  return Rendered(input=f"Q: {question} A:", target=unique[0] if unique else "", answers=unique)


def _trivia_qa(record: Mapping[str, Any], choice: TriviaTarget = "value") -> Rendered:
  if choice not in ("value", "normalized_value"):
    raise errors.ConfigError(
      f"TriviaQA target {choice!r} is not known; use 'value' or 'normalized_value'."
    )
  answer = record["answer"]
  return _question(record["question"], [answer[choice], answer["value"], *answer["aliases"]])


def _web_questions(record: Mapping[str, Any]) -> Rendered:
  return _question(record["question"], record["answers"])


_LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}


def _translation(source: str, target: str) -> Callable[[Mapping[str, Any]], Rendered]:
  def template(record: Mapping[str, Any]) -> Rendered:
    text = f"Translate {_LANGUAGES[source]} to {_LANGUAGES[target]}: {record[source]}"
    return _labelled(text, record[target])

  return template


def _summary(article: str, summaries: Sequence[str]) -> Rendered:
  unique = tuple(dict.fromkeys(summary for summary in summaries if summary))
  return Rendered(
    input=f"Article: {article} One sentence summary:",
    target=unique[0] if unique else "",
    answers=unique,
  )


def _xsum(record: Mapping[str, Any]) -> Rendered:
  return _summary(record["document"], [record["summary"]])


def _wiki_lingua(record: Mapping[str, Any]) -> Rendered:
  return _summary(record["source"], [record["target"], *record.get("references", ())])


TEMPLATES: dict[str, Callable[[Mapping[str, Any]], Rendered]] = {
  "rte": _inference("rte", "Is it true or false?"),
  "cb": _inference("cb", "Is it true or false or neither?"),
  "wic": _wic,
  "snli": _inference("snli", "Is it true or false or neither?"),
  "openbookqa": _openbookqa,
  "trivia_qa": _trivia_qa,
  "web_questions": _web_questions,
  "wmt14_en_fr": _translation("en", "fr"),
  "wmt16_en_de": _translation("en", "de"),
  "wmt16_en_ro": _translation("en", "ro"),
  "xsum": _xsum,
  "wiki_lingua": _wiki_lingua,
}
