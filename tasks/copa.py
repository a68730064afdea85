"""COPA of SuperGLUE: which of two sentences is the cause, or the result, of a third."""

from promot_jax import errors
from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy

_LETTERS = {"0": "A", "1": "B"}
_QUESTIONS = {
  "cause": "What was the cause of this?",
  "effect": "What happened as a result?",
}
_TEXTS = ("premise", "choice1", "choice2", "question")


def _template(record: Record) -> templates.Rendered:
  """None of the papers has one: the form of OpenbookQA's, with the question in words."""
  asked = record["question"]
  if asked not in _QUESTIONS:
    raise errors.DataError(f"question {asked!r} is none of {', '.join(_QUESTIONS)}.")
  text = (
    f"Q: {record['premise']} {_QUESTIONS[asked]} A) {record['choice1']} B) {record['choice2']} A:"
  )
  return templates.labelled(text, templates.word(record["label"], _LETTERS))


def _record(row: Record) -> Record:
  texts = {name: layouts.text(row, name) for name in _TEXTS}
  return {**texts, "label": layouts.class_number(row, tuple(_LETTERS))}


_SIZES = {"train": 400, "validation": 100}

TASK = Task(
  name="copa",
  fields=(*((name,) for name in _TEXTS), ("label",)),
  template=_template,
  labels=("A", "B"),
  first_token=True,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="copa", published="super_glue/copa:1.0.2"),
      # SuperGLUE keeps its test labels to itself, so the validation split is reported.
      report="validation",
      sizes=_SIZES,
    ),
    "files": original_files.source(
      layouts.super_glue("COPA", _record), report="validation", sizes=_SIZES
    ),
  },
)
