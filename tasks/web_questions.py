"""WebQuestions: closed-book questions; it has no validation split."""

import re

from promot_jax import errors
from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import exact_match
from promot_jax.micro import questions, world


def _template(record: Record) -> templates.Rendered:
  return templates.question(record["question"], record["answers"])


# A quoted text may have brackets and escaped quotes; a bare one has neither.
_ANSWER = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()]*))\)')


def _official(row: Record) -> Record:
  """Its answers are a list in Lisp: (list (description "Jazmyn Bieber") (description Jaxon))."""
  value = layouts.text(row, "targetValue")
  answers = [(quoted or bare).replace('\\"', '"') for quoted, bare in _ANSWER.findall(value)]
  # No answer at all: the list is of another form.
  if not answers:
    raise errors.DataError(f"targetValue has no (description ...): {value[:60]!r}.")
  return {"question": layouts.text(row, "utterance"), "answers": answers}


def _listed(row: Record) -> Record:
  return {"question": layouts.text(row, "qText"), "answers": layouts.texts(row, "answers")}


_FILES = (
  Layout(
    splits={
      "train": ("web_questions/webquestions.examples.train.json",),
      "test": ("web_questions/webquestions.examples.test.json",),
    },
    rows=layouts.json_document,
    record=_official,
  ),
  # The same in the three parts of the training split that others divide it into.
  Layout(
    splits={
      "train": tuple(f"web_questions/{name}.json" for name in ("trainmodel", "val", "devtest")),
      "test": ("web_questions/test.json",),
    },
    rows=layouts.json_document,
    record=_listed,
  ),
)
_SIZES = {"train": 3778, "test": 2032}

TASK = Task(
  name="web_questions",
  fields=(("question",), ("answers",)),
  template=_template,
  metric="exact_match",
  metric_fns=(exact_match.exact_match,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="web_questions", published="web_questions:1.0.0"),
      # Without a validation split a part of 'train' chooses.
      selection=None,
      sizes=_SIZES,
    ),
    "files": original_files.source(*_FILES, selection=None, sizes=_SIZES),
    "micro": world.source("web_questions", listed=questions.web_questions),
  },
)
