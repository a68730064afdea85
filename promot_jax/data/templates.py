"""Text of records: one record in, the input text and the target text out, and how both are joined.

The templates that several tasks share are here, those of one task in its file in `tasks`.  They are
those of Table 7 of Wang et al., "Two-stage LLM Fine-tuning with Less Specialization and More
Generalization" (ICLR 2024): plain Python on plain values, without TensorFlow or numpy, because the same
text is needed by the seqio tasks, by the built-in micro world and by its pretraining episodes.

A record is a mapping with the field names of TensorFlow Datasets.  A label is the class index of
TensorFlow Datasets, its class name, or -1 where it is not public.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from promot_jax import errors

TargetForm = Literal["raw", "sentinel"]

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
    choices: the answers among which a model chooses; empty where it writes one.
  """

  input: str
  target: str
  answers: tuple[str, ...]
  choices: tuple[str, ...] = ()


class NoText(errors.DataError):
  """A template writes nothing for a record, which then takes no part."""


def joined(text: str, answer: str, between: str = BLANK) -> str:
  """An input with its answer; a blank is not doubled where the input ends with white space."""
  # An input that ends with white space brings its own blank.
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


def labelled(text: str, word: str) -> Rendered:
  """An input with one right answer; none where `word` is empty."""
  return Rendered(input=text, target=word, answers=(word,) if word else ())


def word(label: int | str, classes: Mapping[str, str]) -> str:
  """The word that stands for a label; empty where the label is not public.

  Args:
    label: a class name, its number, or -1.
    classes: class names in the order of TensorFlow Datasets, and the word for each.

  Raises:
    DataError: it is none of the classes.
  """
  if isinstance(label, str):
    if label in classes:
      return classes[label]
  elif label == -1:
    return ""
  elif 0 <= int(label) < len(classes):  # a bool counts: WiC's own files have true and false
    return list(classes.values())[int(label)]
  raise errors.DataError(
    f"label {label!r} is none of the classes {', '.join(classes)} (0 to {len(classes) - 1})."
  )


def inference(closing: str, classes: Mapping[str, str]) -> Callable[[Mapping[str, Any]], Rendered]:
  """Of records with premise, hypothesis and label: does one follow from the other?"""

  def template(record: Mapping[str, Any]) -> Rendered:
    text = f"{record['premise']} question: {record['hypothesis']} {closing} answer:"
    return labelled(text, word(record["label"], classes))

  return template


def question(text: str, answers: Sequence[str]) -> Rendered:
  """A question with every accepted answer, of which the first is the target."""
  return references(f"Q: {text} A:", answers)


def references(text: str, answers: Sequence[str]) -> Rendered:
  """An input with every text that is accepted, none of them empty or twice; the first is the target."""
  # Each once, and nothing empty: an empty answer would be right for an empty output.
  unique = tuple(dict.fromkeys(answer for answer in answers if answer))
  return Rendered(input=text, target=unique[0] if unique else "", answers=unique)


_LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}


def translation(source: str, target: str) -> Callable[[Mapping[str, Any]], Rendered]:
  """Of records with one text by the code of its language: 'en', 'fr', 'de', 'ro'."""

  def template(record: Mapping[str, Any]) -> Rendered:
    text = f"Translate {_LANGUAGES[source]} to {_LANGUAGES[target]}: {record[source]}"
    return labelled(text, record[target])

  return template


def summary(article: str, summaries: Sequence[str]) -> Rendered:
  """An article with every accepted summary, of which the first is the target."""
  return references(f"Article: {article} One sentence summary:", summaries)
