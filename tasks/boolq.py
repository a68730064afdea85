"""BoolQ of SuperGLUE: yes or no questions on a passage."""

from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy

# As JSON writes truth values, in the order of the classes' numbers.
_CLASSES = {"false": "False", "true": "True"}


def _template(record: Record) -> templates.Rendered:
  """None of the papers has one: the form of RTE's."""
  text = f"{record['passage']} question: {record['question']}? Is it true or false? answer:"
  return templates.labelled(text, templates.word(record["label"], _CLASSES))


def _record(row: Record) -> Record:
  texts = {name: layouts.text(row, name) for name in ("passage", "question")}
  return {**texts, "label": layouts.class_number(row, tuple(_CLASSES))}


_SIZES = {"train": 9427, "validation": 3270}

TASK = Task(
  name="boolq",
  fields=(("passage",), ("question",), ("label",)),
  template=_template,
  labels=("True", "False"),
  first_token=True,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="boolq", published="super_glue/boolq:1.0.2"),
      # SuperGLUE keeps its test labels to itself, so the validation split is reported.
      report="validation",
      sizes=_SIZES,
    ),
    "files": original_files.source(
      layouts.super_glue("BoolQ", _record), report="validation", sizes=_SIZES
    ),
  },
)
